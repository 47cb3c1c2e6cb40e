"""The histogram of a tensor: streamed, of fixed size, the same for every order and division of its values.

A bin is `width` wide, a power of two: bin k > 0 holds `k width <= x < (k + 1) width`, bin -k its mirror
image, and bin 0 all between, `-width < x < width`, so that zero stands for itself. The width follows the
largest magnitude seen (`2**-14 peak < width <= 2**-13 peak`): when that grows, pairs of bins become one bin,
exactly, and counts are integers. So nothing depends on what came first, and merged histograms equal the one
of all their values.
"""

import math
from collections.abc import Callable
from typing import Self

import numpy as np
from numpy.typing import NDArray

from qnas.calibration.ranges.ranges import Range
from qnas.errors import ModelError

Counts = NDArray[np.int64]
Values = NDArray[np.float64]

SIDE_BITS = 14
SIDE = 1 << SIDE_BITS  # bins of each sign, bin 0 among both
SMALLEST_EXPONENT = -126  # of a width: 2**126 is the largest power of two whose inverse is a normal float32
BLOCK = 1 << 16  # values at a time: what they become stays in the cache


def min_max(histogram: "Histogram") -> Range:
    """The smallest and the largest value. Raises ModelError when there is none."""
    if not histogram.total:
        raise ModelError("no value was observed: calibrate with at least one image")
    return Range(histogram.low, histogram.high)


class Histogram:
    """Counts of all values, with the smallest and the largest; `rule` makes the range of it.

    A bin's values differ from the one that stands for it (`occupied`) by at most half a width, in bin 0 by
    less than a width: less than 2**-13 of the largest magnitude.
    """

    def __init__(self, rule: Callable[["Histogram"], Range] = min_max) -> None:
        self.rule = rule
        self.low, self.high = math.inf, -math.inf
        self.exponent = SMALLEST_EXPONENT
        self.counts: Counts = np.zeros(2 * SIDE - 1, np.int64)  # bin k at SIDE - 1 + k

    @property
    def state_bytes(self) -> int:
        """256 KiB, whatever was seen."""
        return self.counts.nbytes

    @property
    def width(self) -> float:
        """The width of a bin, a power of two."""
        return math.ldexp(1.0, self.exponent)

    @property
    def total(self) -> int:
        """How many values were seen."""
        return int(self.counts.sum())

    def update(self, x: NDArray[np.float32]) -> None:
        """Counts the values of x, of any shape. Raises ModelError when one is not finite."""
        flat = np.ravel(x)
        for start in range(0, flat.size, BLOCK):
            block = flat[start : start + BLOCK]
            low, high = extremes(block)
            self._grow(low, high)
            inverse = np.float32(math.ldexp(1.0, -self.exponent))  # a power of two: products are exact
            bins = (block * inverse).astype(np.int32)  # towards zero
            first = min(int(np.float32(low) * inverse), 0)
            if first:  # bincount takes no negative numbers
                bins -= np.int32(first)
            counts = np.bincount(bins)
            self.counts[SIDE - 1 + first :][: counts.size] += counts

    def merge(self, other: Self) -> None:
        """Adds what `other` has counted; `other` stays as it is."""
        self._grow(other.low, other.high)
        self.counts += _coarser(other.counts, self.exponent - other.exponent)

    def range(self) -> Range:
        """What `rule` makes of all that was seen."""
        return self.rule(self)

    def occupied(self, side: int = SIDE) -> tuple[Values, Counts, float]:
        """`(values, counts, width)` of the bins that hold something, ascending.

        `side` is the number of bins of each sign, a power of two of 2**14 or less. The value is the middle of
        its bin, of bin 0 zero.
        """
        shift = SIDE_BITS - (side.bit_length() - 1)
        counts = _coarser(self.counts, shift)
        width = math.ldexp(self.width, shift)
        at = np.flatnonzero(counts)
        bins = at - (SIDE - 1)
        return (bins + 0.5 * np.sign(bins)) * width, counts[at], width

    def _grow(self, low: float, high: float) -> None:
        self.low, self.high = min(self.low, low), max(self.high, high)
        peak = max(-self.low, self.high)
        exponent = max(math.frexp(peak)[1] - SIDE_BITS, SMALLEST_EXPONENT) if peak > 0 else SMALLEST_EXPONENT
        if exponent > self.exponent:
            self.counts = _coarser(self.counts, exponent - self.exponent)
            self.exponent = exponent


def extremes(x: NDArray[np.float32]) -> tuple[float, float]:
    """The smallest and the largest value of x, of one or more. Raises ModelError when one is not finite."""
    low, high = float(x.min()), float(x.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ModelError("a value is NaN or infinite")
    return low, high


def _coarser(counts: Counts, shift: int) -> Counts:
    """The counts in bins 2**shift times as wide, of the same number; with the shift 0 the same array."""
    if shift == 0:
        return counts
    group = 1 << min(shift, SIDE_BITS)  # then all is in bin 0
    side = np.concatenate([counts[SIDE - 1 :: -1], counts[SIDE - 1 :]]).reshape(2, -1, group).sum(axis=2)
    made = np.zeros_like(counts)
    made[SIDE - 1 - np.arange(side.shape[1])] = side[0]
    made[SIDE - 1 : SIDE - 1 + side.shape[1]] = side[1]
    made[SIDE - 1] = side[:, 0].sum() - counts[SIDE - 1]  # it stood in both sides
    return made
