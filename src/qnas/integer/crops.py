"""Nodes that take a part of the rows and columns of an image, or some of them several times."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qnas.integer.nodes import IntegerNode, LikeAnother
from qnas.integer.requantization import Bytes, Read, Watch
from qnas.integer.windows import Sides, Size


@dataclass(frozen=True, eq=False)
class Crop(IntegerNode, scope="channel"):
    """The image without `sides`."""

    sides: Sides

    @property
    def words(self) -> str:
        return f"crop {' '.join(map(str, self.sides))}"

    def computed(self, reads: Sequence[Read], watch: Watch | None = None) -> Bytes:
        x, (top, left, bottom, right) = reads[0][0], self.sides
        return x[:, :, top : max(x.shape[2] - bottom, 0), left : max(x.shape[3] - right, 0)]

    def size(self, reads: Sequence[Size]) -> Size:
        (height, width), (top, left, bottom, right) = reads[0], self.sides
        return height - top - bottom, width - left - right


@dataclass(frozen=True, eq=False)
class CropTo(LikeAnother, scope="channel"):
    """`times` as many rows (`axis` 2) or columns (3) of inputs[0] as inputs[1] has, from `start` on; all that
    are left where these are fewer."""

    start: int = 0
    times: int = 1

    @property
    def words(self) -> str:
        return "crop rows" if self.axis == 2 else "crop columns"

    def computed(self, reads: Sequence[Read], watch: Watch | None = None) -> Bytes:
        (x, _), (like, _) = reads
        kept = slice(self.start, self.start + self.times * like.shape[self.axis])
        return x[:, :, kept] if self.axis == 2 else x[:, :, :, kept]

    def size(self, reads: Sequence[Size]) -> Size:
        (height, width), (rows, columns) = reads
        if self.axis == 2:
            return min(self.times * rows, height - self.start), width
        return height, min(self.times * columns, width - self.start)


@dataclass(frozen=True, eq=False)
class Nearest(LikeAnother, scope="channel"):
    """The nearest rows (`axis` 2) or columns (3) of inputs[0], as many as inputs[1] has.

    The i-th of `target` is number `i * length // target`.
    """

    @property
    def words(self) -> str:
        return "nearest rows" if self.axis == 2 else "nearest columns"

    def computed(self, reads: Sequence[Read], watch: Watch | None = None) -> Bytes:
        (x, _), (like, _) = reads
        return x.take(nearest_places(x.shape[self.axis], like.shape[self.axis]), self.axis)


def nearest_places(length: int, target: int) -> NDArray[np.int64]:
    """int64 [target]: which of `length` each of `target` pixels is, where both begin at 0."""
    return np.arange(target) * length // target
