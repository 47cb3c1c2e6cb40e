"""Every kind of image file is read as uint8 RGB or refused by name."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qnas.errors import ImageError, OutputError, UsageError
from qnas.images.files import (
    FORMATS,
    crop_to_multiple,
    list_images,
    passed_over,
    read_image,
    read_image_with_alpha,
    write_png,
)
from qnas.images.samples import sample_photographs

COLOURS = np.array(
    [[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[10, 20, 30], [40, 50, 60], [70, 80, 90]]], np.uint8
)
GRAY = np.array([[0, 1, 128], [200, 254, 255]], np.uint8)
ALPHA = np.array([[0, 64, 128], [192, 254, 255]], np.uint8)


def as_rgb(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray[:, :, None], 3, axis=2)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm"])
def test_rgb_is_read_unchanged(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(COLOURS).save(path)
    image, alpha = read_image_with_alpha(path)
    assert image.dtype == np.uint8
    assert np.array_equal(image, COLOURS)
    assert alpha is None


def test_webp_and_gif_are_read(tmp_path: Path) -> None:
    Image.fromarray(COLOURS).save(tmp_path / "a.webp", lossless=True)
    assert np.array_equal(read_image(tmp_path / "a.webp"), COLOURS)
    frames = [Image.fromarray(gray) for gray in (GRAY, 255 - GRAY)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert np.array_equal(read_image(tmp_path / "a.gif"), as_rgb(GRAY))  # the first frame


@pytest.mark.parametrize("suffix", ["png", "pgm", "tif"])
def test_gray_is_repeated_over_the_channels(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(GRAY).save(path)
    assert np.array_equal(read_image(path), as_rgb(GRAY))


def test_one_bit_becomes_black_and_white(tmp_path: Path) -> None:
    bits = np.array([[True, False, True]])
    Image.fromarray(bits).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), as_rgb(np.array([[255, 0, 255]], np.uint8)))


def test_alpha_is_dropped_and_the_colours_under_it_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.dstack([COLOURS, ALPHA])).save(path)
    assert np.array_equal(read_image(path), COLOURS)
    image, alpha = read_image_with_alpha(path)
    assert np.array_equal(image, COLOURS)
    assert alpha is not None
    assert np.array_equal(alpha, ALPHA)


def test_gray_with_alpha_keeps_both(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.dstack([GRAY, ALPHA])).save(path)
    image, alpha = read_image_with_alpha(path)
    assert np.array_equal(image, as_rgb(GRAY))
    assert alpha is not None
    assert np.array_equal(alpha, ALPHA)


@pytest.mark.parametrize("transparency", [None, 1, bytes([255, 0, 7])])
def test_a_palette_is_looked_up_and_its_transparency_becomes_alpha(
    tmp_path: Path, transparency: int | bytes | None
) -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.save(tmp_path / "a.png", transparency=transparency)
    with Image.open(tmp_path / "a.png") as written:
        assert written.mode == "P"
    colours, alpha = read_image_with_alpha(tmp_path / "a.png")
    assert np.array_equal(colours, COLOURS[:1])
    if transparency is None:
        assert alpha is None
    else:
        assert alpha is not None
        assert alpha.tolist() == [[255, 0, 255 if transparency == 1 else 7]]


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bit_gray_is_divided_by_257_and_rounded(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65406, 65407, 65535]], np.uint16)
    if suffix == "pgm":  # pillow writes it from version 11 on
        (tmp_path / "a.pgm").write_bytes(b"P5 8 1 65535\n" + values.astype(">u2").tobytes())
    else:
        Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    # 128/257 = 0.498, 129/257 = 0.502, 32768/257 = 127.502, 65406/257 = 254.498, 65407/257 = 254.502
    expected = np.array([[0, 0, 1, 1, 128, 254, 255, 255]], np.uint8)
    assert np.array_equal(read_image(tmp_path / f"a.{suffix}"), as_rgb(expected))


def test_the_transparent_value_of_16_bit_gray_becomes_alpha(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 500, 501]], np.uint16)).save(tmp_path / "a.png", transparency=500)
    alpha = read_image_with_alpha(tmp_path / "a.png")[1]
    assert alpha is not None
    assert alpha.tolist() == [[255, 0, 255]]


def test_cmyk_is_converted(tmp_path: Path) -> None:
    inks = np.array([[[0, 0, 0, 0], [255, 255, 255, 255]], [[255, 0, 0, 0], [0, 0, 0, 255]]], np.uint8)
    Image.frombytes("CMYK", (2, 2), inks.tobytes()).save(tmp_path / "a.tif")
    expected = [[[255, 255, 255], [0, 0, 0]], [[0, 255, 255], [0, 0, 0]]]
    assert read_image(tmp_path / "a.tif").tolist() == expected


@pytest.mark.parametrize(("kind", "mode"), [(np.float32, "F"), (np.int32, "I")])
def test_32_bit_pixels_are_refused_by_mode_and_file_name(tmp_path: Path, kind: type, mode: str) -> None:
    Image.fromarray(np.ones((2, 2), kind)).save(tmp_path / "deep.tif")
    with pytest.raises(ImageError, match=rf"deep\.tif has pixels of mode {mode}: convert"):
        read_image(tmp_path / "deep.tif")


def test_the_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show rotated 90 degrees clockwise
    Image.fromarray(COLOURS).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png"), np.rot90(COLOURS, -1))


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "ppm", "bmp", "gif"])
def test_a_truncated_file_is_refused_by_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"half.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match=rf"half\.{suffix} is"):
        read_image(path)


@pytest.mark.parametrize(
    "content", [b"", b"not an image", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"]
)
def test_what_is_no_image_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"odd\.png is not an image that can be read: use one of PNG"):
        read_image(path)


def test_a_missing_file_and_a_folder_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"gone\.png is not a file"):
        read_image(tmp_path / "gone.png")
    with pytest.raises(ImageError, match="is not a file"):
        read_image(tmp_path)


# Pillow takes the first, warns of the second, and refuses the third itself.
@pytest.mark.parametrize("side", [9_000, 10_000, 30_000])
def test_a_decompression_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, side: int) -> None:
    path = tmp_path / "bomb.bmp"
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
    path.write_bytes(b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header)
    with pytest.raises(ImageError, match=r"bomb\.bmp .*decompression bomb: cut it into parts"):
        read_image(path)


def test_an_image_of_8k_is_read(tmp_path: Path) -> None:
    Image.new("L", (7680, 4320)).save(tmp_path / "8k.png")
    assert read_image(tmp_path / "8k.png").shape == (4320, 7680, 3)


def test_list_images_sorts_and_leaves_out_what_is_no_image(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "notes.txt", ".hidden.png"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [file.name for file in list_images(tmp_path)] == ["a.jpg", "b.PNG"]


def test_list_images_refuses_an_empty_and_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"holds no image: put files of type \.png"):
        list_images(tmp_path)
    with pytest.raises(ImageError, match="gone is not a folder"):
        list_images(tmp_path / "gone")


def test_write_png_is_read_back_with_its_alpha(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", COLOURS, ALPHA)
    image, alpha = read_image_with_alpha(tmp_path / "a.png")
    assert np.array_equal(image, COLOURS)
    assert alpha is not None
    assert np.array_equal(alpha, ALPHA)


def test_write_png_refuses_other_names_and_existing_files(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"end in \.png"):
        write_png(tmp_path / "a.jpg", COLOURS)
    write_png(tmp_path / "a.png", COLOURS)
    with pytest.raises(OutputError, match="--force"):
        write_png(tmp_path / "a.png", COLOURS + 1)
    assert np.array_equal(read_image(tmp_path / "a.png"), COLOURS)
    write_png(tmp_path / "a.png", COLOURS + 1, force=True)
    assert np.array_equal(read_image(tmp_path / "a.png"), COLOURS + 1)


def test_crop_to_multiple_cuts_right_and_bottom() -> None:
    image = np.arange(7 * 10, dtype=np.uint8).reshape(7, 10)
    assert np.array_equal(crop_to_multiple(image, 4), image[:4, :8])
    with pytest.raises(ImageError, match="10x7 pixels is smaller than 8"):
        crop_to_multiple(image, 8)


def test_the_sample_photographs_are_five_rgb_images() -> None:
    pytest.importorskip("skimage", reason="scikit-image is not installed")
    photographs = dict(sample_photographs())
    assert {name: image.shape for name, image in photographs.items()} == {
        "astronaut": (512, 512, 3),
        "chelsea": (300, 451, 3),
        "coffee": (400, 600, 3),
        "rocket": (427, 640, 3),
        "motorcycle": (500, 741, 3),
    }


def test_without_scikit_image_the_pip_command_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qnas.images.samples.find_spec", lambda _: None)
    with pytest.raises(UsageError, match="pip install scikit-image"):
        sample_photographs()


def test_folders_and_types_that_are_passed_over_are_counted(tmp_path: Path) -> None:
    for name in ("a.heic", "b.heic", "c.CR2", "notes.txt", ".hidden.heic"):
        (tmp_path / name).write_bytes(b"")
    for name in ("one", "two", ".git"):
        (tmp_path / name).mkdir()
    assert passed_over(tmp_path) == (
        f"folders inside {tmp_path} are not read, and there are 2 (one, two): name them too",
        f"images in {tmp_path} are of types that are not read (2 .heic, 1 .cr2): save them as PNG",
    )
    with pytest.raises(ImageError, match=r"holds no image: .*; folders inside .*; images in "):
        list_images(tmp_path)


@pytest.mark.skipif("AVIF" not in FORMATS, reason="this Pillow reads no AVIF")
def test_avif_is_read_where_pillow_reads_it(tmp_path: Path) -> None:
    pixels = np.full((32, 48, 3), (200, 90, 30), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.avif", quality=100)
    (found,) = list_images(tmp_path)
    assert np.abs(read_image(found).astype(int) - pixels).max() <= 3
