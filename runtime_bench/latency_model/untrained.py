"""The numbers of a network that nobody trained, to measure its kernels: random weights, steps by rule."""

from collections.abc import Sequence

import numpy as np

from qnas.integer.builder import IntegerConvolution
from qnas.network.layers import Layer, by_name, grid_of, scale_owner
from qnas.quantization.image_gain import ImageGain
from qnas.quantization.quantizers import (
    AFFINE_BITS,
    WEIGHT_SCALE_BITS,
    QuantParams,
    lsq_initial_scale,
    quantize,
    snap_scale,
    weight_spec,
)

RANGE = 4.0  # that the levels of a grid span: activations have a deviation of about 1
BIAS = 0.1  # standard deviation


class UntrainedParameters:
    """`qnas.integer.builder.Parameters` of `layers`; the same ones for the same seed.

    Weights are those of Kaiming initialization on LSQ's first scales. A quantizer behind a tensor that is on
    a grid of another gets another scale than that: trained ones differ as well, and what moves values between
    them is a kernel.
    """

    def __init__(self, layers: Sequence[Layer], seed: int) -> None:
        self.named, self.generator = by_name(layers), np.random.default_rng(seed)

    def grid(self, quantizer: Layer) -> QuantParams:
        """The grid that a quantizer puts out."""
        assert quantizer.quant is not None
        return QuantParams.activation(quantizer.quant, self._step(quantizer))

    def _step(self, quantizer: Layer) -> float:
        owner = scale_owner(self.named, quantizer)
        assert owner.quant is not None
        if owner.quant.scale is not None:
            return owner.quant.scale
        step, read = RANGE * 2.0**-owner.quant.grid_bits, grid_of(self.named, owner.inputs[0])
        return step / 2 if read is not None and self._step(read) == step else step

    def gain(self, deviation: str) -> np.float32:
        """The factor of a frozen deviation: not 1, which would cost nothing."""
        return np.float32(0.75)

    def image_gain(self, deviation: str, channels: int) -> ImageGain | None:
        """None: all deviations are frozen."""
        return None

    def convolution(self, layer: Layer) -> IntegerConvolution:
        """The integers of a `conv` or `affine` layer whose input is on a grid."""
        source = layer.inputs[0]
        grid = grid_of(self.named, source)
        assert grid is not None
        if layer.op == "affine":
            slope = self.generator.integers(64, 128, (layer.channels, 1, 1, 1))
            weight = (slope * self.generator.choice([-1, 1], slope.shape)).astype(np.int8)
            scale = np.full(layer.channels, 2.0**-AFFINE_BITS, np.float32)
        else:
            part = self.named[source].channels // layer.groups
            shape = (layer.channels, part, *layer.kernel)
            real = self.generator.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype(np.float32)
            scale = snap_scale(lsq_initial_scale(real, layer.bits), WEIGHT_SCALE_BITS)
            weight = quantize(real, QuantParams.weight(weight_spec(layer.bits), scale)).astype(np.int8)
        bias = self.generator.normal(0, BIAS, layer.channels) / (scale * self._step(grid))
        return IntegerConvolution(weight, scale, np.rint(bias).astype(np.int32))
