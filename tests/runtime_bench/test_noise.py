"""Warnings about samples whose flaw is known, and none about those that have none."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from qnas.runtime_bench.machine_state import Conditions
from qnas.runtime_bench.noise import autocorrelation, drift, noise, two_modes

QUIET = Conditions(
    seconds=3.0, steal_share=0.0, others_share=0.0, waited_share=0.0, quota_share=0.0, frequency_change=0.0,
    frequency_share=1.0, throttle_events=0, cooling=False, hottest=40.0, governor="performance", turbo=False,
    load=1.0, memory_available=2**33,
)  # fmt: skip
UNKNOWN = Conditions(3.0, *(None,) * 13)


def gaussian(count: int = 60, deviation: float = 0.01, seed: int = 0) -> NDArray[np.float64]:
    """A median of 1 ms, in ns."""
    return 1e6 * (1 + deviation * np.random.default_rng(seed).standard_normal(count))


def warned(values: NDArray[np.float64], burst: int = 1) -> tuple[str, ...]:
    return noise([[round(value)] * burst for value in values], QUIET)


def test_a_quiet_measurement_has_no_warnings_whether_its_machine_is_known_or_not() -> None:
    rounds = [[round(value)] * 3 for value in gaussian()]
    assert noise(rounds, QUIET) == noise(rounds, UNKNOWN) == noise(rounds) == ()


def test_at_most_one_quiet_measurement_in_twenty_is_warned_about() -> None:
    assert sum(warned(gaussian(seed=seed)) != () for seed in range(100)) <= 5


def test_no_rounds_no_warnings_and_one_round_is_too_few() -> None:
    assert noise([]) == noise([[]]) == ()
    assert noise([[1000]]) == ("only 1 round: measure 20 or more (--min-time, --runs)",)


def test_nineteen_rounds_are_too_few_and_twenty_are_enough() -> None:
    assert any("only 19 rounds" in line for line in warned(gaussian(19)))
    assert not any("only" in line for line in warned(gaussian(20)))


def test_a_wide_spread_is_told_with_its_size() -> None:
    (line,) = warned(np.tile([0.9e6, 1.0e6, 1.1e6, 1.2e6, 1.0e6, 0.95e6, 1.15e6], 6))
    assert line == "half of the rounds spread by 20.0%: measure longer, or on a quieter machine"
    # of 42 values in order, 6 each of .9 .95 1 1 1.1 1.15 1.2: numbers 10.25 and 30.75 are 0.95 and 1.15


def test_a_machine_that_slows_down_is_told_apart_from_one_that_warms_up() -> None:
    slope = 1e6 * np.linspace(1, 1.09, 60)  # its thirds are 40 of 59 steps apart: 6.1 % of 1, 5.8 % of 1.045
    advice = "let it cool down or lower the frequency"
    assert warned(slope) == (f"the last third ran 5.8% slower than the first: {advice}",)
    (faster,) = warned(slope[::-1])
    assert faster == "the last third ran 5.8% faster than the first: warm up longer (--warmup)"


def test_drift_is_none_when_chance_explains_it() -> None:
    assert drift(np.tile([1.0, 2.0, 1.2, 1.8], 15)) == 0
    assert drift(np.repeat([1.0, 1.5, 2.0], 10)) == pytest.approx(2 / 3)  # (2 - 1) / 1.5
    assert drift(np.ones(3)) == 0


def test_two_speeds_are_told_with_both_and_one_is_not() -> None:
    values = gaussian(60)
    values[::3] *= 1.3
    assert any(line.startswith("two speeds, 1.0") and "1.3" in line for line in warned(values))
    assert two_modes(gaussian(1000)) is None
    assert two_modes(np.linspace(1, 2, 1000)) is None  # Ashman's D of halves of a uniform distribution: 3.5
    assert two_modes(np.random.default_rng(0).exponential(size=1000) + 1) is None
    assert two_modes(np.asarray([1.0, 1.0, 1.0, 2.0, 2.0, 2.0])) == (1.0, 2.0)


def test_a_few_outliers_are_no_second_speed_but_a_heavy_tail() -> None:
    values = gaussian(200)
    values[::40] *= 2
    (line,) = warned(values)
    assert line == "one run in a hundred takes 2.0 times the median: end what interrupts it"


def test_a_tail_is_not_judged_by_fewer_than_a_hundred_runs() -> None:
    values = gaussian(90)
    values[[20, 50, 80]] *= 2
    assert warned(values) == ()


def test_outliers_within_bursts_count_though_their_medians_hide_them() -> None:
    rounds = [[1_000_000, 1_000_000, 3_000_000]] * 40
    assert noise(rounds) == ("one run in a hundred takes 3.0 times the median: end what interrupts it",)


def test_neighbours_that_are_alike_are_told() -> None:
    wave = 1e6 * (1 + 0.02 * np.sin(np.arange(120) / 3))
    assert warned(wave) == (
        "neighbouring rounds are alike, so the interval is too narrow: measure longer (--min-time)",
    )


def test_autocorrelation_of_an_alternation_is_minus_one_less_its_ends_and_of_constants_none() -> None:
    assert autocorrelation(np.tile([1.0, 2.0], 10)) == pytest.approx(-19 / 20)
    assert autocorrelation(np.ones(10)) == 0


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"steal_share": 0.02}, "the host took 2.0%"),
        ({"others_share": 0.3}, "other processes took 30.0%"),
        ({"waited_share": 0.02}, "it waited for a processor 2.0%"),
        ({"quota_share": 0.1}, "quota stopped it for 10.0%"),
        ({"throttle_events": 3, "hottest": 97.0}, "slowed down at 97 °C"),
        ({"cooling": True, "hottest": None}, "slowed down: cool it"),
        ({"governor": "powersave"}, "governor is powersave: run cpupower"),
        ({"frequency_change": -0.2}, "frequency fell by 20%"),
    ],
)
def test_each_condition_is_told_once(change: dict[str, object], word: str) -> None:
    rounds = [[round(value)] for value in gaussian()]
    (line,) = noise(rounds, replace(QUIET, **change))  # type: ignore[arg-type]
    assert word in line


@pytest.mark.parametrize(
    "change",
    [{"steal_share": 0.005}, {"others_share": 0.04}, {"frequency_change": -0.04}, {"frequency_change": 0.5}],
)
def test_what_is_small_is_not_told(change: dict[str, float]) -> None:
    assert noise([[round(value)] for value in gaussian()], replace(QUIET, **change)) == ()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2**40), max_size=4), max_size=40))
def test_any_samples_give_lines_that_end_without_a_newline(rounds: list[list[int]]) -> None:
    assert all(line and "\n" not in line and "nan" not in line for line in noise(rounds, UNKNOWN))
