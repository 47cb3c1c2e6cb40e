"""The decision rule of the gate, on samples whose truth is known."""

import itertools
import math
import random
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnas.runtime_bench.gate import pairs
from qnas.runtime_bench.gate.sequential import (
    CONFIRMING,
    FIRST,
    Decision,
    Looks,
    Status,
    decide,
    median_bounds,
    rank,
)

TRIALS = 400


def crossing_probability(looks: Looks) -> float:
    """That a fair coin's tails among the first n are fewer than rank(n) at any look: exact, by its walk."""
    alive, crossed = {0: 1.0}, 0.0
    for count in range(1, looks.counts[-1] + 1):
        after: dict[int, float] = {}
        for tails, probability in alive.items():
            for more in (0, 1):
                after[tails + more] = after.get(tails + more, 0.0) + probability / 2
        if count in looks.counts:
            lowest = rank(count, looks.level)
            crossed += sum(each for tails, each in after.items() if tails < lowest)
            after = {tails: each for tails, each in after.items() if tails >= lowest}
        alive = after
    return crossed


def test_all_looks_together_keep_their_error() -> None:
    first, confirming = crossing_probability(FIRST), crossing_probability(CONFIRMING)
    assert first == pytest.approx(0.0175, abs=5e-4)
    assert first * confirming < 0.003  # a fail at a true slowdown of just the threshold


def test_rank_of_a_binomial_probability_by_hand() -> None:
    # Binomial(8, 1/2): none is 1/256 = 0.0039, at most one 9/256 = 0.035
    assert [rank(8, level) for level in (0.0038, 0.004, 0.036)] == [0, 1, 2]
    assert rank(7, 0.004) == 0


def test_bounds_are_order_statistics() -> None:
    values = [3.0, 1.0, 2.0, 8.0, 7.0, 6.0, 5.0, 4.0]
    found = median_bounds(values, 0.004)
    assert (found.value, found.low, found.high) == (4.5, 1.0, 8.0)
    too_few = median_bounds(values[:7], 0.004)
    assert (too_few.low, too_few.high) == (-math.inf, math.inf)


def decided(ratios: Iterator[float], threshold: float, most: int = 80) -> Decision:
    """A gate that has time for `most` ratios."""
    asked = itertools.count()
    return decide(lambda: next(ratios), lambda: next(asked) < most, threshold)


def disturbed(rng: np.random.Generator, truth: float) -> Iterator[float]:
    """Ratios with 1 % of noise between processes; a tenth of them is off by up to 50 % to either side."""
    while True:
        yield truth * math.exp(rng.normal(0, 0.01) + (rng.random() < 0.1) * rng.uniform(-0.5, 0.5))


def noisy(rng: np.random.Generator, truth: float) -> Iterator[float]:
    """Ratios with 4 % of noise."""
    while True:
        yield truth * math.exp(rng.normal(0, 0.04))


def shares(
    ratios: Callable[[np.random.Generator, float], Iterator[float]], truth: float, threshold: float
) -> dict[Status, float]:
    """How often each decision falls among `TRIALS` of fixed seeds."""
    found = [decided(ratios(np.random.default_rng(seed), truth), threshold).status for seed in range(TRIALS)]
    return {status: found.count(status) / TRIALS for status in Status}


@pytest.mark.parametrize("ratios", [disturbed, noisy])
def test_equal_models_hardly_ever_fail(
    ratios: Callable[[np.random.Generator, float], Iterator[float]],
) -> None:
    found = shares(ratios, 1.0, 1.05)
    assert found[Status.FAIL] == 0
    assert found[Status.PASS] > (0.99 if ratios is disturbed else 0.8)


def test_true_slowdown_fails_through_disturbed_pairs() -> None:
    assert shares(disturbed, 1.10, 1.05)[Status.FAIL] >= 0.98
    assert shares(disturbed, 1.05, 1.02)[Status.FAIL] >= 0.98


@pytest.mark.parametrize("ratios", [disturbed, noisy])
def test_slowdown_of_just_the_threshold_is_seldom_decided(
    ratios: Callable[[np.random.Generator, float], Iterator[float]],
) -> None:
    found = shares(ratios, 1.05, 1.05)
    assert found[Status.FAIL] <= 0.01  # 0.3 % in the long run
    assert found[Status.PASS] <= 0.04  # 1.8 %


def test_clear_pass_takes_the_fewest_pairs() -> None:
    found = decided(itertools.repeat(1.0), 1.05)
    assert (found.status, len(found.first.ratios), found.confirmation) == (Status.PASS, 8, None)


def test_fail_is_confirmed_by_a_second_sample() -> None:
    found = decided(itertools.repeat(1.1), 1.05)
    assert found.status is Status.FAIL
    assert found.confirmation is not None
    assert (len(found.first.ratios), len(found.confirmation.ratios)) == (8, 5)


def test_second_sample_that_disagrees_leaves_it_open() -> None:
    found = decided(itertools.chain([1.1] * 8, itertools.repeat(1.0)), 1.05)
    assert found.first.status is Status.FAIL
    assert found.confirmation is not None
    assert found.confirmation.status is Status.PASS
    assert found.status is Status.INCONCLUSIVE


@pytest.mark.parametrize(("most", "first", "second"), [(0, 1, None), (5, 6, None), (7, 8, None), (9, 8, 2)])
def test_fail_without_time_to_confirm_is_inconclusive(most: int, first: int, second: int | None) -> None:
    found = decided(itertools.repeat(2.0), 1.05, most)
    assert found.status is Status.INCONCLUSIVE
    assert len(found.first.ratios) == first
    assert (len(found.confirmation.ratios) if found.confirmation else None) == second


def test_ratio_at_the_threshold_ends_inconclusive_after_the_last_look() -> None:
    found = decided(itertools.cycle([1.04, 1.06]), 1.05, 10**6)
    assert (found.status, len(found.first.ratios)) == (Status.INCONCLUSIVE, FIRST.counts[-1])


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=120), st.sampled_from([0.004, 0.05]))
def test_bounds_hold_the_median_and_do_not_depend_on_order(values: list[float], level: float) -> None:
    found = median_bounds(values, level)
    assert found.low <= found.value <= found.high
    shuffled = random.Random(0).sample(values, len(values))
    assert median_bounds(shuffled, level) == found


@given(st.integers(1, 150), st.sampled_from([0.004, 0.05]))
def test_rank_keeps_its_level_and_no_larger_one_would(count: int, level: float) -> None:
    def below(values: int) -> float:
        return sum(math.comb(count, each) for each in range(values)) / 2**count

    position = rank(count, level)
    assert below(position) <= level < below(position + 1)


@pytest.mark.parametrize(
    ("usable", "threads", "places"),
    [
        ({0, 1}, 1, ((0,), (1,))),
        ({2, 5, 7}, 2, ((2, 5), (5, 7), (7, 2))),
        ({0, 1}, 2, ((),)),
        ({3}, 1, ((),)),
    ],
)
def test_pair_shares_as_many_processors_as_it_has_threads(
    monkeypatch: pytest.MonkeyPatch, usable: set[int], threads: int, places: tuple[tuple[int, ...], ...]
) -> None:
    monkeypatch.setattr(pairs, "usable_cpus", lambda: frozenset(usable))
    assert pairs.shared_cpus(threads) == places
