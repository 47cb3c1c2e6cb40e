"""The page of a calibration: what it says, what its pictures and charts show."""

import base64
import html
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qnas.calibration.calibrate import Run, run
from qnas.calibration.document import Score
from qnas.calibration.progress import Display
from qnas.calibration.ranges.histogram import Histogram
from qnas.calibration.ranges.ranges import Range
from qnas.calibration.report.charts import BINS, HEIGHT, number, range_histogram, score_bars
from qnas.calibration.report.page import calibration_page
from qnas.calibration.report.pictures import (
    BLUE,
    RED,
    ROWS,
    SIDE,
    busiest,
    comparisons,
    marked,
    offenders,
    picture,
    shrunken_map,
)
from qnas.testing.small_calibrations import SETTINGS, make_network, make_photographs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("report")
    make_photographs(made / "photographs")
    (made / "photographs" / "<b>broken.png").write_bytes(b"none")
    (made / "photographs" / "coffee.png").rename(made / "photographs" / "<i>coffee.png")
    make_network(made)
    return made


@pytest.fixture(scope="module")
def done(folder: Path) -> Run:
    return run(folder / "espcn.onnx", [folder / "photographs"], SETTINGS)


@pytest.fixture(scope="module")
def page(done: Run) -> str:
    return calibration_page(done, Display())


def test_the_page_has_the_decision_every_score_every_grid_and_the_skipped_files(done: Run, page: str) -> None:
    for score in done.calibration.scores:
        assert score.name in page
        assert f"{score.psnr:.2f} dB" in page
    for name in done.watched.natural:
        assert name in page
    assert html.escape(done.calibration.source.clip.explanation) in page
    assert "&lt;b&gt;broken.png" in page
    assert "&lt;i&gt;coffee.png" in page


def test_no_name_becomes_an_element_and_no_path_of_the_machine_is_told(folder: Path, page: str) -> None:
    assert "<b>broken" not in page
    assert "<i>coffee" not in page
    assert str(folder) not in page
    assert "<script" not in page
    assert re.findall(r'src="(?!data:image/png;base64,)', page) == []


def test_a_page_without_offending_patches_says_so(done: Run) -> None:
    calm = replace(done, taming=replace(done.taming, contrasts=(1.0,) * len(done.images.crops)))
    assert offenders(calm) == []
    assert "None does: taming changes nothing" in calibration_page(calm, Display())


# Pictures --------------------------------------------------------------------------------------------------


def test_offenders_are_the_worst_of_each_file_and_in_range_when_tamed(done: Run) -> None:
    shown = offenders(done)
    contrasts = [each.contrast or 0.0 for each in shown]
    assert contrasts == sorted(contrasts)
    assert 0 < len(shown) <= ROWS
    assert len({each.crop.file for each in shown}) == len(shown)
    of_worst = [a or 0.0 for a in done.taming.contrasts if a != 1]
    assert contrasts[0] == min(of_worst)
    for each in shown:
        assert each.ends[0] < -0.5 or each.ends[1] > 255.5
        assert each.tamed_ends[0] >= -0.5
        assert each.tamed_ends[1] <= 255.5
        assert (each.map == RED).all(axis=2).any() or (each.map == BLUE).all(axis=2).any()


def test_comparisons_are_of_held_out_files_and_show_the_same_crop_three_times(done: Run) -> None:
    shown = comparisons(done, done.model, Display())
    assert {each.crop.file for each in shown} <= set(done.judge.images.files)
    assert [each.outside for each in shown] == sorted((each.outside for each in shown), reverse=True)
    for each in shown:
        assert each.clipped.shape == each.integer.shape == each.marked.shape == each.error.shape
        difference = each.integer.astype(int) - each.clipped
        np.testing.assert_array_equal(each.error, np.clip(128 + 16 * difference, 0, 255))


def test_marks_are_red_above_and_blue_below_the_nominal_range() -> None:
    output = np.full((1, 4, 3), 100, np.float32)
    output[0, 1] = [100, 255.6, 100]
    output[0, 2] = [-0.6, 100, 100]
    output[0, 3] = [-0.5, 255.5, 100]
    assert marked(output).tolist()[0][:3] == [[114] * 3, list(RED), list(BLUE)]
    assert marked(output).tolist()[0][3] == [64, 192, 114]


def test_a_pixel_of_the_small_map_is_marked_where_any_of_its_block_is() -> None:
    output = np.full((4, 4, 1), 100, np.float32)
    output[3, 0] = 300
    found = shrunken_map(output, 2)
    assert found.shape == (2, 2, 3)
    assert found[1, 0].tolist() == list(RED)
    assert found[0].tolist() == [[114] * 3] * 2


def test_the_busiest_crop_holds_the_largest_sum() -> None:
    weights = np.zeros((200, 300), np.float32)
    weights[150:160, 250:260] = 1
    rows, columns = busiest(weights)
    assert (rows.stop - rows.start, columns.stop - columns.start) == (SIDE, SIDE)
    assert weights[rows, columns].sum() == 100
    assert busiest(np.zeros((10, 300), np.float32)) == (slice(0, 10), slice(0, SIDE))


def test_a_picture_is_the_image_itself() -> None:
    image = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    data = re.findall(r'base64,([^"]+)"', picture(image, "a & b"))[0]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), image)
    assert 'alt="a &amp; b"' in picture(image, "a & b")


# Charts ----------------------------------------------------------------------------------------------------


def histogram(*values: float) -> Histogram:
    made = Histogram()
    made.update(np.float32(values))
    return made


def path_of(chart: str, kind: str) -> str:
    return re.findall(rf'<path d="([^"]*)" class="{kind}"', chart)[0]


def test_bars_outside_the_range_are_red_and_their_share_is_told() -> None:
    # Four values, the axis from -0.08 to 2.08 (4 % more at each end): 2 is at bin 96 * 2.08 / 2.16 = 92.4.
    chart = range_histogram(histogram(0, 0, 0.5, 2), Range(0.0, 1.0), "x")
    assert [each.split("v")[0] for each in path_of(chart, "lost").split("M")[1:]] == [f"92 {HEIGHT}"]
    assert len(path_of(chart, "bar").split("M")[1:]) == 2
    assert "25.000% outside" in chart


def test_heights_are_square_roots_of_counts() -> None:
    chart = range_histogram(histogram(*[0.0] * 9, *[0.5] * 4, 1.0), Range(0.0, 1.0), "x")
    # Roots 3 (zero, cut off), 2 and 1.
    assert re.findall(r"v-([\d.]+)h", path_of(chart, "bar")) == [f"{HEIGHT}", f"{HEIGHT}", f"{HEIGHT // 2}"]


def test_a_value_at_the_end_of_the_range_is_inside() -> None:
    chart = range_histogram(histogram(-1.0, 0.0, 1.0), Range(-1.0, 1.0), "x")
    assert path_of(chart, "lost") == ""
    assert "none outside" in chart


def test_a_range_wider_than_the_values_is_drawn_whole() -> None:
    chart = range_histogram(histogram(0.0, 0.1), Range(-1.0, 1.0), "x")
    # 4 % of 108 % at each end: 96 * 0.04 / 1.08 = 3.56
    assert path_of(chart, "end") == f"M3.56 0V{HEIGHT}M{BINS - 3.56:.2f} 0V{HEIGHT}"


def test_a_tensor_of_zeros_can_be_drawn() -> None:
    assert "none outside" in range_histogram(histogram(0.0), Range(0.0, 0.0), "x")


def test_the_chosen_score_and_the_control_stand_out() -> None:
    scores = (Score("a", 40.0, True), Score("b", float("inf"), True), Score("c", 30.0, False))
    bars = score_bars(scores, "b")
    kinds = re.findall(r'class="row (\w+)"', bars)
    assert kinds == ["row", "chosen", "control"]
    widths = [float(each) for each in re.findall(r"width:([\d.]+)%", bars)]
    assert widths[1] == max(widths)
    assert widths[2] == min(widths) > 0
    assert "no difference" in bars


def test_numbers_have_a_true_minus_and_no_negative_zero() -> None:
    assert [number(each) for each in (-1.23456, -0.0, 1e-9)] == ["−1.235", "0", "1e−09"]
