"""PSNR-Y and SSIM of anything that upscales images, the way the field's tables have it.

HR images are cropped to a multiple of the scale, LR ones made from them by antialiased bicubic, and `scale`
pixels of border left out.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qnas.images.files import crop_to_multiple, list_images, read_image
from qnas.images.quality import psnr_y, ssim_y
from qnas.images.resize import resize_bicubic

Image = NDArray[np.uint8]  # [H, W, C] in grey levels, C 3 (RGB) or 1
Batch = NDArray[np.float32]  # [N, H, W, C] in grey levels, neither clipped nor rounded


@dataclass(frozen=True)
class Quality:
    """Means over a folder: PSNR on Y in dB, SSIM on Y."""

    psnr: float
    ssim: float


def pairs(folder: Path, scale: int) -> Iterator[tuple[Image, Image]]:
    """(LR, HR) of every image in `folder`. Raises ImageError."""
    for path in list_images(folder):
        hr = crop_to_multiple(read_image(path), scale)
        yield shrink(hr, scale), hr


def shrink(hr: Image, scale: int) -> Image:
    """HR [H, W, 3] -> LR [H / scale, W / scale, 3]."""
    lr: Image = resize_bicubic(hr, (hr.shape[0] // scale, hr.shape[1] // scale))
    return lr


def evaluate(upscale: Callable[[Image], Image], folder: Path, scale: int) -> Quality:
    """Mean quality of `upscale` over the images of `folder`."""
    scores = []
    for lr, hr in pairs(folder, scale):
        sr = upscale(lr)
        scores.append((psnr_y(sr, hr, scale), ssim_y(sr, hr, scale)))
    psnr, ssim = np.mean(scores, axis=0)
    return Quality(float(psnr), float(ssim))
