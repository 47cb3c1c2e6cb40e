"""The numpy definition of quantization: rounding, ranges, short scales, Lloyd's levels."""

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qnas.quantization.lloyd import hwgq_levels, hwgq_step
from qnas.quantization.quantizers import (
    IMAGE,
    IMAGE_RESIDUAL,
    SMALLEST_SCALE,
    WEIGHT_SCALE_BITS,
    QuantParams,
    QuantSpec,
    best_power_of_two,
    best_weight_scale,
    dequantize,
    lsq_initial_scale,
    quantize,
    snap_scale,
    weight_spec,
)

BITS = st.integers(2, 8)
SPECS = st.builds(QuantSpec, BITS, st.booleans())
UNIT = hnp.arrays(np.float32, 20, elements=st.floats(-1, 1, width=32, allow_subnormal=False))
SHORT_SCALES = st.builds(lambda m, e: m * 2.0**e, st.integers(8, 15), st.integers(-16, 4))


def f32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_ties_round_to_the_even_integer() -> None:
    params = QuantParams.weight(weight_spec(8), np.float32(2))
    assert quantize(f32(-5, -3, -1, 1, 3, 5), params).tolist() == [-2, -2, 0, 0, 2, 2]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (QuantParams.activation(QuantSpec(8, signed=False), 0.5), (0, 0, 255)),
        (QuantParams.activation(QuantSpec(4, signed=False), 0.5), (0, 0, 15)),
        (QuantParams.activation(QuantSpec(8, signed=True), 0.5), (128, 0, 255)),
        (QuantParams.activation(QuantSpec(4, signed=True), 0.5), (8, 0, 15)),
        (QuantParams.weight(weight_spec(8), f32(1, 2)), (0, -127, 127)),
        (QuantParams.weight(weight_spec(8, "paper"), f32(1, 2)), (0, -128, 127)),
        (QuantParams.weight(weight_spec(4), f32(1, 2)), (0, -8, 7)),
        (QuantParams.weight(weight_spec(2), f32(1, 2)), (0, -2, 1)),
    ],
)
def test_activations_live_in_uint8_and_weights_around_zero(
    params: QuantParams, expected: tuple[int, int, int]
) -> None:
    assert (params.zero_point, params.low, params.high) == expected


def test_the_range_of_a_grid_is_that_of_its_integers_times_the_scale() -> None:
    params = QuantParams.activation(QuantSpec(4, signed=True), 0.25)
    ends = quantize(f32(-9, -2, 1.75, 9), params)
    assert ends.tolist() == [0, 0, 15, 15]
    assert dequantize(ends, params).tolist() == [-2, -2, 1.75, 1.75]


def test_every_channel_of_a_weight_has_its_own_scale() -> None:
    params = QuantParams.weight(weight_spec(4), f32(1, 0.5))
    weight = f32(3, 3).reshape(2, 1, 1, 1)
    assert quantize(weight, params).ravel().tolist() == [3, 6]
    assert dequantize(quantize(weight, params), params).ravel().tolist() == [3, 3]


def test_one_grey_level_is_one_step_of_an_image() -> None:
    image = QuantParams.activation(IMAGE, IMAGE.scale or 0)
    pixels = np.arange(256, dtype=np.int32)
    assert np.array_equal(quantize(dequantize(pixels, image), image), pixels)
    assert dequantize(pixels, image)[255] == 255 / 256
    assert (IMAGE_RESIDUAL.low, IMAGE_RESIDUAL.high, IMAGE_RESIDUAL.scale) == (-128, 127, 1 / 256)


@given(SPECS, SHORT_SCALES)
def test_quantizing_what_lies_on_the_grid_changes_nothing(spec: QuantSpec, scale: float) -> None:
    params = QuantParams.activation(spec, scale)
    q = np.arange(params.low, params.high + 1, dtype=np.int32)
    assert np.array_equal(quantize(dequantize(q, params), params), q)


@given(SPECS, st.integers(-12, 4), UNIT)
def test_inside_the_range_the_error_is_at_most_half_a_step(spec: QuantSpec, e: int, x: np.ndarray) -> None:
    scale = 2.0**e
    inside = np.clip(x * np.float32(scale * spec.high), scale * spec.low, None).astype(np.float32)
    params = QuantParams.activation(spec, scale)
    assert np.abs(dequantize(quantize(inside, params), params) - inside).max() <= scale / 2


@given(SHORT_SCALES, st.integers(-12, 4), st.integers(0, 255), st.integers(-128, 127))
def test_products_of_values_on_short_scales_are_exact_in_float32(
    s: float, e: int, q_x: int, q_w: int
) -> None:
    product = (np.float32(q_x) * np.float32(2.0**e)) * (np.float32(q_w) * np.float32(s))
    assert product.dtype == np.float32
    assert Fraction(float(product)) == q_x * q_w * Fraction(s) * Fraction(2) ** e


@given(
    hnp.arrays(np.int32, 30, elements=st.integers(0, 255)),
    hnp.arrays(np.int32, 30, elements=st.integers(-128, 127)),
    st.sampled_from([8, 9, 15]),
)
def test_sums_of_such_products_are_exact_in_any_order_below_two_to_the_24_steps(
    q_x: np.ndarray, q_w: np.ndarray, m: int
) -> None:
    assert 30 * 255 * 128 * 15 < 2**24
    products = q_x.astype(np.float32) * (q_w.astype(np.float32) * np.float32(m * 2.0**-9))
    exact = int((q_x * q_w).sum()) * m * 2.0**-9
    assert float(sum(products, np.float32(0))) == exact
    assert float(sum(products[::-1], np.float32(0))) == exact


@given(st.floats(2.0**-23, 2.0**20, width=32), st.integers(1, 7))
def test_a_snapped_scale_is_the_nearest_short_one(scale: float, bits: int) -> None:
    snapped = float(snap_scale(f32(scale), bits)[0])
    exponent = math.frexp(scale)[1]
    short = [m * 2.0 ** (exponent - bits) for m in range(2 ** (bits - 1), 2**bits + 1)]
    assert snapped in short
    assert abs(snapped - scale) == min(abs(s - scale) for s in short)


def test_one_bit_scales_are_powers_of_two_and_ties_go_to_the_even_mantissa() -> None:
    assert snap_scale(f32(2.9, 3.0, 3.1, 4.0, 0.3), 1).tolist() == [2, 4, 4, 4, 0.25]


def test_four_bit_scales_have_the_mantissas_eight_to_fifteen() -> None:
    assert snap_scale(f32(8.4, 8.6, 14.6, 15.6), WEIGHT_SCALE_BITS).tolist() == [8, 9, 15, 16]


def test_no_scale_is_snapped_to_zero_or_below() -> None:
    assert snap_scale(f32(0, -3, 1e-30, SMALLEST_SCALE), 4).tolist() == [SMALLEST_SCALE] * 4


def test_the_first_lsq_scale_is_twice_the_mean_over_the_root_of_the_largest_integer() -> None:
    weight = f32(1, -3, 7, 7).reshape(2, 2, 1, 1)
    expected = [2 * 2 / math.sqrt(7), 2 * 7 / math.sqrt(7)]
    assert lsq_initial_scale(weight, 4).tolist() == pytest.approx(expected)


# Max, Quantizing for minimum distortion, IRE Trans. Inf. Theory 6 (1960), table I: the positive half.
@pytest.mark.parametrize(
    ("bits", "published"),
    [
        (1, [0.4528, 1.510]),
        (2, [0.2451, 0.7560, 1.344, 2.152]),
        (3, [0.1284, 0.3881, 0.6568, 0.9424, 1.256, 1.618, 2.069, 2.733]),
    ],
)
def test_lloyd_levels_are_those_of_max_1960(bits: int, published: list[float]) -> None:
    assert hwgq_levels(bits) == pytest.approx(published, abs=6e-4)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_every_lloyd_level_is_the_centroid_of_its_cell(bits: int) -> None:
    levels = np.array(hwgq_levels(bits))
    middles = (levels[1:] + levels[:-1]) / 2
    edges = np.concatenate([[0], middles, [middles[-1] + 8]])
    parts = (np.arange(4000)[:, None] + 0.5) / 4000
    x = edges[:-1] + parts * np.diff(edges)  # numerically, where the code has the closed form
    density = np.exp(-(x**2) / 2)
    assert levels == pytest.approx((x * density).sum(axis=0) / density.sum(axis=0), rel=1e-5)


# The constants of the paper's released code stem from a Lloyd iteration that was stopped early: at 8 bits it
# was still far from the fixed point that the test above proves ours to be.
@pytest.mark.parametrize(
    ("bits", "released", "tolerance"),
    [(2, 0.6356366866, 1e-3), (3, 0.3720645814, 1e-3), (4, 0.2130560679, 1e-3), (8, 0.0203005678, 0.04)],
)
def test_hwgq_steps_are_near_the_released_constants(bits: int, released: float, tolerance: float) -> None:
    assert hwgq_step(bits) == pytest.approx(released, rel=tolerance)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_released_uniform_hwgq_is_our_quantizer_at_its_steps(bits: int, reference: Path) -> None:
    step = {2: 0.6356366866, 4: 0.2130560679, 8: 0.0203005678}[bits]
    vectors = np.load(reference / "quantizers.npz")
    params = QuantParams.activation(QuantSpec(bits, signed=False), step)
    ours = dequantize(quantize(vectors[f"hwgq{bits}_x"], params), params)
    np.testing.assert_allclose(ours, vectors[f"hwgq{bits}_y"], rtol=1e-6)


def test_the_best_power_of_two_clips_an_outlier_when_that_costs_less() -> None:
    x = np.append(np.full(1000, 0.25, np.float32), np.float32(3))
    # 1: 1000 * 0.25^2 = 62.5;  1/4: (3 - 3/4)^2 = 5.1;  1/8: (3 - 3/8)^2 = 6.9
    assert best_power_of_two(x, QuantSpec(2, signed=False)) == 0.25
    assert best_power_of_two(f32(1, 2, 3), QuantSpec(2, signed=False)) == 1
    assert best_power_of_two(f32(-1, 0.5), QuantSpec(2, signed=True)) == 0.5


def test_the_best_power_of_two_of_nothing_but_zeros_covers_one() -> None:
    assert best_power_of_two(f32(0, 0), QuantSpec(8, signed=True)) == 2**-7


def test_the_best_weight_scale_fits_each_channel_with_a_short_scale() -> None:
    weight = np.stack([np.arange(-7, 8), np.arange(-7, 8) * 0.375, np.zeros(15)]).astype(np.float32)
    scales = best_weight_scale(weight, 4)
    assert scales[:2].tolist() == [1, 0.375]  # 0.375 = 12 * 2^-5
    assert scales[2] > 0


@pytest.mark.parametrize("bits", [4, 8])
def test_the_best_weight_scale_is_short_and_beats_the_first_of_lsq(bits: int) -> None:
    weight = np.random.default_rng(0).normal(size=(8, 200)).astype(np.float32)
    best, first = (
        best_weight_scale(weight, bits),
        snap_scale(lsq_initial_scale(weight, bits), WEIGHT_SCALE_BITS),
    )
    assert np.array_equal(best, snap_scale(best, WEIGHT_SCALE_BITS))
    assert squared_error(weight, best, bits) < squared_error(weight, first, bits)


def squared_error(weight: np.ndarray, scale: np.ndarray, bits: int) -> float:
    params = QuantParams.weight(weight_spec(bits), scale)
    return float(np.square(dequantize(quantize(weight, params), params) - weight).sum())
