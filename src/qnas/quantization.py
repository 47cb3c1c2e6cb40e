"""What quantization means here: intent (`QuantSpec`), result (`QuantParams`), and the numpy definition.

Every backend (torch, ONNX, TFLite) is tested against `quantize` and `dequantize` of this module.

Rounding is half-to-even everywhere. Scales are *short*: `m * 2**e` with an integer `m` of few bits
(`snap_scale`): one bit for activations, that is powers of two, and `WEIGHT_SCALE_BITS` for the weights of
each output channel. Products and sums of such values are exact in float32 as long as they stay below 2**24
steps, in any order, so the float arithmetic of training, the unfused ONNX graph and the fused integer
kernels compute the same numbers (docs/decisions/0003-short-scales.md).
"""

import math
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FLOAT_BITS = 32
BIT_WIDTHS = (2, 3, 4, 5, 6, 7, 8, FLOAT_BITS)
GREY_LEVEL = 2.0**-8  # one grey level of an image, in the units of a network
WEIGHT_SCALE_BITS = 4
AFFINE_BITS = 7  # a batch norm's slope is an integer of 64..127 times a power of two
SMALLEST_SCALE = 2.0**-24


@dataclass(frozen=True)
class QuantSpec:
    """The intent: how a tensor is to be quantized.

    `scale` fixes the step (the grid of an image); None means learned or calibrated.
    """

    bits: int
    signed: bool
    granularity: Literal["tensor", "channel"] = "tensor"
    scale: float | None = None

    @property
    def low(self) -> int:
        """Smallest integer, before any zero point."""
        return -(1 << self.bits - 1) if self.signed else 0

    @property
    def high(self) -> int:
        """Largest integer, before any zero point."""
        return int(2 ** (self.bits - self.signed) - 1)


IMAGE = QuantSpec(bits=8, signed=False, scale=GREY_LEVEL)
IMAGE_RESIDUAL = QuantSpec(bits=8, signed=True, scale=GREY_LEVEL)


def weight_spec(bits: int) -> QuantSpec:
    """LSQ weights: signed, symmetric, one scale per output channel."""
    return QuantSpec(bits=bits, signed=True, granularity="channel")


@dataclass(frozen=True)
class QuantParams:
    """The result: `x ~ scale * (q - zero_point)` with integer `low <= q <= high`.

    `scale` is float32, [] per tensor or [C] for axis 0 of a weight.
    """

    scale: NDArray[np.float32]
    zero_point: int
    low: int
    high: int

    @classmethod
    def activation(cls, spec: QuantSpec, scale: float) -> "QuantParams":
        """uint8 container, 0 .. 2**bits - 1; a signed tensor is stored with zero point 2**(bits - 1)."""
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


def snap_scale(scale: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """The nearest `m * 2**e` with `m < 2**bits`; never below SMALLEST_SCALE. Any shape, same shape out."""
    mantissa, exponent = np.frexp(np.maximum(np.asarray(scale, np.float32), np.float32(SMALLEST_SCALE)))
    snapped: NDArray[np.float32] = np.ldexp(np.rint(mantissa * 2**bits) / 2**bits, exponent).astype(
        np.float32
    )
    return snapped


def lsq_initial_scale(weight: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """LSQ: `2 * mean|w| / sqrt(q_max)` per output channel. Weight [C, ...] -> scale [C].

    Esser et al., Learned Step Size Quantization, ICLR 2020, section 2.1.
    """
    mean = np.abs(weight).reshape(len(weight), -1).mean(axis=1)
    return np.asarray(2 * mean / math.sqrt(weight_spec(bits).high), np.float32)


@cache
def hwgq_levels(bits: int) -> tuple[float, ...]:
    """The 2**bits levels of least squared error for a half-wave unit Gaussian, ascending (Lloyd's).

    Equation 15 of Shvetsov et al. (QuantNAS). Every level is the centroid of its cell and every threshold the
    middle of two levels; Newton's method on that system, from the asymptotically optimal companding.
    """
    n = 2**bits
    wide = NormalDist(sigma=math.sqrt(3))  # density^(1/3) of a unit Gaussian
    levels = np.array([wide.inv_cdf(0.5 + (k + 0.5) / (2 * n)) for k in range(n)])
    for _ in range(6):  # Newton doubles the digits: five steps reach those of float64
        edges = np.concatenate([[0.0], (levels[1:] + levels[:-1]) / 2, [math.inf]])
        density = np.exp(-np.square(edges) / 2) / math.sqrt(2 * math.pi)
        above = np.array([math.erfc(e / math.sqrt(2)) / 2 for e in edges])
        mass = above[:-1] - above[1:]
        centroid = (density[:-1] - density[1:]) / mass
        left = density[:-1] * (centroid - edges[:-1]) / mass  # d centroid / d lower edge
        right = np.append(density[1:-1] * (edges[1:-1] - centroid[:-1]) / mass[:-1], 0.0)
        left[0] = 0.0  # the lowest edge is the wave's own, at zero
        jacobian = np.diag(1 - (left + right) / 2) - np.diag(left[1:] / 2, -1) - np.diag(right[:-1] / 2, 1)
        levels = levels + np.linalg.solve(jacobian, centroid - levels)
    return tuple(levels.tolist())


def hwgq_step(bits: int) -> float:
    """The uniform HWGQ step for a half-wave unit Gaussian: the mean distance of its Lloyd levels."""
    levels = hwgq_levels(bits)
    return (levels[-1] - levels[0]) / (len(levels) - 1)


def best_power_of_two(x: NDArray[np.float32], spec: QuantSpec) -> float:
    """The power of two whose quantization of `x` (any shape) has the least squared error."""
    peak = float(np.abs(x).max(initial=0.0))
    if peak == 0.0:
        return 2.0 ** -(spec.bits - 1)
    top = math.ceil(math.log2(peak / spec.high))
    candidates = [2.0**e for e in range(top, top - 6, -1)]
    errors = []
    for step in candidates:
        params = QuantParams.activation(spec, step)
        errors.append(float(np.square(dequantize(quantize(x, params), params) - x).mean()))
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
