"""TFLite files of others as sources: integer ones are exported as they are, float ones calibrated."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from onnx import numpy_helper

from qnas.calibration.calibrate import Settings, calibrate
from qnas.calibration.document import write_calibration
from qnas.calibration.prepare.float_model import Runner, read_float_model
from qnas.errors import ModelError
from qnas.export.cli import main
from qnas.export.inspection.tflite_rows import tflite_rows
from qnas.export.options import Options
from qnas.export.sources.quantized import read_quantized
from qnas.export.to_tflite.file import Grid
from qnas.images.files import write_png
from qnas.images.samples import sample_photographs
from qnas.integer.interpreter import run
from qnas.onnx.session import open_session
from qnas.testing.places import NETWORKS
from qnas.testing.tflite_operators import AnyFile, constant
from qnas.tflite.cost import tflite_cost
from qnas.tflite.reader import read_tflite
from qnas.tflite.session import LiteRtSession

H, W = 20, 28
PLAIN = {"strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}


def grid(scale: float, zero: int = 0) -> Grid:
    return Grid(np.float32(scale), zero)


class IntegerFile(AnyFile):
    """Layers of int8 tensors on grids of any scale."""

    def layer(self, name: str, channels: int, scale: float, zero: int) -> int:
        return self.tensor(name, (1, H, W, channels), "INT8", grid(scale, zero))

    def convolution(self, read: int, name: str, channels: int, scale: float, zero: int, relu: int = 0) -> int:
        source, rng = self.tensors[read], np.random.default_rng(channels)
        wide, step = source.shape[3], source.quantization.scale[0]
        scales = rng.uniform(0.001, 0.004, channels).astype(np.float32)
        weights = rng.integers(-127, 128, (channels, 3, 3, wide)).astype(np.int8)
        weight = self.constant(f"{name}.w", weights, Grid(scales, 0))
        steps = rng.integers(-500, 500, channels).astype(np.int32)
        bias = self.constant(f"{name}.b", steps, Grid(np.float32(step) * scales, 0))
        out = self.layer(name, channels, scale, zero)
        self.any("CONV_2D", [read, weight, bias], [out], 3, **PLAIN, fusedActivationFunction=relu)
        return out


def integer_network(io: str) -> bytes:
    """An image copied four times and what two convolutions add to it, shuffled. `io`: type of the images."""
    file = IntegerFile()
    outer = grid(1.0, -128 if io == "INT8" else 0)
    image = file.tensor("image", (1, H, W, 3), io, None if io == "FLOAT32" else outer)
    inner = image
    if io != "INT8":
        inner = file.layer("inner", 3, 1.0, -128)
        file.any("QUANTIZE", [image], [inner])
    first = file.convolution(inner, "first", 8, 0.71, -128, relu=1)
    second = file.convolution(first, "second", 12, 0.93, 11)
    four = file.layer("four", 12, 1.0, -128)
    file.any("CONCATENATION", [inner] * 4, [four], 2, axis=3)
    both = file.layer("both", 12, 1.31, -60)
    file.any("ADD", [four, second], [both], 2)
    large = file.tensor("large", (1, 2 * H, 2 * W, 3), "INT8", grid(1.31, -60))
    file.any("DEPTH_TO_SPACE", [both], [large], blockSize=2)
    held = file.tensor("held", (1, 2 * H, 2 * W, 3), "INT8", grid(1.0, -128))
    file.any("RELU", [large], [held], 2)
    if io == "INT8":
        return file.pack("net", image, held, {})
    out = file.tensor("out", (1, 2 * H, 2 * W, 3), io, None if io == "FLOAT32" else outer)
    file.any("DEQUANTIZE" if io == "FLOAT32" else "QUANTIZE", [held], [out], 2)
    return file.pack("net", image, out, {})


def bent_network() -> bytes:
    """Integers with what converters write: slopes and terms of each channel, margins, a shuffle by hand."""
    file, rng = IntegerFile(), np.random.default_rng(0)
    image = file.tensor("image", (1, H, W, 3), "INT8", grid(1 / 255, -128))
    first = file.convolution(image, "first", 8, 0.02, 3)
    bent = file.layer("bent", 8, 0.015, -100)
    slopes = rng.integers(1, 60, (1, 1, 8)).astype(np.int8)
    file.any("PRELU", [first, file.constant("slopes", slopes, grid(0.01))], [bent])
    moved = file.layer("moved", 8, 0.02, -90)
    terms = rng.integers(-60, 60, 8).astype(np.int8)
    file.any("ADD", [bent, file.constant("terms", terms, grid(0.004))], [moved], 2)
    wide = file.tensor("wide", (1, H + 2, W + 2, 8), "INT8", grid(0.02, -90))
    file.any("PAD", [moved, constant(file, "margins", [[0, 0], [1, 1], [1, 1], [0, 0]])], [wide], 2)
    last = file.convolution(wide, "last", 12, 0.05, -20)
    file.operators[-1].builtinOptions.padding = 1  # VALID
    six = file.tensor("six", (1, H, W, 2, 2, 3), "INT8", grid(0.05, -20))
    file.any("RESHAPE", [last, constant(file, "to6", [1, H, W, 2, 2, 3])], [six])
    turned = file.tensor("turned", (1, H, 2, W, 2, 3), "INT8", grid(0.05, -20))
    file.any("TRANSPOSE", [six, constant(file, "perm", [0, 1, 3, 2, 4, 5])], [turned], 2)
    out = file.tensor("out", (1, 2 * H, 2 * W, 3), "INT8", grid(0.05, -20))
    file.any("RESHAPE", [turned, constant(file, "to4", [1, 2 * H, 2 * W, 3])], [out])
    return file.pack("net", image, out, {})


def test_what_converters_write_is_an_integer_network(tmp_path: Path) -> None:
    (tmp_path / "net.tflite").write_bytes(bent_network())
    options = Options(formats=("onnx-qdq",))
    source = read_quantized(tmp_path / "net.tflite", options)
    assert source.integer is not None
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, H, W)).astype(np.uint8)
    found = run(source.integer, pixels).astype(int)
    wanted = LiteRtSession(bent_network()).run(pixels)
    assert np.abs(found - wanted).max() <= 1
    assert np.mean(found != wanted) < 0.05


def export(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.mark.parametrize("io", ["INT8", "UINT8", "FLOAT32"])
def test_an_integer_file_is_exported_in_both_formats_and_compared_with_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, io: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.tflite").write_bytes(integer_network(io))
    Path("images").mkdir()
    for title, image in sample_photographs()[:1]:
        write_png(Path("images") / f"{title}.png", image[:130, :170])
    result = export("net.tflite", "--format", "onnx-qdq", "--format", "tflite", "--check", "images")
    assert result.exit_code == 0, result.output
    report = json.loads(Path("net.qnas.parity.json").read_text())
    source = next(r for r in report["references"] if r["runtime"] == "source model in LiteRT with XNNPACK")
    against = source["against"]["interpreter"]  # XNNPACK adds with scales of fewer bits
    assert against["differing"] < 0.01 * against["values"]
    assert against["largest_difference"] <= 2
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 31, 23)).astype(np.uint8)  # freed
    ours = open_session(Path("net.qnas.onnx"), threads=1)
    (found,) = ours.run(None, {ours.get_inputs()[0].name: pixels})
    theirs = LiteRtSession(Path("net.qnas.tflite").read_bytes()).run(pixels)
    assert np.mean(found != theirs) < 0.01


@pytest.mark.parametrize(("name", "most"), [("base7_int8.tflite", 0), ("edsr_f32b5_QAT.tflite", 0.005)])
def test_an_integer_network_of_tensorflow_is_ours_but_for_sums(name: str, most: float) -> None:
    path = NETWORKS / name
    if not path.is_file():
        pytest.skip(f"no network {path}: set QNAS_NETWORKS")
    source = read_quantized(path, Options(formats=("onnx-qdq",)))
    assert source.integer is not None
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 41, 30)).astype(np.uint8)
    found = run(source.integer, pixels).astype(int)
    wanted = LiteRtSession(path.read_bytes()).run(pixels, any_size=True)
    assert np.mean(found != wanted) <= most  # of noise; on photographs there is no difference
    assert np.abs(found - wanted).max() <= 2


def float_network() -> bytes:
    """FSRCNN: slopes of each channel, a transposed convolution, and a bilinear skip; of one size."""
    rng, file = np.random.default_rng(0), AnyFile()

    def layer(name: str, channels: int, f: int = 1) -> int:
        return file.tensor(name, (1, f * H, f * W, channels), "FLOAT32")

    image = layer("image", 3)
    first, bent, detail, large, sum_, held = (
        layer("first", 8), layer("bent", 8), layer("detail", 3, 2), layer("large", 3, 2), layer("sum", 3, 2),
        layer("held", 3, 2),
    )  # fmt: skip
    kernel = [
        constant(file, "w", rng.normal(0, 0.3, (8, 3, 3, 3))),
        constant(file, "b", rng.normal(0, 0.1, 8)),
    ]
    file.any("CONV_2D", [image, *kernel], [first], **PLAIN)
    file.any("PRELU", [first, constant(file, "s", rng.uniform(0.05, 0.4, (1, 1, 8)))], [bent])
    size = constant(file, "size", [1, 2 * H, 2 * W, 3])
    weight = constant(file, "t", rng.normal(0, 0.02, (3, 4, 4, 8)))
    file.any("TRANSPOSE_CONV", [size, weight, bent], [detail], strideH=2, strideW=2)
    sides = constant(file, "sides", [2 * H, 2 * W])
    file.any("RESIZE_BILINEAR", [image, sides], [large], 3, halfPixelCenters=True)
    file.any("ADD", [large, detail], [sum_])
    file.any("MINIMUM", [sum_, constant(file, "one", np.array(1.0))], [held])
    out = layer("out", 3, 2)
    file.any("RELU", [held], [out])
    return file.pack("net", image, out, {})


def test_a_float_file_is_calibrated_at_any_size_and_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = float_network()
    Path("net.tflite").write_bytes(data)
    Path("images").mkdir()
    for title, image in sample_photographs():
        write_png(Path("images") / f"{title}.png", image[:130, :170])
    found = calibrate(Path("net.tflite"), [Path("images")], Settings(patch=24, count=12, hr=True, threads=1))
    write_calibration(found, Path("net.json"))
    network = read_float_model(Path("net.tflite"))
    assert (network.size, network.scale, network.white) == (None, 2, 1)
    assert network.remarks[0].startswith("read from TFLite: onnxruntime is within ")
    pixels = np.random.default_rng(0).integers(0, 256, (1, H, W, 3)).astype(np.float32)
    wanted = LiteRtSession(data).raw(pixels / 255) * 255
    np.testing.assert_allclose(Runner(network)(pixels), wanted, atol=1e-2)
    formats = ("--format", "onnx-qdq", "--format", "tflite", "--calibration", "net.json")
    result = export("net.tflite", *formats, "--check", "images")
    assert result.exit_code == 0, result.output
    assert Path("net.tflite").read_bytes() == data
    assert Path("net.qnas.tflite").is_file()


def test_weights_that_alone_are_integers_are_read_as_numbers(tmp_path: Path) -> None:
    rng, file = np.random.default_rng(0), AnyFile()
    image = file.tensor("image", (1, H, W, 3), "FLOAT32")
    scales = rng.uniform(0.001, 0.004, 12).astype(np.float32)
    steps = rng.integers(-127, 128, (12, 3, 3, 3)).astype(np.int8)
    conv = file.tensor("conv", (1, H, W, 12), "FLOAT32")
    kernel = [file.constant("w", steps, Grid(scales, 0)), constant(file, "b", rng.normal(size=12))]
    file.any("CONV_2D", [image, *kernel], [conv], 5, **PLAIN)
    out = file.tensor("out", (1, 2 * H, 2 * W, 3), "FLOAT32")
    file.any("DEPTH_TO_SPACE", [conv], [out], blockSize=2)
    (tmp_path / "net.tflite").write_bytes(file.pack("net", image, out, {}))
    network = read_float_model(tmp_path / "net.tflite", "0..1")
    assert network.remarks[0].startswith("only the weights are stored as integers")
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in network.model.graph.initializer}
    weights = next(values for values in stored.values() if values.shape == (12, 3, 3, 3))
    np.testing.assert_array_equal(weights, (steps * scales.reshape(-1, 1, 1, 1)).transpose(0, 3, 1, 2))


def test_a_float_file_without_calibration_gets_one_hint(tmp_path: Path) -> None:
    (tmp_path / "net.tflite").write_bytes(float_network())
    result = export(str(tmp_path / "net.tflite"))
    assert result.exit_code == 2
    assert "computes in float: calibrate it with --images IMAGES" in result.output


def test_an_integer_file_is_not_calibrated(tmp_path: Path) -> None:
    (tmp_path / "net.tflite").write_bytes(integer_network("INT8"))
    with pytest.raises(ModelError, match=r"is quantized already .* qnas-export takes it as it is"):
        read_float_model(tmp_path / "net.tflite")


def test_weights_behind_a_dequantize_are_inspected_as_they_are_counted() -> None:
    file = AnyFile()
    image = file.tensor("image", (1, H, W, 3), "FLOAT32")
    halves = [np.ones((5, 3, 3, 3), np.float16), np.ones(5, np.float16)]
    unpacked = []
    for i, values in enumerate(halves):
        stored = file.tensor(f"h{i}", values.shape, "FLOAT16", data=values.tobytes())
        unpacked.append(file.tensor(f"f{i}", values.shape, "FLOAT32"))
        file.any("DEQUANTIZE", [stored], [unpacked[i]], 3)
    out = file.tensor("out", (1, H, W, 5), "FLOAT32")
    file.any("CONV_2D", [image, *unpacked], [out], **PLAIN)
    model = read_tflite(file.pack("net", image, out, {}))
    rows, _ = tflite_rows(model)
    cost = tflite_cost(model)
    assert sum(row.bitops for row in rows) == cost.bitops == H * W * 135 * 16 * 32
    assert sum(row.weight_bytes for row in rows) == cost.weight_bytes == 270
    assert sum(row.bias_bytes for row in rows) == 10
