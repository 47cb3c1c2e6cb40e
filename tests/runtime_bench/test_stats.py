"""Median, percentile and bootstrap against numbers from elsewhere."""

import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnas.runtime_bench.stats import Estimate, median, median_interval, percentile, ratio_interval

SAMPLES = st.lists(st.floats(1, 1e9), min_size=1, max_size=50)


@pytest.mark.parametrize(("samples", "expected"), [([3], 3), ([1, 9, 2], 2), ([4, 1, 3, 2], 2.5)])
def test_median_is_the_middle_or_the_mean_of_the_middle_two(samples: list[float], expected: float) -> None:
    assert median(samples) == expected


@pytest.mark.parametrize(("percent", "expected"), [(0, 15), (5, 16), (30, 23), (40, 29), (50, 35), (100, 50)])
def test_percentile_interpolates_as_in_the_worked_example(percent: float, expected: float) -> None:
    # Wikipedia, Percentile, "Second variant, C = 1": P40 = 29 there, and P75 = 3.25 of 1 2 3 4.
    assert percentile([35, 20, 15, 50, 40], percent) == pytest.approx(expected)
    assert percentile([1, 2, 3, 4], 75) == 3.25


def test_percentile_of_no_samples_raises() -> None:
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 50)


@given(SAMPLES)
def test_median_agrees_with_the_standard_library(samples: list[float]) -> None:
    assert median(samples) == pytest.approx(statistics.median(samples), rel=1e-12)


@given(SAMPLES, st.floats(0, 100), st.floats(0, 100))
def test_percentiles_keep_their_order_and_stay_within_the_samples(
    samples: list[float], a: float, b: float
) -> None:
    low, high = (percentile(samples, percent) for percent in sorted((a, b)))
    assert min(samples) <= low * (1 + 1e-12)
    assert low <= high * (1 + 1e-12)
    assert high <= max(samples) * (1 + 1e-12)


def test_bootstrap_of_three_samples_has_the_exact_distribution() -> None:
    # Of 27 equally likely resamples of 1 2 3, 7 have median 1 (three 1s: 1, two 1s: 6), 13 have 2, 7 have 3:
    # 26 % lie below 2, so that an interval of 40 % (tails of 30 %) is [2, 2] and one of 60 % is [1, 3].
    assert median_interval([1, 2, 3], confidence=0.4) == Estimate(2, 2, 2)
    assert median_interval([1, 2, 3], confidence=0.6) == Estimate(2, 1, 3)


def test_bootstrap_interval_covers_the_true_median_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    truth = np.log(2)  # of the exponential distribution: skewed, as latencies are
    runs = 300
    intervals = [median_interval(generator.exponential(size=41), seed) for seed in range(runs)]
    covered = sum(each.low <= truth <= each.high for each in intervals)
    assert 0.91 < covered / runs < 0.98  # 95 % and a standard deviation of 1.3 % on either side


def test_bootstrap_repeats_itself_for_the_same_seed_only() -> None:
    samples = np.random.default_rng(2).lognormal(size=40)
    assert median_interval(samples, seed=3) == median_interval(samples, seed=3)
    assert len({median_interval(samples, seed) for seed in range(10)}) > 1


def test_interval_of_a_ratio_pairs_the_rounds_so_that_common_drift_cancels() -> None:
    drifting = np.linspace(1, 3, 50)
    assert ratio_interval(2 * drifting, drifting) == Estimate(2, 2, 2)
    shuffled = ratio_interval(2 * drifting[::-1], drifting)
    assert shuffled.low < 1.9 < 2.1 < shuffled.high


def test_ratio_of_unpaired_samples_raises() -> None:
    with pytest.raises(ValueError, match="2 samples against 3"):
        ratio_interval([1, 2], [1, 2, 3])


def test_resampling_in_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = np.random.default_rng(5).lognormal(size=30)
    whole = median_interval(samples)
    monkeypatch.setattr("qnas.runtime_bench.stats.CHUNK", 30 * 7)
    assert median_interval(samples) == whole
