"""What looks at the values of one tensor while images pass, and ends in a range.

All are streams of bounded memory, and mergeable: an observer of some images, merged with one of the next, is
the observer of both. But for the moving average none depends on order or division.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from qnas.calibration.ranges.histogram import Histogram, extremes
from qnas.calibration.ranges.range_rules import RULES
from qnas.calibration.ranges.ranges import Range
from qnas.errors import ModelError

AVERAGING = 0.01  # the weight of a new image in a moving average, as in torch and onnxruntime
REMEMBERED = 4096  # images of a moving average: 0.99**4096 is less than a double resolves


class Observer(Protocol):
    """Sees all values of one tensor."""

    @property
    def state_bytes(self) -> int:
        """The most memory that is kept between two updates, in bytes."""

    def update(self, x: NDArray[np.float32]) -> None:
        """Takes the values x [images, ...]. Raises ModelError when one is not finite."""

    def merge(self, other: Self) -> None:
        """Takes what `other` took, of the images behind its own; `other` stays as it is."""

    def range(self) -> Range:
        """The range of what was seen. Raises ModelError when that is nothing."""


class MinMax:
    """The smallest and the largest value: for who wants no more, in a tenth of a histogram's time."""

    state_bytes = 16

    def __init__(self) -> None:
        self.low, self.high = math.inf, -math.inf

    def update(self, x: NDArray[np.float32]) -> None:
        """Implements Observer."""
        if x.size:
            low, high = extremes(x)
            self.low, self.high = min(self.low, low), max(self.high, high)

    def merge(self, other: Self) -> None:
        """Implements Observer."""
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)

    def range(self) -> Range:
        """Implements Observer."""
        if self.low > self.high:
            raise ModelError("no value was observed: calibrate with at least one image")
        return Range(self.low, self.high)


class MovingAverage:
    """Each end's exponential moving average over the images, one by one, in their order.

    Independent of batches, but what came last weighs most: in measurements it clipped what others kept.
    """

    state_bytes = 8 * REMEMBERED

    def __init__(self) -> None:
        self.ends = np.zeros((0, 2), np.float32)  # the lowest and the highest value of each image

    def update(self, x: NDArray[np.float32]) -> None:
        """Implements Observer."""
        if x.size:
            extremes(x)
            images = x.reshape(len(x), -1)
            self._append(np.stack([images.min(axis=1), images.max(axis=1)], axis=1))

    def merge(self, other: Self) -> None:
        """Implements Observer."""
        self._append(other.ends)

    def range(self) -> Range:
        """Implements Observer."""
        if not len(self.ends):
            raise ModelError("no value was observed: calibrate with at least one image")
        low, high = self.ends[0].tolist()
        for next_low, next_high in self.ends[1:].tolist():
            low += AVERAGING * (next_low - low)
            high += AVERAGING * (next_high - high)
        return Range(low, high)

    def _append(self, ends: NDArray[np.float32]) -> None:
        self.ends = np.concatenate([self.ends, ends])[-REMEMBERED:]


# By the name in options and files. All but moving-average come of one histogram too, see range_rules.RULES.
OBSERVERS: dict[str, Callable[[], Observer]] = {
    "min-max": MinMax,
    **{name: partial(Histogram, RULES[name]) for name in ("percentile", "mse", "entropy")},
    "moving-average": MovingAverage,
}
