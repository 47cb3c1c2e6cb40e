"""Training crops: images decoded once, uint8 in memory or mapped from disk, drawn by step number."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from qnas.cost.network_cost import layer_sizes
from qnas.errors import ImageError, UsageError
from qnas.images.evaluation import Image
from qnas.images.files import list_images
from qnas.network.architecture import Architecture
from qnas.network.lowering import lower
from qnas.quantization.quantizers import Arithmetic
from qnas.search.training.decoded import decoded
from qnas.torch.inference import to_network

MIB = 2**20


@dataclass(frozen=True)
class Crops:
    """LR and HR uint8 images [h, w, 3] and [s h, s w, 3]; batches are a function of (seed, step) alone."""

    lr: tuple[Image, ...]
    hr: tuple[Image, ...]
    scale: int
    arithmetic: Arithmetic = "short"

    def halves(self, seed: int) -> tuple["Crops", "Crops"]:
        """Two disjoint sets of images of about equal area. Raises ImageError when there is but one image."""
        if len(self.lr) < 2:
            raise ImageError("a search needs two images or more, one for each half of the data: add images")
        order = sorted(range(len(self.lr)), key=lambda index: self.lr[index].size, reverse=True)
        flips = np.random.default_rng(seed).integers(0, 2, len(order) // 2 + 1)
        halves: tuple[list[int], list[int]] = ([], [])
        for place, index in enumerate(order):  # of two that are next in size, each half gets one
            halves[(place + flips[place // 2]) % 2].append(index)
        first, second = (
            replace(self, lr=tuple(self.lr[i] for i in half), hr=tuple(self.hr[i] for i in half))
            for half in halves
        )
        return first, second

    def batch(self, seed: int, step: int, size: int, patch: int) -> tuple[Tensor, Tensor]:
        """(LR [size, 3, patch, patch], HR [size, 3, s patch, s patch]), float32 in units of `arithmetic`.

        Images are drawn in proportion to their area; crops are turned and mirrored in all eight ways.
        """
        rng = np.random.default_rng((seed, step))
        areas = np.array([image.size for image in self.lr], np.float64)
        lrs: list[Image] = []
        hrs: list[Image] = []
        for index in rng.choice(len(self.lr), size, p=areas / areas.sum()):
            lr, hr = self.lr[index], self.hr[index]
            y, x = (int(rng.integers(0, side - patch + 1)) for side in lr.shape[:2])
            turn, mirror = int(rng.integers(4)), int(rng.integers(2))
            for image, out, s in ((lr, lrs, 1), (hr, hrs, self.scale)):
                crop = np.rot90(image[s * y : s * (y + patch), s * x : s * (x + patch)], turn)
                out.append(crop[:, ::-1] if mirror else crop)
        return to_network(np.stack(lrs), self.arithmetic), to_network(np.stack(hrs), self.arithmetic)


def check_patch(architecture: Architecture, patch: int) -> None:
    """Raise UsageError where nothing is left of a crop of `patch` LR pixels behind a pooling."""
    if min(min(size) for size in layer_sizes(lower(architecture), patch, patch).values()) < 1:
        raise UsageError(
            f"--patch {patch} is too small for the pooling of {architecture.space}: use a larger one"
        )


def load_crops(
    folders: Sequence[Path], scale: int, patch: int, cache_mib: int, arithmetic: Arithmetic = "short"
) -> Crops:
    """The images of `folders`, of which at most `cache_mib` MiB of pixels are in memory (see `decoded`).

    Where they are decides nothing: every place of every image is drawn. Images smaller than a patch are left
    out. Raises ImageError when a file cannot be read or nothing is left, OutputError for a full disk.
    """
    paths = [path for folder in folders for path in list_images(folder)]
    pairs = [pair for pair in decoded(paths, scale, cache_mib * MIB) if min(pair[0].shape[:2]) >= patch]
    if not pairs:
        side, names = patch * scale, ", ".join(map(str, folders))
        raise ImageError(f"no image in {names} holds a {side}x{side} crop: use a smaller --patch or others")
    lrs, hrs = zip(*pairs, strict=True)
    return Crops(lrs, hrs, scale, arithmetic)


class Ahead:
    """The batches of `crops` on a device; for a GPU a thread makes the next one while it computes."""

    def __init__(self, crops: Crops, device: torch.device) -> None:
        self.crops, self.device = crops, device
        self._thread = ThreadPoolExecutor(1) if device.type == "cuda" else None
        self._next: tuple[tuple[int, ...], Future[tuple[Tensor, Tensor]]] | None = None

    def batch(self, seed: int, step: int, size: int, patch: int) -> tuple[Tensor, Tensor]:
        """The batch that `Crops.batch` gives, on the device."""
        wanted = seed, step, size, patch
        known = self._next and self._next[0] == wanted
        lr, hr = self._next[1].result() if self._next and known else self.crops.batch(*wanted)
        if self._thread:
            following = seed, step + 1, size, patch
            self._next = following, self._thread.submit(self.crops.batch, *following)
        return lr.to(self.device, non_blocking=True), hr.to(self.device, non_blocking=True)
