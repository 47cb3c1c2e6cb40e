"""What quantization means here: intent (`QuantSpec`), result (`QuantParams`), and the numpy definition.

Every backend (torch, ONNX, TFLite) is tested against `quantize` and `dequantize` of this module.

Rounding is half-to-even everywhere. Scales are *short*: `m * 2**e` with an integer `m` of few bits
(`snap_scale`): one bit for activations, that is powers of two, and `WEIGHT_SCALE_BITS` for the weights of
each output channel. Products and sums of such values are exact in float32 as long as they stay below 2**24
steps, in any order, so the float arithmetic of training, the unfused ONNX graph and the fused integer
kernels compute the same numbers (docs/decisions/0003-short-scales.md).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from qnas.quantization.lloyd import hwgq_step, lloyd_step, lloyd_table

FLOAT_BITS = 32
BitWidth = Literal[2, 3, 4, 5, 6, 7, 8, 32]
BIT_WIDTHS: tuple[BitWidth, ...] = get_args(BitWidth)
GREY_LEVEL = 2.0**-8  # one grey level of an image, in the units of a network
WEIGHT_SCALE_BITS = 4
AFFINE_BITS = 7  # a batch norm's slope is an integer of 64..127 times a power of two
SMALLEST_SCALE = 2.0**-24
Levels = Literal["uniform", "lloyd"]
Container = Literal[8, 16]
# Whose rules a network's numbers follow: decision 0003, or the released code of QuantNAS, which has scales of
# any value, fixed HWGQ steps, no biases, and everything but convolutions in float (decision 0009).
Arithmetic = Literal["short", "paper"]
PIXELS_PER_UNIT: dict[Arithmetic, int] = {"short": 256, "paper": 255}  # a network reads pixel / this
PAPER_HWGQ_STEPS = {2: 0.6356366866, 3: 0.3720645814, 4: 0.2130560679, 8: 0.0203005678}  # by bits


@dataclass(frozen=True)
class QuantSpec:
    """The intent: how a tensor is to be quantized.

    `scale` fixes the step (the grid of an image); None means learned or calibrated. Lloyd levels, 2**bits of
    them, are unsigned and lie on an 8-bit grid (`lloyd`), whose integers `low` and `high` bound. A signed
    `narrow_range` leaves the smallest integer out.
    """

    bits: int
    signed: bool
    granularity: Literal["tensor", "channel"] = "tensor"
    scale: float | None = None
    levels: Levels = "uniform"
    narrow_range: bool = False

    @property
    def grid_bits(self) -> int:
        """Bits of the integers that a tensor consists of."""
        return 8 if self.levels == "lloyd" else self.bits

    @property
    def low(self) -> int:
        """Smallest integer, before any zero point."""
        return self.narrow_range - (1 << self.grid_bits - 1) if self.signed else 0

    @property
    def high(self) -> int:
        """Largest integer, before any zero point."""
        return int(2 ** (self.grid_bits - self.signed) - 1)


IMAGE = QuantSpec(bits=8, signed=False, scale=GREY_LEVEL)
IMAGE_RESIDUAL = QuantSpec(bits=8, signed=True, scale=GREY_LEVEL)


def weight_spec(bits: int, arithmetic: Arithmetic = "short") -> QuantSpec:
    """LSQ weights: signed, symmetric, one scale per output channel.

    8 bits end at -127: ARM processors without dot products add two products in 16 bits, which two of -128
    leave (docs/decisions/0027-the-same-on-arm.md). The paper's code has all 256 integers.
    """
    narrow = bits == 8 and arithmetic == "short"
    return QuantSpec(bits=bits, signed=True, granularity="channel", narrow_range=narrow)


@dataclass(frozen=True)
class QuantParams:
    """The result: `x ~ scale * (q - zero_point)` with integer `low <= q <= high`.

    `scale` is float32, [] per tensor or [C] for axis 0 of a weight. `container`: the bits of the unsigned
    integers that hold an activation, whatever part of them `low` and `high` leave.
    """

    scale: NDArray[np.float32]
    zero_point: int
    low: int
    high: int
    container: Container = 8

    @property
    def top(self) -> int:
        """The largest integer that the container holds."""
        return (1 << self.container) - 1

    @property
    def is_full(self) -> bool:
        """Whether it leaves out no integer of its container, so that the type alone bounds it."""
        return (self.low, self.high) == (0, self.top)

    @property
    def is_wide(self) -> bool:
        """Whether its integers have 16 bits."""
        return self.container == 16

    @property
    def dtype(self) -> type[np.unsignedinteger[Any]]:
        """The numpy type of an activation."""
        return np.uint16 if self.is_wide else np.uint8

    @property
    def every(self) -> NDArray[np.int32]:
        """int32 [2**container]: every integer of the container, in order."""
        return np.arange(self.top + 1, dtype=np.int32)

    @classmethod
    def activation(cls, spec: QuantSpec, scale: float) -> "QuantParams":
        """uint8 container, 0 .. 2**grid_bits - 1; a signed tensor has the zero point 2**(bits - 1)."""
        return cls(np.asarray(scale, np.float32), -spec.low, 0, spec.high - spec.low)

    @classmethod
    def weight(cls, spec: QuantSpec, scale: NDArray[np.float32]) -> "QuantParams":
        """int8 (or int4) container, zero point 0."""
        return cls(np.asarray(scale, np.float32), 0, spec.low, spec.high)


def _broadcast(params: QuantParams, ndim: int) -> NDArray[np.float32]:
    return params.scale.reshape(-1, *[1] * (ndim - 1)) if params.scale.ndim else params.scale


def quantize(x: NDArray[np.float32], params: QuantParams) -> NDArray[np.int32]:
    """`clamp(round_half_even(x / scale) + zero_point, low, high)`; x [C, ...], result int32 [C, ...]."""
    steps = np.rint(np.asarray(x, np.float32) / _broadcast(params, np.ndim(x)))
    q: NDArray[np.int32] = np.clip(steps + params.zero_point, params.low, params.high).astype(np.int32)
    return q


def dequantize(q: NDArray[np.int32], params: QuantParams) -> NDArray[np.float32]:
    """`scale * (q - zero_point)`, float32."""
    steps = (np.asarray(q, np.int32) - params.zero_point).astype(np.float32)
    return steps * _broadcast(params, np.ndim(q))


def on_grid(x: NDArray[np.float32], spec: QuantSpec, scale: float) -> NDArray[np.float32]:
    """What an activation quantizer makes of x: the value of its level. Any shape, same shape out."""
    params = QuantParams.activation(spec, scale)
    q = quantize(x, params)
    if spec.levels == "lloyd":
        q = lloyd_table(spec.bits)[q].astype(np.int32)
    return dequantize(q, params)


def snap_scale(scale: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """The nearest `m * 2**e` with `m < 2**bits`; never below SMALLEST_SCALE. Any shape, same shape out."""
    mantissa, exponent = np.frexp(np.maximum(np.asarray(scale, np.float32), np.float32(SMALLEST_SCALE)))
    snapped: NDArray[np.float32] = np.ldexp(np.rint(mantissa * 2**bits) / 2**bits, exponent).astype(
        np.float32
    )
    return snapped


def is_short(scale: NDArray[np.float32], bits: int) -> bool:
    """Whether every scale is `m * 2**e` with an integer `m` of at most `bits` bits."""
    mantissa, _ = np.frexp(np.asarray(scale, np.float64))
    return bool((mantissa * 2.0**bits % 1 == 0).all())


def lsq_initial_scale(weight: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """LSQ: `2 * mean|w| / sqrt(q_max)` per output channel. Weight [C, ...] -> scale [C].

    Esser et al., Learned Step Size Quantization, ICLR 2020, section 2.1.
    """
    mean = np.abs(weight).reshape(len(weight), -1).mean(axis=1)
    return np.asarray(2 * mean / math.sqrt(weight_spec(bits).high), np.float32)


def initial_step(spec: QuantSpec) -> float:
    """The HWGQ optimum for a half-wave unit Gaussian, before any calibration."""
    return lloyd_step(spec.bits) if spec.levels == "lloyd" else hwgq_step(max(spec.bits - spec.signed, 2))


StepRule = Callable[[NDArray[np.float32], QuantSpec], float]  # values of a tensor -> the step of its grid


def hwgq_power_of_two(x: NDArray[np.float32], spec: QuantSpec) -> float:
    """`initial_step` for the Gaussian of which x (any shape) is a sample, as a power of two.

    Its deviation is the root mean square of x, of the positive values alone where the grid is unsigned. Where
    there are none it is one.
    """
    seen = np.asarray(x if spec.signed else x[x > 0], np.float64)
    deviation = math.sqrt(float(np.square(seen).mean())) if seen.any() else 1.0
    return float(snap_scale(np.asarray(initial_step(spec) * deviation, np.float32), 1))


def best_power_of_two(x: NDArray[np.float32], spec: QuantSpec) -> float:
    """The power of two whose quantization of `x` (any shape) has the least squared error."""
    peak = float(np.abs(x).max(initial=0.0))
    if peak == 0.0:
        return 2.0 ** -(spec.grid_bits - 1)
    top = math.ceil(math.log2(peak / spec.high))
    candidates = [2.0**e for e in range(top, top - 6, -1)]
    errors = [float(np.square(on_grid(x, spec, step) - x).mean()) for step in candidates]
    return candidates[int(np.argmin(errors))]


def best_weight_scale(weight: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """Per output channel, the short scale with the least squared error. Weight [C, ...] -> scale [C].

    For trained weights: LSQ's own start spends most of 8 bits on values that no weight has.
    """
    spec, channels = weight_spec(bits), len(weight)
    peak = np.abs(weight).reshape(channels, -1).max(axis=1) / spec.high
    best, least = np.zeros(channels, np.float32), np.full(channels, np.inf)
    for share in np.arange(1.1, 0.2, -0.05):
        scale = snap_scale(peak * share, WEIGHT_SCALE_BITS)
        params = QuantParams.weight(spec, scale)
        error = (
            np.square(dequantize(quantize(weight, params), params) - weight).reshape(channels, -1).sum(axis=1)
        )
        better = error < least
        best[better], least[better] = scale[better], error[better]
    return best
