"""Medians, means and their uncertainty, by resampling: latencies are skewed, no normal distribution fits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
CONFIDENCE = 0.95
CHUNK = 2_000_000  # resampled values held at once: 16 MB

Samples = Sequence[float] | NDArray[Any]


@dataclass(frozen=True)
class Estimate:
    """A value and the ends of its confidence interval."""

    value: float
    low: float
    high: float


def median(samples: Samples) -> float:
    """The middle sample, or the mean of the middle two."""
    return percentile(samples, 50)


def percentile(samples: Samples, percent: float) -> float:
    """Linear between samples, the r-th of n at 100 (r - 1) / (n - 1) percent; ValueError when empty."""
    if len(samples) == 0:
        raise ValueError("no samples")
    return float(np.percentile(np.asarray(samples, np.float64), percent))


def median_interval(samples: Samples, seed: int = 0, confidence: float = CONFIDENCE) -> Estimate:
    """Median with its percentile bootstrap interval (Efron and Tibshirani, 1993, section 13.3)."""
    resampled = _resampled_medians([samples], seed)[0]
    return _estimate(median(samples), resampled, confidence)


def mean_interval(samples: Samples, seed: int = 0, confidence: float = CONFIDENCE) -> Estimate:
    """Mean with its percentile bootstrap interval. Raises ValueError when there are no samples."""
    values = np.asarray(samples, np.float64)
    if not len(values):
        raise ValueError("no samples")
    draws = np.random.default_rng(seed).integers(0, len(values), (RESAMPLES, len(values)))
    return _estimate(float(values.mean()), values[draws].mean(axis=1), confidence)


def ratio_interval(
    samples: Samples, baseline: Samples, seed: int = 0, confidence: float = CONFIDENCE
) -> Estimate:
    """median(samples) / median(baseline) with its interval.

    Both hold one sample a round, and rounds are drawn whole: what slows down both of a round cancels.
    Raises ValueError when they differ in number.
    """
    if len(samples) != len(baseline):
        raise ValueError(f"{len(samples)} samples against {len(baseline)}: they must be paired")
    above, below = _resampled_medians([samples, baseline], seed)
    return _estimate(median(samples) / median(baseline), above / below, confidence)


def _estimate(value: float, resampled: NDArray[np.float64], confidence: float) -> Estimate:
    tail = 50 * (1 - confidence)
    return Estimate(value, percentile(resampled, tail), percentile(resampled, 100 - tail))


def _resampled_medians(series: Sequence[Samples], seed: int) -> NDArray[np.float64]:
    """Medians [series, RESAMPLES] of every series over the same draws of its rounds, with replacement."""
    values = np.asarray(series, np.float64)
    count = values.shape[1]
    generator = np.random.default_rng(seed)
    rows = max(1, CHUNK // count)
    parts = []
    for start in range(0, RESAMPLES, rows):
        draws = generator.integers(0, count, (min(rows, RESAMPLES - start), count))
        parts.append([np.median(each[draws], axis=1) for each in values])
    return np.concatenate(parts, axis=1)
