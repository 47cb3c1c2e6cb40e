"""Training crops: images decoded once, held as uint8 within a memory bound, drawn by step number."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from qnas.cost.network_cost import layer_sizes
from qnas.errors import ImageError, UsageError
from qnas.images.evaluation import Image, shrink
from qnas.images.files import crop_to_multiple, list_images, read_image
from qnas.network.architecture import Architecture
from qnas.network.lowering import lower
from qnas.quantization.quantizers import Arithmetic
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
    folders: Sequence[Path], scale: int, patch: int, cache_mib: int, seed: int = 0,
    arithmetic: Arithmetic = "short",
) -> Crops:  # fmt: skip
    """Decode the images of `folders`, at most `cache_mib` MiB of pixels in all.

    An image over its equal share of the bound is cut once, at a seeded place, to fit it. Images smaller than
    a patch are left out. Raises ImageError when a file cannot be read or nothing is left.
    """
    paths = [path for folder in folders for path in list_images(folder)]
    share = cache_mib * MIB // len(paths)
    rng = np.random.default_rng(seed)
    side = patch * scale
    lrs, hrs = [], []
    for path in paths:
        image = read_image(path)
        if min(image.shape[:2]) >= scale:
            image = crop_to_multiple(image, scale)
        hr = _fit(image, share * scale**2 // (scale**2 + 1), scale, rng)
        if min(hr.shape[:2]) < side:
            continue
        hrs.append(np.ascontiguousarray(hr))
        lrs.append(shrink(hr, scale))
    if not hrs:
        raise ImageError(
            f"no image in {', '.join(map(str, folders))} holds a {side}x{side} crop within the cache: "
            "use a smaller --patch, larger images or a larger --cache-mib"
        )
    return Crops(tuple(lrs), tuple(hrs), scale, arithmetic)


def _fit(image: Image, share: int, scale: int, rng: np.random.Generator) -> Image:
    if image.nbytes <= share:
        return image
    keep = (share / image.nbytes) ** 0.5
    height, width = (max(scale, int(side * keep) // scale * scale) for side in image.shape[:2])
    y = int(rng.integers(0, image.shape[0] - height + 1))
    x = int(rng.integers(0, image.shape[1] - width + 1))
    return image[y : y + height, x : x + width].copy()
