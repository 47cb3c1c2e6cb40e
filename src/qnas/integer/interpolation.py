"""Bilinear interpolation in whole steps: integers decide the weights, so every backend has the same."""

import numpy as np
from numpy.typing import NDArray

STEPS = 64


def interpolation_steps(size_in: int, size_out: int) -> NDArray[np.int64]:
    """[size_out, size_in] weights of half-pixel centres, rounded down to 64ths; every row sums to STEPS."""
    centre = ((2 * np.arange(size_out) + 1) * size_in * STEPS) // (2 * size_out) - STEPS // 2
    centre = np.clip(centre, 0, STEPS * (size_in - 1))
    distance = np.abs(centre[:, None] - STEPS * np.arange(size_in)[None, :])
    steps: NDArray[np.int64] = np.maximum(STEPS - distance, 0)
    return steps


def bilinear_weights(factor: int, channels: int) -> NDArray[np.int8]:
    """int8 [C f^2, C, 3, 3] in steps of 1 / (2 f)^2: half-pixel bilinear upscaling before the shuffle."""
    f = factor
    taps = np.zeros((f, 3), np.int64)
    for phase in range(f):
        offset = 2 * phase + 1 - f  # from the centre of the pixel, in 2f-ths
        taps[phase, 1] = 2 * f - abs(offset)
        taps[phase, 1 + int(np.sign(offset))] += abs(offset) if offset else 0
    both = taps[:, None, :, None] * taps[None, :, None, :]  # [f, f, 3, 3]
    weight = np.zeros((channels, f, f, channels, 3, 3), np.int8)
    for c in range(channels):
        weight[c, :, :, c] = both
    return weight.reshape(channels * f**2, channels, 3, 3)
