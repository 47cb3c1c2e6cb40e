"""Batches are a function of (seed, step), LR and HR show the same place, and the cache keeps its bound."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qnas.errors import ImageError
from qnas.images.files import write_png
from qnas.quantization.quantizers import GREY_LEVEL
from qnas.search.training.data import MIB, Crops, load_crops
from qnas.torch.inference import to_network


def gradient(height: int, width: int) -> np.ndarray:
    """An image whose pixels tell where they are: red = row, green = column."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y, x, 0 * y], axis=2).astype(np.uint8)


def aligned() -> Crops:
    """LR [12, 20] of rows and columns, HR [24, 40] with each of its pixels four times."""
    lr = gradient(12, 20)
    return Crops((lr,), (lr.repeat(2, axis=0).repeat(2, axis=1),), 2)


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    crops = aligned()
    first = crops.batch(1, 5, 4, 6)
    crops.batch(1, 6, 4, 6)
    again = aligned().batch(1, 5, 4, 6)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    for seed, step in ((1, 6), (2, 5)):
        assert not torch.equal(first[0], crops.batch(seed, step, 4, 6)[0])


def test_lr_and_hr_crops_show_the_same_place_however_they_are_turned() -> None:
    lr, hr = aligned().batch(0, 0, 64, 5)
    assert lr.shape == (64, 3, 5, 5)
    assert hr.shape == (64, 3, 10, 10)
    assert torch.equal(hr[:, :, ::2, ::2], lr)
    assert torch.equal(hr[:, :, 1::2, 1::2], lr)


def test_crops_are_turned_and_mirrored_in_all_eight_ways() -> None:
    lr, _ = aligned().batch(0, 0, 200, 5)
    down = torch.sign(lr[:, :2, 1, 0] - lr[:, :2, 0, 0])  # how (row, column) change downwards,
    right = torch.sign(lr[:, :2, 0, 1] - lr[:, :2, 0, 0])  # and to the right
    assert len(torch.cat([down, right], dim=1).unique(dim=0)) == 8


def test_every_place_of_an_image_is_drawn() -> None:
    lr, _ = aligned().batch(0, 0, 500, 5)
    rows, columns = lr[:, 0].flatten(1).min(dim=1).values, lr[:, 1].flatten(1).min(dim=1).values
    assert (rows / GREY_LEVEL).unique().tolist() == list(range(8))  # 12 - 5 + 1
    assert (columns / GREY_LEVEL).unique().tolist() == list(range(16))


def test_images_are_drawn_in_proportion_to_their_area() -> None:
    large, small = np.zeros((30, 30, 3), np.uint8), np.full((10, 10, 3), 255, np.uint8)
    crops = Crops((large, small), (large.repeat(2, 0).repeat(2, 1), small.repeat(2, 0).repeat(2, 1)), 2)
    lr, _ = crops.batch(0, 0, 1000, 8)
    assert (lr.amax(dim=(1, 2, 3)) > 0).sum().item() == pytest.approx(100, abs=30)


def test_a_grey_level_becomes_two_to_the_minus_eight_in_channels_last() -> None:
    pixels = np.array([0, 1, 255], np.uint8).reshape(1, 1, 1, 3)
    tensor = to_network(pixels)
    assert tensor.dtype == torch.float32
    assert tensor.flatten().tolist() == [0, 1 / 256, 255 / 256]
    assert to_network(np.zeros((2, 5, 7, 3), np.uint8)).is_contiguous(memory_format=torch.channels_last)


def test_lr_images_are_the_shrunk_hr_ones_cut_to_a_multiple_of_the_scale(photographs: Path) -> None:
    crops = load_crops([photographs], scale=3, patch=8, cache_mib=1)
    assert [image.shape for image in crops.hr] == [(63, 72, 3)] * 3
    assert [image.shape for image in crops.lr] == [(21, 24, 3)] * 3
    assert np.abs(crops.lr[0].astype(int) - crops.hr[0][1::3, 1::3]).mean() < 3


def test_the_cache_keeps_its_bound_and_cuts_at_a_seeded_place(tmp_path: Path) -> None:
    for k in range(3):
        write_png(
            tmp_path / f"{k}.png", np.random.default_rng(k).integers(0, 256, (500, 600, 3), dtype=np.uint8)
        )
    write_png(tmp_path / "small.png", gradient(40, 40))
    crops = load_crops([tmp_path], scale=4, patch=8, cache_mib=1)
    held = sum(image.nbytes for image in (*crops.lr, *crops.hr))
    assert 0.6 * MIB < held <= MIB
    assert crops.hr[3].shape == (40, 40, 3)
    assert all(image.base is None for image in crops.hr[:3])  # no view that keeps the whole image alive
    again, other = (load_crops([tmp_path], 4, 8, 1, seed) for seed in (0, 1))
    assert np.array_equal(crops.hr[0], again.hr[0])
    assert not np.array_equal(crops.hr[0], other.hr[0])


def test_images_smaller_than_a_patch_are_left_out(photographs: Path) -> None:
    write_png(photographs / "narrow.png", gradient(200, 31))
    write_png(photographs / "tiny.png", gradient(2, 2))
    assert len(load_crops([photographs], scale=4, patch=8, cache_mib=1).lr) == 3


def test_several_folders_are_one_set(photographs: Path, tmp_path: Path) -> None:
    more = tmp_path / "more"
    more.mkdir()
    write_png(more / "a.png", gradient(64, 64))
    assert len(load_crops([photographs, more], scale=4, patch=8, cache_mib=1).lr) == 4


def test_nothing_left_is_an_error_with_advice(photographs: Path) -> None:
    with pytest.raises(
        ImageError, match=r"no image in .*photographs holds a 80x80 crop .*: use a smaller --patch"
    ):
        load_crops([photographs], scale=4, patch=20, cache_mib=1)


def sized(*sides: int) -> Crops:
    """Images whose pixels are all their own number."""
    lr = tuple(np.full((side, side, 3), k, np.uint8) for k, side in enumerate(sides))
    return Crops(lr, tuple(image.repeat(2, 0).repeat(2, 1) for image in lr), 2, "paper")


def numbers(crops: Crops) -> list[int]:
    assert [int(image[0, 0, 0]) for image in crops.lr] == [int(image[0, 0, 0]) for image in crops.hr]
    return [int(image[0, 0, 0]) for image in crops.lr]


@given(st.lists(st.integers(8, 60), min_size=2, max_size=12), st.integers(0, 9))
def test_halves_are_disjoint_whole_and_of_about_equal_area(sides: list[int], seed: int) -> None:
    first, second = sized(*sides).halves(seed)
    assert sorted(numbers(first) + numbers(second)) == list(range(len(sides)))
    assert first.lr
    assert second.lr
    areas = [sum(image.size for image in half.lr) for half in (first, second)]
    assert abs(areas[0] - areas[1]) <= max(3 * side**2 for side in sides)
    assert (first.scale, first.arithmetic, second.scale, second.arithmetic) == (2, "paper", 2, "paper")


def test_halves_are_seeded() -> None:
    crops = sized(*range(12, 24))
    assert numbers(crops.halves(1)[0]) == numbers(crops.halves(1)[0])
    assert len({tuple(sorted(numbers(crops.halves(seed)[0]))) for seed in range(5)}) > 1


def test_batches_of_one_half_show_no_image_of_the_other() -> None:
    first, second = sized(20, 18, 16, 14, 12, 10).halves(0)
    seen = [
        set((half.batch(0, 0, 100, 8)[0] * 255).round().unique().int().tolist()) for half in (first, second)
    ]
    assert seen == [set(numbers(first)), set(numbers(second))]


def test_one_image_has_no_halves() -> None:
    with pytest.raises(ImageError, match=r"a search needs two images or more, .*: add images"):
        sized(20).halves(0)
