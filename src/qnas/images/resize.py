"""Bicubic resizing that equals Matlab's imresize, with which every PSNR of the field is made."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Pixel = TypeVar("Pixel", np.uint8, np.float64)


def resize_bicubic(
    image: NDArray[Pixel], size: tuple[int, int], box: tuple[int, int, int, int] | None = None
) -> NDArray[Pixel]:
    """Resize uint8 or float64 [H, W] or [H, W, C] to `size` = (height, width), in pixels; the kind stays.

    Matlab's imresize: cubic kernel with a = -0.5, widened when shrinking (antialiasing), borders mirrored
    with the edge pixel repeated. uint8 results are rounded and clipped once, at the end. With `box` = (left,
    top, width, height) only that part of the result, the same pixels at the cost of the part.
    """
    left, top, width, height = box or (0, 0, size[1], size[0])
    rows, row_indices, row_weights = _part(image.shape[0], size[0], top, height)
    columns, column_indices, column_weights = _part(image.shape[1], size[1], left, width)
    resized = image[rows, columns].astype(np.float64)
    resized = _resize_axis(resized, 0, row_indices, row_weights)
    resized = _resize_axis(resized, 1, column_indices, column_weights)
    if image.dtype == np.uint8:
        return np.clip(np.rint(resized), 0, 255).astype(image.dtype)
    return resized.astype(image.dtype, copy=False)


def _part(
    in_length: int, out_length: int, first: int, count: int
) -> tuple[slice, NDArray[np.intp], NDArray[np.float64]]:
    """`contributions` to `count` output pixels from `first`, with the slice of input that they index."""
    indices, weights = contributions(in_length, out_length)
    indices, weights = indices[first : first + count], weights[first : first + count]
    start = int(indices.min())
    return slice(start, int(indices.max()) + 1), indices - start, weights


def _resize_axis(
    image: NDArray[np.float64], axis: int, indices: NDArray[np.intp], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    against = (slice(None),) + (None,) * (image.ndim - 1 - axis)  # weights [length] * [..., length, ...]
    result = np.zeros((*image.shape[:axis], len(indices), *image.shape[axis + 1 :]))
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
