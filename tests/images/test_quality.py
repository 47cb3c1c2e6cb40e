"""PSNR, SSIM and bicubic resizing against hand-computed values and the field's published baselines."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from qnas.errors import ImageError
from qnas.images.files import crop_to_multiple, list_images, read_image
from qnas.images.quality import luma, psnr_y, ssim_y
from qnas.images.resize import contributions, resize_bicubic
from qnas.testing.places import DATA


def bicubic_psnr(file: Path, luma_first: bool) -> float:
    image = crop_to_multiple(read_image(file), 4)
    height, width = image.shape[:2]
    if luma_first:  # Matlab's scripts take a gray file as its own luma, and round the luma of a colour file
        with Image.open(file) as opened:
            gray = opened.mode == "L"
        image = image[:, :, 0] if gray else np.rint(luma(image)).astype(np.uint8)
    small = resize_bicubic(image, (height // 4, width // 4))
    return psnr_y(resize_bicubic(small, (height, width)), image, border=4)


@pytest.mark.parametrize(
    ("name", "luma_first", "published"),
    [("Set5", True, 28.42), ("Set14", True, 26.00), ("Set5", False, 28.43), ("Set14", False, 26.09)],
)
def test_bicubic_x4_reproduces_the_published_psnr(name: str, luma_first: bool, published: float) -> None:
    if not (DATA / name).is_dir():
        pytest.skip(f"no {name} in {DATA}: set QNAS_DATA to the folder that holds it")
    values = [bicubic_psnr(file, luma_first) for file in list_images(DATA / name)]
    assert np.mean(values) == pytest.approx(published, abs=0.01)


def test_luma_of_black_white_and_primaries_is_that_of_bt601() -> None:
    colours = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    assert luma(colours)[0] == pytest.approx([16, 235, 81.481, 144.553, 40.966])


def test_psnr_of_a_constant_difference_is_that_of_its_square() -> None:
    a = np.full((20, 20), 100.0)
    assert psnr_y(a, a + 5, border=4) == pytest.approx(20 * math.log10(255 / 5))


def test_psnr_of_rgb_compares_luma_only() -> None:
    a = np.full((9, 9, 3), 100, np.uint8)
    b = a + np.array([0, 0, 51], np.uint8)  # 51 levels of blue are 51 * 24.966 / 255 = 4.9932 of luma
    assert psnr_y(a, b, border=1) == pytest.approx(20 * math.log10(255 / 4.9932))


def test_psnr_of_equal_images_is_infinite() -> None:
    a = np.arange(100.0).reshape(10, 10)
    assert psnr_y(a, a, border=0) == math.inf


def test_psnr_does_not_see_the_border() -> None:
    a = np.zeros((10, 10))
    b = a.copy()
    b[3, 5] = b[6, 2] = 255.0
    assert psnr_y(a, b, border=4) == math.inf
    assert psnr_y(a, b, border=3) == pytest.approx(10 * math.log10(16))  # one wrong pixel of the inner 4x4


def test_ssim_of_equal_images_is_one() -> None:
    a = np.random.default_rng(0).uniform(0, 255, (16, 20))
    assert ssim_y(a, a, border=2) == pytest.approx(1.0)


def test_ssim_of_two_constants_is_the_luminance_term() -> None:
    a, b = np.full((12, 12), 100.0), np.full((12, 12), 150.0)
    c1 = (0.01 * 255) ** 2  # both variances are zero, so the second factor is c2 / c2
    assert ssim_y(a, b, border=0) == pytest.approx((2 * 100 * 150 + c1) / (100**2 + 150**2 + c1))


def test_ssim_of_one_window_is_the_formula_with_gaussian_weights() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.uniform(0, 255, (2, 11, 11))
    rows, columns = np.mgrid[-5:6, -5:6]
    weights = np.exp(-(rows**2 + columns**2) / (2 * 1.5**2))
    weights /= weights.sum()
    mean_x, mean_y = (weights * x).sum(), (weights * y).sum()
    variances = (weights * (x - mean_x) ** 2).sum() + (weights * (y - mean_y) ** 2).sum()
    covariance = (weights * (x - mean_x) * (y - mean_y)).sum()
    c1, c2 = 2.55**2, 7.65**2
    expected = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    expected /= (mean_x**2 + mean_y**2 + c1) * (variances + c2)
    assert ssim_y(x, y, border=0) == pytest.approx(expected)


def test_images_of_different_size_are_refused() -> None:
    with pytest.raises(ImageError, match="8x6 and 6x8"):
        psnr_y(np.zeros((6, 8)), np.zeros((8, 6)), border=0)


@pytest.mark.parametrize(("metric", "side"), [(psnr_y, 8), (ssim_y, 18)])
def test_an_image_that_the_border_leaves_nothing_of_is_refused(metric: object, side: int) -> None:
    assert callable(metric)
    metric(np.zeros((side + 1, side + 1)), np.zeros((side + 1, side + 1)), border=4)
    with pytest.raises(ImageError, match="too small for a border of 4"):
        metric(np.zeros((side, side + 1)), np.zeros((side, side + 1)), border=4)


def test_halving_weighs_eight_pixels_as_computed_by_hand() -> None:
    # Output 2 is centred on 2 * 2.5 - 0.5 = 4.5, pixels are 0.5, 1.5, 2.5, 3.5 away on either side; widened
    # by 2, the kernel is read at 0.25, 0.75, 1.25, 1.75, where it is 111, 29, -9, -3 in 1/128;
    # both sides sum to 2.
    indices, weights = contributions(16, 8)
    order = np.argsort(indices[2])
    assert indices[2][order].tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert weights[2][order] * 256 == pytest.approx([-3, -9, 29, 111, 111, 29, -9, -3])


def test_doubling_weighs_four_pixels_as_computed_by_hand() -> None:
    # Output 4 is centred on 4.5 / 2 - 0.5 = 1.75: distances 1.75, 0.75, 0.25, 1.25, no widening.
    indices, weights = contributions(8, 16)
    order = np.argsort(indices[4])
    assert indices[4][order].tolist() == [0, 1, 2, 3]
    assert weights[4][order] * 128 == pytest.approx([-3, 29, 111, -9])


def test_borders_are_mirrored_with_the_edge_pixel_repeated() -> None:
    # Output 0 is centred on -0.25: it reads -2, -1, 0, 1 = pixels 1, 0, 0, 1 with weights -3, 29, 111, -9.
    image = np.array([[0.0, 128.0, 0.0, 0.0]])
    assert resize_bicubic(image, (1, 8))[0, 0] == pytest.approx(-3 - 9)


@pytest.mark.parametrize("size", [(3, 5), (12, 20), (40, 7), (1, 1)])
def test_a_constant_stays_constant(size: tuple[int, int]) -> None:
    resized = resize_bicubic(np.full((12, 20, 3), 200, np.uint8), size)
    assert resized.dtype == np.uint8
    assert resized.shape == (*size, 3)
    assert np.all(resized == 200)


def test_a_ramp_stays_a_ramp_away_from_the_borders() -> None:
    ramp = np.tile(np.arange(64.0), (4, 1))
    small = resize_bicubic(ramp, (4, 16))
    assert small[0, 2:-2] == pytest.approx(4 * np.arange(2, 14) + 1.5)  # the centre of four pixels
    large = resize_bicubic(ramp, (4, 128))
    assert large[0, 4:-4] == pytest.approx((np.arange(4, 124) + 0.5) / 2 - 0.5)


def test_the_same_size_returns_the_same_image() -> None:
    image = np.random.default_rng(2).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert np.array_equal(resize_bicubic(image, (5, 7)), image)


@given(st.integers(0, 2**32), st.booleans(), st.data())
def test_a_part_has_the_pixels_of_the_whole(seed: int, integers: bool, data: st.DataObject) -> None:
    height, width, new_height, new_width = (data.draw(st.integers(1, 40)) for _ in range(4))
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3))
    left, top = data.draw(st.integers(0, new_width - 1)), data.draw(st.integers(0, new_height - 1))
    right, bottom = data.draw(st.integers(left + 1, new_width)), data.draw(st.integers(top + 1, new_height))
    box = (left, top, right - left, bottom - top)
    image: np.ndarray = noise.astype(np.uint8) if integers else noise / 3
    whole = resize_bicubic(image, (new_height, new_width))
    part = resize_bicubic(image, (new_height, new_width), box)
    assert part.dtype == image.dtype
    assert np.array_equal(part, whole[top:bottom, left:right])


def test_overshoot_of_uint8_is_clipped_and_of_float_kept() -> None:
    edge = np.repeat(np.array([[0, 0, 0, 0, 255, 255, 255, 255]], np.uint8), 8, axis=0)
    assert resize_bicubic(edge, (8, 16)).max() == 255
    assert resize_bicubic(edge.astype(np.float64), (8, 16)).max() > 260
