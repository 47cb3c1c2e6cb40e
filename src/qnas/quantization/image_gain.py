"""ADQ's factor of each image, decided by exact integers: the same one in every runtime.

`exp(weight * log(std) + bias)` and `weight * std + bias` only rise, or only fall, with the variance of a
tensor, and are rounded to a short factor m * 2^e, m of 8 .. 15 (decision 0003). So each is a step function of
the variance: thresholds and the factors between them, computed once. At run time integers are summed, the
sums are made a variance by five float64 operations that IEEE 754 defines to the last bit, and that is
compared. No runtime's own logarithm or root takes part (decision 0011).
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qnas.quantization.quantizers import SMALLEST_SCALE, WEIGHT_SCALE_BITS

_LOWEST = math.frexp(SMALLEST_SCALE)[1] - 1
_HALF = 2 ** (WEIGHT_SCALE_BITS - 1)
# Every short factor from SMALLEST_SCALE to its inverse, and where the nearest one changes.
FACTORS = np.array([
    m / _HALF * 2.0**e for e in range(_LOWEST, -_LOWEST) for m in range(_HALF, 2 * _HALF)
])  # fmt: skip
_MIDDLES = (FACTORS[:-1] + FACTORS[1:]) / 2
FactorForm = Literal["power", "linear"]
_LARGEST_LOG = 300.0  # no standard deviation is e^300: thresholds beyond would overflow


@dataclass(frozen=True)
class ImageGain:
    """The factor of each image, std over all values of a tensor.

    `form` power: `exp(weight * log(std) + bias)`; linear: `weight * std + bias`, at least the smallest short
    factor. `channels` are those that count: channels of zeros behind them change neither sum.
    """

    weight: float
    bias: float
    channels: int
    form: FactorForm = "power"

    def steps(self, scale: float = 1.0) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """(thresholds [K], rising; factors [K + 1]): a variance in squared steps of `scale` that has passed k
        thresholds has the k-th factor. The standard deviation counts as SMALLEST_SCALE at least."""
        middles, factors = np.log(_MIDDLES) if self.form == "power" else _MIDDLES, FACTORS
        if self.weight < 0:
            middles, factors = middles[::-1], factors[::-1]
        if self.weight == 0:
            logs = np.where(middles <= self.bias, -np.inf, np.inf)
        else:
            with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
                logs = (middles - self.bias) / self.weight  # an infinite one is never passed, or always
                if self.form == "linear":  # a deviation is never negative: such a one is always passed
                    logs = np.log(np.maximum(logs, 0))
        passed = int((logs <= math.log(SMALLEST_SCALE)).sum())
        end = int((logs < _LARGEST_LOG).sum())
        thresholds: NDArray[np.float64] = np.exp(2 * logs[passed:end]) / np.float64(scale) ** 2
        return thresholds, factors[passed : end + 1].astype(np.float32)

    def of(self, variances: NDArray[np.float64], scale: float = 1.0) -> NDArray[np.float32]:
        """The factors [N] of variances [N] in squared steps of `scale`."""
        thresholds, factors = self.steps(scale)
        found: NDArray[np.float32] = factors[(variances[:, None] >= thresholds).sum(axis=1)]
        return found


def variance(total: NDArray[np.float64], squares: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """`(squares - total * (total / count)) / (count - 1)` [N] of sums [N] over `count` values, in float64.

    The variance of a single value is 0.
    """
    return (squares - total * (total / count)) / max(count - 1, 1)
