"""Rank correlation: whether two numbers put networks into the same order."""

from collections.abc import Sequence
from math import nan, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = Sequence[float] | NDArray[Any]


def ranks(values: Values) -> NDArray[np.float64]:
    """1 for the smallest; equal values share the mean of their places."""
    data = np.asarray(values, np.float64)
    _, inverse, counts = np.unique(data, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse], np.float64)


def spearman(left: Values, right: Values) -> float:
    """Pearson's correlation of the ranks (Spearman, 1904); nan where one side is constant."""
    a, b = ranks(left), ranks(right)
    a, b = a - a.mean(), b - b.mean()
    scale = sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale else nan


def kendall(left: Values, right: Values) -> float:
    """tau-b: concordant less discordant pairs, ties taken out (Kendall, 1945); nan where one is constant."""
    a, b = np.asarray(left, np.float64), np.asarray(right, np.float64)
    upper = np.triu_indices(len(a), 1)
    over_a = np.sign(a[:, None] - a[None])[upper]
    over_b = np.sign(b[:, None] - b[None])[upper]
    scale = sqrt(float(np.count_nonzero(over_a)) * float(np.count_nonzero(over_b)))
    return float(over_a @ over_b) / scale if scale else nan
