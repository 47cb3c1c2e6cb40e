"""Bilinear interpolation in whole 64ths: integers decide the weights, so every backend has the same."""

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
