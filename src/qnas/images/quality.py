"""How good an upscaled image is: PSNR and SSIM on luma, as the super-resolution papers compute them."""

import math

import numpy as np
from numpy.typing import NDArray

from qnas.errors import ImageError

PEAK = 255.0
WINDOW = 11
SIGMA = 1.5

Picture = NDArray[np.uint8] | NDArray[np.float64]  # [H, W, 3] RGB or [H, W] luma


def luma(image: Picture) -> NDArray[np.float64]:
    """Return the BT.601 luma of [H, W, 3] RGB in grey levels: float64 [H, W] in 16..235, not rounded."""
    return image @ (np.array([65.481, 128.553, 24.966]) / 255) + 16


def psnr_y(a: Picture, b: Picture, border: int) -> float:
    """Return the PSNR in dB (peak 255) of the luma of two images without `border` pixels on each side.

    Images are uint8 [H, W, 3] RGB, or [H, W] luma in grey levels; equal ones give infinity.
    Raises ImageError when the sizes differ or nothing is left inside the border.
    """
    luma_a, luma_b = _luma_pair(a, b, border, smallest=1)
    return psnr_of(float(np.mean((luma_a - luma_b) ** 2)))


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8], border: int) -> float:
    """Return the PSNR in dB (peak 255) over all colours of two images [H, W, C], as `psnr_y` else."""
    inner = slice(border, -border or None)
    _check_pair(a, b, border, smallest=1)
    return psnr_of(float(np.mean((a[inner, inner].astype(np.float64) - b[inner, inner]) ** 2)))


def psnr_of(mean_square: float) -> float:
    """Return the PSNR in dB (peak 255) of a mean squared error in squared grey levels; of none, infinity."""
    return math.inf if mean_square <= 0 else 10 * math.log10(PEAK**2 / mean_square)


def ssim_y(a: Picture, b: Picture, border: int) -> float:
    """Return the mean SSIM of the luma of two images, given as to `psnr_y`.

    Wang et al. 2004: 11x11 Gaussian window of sigma 1.5, K1 = 0.01, K2 = 0.03, L = 255, valid windows only.
    Raises ImageError when the sizes differ or less than one window is left inside the border.
    """
    x, y = _luma_pair(a, b, border, smallest=WINDOW)
    c1, c2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x = _blur(x * x) - mean_x**2
    variance_y = _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return float(np.mean(similarity / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))))


def _luma_pair(
    a: Picture, b: Picture, border: int, smallest: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    _check_pair(a, b, border, smallest)
    inner = slice(border, -border or None)
    first, second = (luma(image) if image.ndim == 3 else image.astype(np.float64) for image in (a, b))
    return first[inner, inner], second[inner, inner]


def _check_pair(a: Picture, b: Picture, border: int, smallest: int) -> None:
    if a.shape != b.shape:
        raise ImageError(
            f"images of {_size(a)} and {_size(b)} pixels cannot be compared: make them equally large"
        )
    if min(a.shape[:2]) - 2 * border < smallest:
        raise ImageError(
            f"an image of {_size(a)} pixels is too small for a border of {border}: use a larger one"
        )


def _size(image: Picture) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"


def _blur(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weigh [H, W] with the Gaussian window where it fits: [H - 10, W - 10]."""
    offsets = np.arange(WINDOW) - WINDOW // 2
    kernel = np.exp(-(offsets**2) / (2 * SIGMA**2))
    kernel /= kernel.sum()
    for axis in (0, 1):
        image = np.lib.stride_tricks.sliding_window_view(image, WINDOW, axis=axis) @ kernel
    return image
