"""The representative set: the same from the same files wherever they lie, and back from its manifest."""

import itertools
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from qnas.calibration.patches.manifest import from_document, to_document
from qnas.calibration.patches.representative import RepresentativeSet, common_root, representative_set
from qnas.errors import ImageError
from qnas.images.files import crop_to_multiple, read_image, write_png
from qnas.images.resize import resize_bicubic


def noise(height: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six photographs of 40x56 pixels: with patches of 16, six of each fit side by side."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for k in range(6):
        write_png(folder / f"{k}.png", noise(40, 56, k))
    return folder


def pixels(images: RepresentativeSet) -> np.ndarray:
    return np.concatenate(list(images.batches(5)))


def names(images: RepresentativeSet) -> dict[str, str]:
    return {each.file: each.cause for each in images.skipped}


def test_patches_are_the_pixels_of_their_boxes_in_grey_levels(folder: Path) -> None:
    images = representative_set([folder], 16, 20)
    batches = list(images.batches(8))
    assert [batch.shape for batch in batches] == [(8, 16, 16, 3), (8, 16, 16, 3), (4, 16, 16, 3)]
    for crop, patch in zip(images.crops, np.concatenate(batches), strict=True):
        left, top, width, height = crop.box
        whole = read_image(folder / crop.file)
        assert patch.dtype == np.float32
        np.testing.assert_array_equal(patch, whole[top : top + height, left : left + width])


def test_patches_are_spread_evenly_over_the_files_and_over_what_there_is_of_them(folder: Path) -> None:
    write_png(folder / "large.png", noise(80, 80, 9))  # 25 patches, beside 6 x 6
    for count, expected in [(7, [1] * 7), (15, [2] * 6 + [3]), (50, [6] * 6 + [14]), (1000, [6] * 6 + [25])]:
        images = representative_set([folder], 16, count)
        shares = [sum(crop.file == file for crop in images.crops) for file in images.files]
        assert sorted(shares) == expected


def test_patches_of_a_file_do_not_overlap_and_lie_inside(folder: Path) -> None:
    images = representative_set([folder], (16, 24), 1000)
    for file in images.files:
        seen = np.zeros((40, 56), int)
        for left, top, width, height in (crop.box for crop in images.crops if crop.file == file):
            assert (width, height) == (24, 16)
            assert seen[top : top + height, left : left + width].shape == (16, 24)
            seen[top : top + height, left : left + width] += 1
        assert seen.max() == 1
        assert seen.sum() == 4 * 16 * 24


def test_patches_lie_elsewhere_in_every_file_and_with_every_seed(folder: Path) -> None:
    boxes = [crop.box for seed in range(10) for crop in representative_set([folder], 16, 6, seed=seed).crops]
    assert len(set(boxes)) > 40  # of 41 * 25 places


def test_without_a_count_every_file_gives_a_patch_and_there_are_256_where_they_fit(tmp_path: Path) -> None:
    for k in range(3):
        write_png(tmp_path / f"{k}.png", noise(160, 160, k))
    assert len(representative_set([tmp_path], 16).crops) == 256
    few = representative_set([tmp_path], 160)
    assert len(few.crops) == 3
    assert {crop.box for crop in few.crops} == {(0, 0, 160, 160)}


def test_a_larger_count_adds_patches_and_takes_none_away(folder: Path) -> None:
    sets = [set(representative_set([folder], 16, count).crops) for count in (1, 5, 13, 30)]
    assert all(small < large for small, large in itertools.pairwise(sets))


def test_the_set_depends_on_neither_order_nor_place_nor_names(folder: Path, tmp_path: Path) -> None:
    first = representative_set([folder], 16, 13, seed=3)
    files = list(folder.iterdir())
    random.Random(1).shuffle(files)
    assert representative_set(files, 16, 13, seed=3) == first
    assert representative_set([folder, files[0], folder / "." / files[1].name], 16, 13, seed=3) == first
    elsewhere = tmp_path / "some" / "where"
    shutil.copytree(folder, elsewhere)
    assert to_document(representative_set([elsewhere], 16, 13, seed=3)) == to_document(first)
    for file in elsewhere.iterdir():
        file.rename(file.with_name(f"{9 - int(file.stem)}.renamed.png"))
    renamed = representative_set([elsewhere], 16, 13, seed=3)
    assert [(crop.sha256, crop.box) for crop in renamed.crops] == [
        (crop.sha256, crop.box) for crop in first.crops
    ]
    assert representative_set([folder], 16, 13, seed=4) != first


def test_the_choice_is_a_hash_that_no_library_can_change(tmp_path: Path) -> None:
    (tmp_path / "a.ppm").write_bytes(b"P6 8 8 255\n" + bytes(range(192)))
    crops = representative_set([tmp_path], 3, 4).crops
    # sha256sum of the file, and of "0 <that> top", "... left", "... cell 0" to "... cell 3": by their first
    # 8 bytes, the first two are 1 and 0 modulo the 3 places of the grid, and the cells come as 2, 1, 3, 0.
    assert crops[0].sha256 == "ae3116b259025c73c3947b0841df74e12e443b47ffd319d7851632c1cdc68cc4"
    assert [crop.box for crop in crops] == [(0, 4, 3, 3), (3, 1, 3, 3), (3, 4, 3, 3), (0, 1, 3, 3)]


def test_several_folders_and_files_are_named_from_their_common_folder(tmp_path: Path) -> None:
    for k, place in enumerate(["a/x", "a/y", "b"]):
        (tmp_path / place).mkdir(parents=True)
        write_png(tmp_path / place / "same.png", noise(16, 16, k))
    images = representative_set(
        [tmp_path / "a" / "x", tmp_path / "a" / ".." / "a" / "y", tmp_path / "b" / "same.png"], 16
    )
    assert images.root == tmp_path
    assert set(images.files) == {"a/x/same.png", "a/y/same.png", "b/same.png"}
    assert common_root([tmp_path / "b" / "same.png"]) == tmp_path / "b"


def test_folders_within_a_folder_are_not_searched(folder: Path) -> None:
    (folder / "inner").mkdir()
    write_png(folder / "inner" / "x.png", noise(40, 56, 7))
    assert not any("inner" in file for file in representative_set([folder], 16).files)


def test_relative_paths_give_the_same_set(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = representative_set([folder], 16, 4)
    monkeypatch.chdir(folder.parent)
    assert representative_set([Path("photographs")], 16, 4) == first
    monkeypatch.chdir(folder)
    assert representative_set([Path(".")], 16, 4) == first
    assert len(representative_set([Path("1.png"), Path("../photographs/2.png")], 16, 4).files) == 2


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_lr_patches_of_hr_images_are_those_of_the_whole_image_made_small(tmp_path: Path, scale: int) -> None:
    write_png(tmp_path / "hr.png", noise(70, 91, 5))
    images = representative_set([tmp_path], 8, 3, hr_scale=scale)
    hr = crop_to_multiple(read_image(tmp_path / "hr.png"), scale)
    lr = resize_bicubic(hr, (70 // scale, 91 // scale))
    for crop, patch in zip(images.crops, pixels(images), strict=True):
        left, top, width, height = crop.box
        np.testing.assert_array_equal(patch, lr[top : top + height, left : left + width])


def test_a_network_of_one_channel_gets_the_luma_of_jpeg_and_gray_stays_gray(tmp_path: Path) -> None:
    write_png(tmp_path / "colour.png", noise(16, 16, 0))
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(gray).save(tmp_path / "gray.png")
    images = representative_set([tmp_path], 16, channels=1)
    found = dict(zip(images.files, pixels(images), strict=True))
    assert found["gray.png"].shape == (16, 16, 1)
    np.testing.assert_array_equal(found["gray.png"][:, :, 0], gray)
    with Image.open(tmp_path / "colour.png") as image:
        np.testing.assert_array_equal(found["colour.png"][:, :, 0], np.asarray(image.convert("L")))


def test_every_format_gives_patches(tmp_path: Path) -> None:
    suffixes = ["png", "jpg", "bmp", "tif", "webp", "ppm", "gif"]
    for k, suffix in enumerate(suffixes):
        Image.fromarray(noise(16, 16, k)).save(tmp_path / f"{k}.{suffix}")
    assert len(representative_set([tmp_path], 16).files) == len(suffixes)


def test_what_gives_no_patch_is_skipped_named_and_counted(folder: Path) -> None:
    (folder / "text.png").write_text("no image")
    (folder / "torn.png").write_bytes((folder / "0.png").read_bytes()[:3000])
    write_png(folder / "small.png", noise(15, 100, 9))
    write_png(folder / "black.png", np.zeros((40, 40, 3), np.uint8))
    Image.fromarray(np.full((40, 40, 3), (1, 2, 9), np.uint8)).save(folder / "lens-cap.jpg")
    shutil.copy(folder / "1.png", folder / "copy.png")
    Image.fromarray(read_image(folder / "2.png")).save(folder / "zz.bmp")  # other bytes, equal pixels
    images = representative_set([folder], 16)
    assert set(images.files) == {f"{k}.png" for k in range(6)}
    assert names(images) == {
        "text.png": "unreadable",
        "torn.png": "unreadable",
        "small.png": "small",
        "black.png": "flat",
        "lens-cap.jpg": "flat",
        "copy.png": "duplicate",
        "zz.bmp": "duplicate",
    }
    lines = images.notices()
    assert len(lines) == 4
    assert lines[0].startswith(
        "2 skipped, cannot be read: text.png is not an image that can be read: use one of"
    )
    assert "; torn.png is damaged (" in lines[0]
    assert lines[1:] == (
        "1 skipped, smaller than a patch: small.png is 100x15 pixels",
        f"2 skipped, of a single colour: black.png is RGB [0, 0, 0] everywhere; {images.skipped[2].file} "
        f"{images.skipped[2].reason}",
        "2 skipped, named or stored twice: copy.png has the pixels of 1.png; zz.bmp has the pixels of 2.png",
    )
    assert str(folder) not in json.dumps(to_document(images))


def test_an_image_of_one_row_of_detail_is_not_flat(tmp_path: Path) -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    image[0, 0, 2] = 3
    write_png(tmp_path / "a.png", image)
    assert len(representative_set([tmp_path], 16).crops) == 1


def test_an_hr_image_is_too_small_when_its_lr_image_is(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", noise(63, 200, 0))
    write_png(tmp_path / "b.png", noise(64, 200, 1))
    images = representative_set([tmp_path], 16, hr_scale=4)
    assert images.files == ("b.png",)
    assert images.skipped[0].reason == "is 50x15 pixels after shrinking by 4"


def test_a_notice_names_three_files_and_counts_the_rest(folder: Path) -> None:
    for k in range(5):
        write_png(folder / f"small-{k}.png", noise(8, 8, k))
    (line,) = representative_set([folder], 16).notices()
    assert line.startswith("5 skipped, smaller than a patch: small-0.png is 8x8 pixels; small-1.png is 8x8")
    assert line.endswith("; small-2.png is 8x8 pixels; and 2 more")


def test_no_image_left_is_an_error_that_says_why(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", noise(20, 20, 0))
    write_png(tmp_path / "b.png", np.zeros((200, 200, 3), np.uint8))
    message = (
        r"^none of 2 images can be used; 1 skipped, smaller than a patch: a\.png is 20x20 pixels; "
        r"1 skipped, of a single colour: b\.png is RGB \[0, 0, 0\] everywhere: "
        r"name other images, or use a patch smaller than 96x96$"
    )
    with pytest.raises(ImageError, match=message):
        representative_set([tmp_path])


def test_a_path_that_is_not_there_is_an_error_and_no_skipped_image(folder: Path) -> None:
    with pytest.raises(ImageError, match=r"gone does not exist: name an image or a folder of images"):
        representative_set([folder, folder / "gone"], 16)
    (folder / "empty").mkdir()
    with pytest.raises(ImageError, match="empty holds no image"):
        representative_set([folder, folder / "empty"], 16)


def test_progress_is_told_of_every_file(folder: Path) -> None:
    heard: list[tuple[int, int]] = []
    representative_set([folder], 16, progress=lambda done, total: heard.append((done, total)))
    assert heard == [(done, 6) for done in range(7)]


def test_each_file_is_decoded_once_in_the_choice_and_once_in_a_pass(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []
    real = read_image
    monkeypatch.setattr(
        "qnas.calibration.patches.representative.read_image",
        lambda path: (decoded.append(path.name), real(path))[1],
    )
    images = representative_set([folder], 16, 30)
    assert sorted(decoded) == [f"{k}.png" for k in range(6)]
    decoded.clear()
    assert len(list(images.batches(4))) == 8
    assert sorted(decoded) == [f"{k}.png" for k in range(6)]


def test_held_out_patches_share_no_file_with_the_calibration(folder: Path) -> None:
    whole = representative_set([folder], 16, 30)
    for share, files in [(0.0, 1), (0.25, 2), (0.5, 3), (1.0, 5)]:
        calibration, held_out = whole.split(share)
        assert len(held_out.files) == files
        assert set(calibration.files).isdisjoint(held_out.files)
        assert set(calibration.crops) | set(held_out.crops) == set(whole.crops)
        assert len(pixels(held_out)) == len(held_out.crops) == 5 * files
    assert whole.split(0.5) == representative_set([folder], 16, 30).split(0.5)
    held = {representative_set([folder], 16, 30, seed=seed).split(0.1)[1].files for seed in range(8)}
    assert len(held) > 1


def test_one_file_cannot_be_split(folder: Path) -> None:
    with pytest.raises(ImageError, match="only one image: name two or more"):
        representative_set([folder / "0.png"], 16).split(0.5)


def written(images: RepresentativeSet) -> Any:
    return json.loads(json.dumps(to_document(images)))


@pytest.mark.parametrize(("scale", "channels"), [(None, 3), (2, 1)])
def test_a_manifest_gives_the_set_back_bit_for_bit(folder: Path, scale: int | None, channels: Any) -> None:
    write_png(folder / "small.png", noise(8, 8, 9))
    images = representative_set([folder], 16, 11, seed=2, hr_scale=scale, channels=channels)
    again = from_document(written(images), "m.json", folder)
    assert again == images
    assert pixels(again).tobytes() == pixels(images).tobytes()
    assert again.split(0.3) == images.split(0.3)


def test_a_file_that_changed_or_is_gone_is_noticed_on_reading_and_in_a_pass(folder: Path) -> None:
    images = representative_set([folder], 16, 12)
    document = written(images)
    passing = images.batches(2)
    next(passing)
    last = folder / images.files[-1]
    write_png(last, noise(40, 56, 99), force=True)
    changed = rf"{last.name} has changed since .* \(its SHA-256 was [0-9a-f]{{64}}\): restore it"
    with pytest.raises(ImageError, match=changed):
        from_document(document, "m.json", folder)
    with pytest.raises(ImageError, match=changed):
        list(passing)
    last.unlink()
    with pytest.raises(ImageError, match=rf"{last.name} is missing"):
        from_document(document, "m.json", folder)
    with pytest.raises(ImageError, match=rf"{last.name} is missing"):
        list(images.batches(2))


def edited(document: Any, where: list[Any], value: Any) -> Any:
    inner = document
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    return document


@pytest.mark.parametrize(
    ("where", "value", "rule"),
    [
        (["more"], 1, "more is unknown, not one of seed, patch, channels, hr_scale, files, skipped"),
        (["seed"], "0", "seed is '0', not a whole number"),
        (["patch"], [16, 16.0], r"patch\[1\] is 16\.0, not a whole number from 1"),
        (["patch"], [0, 16], r"patch\[0\] is 0, not a whole number from 1"),
        (["channels"], True, "channels is True, not one of 1, 3"),
        (["hr_scale"], 0, "hr_scale is 0, not a whole number from 1 to 2147483647 or null"),
        (["files"], {}, "files is an object of 0, not a list"),
        (["skipped"], None, "skipped is None, not a list"),
        (["skipped"], [["a", "tired", "b"]], r"skipped\[0\]\[1\] is 'tired', not one of duplicate"),
        (["files", 0], [], r"files\[0\] is a list of 0, not an object"),
        (["files", 0, "file"], "../secret.png", r"files\[0\]: file is '../secret.png', not below its folder"),
        (["files", 0, "file"], "/etc/passwd", r"files\[0\]: file is '/etc/passwd', not below its folder"),
        (["files", 0, "file"], "", r"files\[0\]: file is '', not below its folder"),
        (["files", 0, "sha256"], "0" * 63, r"files\[0\]\.sha256 is '0.*0', not a text that matches"),
        (["files", 0, "boxes"], None, r"files\[0\]\.boxes is None, not a list"),
        (["files", 0, "boxes", 0], [0, 0, 16], r"files\[0\]\.boxes\[0\] is a list of 3, not a list of 4"),
        (
            ["files", 0, "boxes", 0],
            [-1, 0, 16, 16],
            r"files\[0\]\.boxes\[0\]\[0\] is -1, not a whole number from 0",
        ),
        (["files", 0, "boxes", 0], [0, 0, 16, 17], r"a box of .*\.png is \[0, 0, 16, 17\], not"),
    ],
)
def test_a_manifest_that_is_none_is_refused(folder: Path, where: list[Any], value: Any, rule: str) -> None:
    document = edited(written(representative_set([folder], 16, 6)), where, value)
    with pytest.raises(ImageError, match=rf"^m\.json: {rule}.*: write it again"):
        from_document(document, "m.json", folder)


def test_a_box_outside_its_image_is_refused(folder: Path) -> None:
    document = written(representative_set([folder], 16, 6))
    images = from_document(edited(document, ["files", 0, "boxes", 0], [41, 0, 16, 16]), "m.json", folder)
    with pytest.raises(ImageError, match=r"the patch \(41, 0, 16, 16\) is not inside .*png, of 56x40 pixels"):
        list(images.batches(1))


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.integers(4, 30), st.integers(4, 30)), min_size=1, max_size=4),
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.integers(1, 40),
    st.integers(0, 2**70),
)
def test_any_images_give_as_many_patches_as_fit_and_were_wanted(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[tuple[int, int]],
    patch: tuple[int, int],
    count: int,
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("images")
    for k, (height, width) in enumerate(sizes):
        Image.fromarray(noise(height, width, k)).save(folder / f"{k}.bmp")
    places = [(height // patch[0]) * (width // patch[1]) for height, width in sizes]
    if not any(places):
        with pytest.raises(ImageError, match="none of"):
            representative_set([folder], patch, count, seed)
        return
    images = representative_set([folder], patch, count, seed)
    assert len(set(images.crops)) == len(images.crops) == min(count, sum(places))
    assert pixels(images).shape == (len(images.crops), *patch, 3)
    assert len(images.skipped) == places.count(0)


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    image = noise(500, 500, 0)
    for k in range(40):
        image[0, 0, 0] = k
        Image.fromarray(image).save(tmp_path / f"{k}.bmp")
    program = f"""
import resource
from pathlib import Path
from qnas.calibration.patches.representative import representative_set
files = sorted(Path({str(tmp_path)!r}).iterdir())
peaks = []
for part in (files[:4], files):
    for batch in representative_set(part, 96).batches(16):
        pass
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(*peaks)
"""
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    few, many = map(int, output.split())
    assert many - few < 4 * 1024  # KiB: 36 images more are 26 MiB decoded
