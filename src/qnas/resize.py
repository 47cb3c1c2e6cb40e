"""Bicubic resizing that equals Matlab's imresize, with which every PSNR of the field is made."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Pixel = TypeVar("Pixel", np.uint8, np.float64)


def resize_bicubic(image: NDArray[Pixel], size: tuple[int, int]) -> NDArray[Pixel]:
    """Resize uint8 or float64 [H, W] or [H, W, C] to `size` = (height, width), in pixels; the kind stays.

    Matlab's imresize: cubic kernel with a = -0.5, widened when shrinking (antialiasing), borders mirrored
    with the edge pixel repeated. uint8 results are rounded and clipped once, at the end.
    """
    resized = image.astype(np.float64)
    for axis, length in enumerate(size):
        resized = _resize_axis(resized, axis, length)
    if image.dtype == np.uint8:
        return np.clip(np.rint(resized), 0, 255).astype(image.dtype)
    return resized.astype(image.dtype, copy=False)


def _resize_axis(image: NDArray[np.float64], axis: int, length: int) -> NDArray[np.float64]:
    indices, weights = contributions(image.shape[axis], length)
    against = (slice(None),) + (None,) * (image.ndim - 1 - axis)  # weights [length] * [..., length, ...]
    result = np.zeros((*image.shape[:axis], length, *image.shape[axis + 1 :]))
    for tap in range(indices.shape[1]):
        term = np.take(image, indices[:, tap], axis=axis)
        term *= weights[:, tap][against]
        result += term
    return result


def contributions(in_length: int, out_length: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return, for every output pixel, which input pixels it reads and their weights: both [out_length, taps].

    Weights of one output pixel sum to 1. Indices are already mirrored into 0..in_length-1.
    """
    scale = out_length / in_length
    stretch = min(scale, 1.0)  # < 1 widens the kernel: antialiasing
    width = 4 / stretch
    centres = (np.arange(out_length) + 0.5) / scale - 0.5
    first = np.floor(centres - width / 2).astype(np.intp)
    indices = first[:, None] + np.arange(int(np.ceil(width)) + 2)
    weights = _cubic((centres[:, None] - indices) * stretch)
    weights /= weights.sum(axis=1, keepdims=True)
    used = np.any(weights != 0, axis=0)
    mirrored = indices[:, used] % (2 * in_length)
    return np.where(mirrored < in_length, mirrored, 2 * in_length - 1 - mirrored), weights[:, used]


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic convolution kernel with a = -0.5 (IEEE ASSP 1981, equation 15)."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x**2 + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))
