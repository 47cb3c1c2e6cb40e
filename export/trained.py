"""What an export takes from a trained network: integers, float numbers, and pixels to compare with."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from qnas.errors import ModelError
from qnas.export.checks.check import Trained
from qnas.integer.builder import IntegerConvolution
from qnas.integer.network import INT32_MAX
from qnas.network.layers import Layer
from qnas.quantization.image_gain import ImageGain
from qnas.quantization.quantizers import WEIGHT_SCALE_BITS, QuantParams
from qnas.torch.fake_quantization import snap_scale
from qnas.torch.inference import upscaler
from qnas.torch.network import Affine, Network, affine_step, bias_steps

LARGEST_SCALE = 2.0**32  # with SMALLEST_SCALE, what any requantization computes stays inside float32


@dataclass(frozen=True)
class TrainedParameters:
    """`qnas.integer.builder.Parameters` of a network; ADQ's factor `per_image`, or frozen."""

    network: Network
    per_image: bool = False

    def grid(self, quantizer: Layer) -> QuantParams:
        """The grid that a quantizer learned. Raises ModelError."""
        assert quantizer.quant is not None
        with torch.no_grad():
            scale = float(self.network.module(quantizer.name).scale())
        _check_scale(quantizer.name, scale)
        return QuantParams.activation(quantizer.quant, scale)

    def gain(self, deviation: str) -> np.float32:
        """The factor of a frozen deviation, short. Raises ModelError."""
        with torch.no_grad():
            gain = float(snap_scale(self.network.module(deviation).running_factor, WEIGHT_SCALE_BITS))
        _check_scale(deviation, gain)
        return np.float32(gain)

    def image_gain(self, deviation: str, channels: int) -> ImageGain | None:
        """What decides the factor of each image; None where it is frozen."""
        gain: ImageGain = self.network.module(deviation).gain(channels)
        return gain if self.per_image else None

    def convolution(self, layer: Layer) -> IntegerConvolution:
        """The integers of a `conv` or `affine` layer whose input is on a grid. Raises ModelError."""
        module, scale = self.network.module(layer.name), self.network.input_scale(layer)
        assert scale is not None
        with torch.no_grad():
            gain = None if self.per_image else _frozen(self.network, layer)
            if isinstance(module, Affine):
                slope, bias = module.coefficients(scale, gain)
                weight_scale = affine_step(slope)
                weight = (slope / weight_scale).view(-1, 1, 1, 1)
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
                f"the bias of {layer.name} does not fit 32 bits: its weights are vanishingly small, "
                "retrain it"
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
        gain = _frozen(network, layer)
        if isinstance(module, Affine):
            slope, offset = module.coefficients(None, gain)
            return slope.view(-1, 1, 1, 1).numpy().copy(), offset.numpy().copy()
        factor = torch.ones(1) if gain is None else gain
        return (module.weight * factor).numpy().copy(), (module.bias * factor).numpy().copy()


def trained_reference(network: Network) -> Trained:
    """`network` as a check compares files with it."""
    return Trained(network.layers, upscaler(network), torch.__version__)


def _check_scale(name: str, scale: float) -> None:
    if not scale <= LARGEST_SCALE:
        raise ModelError(
            f"{name} has a scale of {scale:.3g}: its training diverged, use an earlier checkpoint"
        )


def _frozen(network: Network, layer: Layer) -> torch.Tensor | None:
    """The frozen deviation [1] that multiplies the output of a convolution or a batch norm."""
    if len(layer.inputs) < 2:
        return None
    factor: torch.Tensor = network.module(layer.inputs[1]).running_factor
    return factor.detach().view(1)
