"""A float model made elsewhere leaves qnas-export as integers, or as the QDQ model that comes nearest."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import numpy_helper

from qnas.calibration.calibrate import calibrate
from qnas.calibration.document import write_calibration
from qnas.calibration.prepare.float_model import Runner, read_float_model
from qnas.export.cli import main
from qnas.export.from_qdq.reader import read_qdq
from qnas.images.files import write_png
from qnas.images.quality import psnr_y
from qnas.integer.interpreter import upscaler
from qnas.one_writer import one_writer
from qnas.onnx.session import open_session
from qnas.testing.random_networks import noise
from qnas.testing.small_calibrations import SETTINGS, make_network, make_photographs
from qnas.testing.sr_modules import espcn, every_operation, rfdn_like
from qnas.testing.sr_modules import export as export_module
from qnas.testing.text_models import text_model
from qnas.tflite.session import LiteRtSession


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks with their calibrations: ESPCN, RFDN, and one whose attention no integer network has."""
    folder = tmp_path_factory.mktemp("made")
    make_photographs(folder / "images")
    make_network(folder)
    export_module(every_operation(channels=4), folder / "every.onnx")
    export_module(rfdn_like(clip=True), folder / "rfdn.onnx")
    for name in ("espcn", "every", "rfdn"):
        found = calibrate(folder / f"{name}.onnx", [folder / "images"], SETTINGS)
        write_calibration(found, folder / f"{name}.json")
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder."""
    for path in made.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def export(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def words(text: str) -> str:
    return " ".join(text.split())


def test_a_calibrated_float_model_becomes_onnx_and_tflite_of_the_same_integers(folder: Path) -> None:
    formats = ("--format", "onnx-qdq", "--format", "tflite")
    result = export("espcn.onnx", *formats, "--calibration", "espcn.json", "--check", "images")
    assert result.exit_code == 0, result.output
    assert "integer convolutions in the graph that onnxruntime runs: 3 of 3" in result.output
    assert "nodes that XNNPACK runs: 4 of 4" in result.output
    image = noise(14, 18)
    x = image.transpose(2, 0, 1)[None].copy()
    by_onnx = open_session(Path("espcn.qnas.onnx"), 1).run(None, {"image": x})[0]
    np.testing.assert_array_equal(LiteRtSession(Path("espcn.qnas.tflite").read_bytes()).run(x), by_onnx)
    wanted = Runner(read_float_model(Path("espcn.onnx")))(image[None].astype(np.float32))[0]
    got = by_onnx[0].transpose(1, 2, 0)
    assert psnr_y(got, np.clip(np.rint(wanted), 0, 255).astype(np.uint8), 0) > 35


def test_a_bilinear_resize_to_the_size_of_another_tensor_runs_in_integers(folder: Path) -> None:
    """And so do the sums of RFDN, whose scales differ: in LiteRT they are convolutions."""
    formats = ("--format", "onnx-qdq", "--format", "tflite")
    Path("large").mkdir()
    write_png(Path("large/noise.png"), noise(160, 128))
    result = export("rfdn.onnx", *formats, "--calibration", "rfdn.json", "--check", "large")
    assert result.exit_code == 0, result.output
    assert "other float operations: none" in words(result.output)
    report = json.loads(Path("rfdn.qnas.parity.json").read_text())
    runtimes = {each["runtime"]: each for file in report["files"] for each in file["runtimes"]}
    for name in ("onnxruntime", "LiteRT with XNNPACK"):
        assert runtimes[name]["gated"]
        assert runtimes[name]["against"]["interpreter"]["differing"] == 0


def test_the_report_sets_the_float_model_beside_and_judges_by_the_integers(folder: Path) -> None:
    assert export("espcn.onnx", "--calibration", "espcn.json", "--check", "images").exit_code == 0
    report = json.loads(Path("espcn.qnas.parity.json").read_text())
    references = {each["runtime"]: each for each in report["references"]}
    assert list(references) == ["interpreter", "float model"]
    assert list(references["float model"]["against"]) == ["interpreter"]
    assert not references["float model"]["gated"]
    for runtime in report["files"][0]["runtimes"]:
        assert list(runtime["against"]) == ["interpreter"]
    assert any("taken off" in note for note in report["notes"])


def test_the_file_ends_without_a_clip_and_its_bytes_are_the_pixels(folder: Path) -> None:
    assert export("espcn.onnx", "--calibration", "espcn.json", "--no-parity").exit_code == 0
    model = onnx.load("espcn.qnas.onnx")
    assert {"Clip", "Min", "Max", "Relu"}.isdisjoint(node.op_type for node in model.graph.node[-2:])
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    last = [node for node in model.graph.node if node.op_type == "QuantizeLinear"][-1]
    scale, zero = (numpy_helper.to_array(stored[name]) for name in last.input[1:])
    assert (float(scale), int(zero)) == (pytest.approx(1 / 255), 0)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert (metadata["qnas.scale"], metadata["qnas.bits"]) == ("2", "8")


def test_images_calibrate_and_are_compared_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = every_operation(channels=4)
    export_module(module, Path("small.onnx"), size=(16, 16))  # of one size: small patches
    Path("images").mkdir()
    for seed in range(3):
        write_png(Path("images") / f"{seed}.png", noise(80, 72, seed))
    Path("images/broken.png").write_bytes(b"no image")
    result = export("small.onnx", "--images", "images")
    assert result.exit_code == 0, result.output
    assert "images are read as 0..1" in result.output
    assert "(3 images)" in result.output
    assert json.loads(Path("small.qnas.calibration.json").read_text())["source"]["scale"] == 4
    again = export(
        "small.onnx", "--calibration", "small.qnas.calibration.json", "-o", "again.onnx", "--no-parity"
    )
    assert again.exit_code == 0, again.output
    assert Path("again.onnx").read_bytes() == Path("small.qnas.onnx").read_bytes()


GREY = """
net (float[n, 1, h, w] image) => (float[n, 1, y, x] upscaled)
<float[8, 1, 3, 3] k, float[8] b, float[4, 8, 3, 3] l, float[4] c, float little = {0.0001}>
{
    first = Conv <pads = [1, 1, 1, 1]> (image, k, b)
    r = Relu (first)
    second = Conv <pads = [1, 1, 1, 1]> (r, l, c)
    detail = Mul (second, little)
    four = Concat <axis = 1> (image, image, image, image)
    sum = Add (detail, four)
    upscaled = DepthToSpace <blocksize = 2, mode = "CRD"> (sum)
}"""


def test_a_grey_network_is_integer_in_every_format_and_compared_on_luma(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(text_model(GREY), "grey.onnx")
    make_photographs(Path("images"))
    formats = ("--format", "onnx-qdq", "--format", "tflite", "--layout", "nhwc")
    result = export("grey.onnx", *formats, "--images", "images", "--html")
    assert result.exit_code == 0, result.output
    report = json.loads(Path("grey.qnas.parity.json").read_text())
    assert [file["runtimes"][0]["gated"] for file in report["files"]] == [True, True]
    for file in report["files"]:
        assert file["runtimes"][0]["against"]["interpreter"]["differing"] == 0
    network = read_qdq(Path("grey.qnas.onnx"))
    assert [network.nodes[0].channels, network.nodes[-1].channels] == [1, 1]
    session = open_session(Path("grey.qnas.onnx"), 1)
    assert session.run(None, {"image": np.zeros((1, 6, 5, 1), np.uint8)})[0].shape == (1, 12, 10, 1)
    assert export("grey.qnas.onnx", "--format", "tflite", "-o", "again.tflite", "--no-parity").exit_code == 0


@pytest.mark.parametrize("options", [(), ("--size", "24x24")], ids=["any size", "another size"])
def test_a_float_model_of_one_size_is_compared_in_tiles_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    """Its integers take any size."""
    monkeypatch.chdir(tmp_path)
    export_module(espcn(clip=True), Path("small.onnx"), size=(16, 20))
    Path("images").mkdir()
    for seed in range(3):
        write_png(Path("images") / f"{seed}.png", noise(160, 144, seed))
    result = export("small.onnx", "--format", "tflite", *options, "--images", "images")
    assert result.exit_code == 0, result.output
    report = json.loads(Path("small.qnas.parity.json").read_text())
    references = {each["runtime"]: each for each in report["references"]}
    runtime = report["files"][0]["runtimes"][0]
    values = [references["float model"]["against"]["interpreter"]["values"],
              runtime["against"]["interpreter"]["values"]]  # fmt: skip
    assert (values[0] == values[1]) == (not options)


def test_what_no_integer_network_has_is_left_as_qdq_with_its_float_layers_named(folder: Path) -> None:
    result = export("every.onnx", "--calibration", "every.json", "--check", "images")
    assert result.exit_code == 0, result.output
    shown = words(result.output)
    assert "/Concat does not fit an image of 37x53;" in shown  # it takes even sides alone
    assert "6 of 6 convolutions integer; in float: PRelu /prelu/PRelu" in shown
    assert "not judged: what computes in float rounds as its runtime does" in shown
    report = json.loads(Path("every.qnas.parity.json").read_text())
    assert [each["runtime"] for each in report["references"]] == ["QDQ model", "float model"]
    model = onnx.load("every.qnas.onnx")
    assert {entry.key: entry.value for entry in model.metadata_props}["qnas.range"] == "uint8 0..255"
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8


def test_a_runtime_that_is_named_judges_a_qdq_model(folder: Path) -> None:
    named = ("every.onnx", "--calibration", "every.json", "--check", "images", "--gate", "onnxruntime")
    assert export(*named).exit_code == 0
    strict = export(*named, "--min-equal", "1", "--max-steps", "0", "--gate", "openvino", "-o", "b.onnx")
    assert "not judged" not in strict.output


def test_four_bit_weights_stay_four_bits(folder: Path) -> None:
    found = calibrate(Path("espcn.onnx"), [Path("images")], SETTINGS.__class__(**{
        **SETTINGS.__dict__, "weight_bits": 4
    }))  # fmt: skip
    write_calibration(found, Path("four.json"))
    assert export("espcn.onnx", "--calibration", "four.json", "--no-parity").exit_code == 0
    metadata = {entry.key: entry.value for entry in onnx.load("espcn.qnas.onnx").metadata_props}
    assert metadata["qnas.bits"] == "4"
    network = read_qdq(Path("espcn.qnas.onnx"))
    assert upscaler(network)(noise(12, 12)).shape == (24, 24, 3)


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["espcn.onnx"], "is a float model: calibrate it with --images IMAGES"),
        (["espcn.onnx", "--calibration", "every.json"], "calibrate espcn.onnx with qnas-calibrate"),
        (["espcn.onnx", "--calibration", "missing.json"], "missing.json cannot be read"),
        (["espcn.onnx", "--calibration", "espcn.json", "--format", "onnx-float32"], "needs a found.pt"),
        (["every.onnx", "--calibration", "every.json", "--format", "tflite"], "use --format onnx-qdq"),
        (["every.onnx", "--calibration", "every.json", "--target", "portable"], "leave out --target"),
        (["espcn.onnx", "--images", "nowhere"], "nowhere"),
    ],
)
def test_wrong_calls_end_in_one_line_and_write_nothing(
    folder: Path, arguments: list[str], advice: str
) -> None:
    before = sorted(folder.iterdir())
    result = export(*arguments)
    assert result.exit_code == 2, result.output
    assert result.output.count("\n") == 1
    assert advice in result.output
    assert sorted(folder.iterdir()) == before


def test_an_existing_calibration_is_not_overwritten(folder: Path) -> None:
    Path("espcn.qnas.calibration.json").write_text("precious")
    result = export("espcn.onnx", "--images", "images")
    assert (result.exit_code, "--force" in result.output) == (2, True)
    assert Path("espcn.qnas.calibration.json").read_text() == "precious"


@pytest.mark.parametrize("output", ["x.onnx", "x.parity.json", "x.calibration.json"])
def test_an_output_that_another_process_writes_is_left_to_it(folder: Path, output: str) -> None:
    with one_writer(folder / output):
        result = export("espcn.onnx", "--images", "images", "-o", "x.onnx")
    assert result.exit_code == 2
    assert result.output == f"error: another process writes {output}: wait for it, or stop it\n"
