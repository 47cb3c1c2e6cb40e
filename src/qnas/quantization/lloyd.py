"""Lloyd's levels of the half-wave unit Gaussian, the uniform step that they give, and the table that ships.

A Lloyd quantizer of b bits first puts its input on an unsigned 8-bit grid, `q = clamp(round(x / t), 0, 255)`
with t a power of two, and then takes one of 2**b levels by a table: `t * table[q]`. Levels are whole numbers
of the same grid, so training, the interpreter and every runtime compute the same bytes
(docs/decisions/0008-lloyd-levels.md).
"""

import math
from functools import cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

TOP_LEVEL = 255


@cache
def hwgq_levels(bits: int, zero: bool = False) -> tuple[float, ...]:
    """The 2**bits levels of least squared error for a half-wave unit Gaussian, ascending (Lloyd's).

    Equation 15 of Shvetsov et al. (QuantNAS). Every level is the centroid of its cell and every threshold the
    middle of two levels; Newton's method on that system, from the asymptotically optimal companding. With
    `zero` the first level is held at 0: these are the upper half of 2**(bits + 1) - 1 levels for the whole
    Gaussian.
    """
    n = 2**bits
    wide = NormalDist(sigma=math.sqrt(3))  # density^(1/3) of a unit Gaussian
    offset, count = (0.0, 2 * n - 1) if zero else (0.5, 2 * n)
    levels = np.array([wide.inv_cdf(0.5 + (k + offset) / count) for k in range(n)])
    for _ in range(6):  # Newton doubles the digits: five steps reach those of float64
        edges = np.concatenate([[0.0], (levels[1:] + levels[:-1]) / 2, [math.inf]])
        density = np.exp(-np.square(edges) / 2) / math.sqrt(2 * math.pi)
        above = np.array([math.erfc(e / math.sqrt(2)) / 2 for e in edges])
        mass = above[:-1] - above[1:]
        centroid = (density[:-1] - density[1:]) / mass
        left = density[:-1] * (centroid - edges[:-1]) / mass  # d centroid / d lower edge
        right = np.append(density[1:-1] * (edges[1:-1] - centroid[:-1]) / mass[:-1], 0.0)
        left[0] = 0.0  # the lowest edge is the wave's own, at zero
        if zero:
            centroid[0] = right[0] = 0.0
        jacobian = np.diag(1 - (left + right) / 2) - np.diag(left[1:] / 2, -1) - np.diag(right[:-1] / 2, 1)
        levels = levels + np.linalg.solve(jacobian, centroid - levels)
    return tuple(levels.tolist())


def hwgq_step(bits: int) -> float:
    """The uniform HWGQ step for a half-wave unit Gaussian: the mean distance of its Lloyd levels."""
    levels = hwgq_levels(bits)
    return (levels[-1] - levels[0]) / (len(levels) - 1)


def lloyd_step(bits: int) -> float:
    """The step of the 8-bit grid on which `lloyd_levels` are those of a half-wave unit Gaussian."""
    return hwgq_levels(bits, zero=True)[-1] / TOP_LEVEL


def lloyd_levels(bits: int) -> NDArray[np.uint8]:
    """uint8 [2**bits]: `hwgq_levels` with a zero, scaled to 0 .. 255 and rounded; 2 <= bits <= 7."""
    return np.rint(np.array(hwgq_levels(bits, zero=True)) / lloyd_step(bits)).astype(np.uint8)


@cache
def lloyd_table(bits: int) -> NDArray[np.uint8]:
    """uint8 [256], read-only: the level of every q, the nearest; halfway between two it is the lower one."""
    levels = lloyd_levels(bits).astype(np.int32)
    thresholds = levels[1:] + levels[:-1]  # of 2 q
    table: NDArray[np.uint8] = lloyd_levels(bits)[np.searchsorted(thresholds, 2 * np.arange(256))]
    table.setflags(write=False)
    return table
