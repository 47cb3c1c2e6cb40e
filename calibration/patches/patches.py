"""The patches of a representative set, for several passes over them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from qnas.calibration.patches.representative import RepresentativeSet
from qnas.calibration.progress import Wrap
from qnas.images.evaluation import Batch

BATCH = 16
KEPT_BYTES = 256 << 20


@dataclass(frozen=True, eq=False)
class Patches:
    """Those of `images`. `kept`: all of them, uint8 [H, W, C], or None: read anew at each pass."""

    images: RepresentativeSet
    kept: tuple[NDArray[np.uint8], ...] | None

    @classmethod
    def of(cls, images: RepresentativeSet, wrap: Wrap = iter) -> Patches:
        """Decode the files once, and keep the patches if they need no more than KEPT_BYTES."""
        height, width = images.patch
        if len(images.crops) * height * width * images.channels > KEPT_BYTES:
            return cls(images, None)
        batches = wrap(images.batches(BATCH))
        return cls(images, tuple(patch for batch in batches for patch in batch.astype(np.uint8)))

    def __len__(self) -> int:
        return len(self.images.crops)

    def batches(self) -> Iterator[Batch]:
        """Float32 [N, H, W, C] in grey levels, N = `BATCH`, at last fewer."""
        if self.kept is None:
            yield from self.images.batches(BATCH)
            return
        for start in range(0, len(self.kept), BATCH):
            yield np.stack(self.kept[start : start + BATCH]).astype(np.float32)

    def part(self, wanted: Iterable[bool]) -> Patches:
        """Those for which `wanted` is true."""
        places = [place for place, want in enumerate(wanted) if want]
        kept = None if self.kept is None else tuple(self.kept[place] for place in places)
        return Patches(replace(self.images, crops=tuple(self.images.crops[place] for place in places)), kept)
