"""The integers of a trained network: what its convolutions and batch norms multiply and add."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from qnas.errors import ModelError
from qnas.network.layers import Layer, grid_of
from qnas.quantization.quantizers import WEIGHT_SCALE_BITS, QuantParams
from qnas.torch.fake_quantization import snap_scale
from qnas.torch.network import Affine, Network, affine_step, bias_steps

INT32_MAX = 2**31 - 1
LARGEST_SCALE = 2.0**32  # with SMALLEST_SCALE, what any requantization computes stays inside float32


@dataclass(frozen=True)
class IntegerConvolution:
    """`acc = sum(weight * (x - zero_point)) + bias`, of real value `acc * weight_scale[o] * input_scale`.

    weight int8 [O, I / groups, kh, kw], weight_scale float32 [O], bias int32 [O].
    """

    weight: NDArray[np.int8]
    weight_scale: NDArray[np.float32]
    bias: NDArray[np.int32]


def integer_convolution(network: Network, layer: Layer, *, frozen: bool = True) -> IntegerConvolution:
    """The integers of a `conv` or `affine` layer whose input is on a grid. Raises ModelError.

    A `frozen` deviation is folded into them.
    """
    scale = network.input_scale(layer)
    if scale is None:
        raise ModelError(
            f"layer {layer.name} reads a float tensor: train with 8-bit residuals (residual_bits 8)"
        )
    module = network.module(layer.name)
    with torch.no_grad():
        gain = _gain(network, layer) if frozen else None
        if isinstance(module, Affine):
            slope, offset = module.coefficients(scale, gain)
            weight_scale = affine_step(slope)
            weight, bias = (slope / weight_scale).view(-1, 1, 1, 1), offset
        else:
            weight, weight_scale = module.quantized_weight(gain)
            weight = weight / weight_scale.view(-1, 1, 1, 1)
            bias = module.bias if gain is None else module.bias * gain
        steps = bias_steps(bias, weight_scale * scale)
    if not bool(weight.isfinite().all()):
        raise ModelError(
            f"{layer.name} has no finite weights: its training diverged, use an earlier checkpoint"
        )
    _check_scale(layer.name, float(weight_scale.max()))
    if not float(steps.abs().max()) < INT32_MAX:
        raise ModelError(
            f"the bias of {layer.name} does not fit 32 bits: its weights are vanishingly small, retrain it"
        )
    return IntegerConvolution(
        torch.round(weight).numpy().astype(np.int8),
        weight_scale.numpy().copy(),
        steps.numpy().astype(np.int32),
    )


def float_convolution(network: Network, layer: Layer) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(weight, bias) of a `conv` or `affine` layer before any quantization, constant gain included."""
    module = network.module(layer.name)
    with torch.no_grad():
        gain = _gain(network, layer)
        if isinstance(module, Affine):
            slope, offset = module.coefficients(None, gain)
            return slope.view(-1, 1, 1, 1).numpy().copy(), offset.numpy().copy()
        factor = torch.ones(1) if gain is None else gain
        return (module.weight * factor).numpy().copy(), (module.bias * factor).numpy().copy()


def multiply_gain(network: Network, layer: Layer) -> float:
    """The constant factor of a `multiply` layer, 1 without a deviation."""
    if len(layer.inputs) < 3:
        return 1.0
    with torch.no_grad():
        gain = float(snap_scale(network.module(layer.inputs[2]).running_factor, WEIGHT_SCALE_BITS))
    _check_scale(layer.inputs[2], gain)
    return gain


def grid_params(network: Network, name: str) -> QuantParams | None:
    """Scale, zero point and range of the grid that layer `name` puts out; None when that is float."""
    grid = grid_of({layer.name: layer for layer in network.layers}, name)
    if grid is None or grid.quant is None:
        return None
    with torch.no_grad():
        scale = float(network.module(grid.name).scale())
    _check_scale(grid.name, scale)
    return QuantParams.activation(grid.quant, scale)


def _check_scale(name: str, scale: float) -> None:
    if not scale <= LARGEST_SCALE:
        raise ModelError(
            f"{name} has a scale of {scale:.3g}: its training diverged, use an earlier checkpoint"
        )


def _gain(network: Network, layer: Layer) -> torch.Tensor | None:
    """The frozen deviation [1] that multiplies the output of a convolution or a batch norm."""
    factor: torch.Tensor | None = None
    if len(layer.inputs) == 2:
        factor = network.module(layer.inputs[1]).running_factor.detach().view(1)
    return factor
