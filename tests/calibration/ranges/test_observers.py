from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from qnas.calibration.ranges.histogram import Histogram
from qnas.calibration.ranges.observers import OBSERVERS, REMEMBERED, MinMax, MovingAverage, Observer
from qnas.calibration.ranges.range_rules import RULES, percentile
from qnas.calibration.ranges.ranges import Range
from qnas.errors import ModelError
from qnas.quantization.quantizers import dequantize, quantize

Floats = NDArray[np.float32]

few_examples = settings(max_examples=60, deadline=None)
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
ordinary = st.floats(-1000, 1000, width=32)
any_values = arrays(np.float32, st.integers(1, 60), elements=finite)
values = st.one_of(any_values, arrays(np.float32, st.integers(1, 60), elements=ordinary))
seeds = st.integers(0, 2**32 - 1)


def histogram_of(x: Floats) -> Histogram:
    histogram = Histogram()
    histogram.update(x)
    return histogram


def error(x: Floats, found: Range) -> float:
    """Root mean square of what the uint8 grid of `found` makes wrong."""
    params = found.params()
    return float(np.sqrt(np.square(dequantize(quantize(x, params), params).astype(np.float64) - x).mean()))


def parts_of(x: Floats, seed: int) -> list[Floats]:
    """x, shuffled and divided somewhere."""
    generator = np.random.default_rng(seed)
    cuts = np.sort(generator.integers(0, len(x) + 1, generator.integers(0, 5)))
    return np.split(generator.permutation(x), cuts)


# Ranges


def test_a_range_has_255_steps_and_zero_on_one_of_256_levels() -> None:
    params = Range(-1.0, 3.0).params()
    assert params.scale == np.float32(4 / 255)
    assert (params.zero_point, params.low, params.high) == (64, 0, 255)  # 1 / (4 / 255) = 63.75


def test_the_range_of_pixels_is_their_own_grid() -> None:
    params = Range(0.0, 255.0).params()
    assert (float(params.scale), params.zero_point) == (1.0, 0)


@pytest.mark.parametrize(("low", "high"), [(2.0, 6.0), (0.0, 6.0)])
def test_a_range_above_zero_starts_at_zero(low: float, high: float) -> None:
    assert Range(low, high).with_zero() == Range(0.0, 6.0)
    assert Range(low, high).params() == Range(0.0, 6.0).params()


def test_a_range_below_zero_ends_at_zero() -> None:
    assert Range(-6.0, -2.0).with_zero() == Range(-6.0, 0.0)
    assert Range(-6.0, -2.0).params().zero_point == 255


def test_fewer_bits_have_fewer_levels() -> None:
    params = Range(0.0, 30.0).params(bits=4)
    assert (float(params.scale), params.high) == (2.0, 15)


def test_nothing_but_zero_has_steps_of_one() -> None:
    params = Range(0.0, 0.0).params()
    assert (float(params.scale), params.zero_point) == (1.0, 0)


@pytest.mark.parametrize("ends", [(1.0, 0.0), (np.nan, 1.0), (0.0, np.inf)])
def test_ends_that_are_no_range_are_refused(ends: tuple[float, float]) -> None:
    with pytest.raises(ModelError, match="no range"):
        Range(*ends)


@few_examples
@given(arrays(np.float32, st.integers(1, 20), elements=ordinary))
def test_no_value_of_a_range_is_further_than_half_a_step_from_its_level(x: Floats) -> None:
    params = Range(float(x.min()), float(x.max())).params()
    miss = np.abs(dequantize(quantize(x, params), params) - x)
    assert miss.max() <= 0.5 * params.scale * (1 + 1e-4)
    assert dequantize(np.array([params.zero_point], np.int32), params) == 0


# The histogram


def test_a_bin_counts_the_values_of_one_width() -> None:
    histogram = histogram_of(np.array([0.0, 1.0, -1.0, 0.5, 2**-15, -(2**-14)], np.float32))
    found, counts, width = histogram.occupied()
    assert width == 2**-13  # 2**14 of them reach beyond 1
    assert found.tolist() == [-1 - width / 2, 0.0, 0.5 + width / 2, 1 + width / 2]
    assert counts.tolist() == [1, 3, 1, 1]


def test_what_grows_merges_pairs_of_bins() -> None:
    histogram = histogram_of(np.array([0.5, 0.5 + 2**-14, 0.5 + 2**-13, -0.5], np.float32))
    assert histogram.occupied()[1].tolist() == [1, 1, 1, 1]
    histogram.update(np.array([1.0], np.float32))
    assert histogram.occupied()[1].tolist() == [1, 2, 1, 1]


def test_a_histogram_may_be_read_in_fewer_bins() -> None:
    histogram = histogram_of(np.array([0.1, 0.3, 0.6, 0.7, -0.1], np.float32))
    found, counts, width = histogram.occupied(side=2)
    assert (found.tolist(), counts.tolist(), width) == ([0.0, 0.75], [3, 2], 0.5)


@few_examples
@given(values, seeds)
def test_neither_order_nor_division_changes_a_histogram(x: Floats, seed: int) -> None:
    whole, merged = histogram_of(x), Histogram()
    for part in parts_of(x, seed):
        merged.merge(histogram_of(part))
    in_turn = Histogram()
    for part in parts_of(x, seed + 1):
        in_turn.update(part)
    for other in (merged, in_turn):
        assert (other.low, other.high, other.exponent) == (whole.low, whole.high, whole.exponent)
        assert np.array_equal(other.counts, whole.counts)
    assert whole.total == len(x)


@few_examples
@given(values)
def test_a_value_is_less_than_a_bin_away_from_what_stands_for_it(x: Floats) -> None:
    found, counts, width = histogram_of(x).occupied()
    kept = np.repeat(found, counts)
    peak = float(np.abs(x.astype(np.float64)).max())
    assert np.abs(kept - np.sort(x.astype(np.float64))).max() < width
    assert width <= peak * 2**-13 or peak < 2**-112  # there widths end


def test_memory_is_that_of_the_bins_whatever_came() -> None:
    histogram = Histogram()
    for magnitude in (1e-30, 1.0, 1e30):
        histogram.update(np.linspace(-magnitude, magnitude, 200_000, dtype=np.float32))
        assert histogram.state_bytes == 8 * (2 * 2**14 - 1)


# What makes ranges


@few_examples
@given(values, st.sampled_from([50.0, 90.0, 99.9, 99.999, 100.0]))
def test_percentiles_are_numpys_but_for_a_bin(x: Floats, percent: float) -> None:
    histogram = histogram_of(x)
    found = percentile(histogram, percent)
    wanted = np.percentile(x.astype(np.float64), [100 - percent, percent])
    assert np.abs(np.array([found.low, found.high]) - wanted).max() < histogram.width


def test_a_percentile_gives_up_what_is_rare() -> None:
    x = np.append(np.linspace(-1, 1, 1_000_001), [50.0]).astype(np.float32)
    assert percentile(histogram_of(x)).high == pytest.approx(1.0, abs=0.01)
    assert percentile(histogram_of(x), 100.0) == Range(-1.0, 50.0)


@few_examples
@given(values)
def test_the_range_of_least_error_is_not_worse_than_min_max(x: Floats) -> None:
    histogram = histogram_of(x)
    full, found = RULES["min-max"](histogram), RULES["mse"](histogram)
    assert error(x, found) <= error(x, full) * (1 + 1e-5) + 2 * histogram.width  # one for each estimate


@pytest.mark.parametrize(
    ("name", "ends"),
    # Banner et al., Post training 4-bit quantization of convolutional networks (ACIQ), 2019: best clipping
    # of a unit Gaussian and a unit Laplace distribution to 8 bits.
    [("standard_normal", 3.92), ("laplace", 9.89)],
)
def test_the_range_of_least_error_is_the_known_optimum(name: str, ends: float) -> None:
    generator = np.random.default_rng(0)
    x = (generator.standard_normal if name == "standard_normal" else generator.laplace)(size=1_000_000)
    found = RULES["mse"](histogram_of(x.astype(np.float32)))
    assert [-found.low, found.high] == pytest.approx([ends, ends], rel=0.05)


def test_both_ends_move_alone() -> None:
    generator = np.random.default_rng(0)
    x = np.where(
        generator.random(500_000) < 0.2, -0.1 * generator.random(500_000), generator.exponential(size=500_000)
    )
    histogram = histogram_of(x.astype(np.float32))
    for rule in ("mse", "entropy"):
        found = RULES[rule](histogram)
        assert -0.11 < found.low < -0.05
        assert 8 < found.high < histogram.high


@pytest.mark.parametrize("rule", ["mse", "entropy"])
def test_what_has_no_tails_keeps_its_range(rule: str) -> None:
    x = np.linspace(-1, 2, 300_001).astype(np.float32)
    found = RULES[rule](histogram_of(x))
    assert [found.low, found.high] == pytest.approx([-1, 2], abs=0.01)


def test_entropy_gives_up_a_lone_outlier_and_zeros_do_not_matter_to_it() -> None:
    body = np.abs(np.random.default_rng(0).standard_normal(200_000))
    x = np.append(body, [20.0]).astype(np.float32)
    found = RULES["entropy"](histogram_of(x))
    assert 3 < found.high < 6
    many_zeros = np.append(x, np.zeros(1_000_000, np.float32))
    assert RULES["entropy"](histogram_of(many_zeros)) == found


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("value", "wanted"), [(0.0, Range(0, 0)), (0.75, Range(0, 0.75)), (-3.0, Range(-3, 0))]
)
def test_a_constant_tensor_has_a_range_that_reaches_it(rule: str, value: float, wanted: Range) -> None:
    assert RULES[rule](histogram_of(np.full((2, 3, 4), value, np.float32))).with_zero() == wanted


# All observers


@few_examples
@given(values, seeds, st.sampled_from(sorted(set(OBSERVERS) - {"moving-average"})))
def test_observers_give_one_range_for_every_order_and_division(x: Floats, seed: int, name: str) -> None:
    whole, merged = OBSERVERS[name](), OBSERVERS[name]()
    whole.update(x)
    for part in parts_of(x, seed):
        other = OBSERVERS[name]()
        other.update(part)
        merged.merge(other)
    assert merged.range() == whole.range()


@few_examples
@given(arrays(np.float32, st.tuples(st.integers(1, 12), st.just(3)), elements=finite), st.integers(0, 12))
def test_a_moving_average_is_the_same_however_images_are_divided(x: Floats, cut: int) -> None:
    whole, front, back = MovingAverage(), MovingAverage(), MovingAverage()
    whole.update(x)
    front.update(x[:cut])
    back.update(x[cut:])
    front.merge(back)
    assert front.range() == whole.range()


def test_a_moving_average_goes_a_hundredth_of_the_way_to_each_image() -> None:
    average = MovingAverage()
    average.update(np.array([[0.0, 1.0], [-1.0, 2.0], [0.0, 1.01]], np.float32))
    assert (average.range().low, average.range().high) == pytest.approx((-0.0099, 1.01))


def test_a_moving_average_forgets() -> None:
    average = MovingAverage()
    for _ in range(3):
        average.update(np.ones((REMEMBERED, 1), np.float32))
    assert average.ends.nbytes == average.state_bytes


@pytest.mark.parametrize("name", OBSERVERS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(name: str, bad: float) -> None:
    x = np.zeros((1, 200_000), np.float32)
    x[0, 123_456] = bad
    with pytest.raises(ModelError, match="NaN or infinite"):
        OBSERVERS[name]().update(x)


@pytest.mark.parametrize("name", OBSERVERS)
def test_an_observer_of_nothing_says_so(name: str) -> None:
    observer = OBSERVERS[name]()
    observer.update(np.zeros((0, 3), np.float32))
    observer.merge(OBSERVERS[name]())
    with pytest.raises(ModelError, match="at least one image"):
        observer.range()


@pytest.mark.parametrize("make", [Histogram, MinMax])
def test_values_may_lie_in_any_order_in_memory(make: Callable[[], Observer]) -> None:
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    straight, turned = make(), make()
    straight.update(x)
    turned.update(x.transpose(2, 0, 1)[::-1])
    assert straight.range() == turned.range() == Range(0, 23)


def test_names_of_observers_are_the_documented_ones() -> None:
    assert list(OBSERVERS) == ["min-max", "percentile", "mse", "entropy", "moving-average"]
    assert [name for name in OBSERVERS if name in RULES] == list(RULES)


def test_wider_candidates_win_when_costs_are_equal() -> None:
    ranges = [RULES["mse"](histogram_of(np.array([0.0, peak], np.float32))) for peak in (1.0, 2.0, 4.0)]
    assert all(b.high == 2 * a.high for a, b in pairwise(ranges))
