"""Taming, the heart of CFQP: a patch whose float output leaves the nominal range loses contrast.

Of a patch p with mean colour c it makes `c + a (p - c)`, with the largest a found by bisection whose output
is within half a grey level of 0..255. Only outputs of the float network decide. Where the output leaves the
range at one a and comes back at a larger one, the a found is in range, and a step more is not.
"""

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
STEPS = 10  # of bisection: the contrasts are 1024ths, a quarter of a grey level at most


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
    of range, gathered from several batches into one, another 10 times or 11. Raises ModelError when it writes
    values that are not finite.
    """
    contrasts: list[float | None] = []
    waiting: list[tuple[int, Batch]] = []  # patches out of range, with their places in `contrasts`
    together = 1
    for patches in natural:
        inside = _in_range(outputs(patches), tolerance)
        waiting += [(len(contrasts) + int(i), patches[i].copy()) for i in np.flatnonzero(~inside)]
        contrasts += [1.0] * len(patches)
        together = max(together, len(patches))
        while len(waiting) >= together:
            _settle(waiting[:together], contrasts, outputs, tolerance)
            waiting = waiting[together:]
    if waiting:
        _settle(waiting, contrasts, outputs, tolerance)
    return Taming(tuple(contrasts), minimum)


def shrink_contrast(patches: Batch, contrasts: NDArray[np.float64]) -> Batch:
    """`c + a (p - c)` of patches [N, H, W, C] with contrasts a [N] and c their mean colours, not rounded.

    Where a is 1 the patch is returned as it is, bit for bit.
    """
    means = patches.mean(axis=(1, 2), keepdims=True, dtype=np.float64)
    a = contrasts[:, None, None, None]
    return np.where(a == 1, patches, means + a * (patches - means)).astype(np.float32)


def _settle(
    waiting: list[tuple[int, Batch]], contrasts: list[float | None], outputs: Outputs, tolerance: float
) -> None:
    patches = np.stack([patch for _, patch in waiting])
    low, high = np.zeros(len(patches)), np.ones(len(patches))
    for _ in range(STEPS):
        middle = (low + high) / 2
        inside = _in_range(outputs(shrink_contrast(patches, middle)), tolerance)
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    never = low == 0  # as flat colours these were not tried yet
    hopeless = np.zeros(len(patches), bool)
    if never.any():
        hopeless[never] = ~_in_range(outputs(shrink_contrast(patches[never], low[never])), tolerance)
    for (place, _), a, out in zip(waiting, low, hopeless, strict=True):
        contrasts[place] = None if out else float(a)


def _in_range(pixels: Batch, tolerance: float) -> NDArray[np.bool_]:
    """Whether each image of outputs [N, H, W, C] stays within `tolerance` of 0..255: [N]."""
    lowest, highest = pixels.min(axis=(1, 2, 3)), pixels.max(axis=(1, 2, 3))
    if not (np.isfinite(lowest).all() and np.isfinite(highest).all()):
        raise ModelError("the float network writes values that are not finite: export it again, trained")
    inside: NDArray[np.bool_] = (lowest >= -tolerance) & (highest <= 255 + tolerance)
    return inside
