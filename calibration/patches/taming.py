"""Taming, the heart of CFQP: a patch whose float output leaves the nominal range loses contrast.

Of a patch p with mean colour c it makes `c + a (p - c)`, with an a whose output is within half a grey level
of 0..255, and so large that it comes within NEAR of that bound, or that a 1024th more is beyond it. Only
outputs of the float network decide. How far an output is beyond the bound is almost linear in a, so the a is
between the two nearest that were tried, where a straight line says: two or three runs of the network find
it. Where the output leaves the range at one a and comes back at a larger one, the a found is at an end.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qnas.documents.reading import Count
from qnas.errors import ModelError
from qnas.images.evaluation import Batch

Outputs = Callable[[Batch], Batch]

TOLERANCE = 0.5  # grey levels: what rounds to a nominal one
MINIMUM = 0.5
PARTS = 1024  # contrasts are whole parts of it
NEAR = 0.25  # grey levels below the bound: near enough to it
STRAIGHT = 4  # tries by straight lines, then the middle is tried, so that no more than 10 follow
FLAT = 2  # tries, after which a patch that is not in range yet is tried as a flat colour


@dataclass(frozen=True)
class TamingCounts:
    """How many of `patches` were in range, in range with less contrast, or dropped for two reasons."""

    patches: Count
    untouched: Count
    tamed: Count
    low_contrast: Count
    flat: Count


@dataclass(frozen=True)
class Taming:
    """The contrast a of every patch, in order: 1 = untouched, None = out of range even as a flat colour.

    Patches of a contrast below `minimum` are dropped. The patches themselves are not kept: `tamed` makes
    them again from the natural ones, float32 [N, H, W, C] in batches of any size, to the last bit.
    """

    contrasts: tuple[float | None, ...]
    minimum: float

    @property
    def counts(self) -> TamingCounts:
        """How many patches there are of each kind."""
        found = [a for a in self.contrasts if a is not None]
        untouched, kept = sum(a == 1 for a in found), sum(a >= self.minimum for a in found)
        patches = len(self.contrasts)
        return TamingCounts(patches, untouched, kept - untouched, len(found) - kept, patches - len(found))

    def tamed(self, natural: Iterable[Batch]) -> Iterator[Batch]:
        """The tamed patches, and the untouched ones as they are; dropped ones are left out."""
        contrasts = np.array(self.contrasts, np.float64)  # None becomes NaN, which is not >= anything
        start = 0
        for patches in natural:
            a = contrasts[start : start + len(patches)]
            start += len(patches)
            kept = a >= self.minimum
            if kept.any():
                yield shrink_contrast(patches[kept], a[kept])

    def notices(self) -> tuple[str, ...]:
        """What to say about the patches that were dropped: a line a reason."""
        counts = self.counts
        reasons = (
            (counts.low_contrast, f"in range only below a contrast of {self.minimum}"),
            (counts.flat, "out of range even as a flat colour"),
        )
        return tuple(f"{n} of {counts.patches} patches dropped: {reason}" for n, reason in reasons if n)


def tame(
    natural: Iterable[Batch], outputs: Outputs, tolerance: float = TOLERANCE, minimum: float = MINIMUM
) -> Taming:
    """Find the contrast of every patch of `natural`, batches of float32 [N, H, W, C] grey levels, in a pass.

    `outputs` is the float network without its clip, pixels to pixels. It sees every patch once, and those out
    of range, gathered from several batches into one, a few times more. Raises ModelError when it writes
    values that are not finite.
    """
    contrasts: list[float | None] = []
    waiting: list[_Offender] = []
    together = 1
    for patches in natural:
        beyond = _beyond(outputs(patches), tolerance)
        waiting += [
            _Offender(len(contrasts) + int(i), patches[i].copy(), float(beyond[i]), tolerance)
            for i in np.flatnonzero(beyond > 0)
        ]
        contrasts += [1.0] * len(patches)
        together = max(together, len(patches))
        while len(waiting) >= together:
            waiting = _tried(waiting[:together], contrasts, outputs, tolerance) + waiting[together:]
    while waiting:
        waiting = _tried(waiting, contrasts, outputs, tolerance)
    return Taming(tuple(contrasts), minimum)


def shrink_contrast(patches: Batch, contrasts: NDArray[np.float64]) -> Batch:
    """`c + a (p - c)` of patches [N, H, W, C] with contrasts a [N] and c their mean colours, not rounded.

    Where a is 1 the patch is returned as it is, bit for bit.
    """
    means = patches.mean(axis=(1, 2), keepdims=True, dtype=np.float64)
    a = contrasts[:, None, None, None]
    return np.where(a == 1, patches, means + a * (patches - means)).astype(np.float32)


class _Offender:
    """A patch out of range, and between which contrasts, in PARTS, its bound is.

    At `low` it is in range, -1 where nothing is known to be; at `high` it is not. `below` and `above`: by how
    many grey levels it is beyond the bound there.
    """

    def __init__(self, place: int, patch: NDArray[np.float32], beyond: float, tolerance: float) -> None:
        self.place, self.patch, self.tries = place, patch, 0
        self.low, self.high, self.above = -1, PARTS, beyond
        colour = patch.mean(axis=(0, 1), dtype=np.float64)  # what a flat patch is likely to become
        self.below = min(-NEAR, float(max(colour.max() - 255, -colour.min())) - tolerance)

    @property
    def next(self) -> int:
        """The contrast to try: where a straight line is NEAR / 2 below the bound, 0, or the middle."""
        low = max(self.low, 0)
        guess = (low + self.high) // 2
        if self.tries == FLAT and self.low < 0:
            guess = 0
        elif self.tries < STRAIGHT:
            share = (-NEAR / 2 - self.below) / (self.above - self.below)
            guess = math.floor(low + share * (self.high - low))
        return min(max(guess, self.low + 1), self.high - 1)

    def take(self, tried: int, beyond: float) -> None:
        """Learn that at the contrast `tried` it is `beyond` the bound."""
        self.tries += 1
        if beyond <= 0:
            self.low, self.below = tried, beyond
        else:
            self.high, self.above = tried, beyond

    @property
    def done(self) -> bool:
        """Whether `low` is the contrast, or none is."""
        return self.high - self.low == 1 or (self.low >= 0 and self.below >= -NEAR)


def _tried(
    waiting: list[_Offender], contrasts: list[float | None], outputs: Outputs, tolerance: float
) -> list[_Offender]:
    """Try one contrast of each: those that are left."""
    parts = np.array([each.next for each in waiting])
    patches = shrink_contrast(np.stack([each.patch for each in waiting]), parts / PARTS)
    for each, part, beyond in zip(waiting, parts, _beyond(outputs(patches), tolerance), strict=True):
        each.take(int(part), float(beyond))
        if each.done:
            contrasts[each.place] = each.low / PARTS if each.low >= 0 else None
    return [each for each in waiting if not each.done]


def _beyond(pixels: Batch, tolerance: float) -> NDArray[np.float64]:
    """By how many grey levels each image of outputs [N, H, W, C] is beyond `tolerance` of 0..255, or, below
    0, within it: [N]."""
    lowest, highest = pixels.min(axis=(1, 2, 3)), pixels.max(axis=(1, 2, 3))
    if not (np.isfinite(lowest).all() and np.isfinite(highest).all()):
        raise ModelError("the float network writes values that are not finite: export it again, trained")
    beyond: NDArray[np.float64] = np.maximum(-lowest, highest.astype(np.float64) - 255) - tolerance
    return beyond
