"""Batches are a function of (seed, step), LR and HR show the same place, and memory keeps its bound."""

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qnas.errors import ImageError, OutputError
from qnas.images.files import write_png
from qnas.quantization.quantizers import GREY_LEVEL
from qnas.search.training.data import Ahead, Crops, load_crops
from qnas.search.training.decoded import cache_folder
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


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of decoded images, which is not there yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return cache_folder()


def noise_images(folder: Path, *sizes: tuple[int, int]) -> Path:
    folder.mkdir()
    for k, size in enumerate(sizes):
        write_png(folder / f"{k}.png", np.random.default_rng(k).integers(0, 256, (*size, 3), dtype=np.uint8))
    return folder


LARGE = (
    (500, 600),
    (450, 333),
    (40, 40),
    (2, 700),
)  # 1.5 MB and more; the last is smaller than a pixel of LR


def test_images_beyond_the_bound_are_mapped_whole_and_batches_are_those_of_memory(
    tmp_path: Path, cache: Path
) -> None:
    folder = noise_images(tmp_path / "images", *LARGE)
    inside, outside = (load_crops([folder], scale=4, patch=8, cache_mib=mib) for mib in (8, 1))
    assert [image.shape for image in outside.hr] == [(500, 600, 3), (448, 332, 3), (40, 40, 3)]
    assert all(isinstance(image, np.memmap) for image in (*outside.lr, *outside.hr))
    assert not any(isinstance(image, np.memmap) for image in inside.hr)
    for step in range(20):
        ours, theirs = (crops.batch(3, step, 4, 8) for crops in (outside, inside))
        assert all(map(torch.equal, ours, theirs))
    with pytest.raises(ValueError, match="read-only"):
        outside.hr[0][0, 0, 0] = 1


def test_images_are_decoded_once_for_all_runs(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = noise_images(tmp_path / "images", *LARGE)
    load_crops([folder], scale=4, patch=8, cache_mib=1)
    (file,) = cache.glob("*.pixels")
    number = file.stat().st_ino
    load_crops([folder], scale=4, patch=9, cache_mib=1)
    assert [each.stat().st_ino for each in cache.glob("*.pixels")] == [number]
    load_crops([folder], scale=2, patch=8, cache_mib=1)
    write_png(folder / "2.png", gradient(44, 44), force=True)
    crops = load_crops([folder], scale=4, patch=8, cache_mib=1)
    assert crops.hr[2].shape == (44, 44, 3)
    assert len(list(cache.glob("*.pixels"))) == 3
    file.write_bytes(file.read_bytes()[:-1])  # as a broken disk leaves it
    before = np.random.default_rng(2).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    write_png(folder / "2.png", before, force=True)
    assert load_crops([folder], 4, 8, 1).hr[2].shape == (40, 40, 3)
    monkeypatch.setattr("qnas.search.training.decoded.CACHE_BYTES", 2 * 10**6)
    load_crops([folder], scale=3, patch=8, cache_mib=1)
    assert len(list(cache.glob("*.pixels"))) == 1  # the new one


KILLED = """
import os, signal, sys
from pathlib import Path
import qnas.search.training.decoded as d

shrink = d.shrink

def killing(hr, scale):
    if hr.shape[0] < 450:
        os.kill(os.getpid(), signal.SIGKILL)
    return shrink(hr, scale)

d.decoded(sorted(Path(sys.argv[1]).iterdir())[:1], 4, 0)
d.shrink = killing
d.decoded(sorted(Path(sys.argv[1]).iterdir()), 4, 0)
"""


def test_a_process_killed_while_it_decodes_leaves_nothing_that_others_take(
    tmp_path: Path, cache: Path
) -> None:
    folder = noise_images(tmp_path / "images", *LARGE)
    command = [sys.executable, "-c", KILLED, str(folder)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert len(list(cache.glob("*.pixels"))) == 1
    assert len(list(cache.glob(".qnas-*.part"))) == 1  # half written
    assert len(load_crops([folder], 4, 8, 1).hr) == 3
    assert not list(cache.glob(".qnas-*.part"))


DIGEST = """
import hashlib, sys
from pathlib import Path
from qnas.search.training.decoded import decoded

pairs = decoded(sorted(Path(sys.argv[1]).iterdir()), 4, 0)
print(hashlib.sha256(b"".join(image.tobytes() for pair in pairs for image in pair)).hexdigest())
"""


def test_processes_at_once_have_the_same_images(tmp_path: Path, cache: Path) -> None:
    folder = noise_images(tmp_path / "images", *LARGE)
    runs = [
        subprocess.Popen([sys.executable, "-c", DIGEST, str(folder)], stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    assert len({run.communicate()[0] for run in runs}) == 1
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert len(list(cache.glob("*.pixels"))) == 1


def test_a_cache_that_cannot_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(write_file(tmp_path / "file")))
    with pytest.raises(OutputError, match="cannot make the folder"):
        load_crops([noise_images(tmp_path / "images", *LARGE)], 4, 8, 1)


def write_file(path: Path) -> Path:
    path.write_bytes(b"x")
    return path


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_batches_made_ahead_are_those_of_their_steps(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = Ahead(aligned(), torch.device("cpu"))
    if kind == "cuda":  # the thread, without a GPU
        monkeypatch.setattr(ahead, "_thread", ThreadPoolExecutor(1))
    for step in (0, 1, 2, 7, 8, 3):
        assert all(map(torch.equal, ahead.batch(5, step, 4, 6), aligned().batch(5, step, 4, 6)))


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
        ImageError, match=r"no image in .*photographs holds a 80x80 crop: use a smaller --patch"
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
