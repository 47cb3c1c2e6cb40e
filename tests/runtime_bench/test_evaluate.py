"""Models are scored as the papers score them, side by side, on the same images."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result

from qnas.images.evaluation import shrink
from qnas.images.files import read_image, write_png
from qnas.images.quality import psnr, psnr_y, ssim_y
from qnas.runtime_bench.evaluate_cli import main
from qnas.testing.random_networks import noise
from qnas.testing.text_models import text_model

NEAREST = """
net (uint8[n, 3, h, w] image) => (uint8[n, 3, y, x] large) <float[4] s = {1, 1, %d, %d}>
{
    large = Resize <coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> (image, , s)
}
"""
DARKER = """
net (uint8[n, 3, h, w] image) => (uint8[n, 3, y, x] large) <uint8 half = {{128}}>
{{ large = Min (image, half) }}"""


def evaluate(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two HR images of uneven sizes, and models that repeat pixels twice and three times."""
    monkeypatch.chdir(tmp_path)
    Path("hr").mkdir()
    for index, (height, width) in enumerate(((61, 48), (40, 57))):
        soft = np.kron(noise(height // 8 + 1, width // 8 + 1, index), np.ones((8, 8, 1), np.uint8))
        write_png(Path(f"hr/{index}.png"), soft[:height, :width])
    for factor in (2, 3):
        onnx.save(text_model(NEAREST % (factor, factor)), f"nearest{factor}.onnx")
    onnx.save(text_model(DARKER.format()), "darker.onnx")
    return tmp_path


def test_scores_are_those_of_the_papers_and_differences_are_paired(folder: Path) -> None:
    result = evaluate("nearest2.onnx", "nearest2.onnx", "--data", "hr", "--json", "e.json")
    assert result.exit_code == 0, result.output
    report = json.loads(Path("e.json").read_text())
    assert (report["scale"], report["border"], report["images"]) == (2, 2, ["0.png", "1.png"])
    bicubic, nearest, again = report["methods"]
    assert (bicubic["name"], nearest["name"]) == ("bicubic", "nearest2.onnx")
    for index in (0, 1):
        hr = read_image(Path(f"hr/{index}.png"))
        hr = hr[: hr.shape[0] // 2 * 2, : hr.shape[1] // 2 * 2]
        made = shrink(hr, 2).repeat(2, axis=0).repeat(2, axis=1)
        assert nearest["scores"]["psnr_y"][index] == psnr_y(made, hr, 2)
        assert nearest["scores"]["psnr"][index] == psnr(made, hr, 2)
        assert nearest["scores"]["ssim_y"][index] == ssim_y(made, hr, 2)
    assert again["scores"] == nearest["scores"]
    value, low, high = nearest["means"]["psnr_y"]
    assert low <= value <= high
    assert value == pytest.approx(np.mean(nearest["scores"]["psnr_y"]))
    assert "+0.000 [+0.000, +0.000]" in result.output


def test_luma_in_0_to_255_is_stretched_and_errs_by_20_log_255_over_219_more(folder: Path) -> None:
    for luma in ("studio", "full"):
        options = ("--luma", luma, "--border", "0", "--json", f"{luma}.json")
        assert evaluate("nearest2.onnx", "--data", "hr", *options).exit_code == 0
    studio, full = (json.loads(Path(f"{luma}.json").read_text())["methods"][1] for luma in ("studio", "full"))
    gap = np.subtract(studio["scores"]["psnr_y"], full["scores"]["psnr_y"])
    assert gap == pytest.approx([20 * np.log10(255 / 219)] * 2, abs=0.2)  # and it is rounded
    assert studio["scores"]["psnr"] == full["scores"]["psnr"]


def test_models_that_restore_are_compared_with_what_they_read(folder: Path) -> None:
    Path("noisy").mkdir()
    for path in Path("hr").iterdir():
        image = read_image(path)
        write_png(Path("noisy") / f"{path.stem}x1.png", np.clip(image, 0, 200))
    result = evaluate("darker.onnx", "--data", "hr", "--lr", "noisy", "--json", "e.json")
    assert result.exit_code == 0, result.output
    plain, darker = json.loads(Path("e.json").read_text())["methods"]
    assert plain["name"] == "input"
    assert plain["means"]["psnr"][0] > darker["means"]["psnr"][0]


def test_an_image_that_is_too_small_is_named(folder: Path) -> None:
    write_png(Path("hr/2.png"), noise(1, 9))
    result = evaluate("nearest2.onnx", "--data", "hr")
    assert (result.exit_code, "hr/2.png" in result.output) == (2, True)


def test_pictures_show_where_bicubic_errs_most(folder: Path) -> None:
    assert evaluate("nearest2.onnx", "--data", "hr", "--pictures", "made/strips").exit_code == 0
    strip = read_image(Path("made/strips/0.png"))
    assert strip.shape[1] == 3 * (2 * 48 + 4)  # HR, bicubic and the model, twice as large


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (
            ("nearest2.onnx", "nearest3.onnx", "--data", "hr"),
            "different factors (nearest2.onnx 2, nearest3.onnx 3)",
        ),
        (("darker.onnx", "--data", "hr"), "give their folder with --lr"),
        (("nearest2.onnx", "--data", "hr", "--lr", "hr"), "not 2 times less"),
        (("nearest2.onnx", "--data", "gone"), "gone is not a folder"),
        (("gone.onnx", "--data", "hr"), "gone.onnx"),
        (("nearest2.onnx", "--data", "hr", "--json", "nearest2.onnx"), "nearest2.onnx"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(
    folder: Path, arguments: tuple[str, ...], why: str
) -> None:
    result = evaluate(*arguments)
    assert result.exit_code == 2
    assert why in result.output
    assert len(result.output.strip().splitlines()) == 1
