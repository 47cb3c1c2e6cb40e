"""A model that others quantized is exported, and the integers are compared with that very model."""

import json
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner, Result

from qnas.export.cli import main
from qnas.images.files import write_png
from qnas.testing.random_networks import noise
from qnas.testing.text_models import text_model

# Twice as large, from images whose grid spans `white`; the convolution's scale has 24 bits.
MODEL = """
net (float[n, 3, h, w] image) => (float[n, 3, y, x] upscaled)
<float s = {{{step}}}, uint8 z = {{0}}, int8[12, 3, 1, 1] k, float ks = {{0.0123}}, int8 kz = {{0}}>
{{
    q = QuantizeLinear (image, s, z)
    x = DequantizeLinear (q, s, z)
    w = DequantizeLinear (k, ks, kz)
    c = Conv (x, w)
    d = DepthToSpace <blocksize = 2, mode = "CRD"> (c)
    e = QuantizeLinear (d, s, z)
    upscaled = DequantizeLinear (e, s, z)
}}"""


def save(path: Path, white: float, weight: int = 81) -> None:
    """A model whose pixels are `white` times 0..1, with a `weight` for each output channel."""
    step = white / 255
    model = text_model(MODEL.format(step=step))
    for tensor in model.graph.initializer:
        if tensor.name == "k":
            values = [weight % 256 if (row // 4) == column else 0 for row in range(12) for column in range(3)]
            tensor.raw_data = bytes(values)
    onnx.save(model, path)


def export(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    write_png(tmp_path / "images" / "noise.png", noise(64, 48))
    return tmp_path


@pytest.mark.parametrize(("white", "found"), [(1.0, "0..1"), (255.0, "0..255")])
def test_the_integers_are_compared_with_the_model_itself(folder: Path, white: float, found: str) -> None:
    save(folder / "theirs.onnx", white)
    result = export("theirs.onnx", "--check", "images")
    assert result.exit_code == 0, result.output
    assert f"images are read as {found}: their quantizer spans {white:g}" in " ".join(result.output.split())
    report = json.loads(Path("theirs.qnas.parity.json").read_text())
    names = [each["runtime"] for each in report["references"]]
    assert names == ["interpreter", "source model in onnxruntime"]
    against = report["references"][1]["against"]["interpreter"]
    assert against["values"] == 64 * 48 * 3
    assert against["largest_difference"] <= 1
    assert report["references"][1]["psnr_y"] > 10  # images, not black: they were read in their range


def test_images_read_in_another_range_than_the_quantizer_has_are_another_network(folder: Path) -> None:
    """In 0..255 the model clips all but black to white, as the integers do."""
    save(folder / "theirs.onnx", 1.0)
    result = export("theirs.onnx", "--check", "images", "--input-range", "0..255")
    report = json.loads(Path("theirs.qnas.parity.json").read_text())
    assert "images are read as" not in result.output  # it was said
    assert report["references"][1]["against"]["interpreter"]["values"] > 0


def test_scales_of_many_bits_leave_float_arithmetic_near_and_the_verdict_says_so(folder: Path) -> None:
    save(folder / "theirs.onnx", 1.0)
    result = export("theirs.onnx", "--check", "images")
    report = json.loads(Path("theirs.qnas.parity.json").read_text())
    runtimes = {each["runtime"]: each for each in report["files"][0]["runtimes"]}
    assert runtimes["onnxruntime"]["gated"]
    assert not runtimes["onnxruntime, unoptimized"]["gated"]
    assert runtimes["onnxruntime, unoptimized"]["near"] == 40
    assert "passed in onnxruntime" in result.output


def test_weights_of_minus_128_are_said_to_be_minus_127(folder: Path) -> None:
    save(folder / "theirs.onnx", 1.0, weight=-128)
    result = export("theirs.onnx", "--check", "images")
    assert "12 weights of -128, on which ARM processors disagree, are -127" in " ".join(result.output.split())
    integers = export("theirs.qnas.onnx", "-o", "again.onnx", "--check", "images")
    assert "-128" not in integers.output
