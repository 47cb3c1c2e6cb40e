"""What `qnas-calibrate --dry-run` foresees is what the calibration and the exports then do."""

import json
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import numpy_helper

from qnas.calibration.calibrate import Settings, calibrate
from qnas.calibration.cli import main
from qnas.calibration.document import write_calibration
from qnas.errors import QnasError
from qnas.export.checks.check import executed
from qnas.export.cli import main as export_main
from qnas.export.options import Options
from qnas.export.run import export
from qnas.runtime_bench.dry_run import dry_run
from qnas.runtime_bench.latency_model.table import LatencyModel
from qnas.testing.random_graphs import FLOAT_OPERATIONS, OPERATIONS, random_graph
from qnas.testing.small_calibrations import make_network, make_photographs
from qnas.testing.sr_modules import espcn
from qnas.testing.sr_modules import export as export_module
from qnas.testing.text_models import text_model

SETTINGS = Settings(patch=24, count=4, threads=1, input_range="0..1")


def outcome(path: Path, images: Path, settings: Settings, name: str) -> tuple[str, bytes]:
    """What an export of the calibrated network says in the format `name`, and the file that it writes."""
    calibration, suffix = path.with_suffix(".json"), {"onnx-qdq": ".onnx", "tflite": ".tflite"}[name]
    if not calibration.exists():
        write_calibration(calibrate(path, [images], settings), calibration)
    target = path.with_name(f"{path.stem}.out{suffix}")
    try:
        export(path, Options((name,), calibration=calibration, parity=False), target)
    except QnasError as error:
        return str(error), b""
    return "", target.read_bytes()


@pytest.mark.parametrize(
    ("seed", "changes"),
    [
        (0, {}),
        (1, {"weight_bits": 4}),
        (2, {}),
        (3, {}),
        (4, {"float_layers": ("conv_2*",)}),
        (5, {"weight_bits": 4}),
    ],
)
def test_every_format_does_what_was_foreseen(seed: int, changes: dict[str, object], tmp_path: Path) -> None:
    """Networks of random operations, half of them with such as no integer network has."""
    path, settings = tmp_path / "random.onnx", replace(SETTINGS, **changes)
    operations = OPERATIONS if seed % 2 else (*OPERATIONS, *FLOAT_OPERATIONS, *FLOAT_OPERATIONS)
    onnx.save(random_graph(seed, operations), path)
    images = make_photographs(tmp_path / "images")
    found = dry_run(path, settings)
    for outlook in found.foresight.outlooks:
        said, data = outcome(path, images, settings, outlook.format)
        assert outlook.refusal == said
        assert bool(outlook.data) == bool(data)
    if found.foresight.works:
        fusion, macs = executed(tmp_path / "random.out.onnx")
        assert found.fusion is not None
        assert found.fusion.float_names == fusion.float_names
        assert found.integer_share == macs[0] / macs[1]


# The command ------------------------------------------------------------------------------------------------

SUMMED = """
net (float[n, 3, h, w] image) => (float[n, 3, y, x] upscaled)
<float[12, 3, 3, 3] k, int64[2] sides = {2, 3}, float little = {0.0001}>
{
    c = Conv <pads = [1, 1, 1, 1]> (image, k)
    total = ReduceSum (c, sides)
    shifted = Add (c, total)
    detail = Mul (shifted, little)
    four = Concat <axis = 1> (image, image, image, image)
    sum = Add (detail, four)
    upscaled = DepthToSpace <blocksize = 2, mode = "DCR"> (sum)
}"""


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments])


@pytest.fixture
def summed(tmp_path: Path) -> Path:
    """A network that TFLite refuses, beside a folder of photographs."""
    onnx.save(text_model(SUMMED), tmp_path / "summed.onnx")
    make_photographs(tmp_path / "images")
    return tmp_path / "summed.onnx"


def test_a_refused_format_is_named_with_its_node_and_what_stays_float_with_its_reason(summed: Path) -> None:
    result = run(summed, "--dry-run", "--input-range", "0..1", "--json", summed.with_suffix(".json"))
    assert result.exit_code == 0, result.output
    assert "onnx-qdq: works" in result.output
    assert (
        "tflite: refused: ReduceSum (node total) is not an operation of the integer network" in result.output
    )
    assert "in float, as no runtime computes it in integers: ReduceSum total" in result.output
    assert "100.0% of the multiply-adds in integers" in result.output
    document = json.loads(summed.with_suffix(".json").read_text())
    assert (document["format"], document["version"]) == ("qnas-dry-run", 1)
    assert [each["works"] for each in document["formats"]] == [True, False]
    assert {"node": "ReduceSum total", "why": "no runtime computes it in integers"} in document["in_float"]
    assert document["latency"] is None


def test_a_calibration_says_what_will_be_refused_before_it_reads_an_image(summed: Path) -> None:
    (summed.parent / "none").mkdir()
    result = run(summed, summed.parent / "none", "--input-range", "0..1")
    assert result.exit_code == 2  # for want of images, which are read later
    said, failed = result.output.splitlines()
    assert said.startswith("note: --format tflite will be refused: ReduceSum (node total)")
    assert failed.startswith("error: ")


def test_an_export_with_images_refuses_before_it_calibrates(summed: Path) -> None:
    arguments = [str(summed), "--format", "tflite", "--images", str(summed.parent / "images")]
    result = CliRunner().invoke(export_main, [*arguments, "--input-range", "0..1"])
    assert result.exit_code == 2
    assert "TFLite needs all of it, use --format onnx-qdq" in result.output
    assert sorted(path.name for path in summed.parent.iterdir()) == ["images", "summed.onnx"]


OVERFLOWING = """
net (float[n, 3, h, w] image) => (float[n, 3, y, x] upscaled) <float large = {1000}>
{
    powers = Mul (image, large)
    endless = Exp (powers)
    nothing = Reciprocal (endless)
    sum = Add (image, nothing)
    four = Concat <axis = 1> (sum, sum, sum, sum)
    upscaled = DepthToSpace <blocksize = 2, mode = "DCR"> (four)
}"""


def test_a_network_that_no_format_takes_is_refused_at_once(tmp_path: Path) -> None:
    """One of its tensors is infinite, which has no range."""
    path = tmp_path / "overflowing.onnx"
    onnx.save(text_model(OVERFLOWING), path)
    result = run(path, "--dry-run", "--input-range", "0..1")
    assert result.exit_code == 2, result.output
    assert result.output.count("refused: ") == 2
    assert "becomes an integer file in no format" in result.output
    before = run(path, make_photographs(tmp_path / "images"), "--input-range", "0..1")
    assert (before.exit_code, before.output.count("\n")) == (2, 1)


def test_a_filter_that_died_in_training_is_no_obstacle(tmp_path: Path) -> None:
    """Its weights are of 1e-40, whose steps would leave what TFLite's scales may be."""
    path = make_network(tmp_path)
    model = onnx.load(path)
    for tensor in model.graph.initializer[:2]:
        values = numpy_helper.to_array(tensor).copy()
        values[3] = 1e-40
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, path)
    found = dry_run(path, SETTINGS)
    assert [outlook.refusal for outlook in found.foresight.outlooks] == ["", ""]


def test_latencies_come_of_a_table(tmp_path: Path) -> None:
    path, table = make_network(tmp_path), tmp_path / "table.json"
    table.write_text(LatencyModel("cpu", 1, {"cpu": "abacus"}, (), 0.0, 2_000_000.0).to_json())
    result = run(path, "--dry-run", "--latency-table", table)
    assert result.exit_code == 0, result.output
    assert "predicted for cpu on abacus, 1 thread: 2.00 ms in float, 2.00 ms in integers" in result.output


def test_a_size_that_is_freed_is_told(tmp_path: Path) -> None:
    path = export_module(espcn(clip=True, channels=8, scale=2), tmp_path / "one.onnx", size=(16, 20))
    shown = run(path, "--dry-run").output
    assert "x2, RGB images of any size" in shown
    assert "the file says images of 20x16 alone" in shown


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        ((), "no images: name IMAGES"),
        (("images", "--json", "x.json"), "are for --dry-run"),
        (("--dry-run", "--latency-table", "none.json"), "none.json cannot be read"),
        (("--dry-run", "--float-layer", "nothing"), "no such layer"),
    ],
)
def test_wrong_calls_end_in_one_line(tmp_path: Path, arguments: tuple[str, ...], advice: str) -> None:
    result = run(make_network(tmp_path), *arguments)
    assert (result.exit_code, result.output.count("\n")) == (2, 1)
    assert advice in result.output
