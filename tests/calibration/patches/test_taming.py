"""Taming against contrasts worked out by hand, against its own definition, and on real networks."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from qnas.calibration.patches.taming import NEAR, PARTS, Taming, TamingCounts, shrink_contrast, tame
from qnas.calibration.prepare.float_model import Runner, read_float_model
from qnas.errors import ModelError
from qnas.images.evaluation import Batch
from qnas.images.samples import sample_photographs
from qnas.testing.sr_modules import espcn, export

STEP = 1 / PARTS


def sharpen(strength: float) -> Callable[[Batch], Batch]:
    """x -> x + strength (2 x - left - right), the borders repeated: at an edge of height d it overshoots by
    strength d on either side."""

    def outputs(x: Batch) -> Batch:
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)), mode="edge")
        return x + np.float32(strength) * (2 * x - padded[:, :, 2:] - padded[:, :, :-2])

    return outputs


def edge(left: float, right: float, channels: int = 3) -> Batch:
    """A patch [1, 4, 8, C] whose halves have two grey levels."""
    patch = np.full((1, 4, 8, channels), left, np.float32)
    patch[:, :, 4:] = right
    return patch


def inside(pixels: Batch, by: float = 0.0) -> NDArray[np.bool_]:
    """Whether images [N, H, W, C] are within half a grey level of 0..255, and that `by` grey levels."""
    return (pixels.min((1, 2, 3)) >= by - 0.5) & (pixels.max((1, 2, 3)) <= 255.5 - by)


def is_largest(found: float | None, a: float, slope: float) -> bool:
    """Whether `found` is the 1024th below `a`, or less by what takes NEAR off an output of that slope."""
    return found is not None and np.floor(a / STEP) * STEP - NEAR / slope <= found <= a


# Mean m, edge height d, strength s: contrast a makes halves m -+ a d / 2, and extremes m -+ a d (1/2 + s).
@pytest.mark.parametrize(
    ("left", "right", "strength", "a"),
    [
        (50, 250, 0.5, 105.5 / 200),  # m = 150, d = 200: 150 + 200 a <= 255.5 is the tighter one
        (5, 205, 0.5, 105.5 / 200),  # m = 105: 105 - 200 a >= -0.5
        (205, 5, 0.5, 105.5 / 200),
        (0, 255, 0.5, 128 / 255),
        (0, 255, 0.25, 128 / (255 * 0.75)),
        (250, 254, 0.5, 3.5 / 4),
    ],
)
def test_the_contrast_of_an_edge_is_the_one_worked_out_by_hand(
    left: float, right: float, strength: float, a: float
) -> None:
    taming = tame([edge(left, right)], sharpen(strength))
    assert is_largest(taming.contrasts[0], a, abs(right - left) * (0.5 + strength))
    (tamed,) = taming.tamed([edge(left, right)])
    middle, half = (left + right) / 2, (right - left) / 2
    found = float(taming.contrasts[0] or 0)
    np.testing.assert_allclose(
        tamed[0, 0, [0, 7], 0], [middle - found * half, middle + found * half], rtol=1e-6
    )
    assert taming.counts == TamingCounts(patches=1, untouched=0, tamed=1, low_contrast=0, flat=0)
    assert taming.notices() == ()


def test_an_edge_that_needs_less_than_half_its_contrast_is_dropped() -> None:
    taming = tame([edge(0, 255)], sharpen(1))  # 127.5 + 382.5 a <= 255.5: a = 0.3346
    assert is_largest(taming.contrasts[0], 128 / 382.5, 382.5)
    assert list(taming.tamed([edge(0, 255)])) == []
    assert taming.counts == TamingCounts(patches=1, untouched=0, tamed=0, low_contrast=1, flat=0)
    assert taming.notices() == ("1 of 1 patches dropped: in range only below a contrast of 0.5",)


def test_exactly_half_the_contrast_is_kept() -> None:
    assert Taming((512 / 1024, 511 / 1024), minimum=0.5).counts.tamed == 1
    kept = tame([edge(0, 252)], lambda x: x * 2 - 126, tolerance=0)  # 126 -+ 252 a within 0..255: a = 0.5
    assert is_largest(kept.contrasts[0], 0.5, 252)
    dropped = tame([edge(0, 255)], lambda x: x * 2 - 128, tolerance=0)  # 127 -+ 255 a: a = 127 / 255
    assert is_largest(dropped.contrasts[0], 127 / 255, 255)
    assert dropped.counts.low_contrast == 1


def test_the_mean_of_each_channel_stays_and_all_lose_the_same_contrast() -> None:
    patch = np.concatenate([edge(10, 30, 1), edge(60, 240, 1), edge(0, 200, 1)], axis=3)
    taming = tame([patch], sharpen(0.5))  # the third: 100 - 200 a >= -0.5, the second: 150 + 180 a <= 255.5
    (a,) = taming.contrasts
    assert a is not None
    assert is_largest(a, 100.5 / 200, 200)
    (tamed,) = taming.tamed([patch])
    np.testing.assert_allclose(tamed.mean((0, 1, 2)), [20, 150, 100], rtol=1e-6)
    np.testing.assert_allclose(np.ptp(tamed, axis=(0, 1, 2)), np.array([20, 180, 200]) * a, rtol=1e-6)
    assert np.any(tamed != np.rint(tamed))  # floats are kept


def test_the_tolerance_is_half_a_grey_level_and_it_counts_as_inside() -> None:
    def shift(by: float) -> float | None:
        return tame([edge(0, 255)], lambda x: x + np.float32(by)).contrasts[0]

    assert shift(0.5) == shift(-0.5) == 1.0
    assert is_largest(shift(0.75), 127.25 / 127.5, 127.5)  # 127.5 a <= 127.25
    assert is_largest(shift(-0.75), 127.25 / 127.5, 127.5)
    assert tame([edge(0, 255)], lambda x: x + 0.75, tolerance=0.75).contrasts == (1.0,)


def test_what_is_out_of_range_as_a_flat_colour_is_dropped_with_a_notice() -> None:
    bright = edge(248, 252)
    taming = tame([bright, edge(0, 100)], lambda x: x + 10)
    assert taming.contrasts == (None, 1.0)
    assert taming.counts == TamingCounts(patches=2, untouched=1, tamed=0, low_contrast=0, flat=1)
    assert taming.notices() == ("1 of 2 patches dropped: out of range even as a flat colour",)
    (kept,) = taming.tamed([np.concatenate([bright, edge(0, 100)])])
    np.testing.assert_array_equal(kept, edge(0, 100))


def test_a_colour_that_is_in_range_only_when_flat_counts_as_low_contrast() -> None:
    taming = tame([edge(10, 200)], lambda x: np.where(np.ptp(x, axis=(1, 2, 3), keepdims=True) > 0, 999, x))
    assert taming.contrasts == (0.0,)
    assert taming.counts.low_contrast == 1


def test_where_the_range_is_left_twice_the_contrast_found_is_at_an_end_of_it() -> None:
    def outputs(x: Batch) -> Batch:  # an edge of height 100 a: in range for a <= 0.25 and for 0.75 <= a < 1
        a = np.ptp(x, axis=(1, 2, 3), keepdims=True) / 100
        return np.where((a <= 0.25) | ((a >= 0.75) & (a < 1)), x, 999)

    assert tame([edge(50, 150)], outputs).contrasts == (0.25,)


def test_values_that_are_not_finite_are_an_error() -> None:
    for value in (np.nan, np.inf):
        with pytest.raises(ModelError, match="not finite"):
            tame([edge(0, 255)], lambda x, value=value: x + np.float32(value))


def test_offending_patches_of_many_batches_share_network_runs() -> None:
    sizes: list[int] = []

    def outputs(x: Batch) -> Batch:
        sizes.append(len(x))
        return sharpen(0.5)(x)

    batches = [np.concatenate([edge(100, 120)] * 7 + [edge(50, 250)]) for _ in range(8)]
    taming = tame(batches, outputs)
    assert sizes == [8] * len(sizes)
    assert len(sizes) <= 8 + 3  # where the network is linear, straight lines end soon
    assert taming.contrasts == ((1.0,) * 7 + taming.contrasts[7:8]) * 8
    assert is_largest(taming.contrasts[7], 105.5 / 200, 200)


def test_nothing_to_tame_is_nothing() -> None:
    assert tame([], sharpen(1)).counts == TamingCounts(0, 0, 0, 0, 0)
    assert list(Taming((), 0.5).tamed([])) == []


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.floats(0, 2), st.integers(1, 9), st.integers(1, 9))
def test_tamed_patches_are_in_range_by_the_largest_contrast_and_others_untouched(
    seed: int, strength: float, first: int, second: int
) -> None:
    generator = np.random.default_rng(seed)
    means, spreads = generator.uniform(0, 255, (12, 1, 1, 3)), generator.uniform(0, 128, (12, 1, 1, 1))
    patches = np.clip(np.rint(generator.normal(means, spreads, (12, 6, 7, 3))), 0, 255).astype(np.float32)
    outputs = sharpen(strength)
    taming = tame([patches[:first], patches[first:]] if first < 12 else [patches], outputs)
    assert taming == tame(np.array_split(patches, second), outputs)

    kept = [i for i, a in enumerate(taming.contrasts) if a is not None and a >= 0.5]
    tamed = dict(
        zip(kept, np.concatenate([patches[:0], *taming.tamed([patches[:5], patches[5:]])]), strict=True)
    )
    for i, a in enumerate(taming.contrasts):
        patch = patches[i : i + 1]
        if inside(outputs(patch)):
            assert a == 1
            assert tamed[i].tobytes() == patch.tobytes()
            continue
        assert a is not None  # a linear network that keeps flat colours brings every patch into the range
        assert a < 1
        assert inside(outputs(shrink_contrast(patch, np.array([a]))))
        near = not inside(outputs(shrink_contrast(patch, np.array([a]))), NEAR)
        assert near or not inside(outputs(shrink_contrast(patch, np.array([a + STEP]))))
        if a >= 0.5:
            np.testing.assert_array_equal(tamed[i], shrink_contrast(patch, np.array([a]))[0])
    counts = taming.counts
    assert counts.patches == 12 == counts.untouched + counts.tamed + counts.low_contrast + counts.flat
    assert len(kept) == counts.untouched + counts.tamed


@pytest.fixture(scope="module")
def photographs() -> Batch:
    """Patches [40, 24, 24, 3] of five photographs, from corner to corner."""
    return np.stack(
        [
            pixels[60 * k : 60 * k + 24 * 2 : 2, 24 * j : 24 * j + 24 * 2 : 2]
            for _, pixels in sample_photographs()
            for k in range(4)
            for j in (2, 7)
        ]
    ).astype(np.float32)


def test_a_real_network_without_a_clip_is_tamed_alike_on_one_thread_and_on_two(
    tmp_path: Path, photographs: Batch
) -> None:
    network = read_float_model(export(espcn(clip=False), tmp_path / "espcn.onnx"))
    outputs = Runner(network)
    taming = tame(np.array_split(photographs, 5), outputs)
    counts = taming.counts
    assert counts.untouched > 10
    assert counts.tamed > 10
    tamed = np.concatenate(list(taming.tamed(np.array_split(photographs, 3))))
    assert len(tamed) == counts.untouched + counts.tamed
    assert all(inside(outputs(patch[None])) for patch in tamed)
    assert tamed.min() >= 0
    assert tamed.max() <= 255
    assert tame(photographs[:, None], Runner(network, threads=2)) == taming
