"""The command qnas-bench, and what it measures with."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from text_models import FLOAT_CONV, INTEGER_CONV, text_model

from qnas.errors import ModelError, UsageError
from qnas.runtime_bench import environment
from qnas.runtime_bench.cli import main
from qnas.runtime_bench.inputs import ShapeRequest, parse_shape, random_inputs, resolve_shapes
from qnas.runtime_bench.measure import FEWEST_ROUNDS, MOST_ROUNDS, Candidate, Plan, measure
from qnas.runtime_bench.memory import peak_memory


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    onnx.save(text_model(FLOAT_CONV), folder / "float.onnx")
    onnx.save(text_model(INTEGER_CONV), folder / "integer.onnx")
    return folder


def bench(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments])


def declared(**shapes: Sequence[object]) -> Any:
    """What `get_inputs` of a session tells, without a session."""
    inputs = [SimpleNamespace(name=name, shape=shape, type="tensor(float)") for name, shape in shapes.items()]
    return SimpleNamespace(get_inputs=lambda: inputs)


# The command -------------------------------------------------------------------------------------------


def test_json_holds_every_sample_and_what_they_were_taken_on(models: Path, tmp_path: Path) -> None:
    path, report_path = models / "integer.onnx", tmp_path / "report.json"
    result = bench(path, "--device", "cpu", "--shape", "16x24", "--runs", 7, "--json", report_path)
    assert (result.exit_code, result.stderr) == (0, "")
    report = json.loads(report_path.read_text())
    assert (report["format"], report["version"]) == ("qnas-bench", 1)
    assert report["settings"]["threads"] == 1
    assert set(report["environment"]) >= {"cpu", "cores", "governor", "onnxruntime", "python", "qnas"}
    (model,) = report["models"]
    assert model["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert model["bytes"] == path.stat().st_size
    assert model["inputs"] == {"image": {"type": "uint8", "shape": [1, 3, 16, 24]}}
    assert model["outputs"] == {"upscaled": [1, 3, 32, 48]}
    samples = model["samples_ns"]
    assert len(samples) == 7
    assert all(isinstance(sample, int) and sample > 0 for sample in samples)
    assert model["latency_ns"]["value"] == sorted(samples)[3]
    assert min(samples) <= model["latency_ns"]["low"] <= model["latency_ns"]["high"] <= max(samples)
    assert model["megapixels_per_second"] == pytest.approx(32 * 48 * 1e3 / sorted(samples)[3])
    assert model["peak_memory_bytes"] > 10 * 2**20
    assert model["cost"]["macs"] == 12 * 27 * 16 * 24
    assert model["cost"]["bitops"] == 64 * model["cost"]["macs"]
    assert model["fusion"] == {"total": 1, "integer": 1, "float_ops": []}


def test_table_shows_each_model_and_its_ratio_to_the_first(models: Path, tmp_path: Path) -> None:
    marked = tmp_path / "[red]float.onnx"  # a name that must not be taken for markup
    shutil.copy(models / "float.onnx", marked)
    result = bench(marked, models / "integer.onnx", "--shape", "8x8", "--runs", 3)
    assert result.exit_code == 0
    rows = {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in table_cells(result.stdout)}
    assert rows[""] == ["[red]float.onnx", "integer.onnx"]
    assert rows["ratio to the first"][0] == "1"
    ratio, low, high = (float(part.strip("[],")) for part in rows["ratio to the first"][1].split())
    assert low <= ratio <= high
    assert rows["integer convolutions"] == ["0 of 1", "1 of 1"]
    assert rows["MACs (G = 10^9)"] == ["2.074e-05"] * 2  # 12 * 27 * 64
    assert "3 rounds" in result.stdout


def table_cells(text: str) -> list[list[str]]:
    lines = [line.replace("┃", "│").strip("│") for line in text.splitlines() if line.startswith(("┃", "│"))]
    return [line.split("│") for line in lines]


def test_convention_of_the_paper_divides_by_two_to_the_thirtieth(models: Path) -> None:
    arguments = (models / "integer.onnx", "--shape", "256x256", "--runs", 1, "--convention", "paper")
    rows = {cells[0].strip(): cells[1].strip() for cells in table_cells(bench(*arguments).stdout)}
    assert rows["BitOps (G = 2^30)"] == "1.266"  # 12 * 27 * 256 * 256 * 64 / 2**30


def test_operations_that_are_not_counted_are_named(tmp_path: Path) -> None:
    text = """
    net (float[5, 1, 4] x) => (float[s, 1, 1, 3] y) <float[1, 12, 4] k, float[1, 12, 3] r>
    { y = LSTM <hidden_size = 3> (x, k, r) }"""
    onnx.save(text_model(text), tmp_path / "lstm.onnx")
    rows = {
        cells[0].strip(): cells[1].strip()
        for cells in table_cells(bench(tmp_path / "lstm.onnx", "--runs", 1).stdout)
    }
    assert rows["not in MACs"] == "LSTM"


def test_model_whose_cost_is_unknown_is_measured_all_the_same(tmp_path: Path) -> None:
    text = """
    net (float[3, 4] x) => (float[a, 3] y) <float[2, 3] k>
    {
        z = NonZero (x)
        t = Transpose (z)
        f = Cast <to = 1> (t)
        y = MatMul (f, k)
    }"""
    onnx.save(text_model(text), tmp_path / "model.onnx")
    result = bench(tmp_path / "model.onnx", "--runs", 1, "--json", tmp_path / "report.json")
    assert result.exit_code == 0
    assert "cost unknown" in result.stderr
    assert "node y (MatMul)" in result.stderr
    (model,) = json.loads((tmp_path / "report.json").read_text())["models"]
    assert model["cost"] is None
    assert len(model["samples_ns"]) == 1


def test_weights_in_a_file_beside_the_model_belong_to_its_size(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    text = "net (float[1, 8, 4, 4] x) => (float[] y) <float[8, 8, 3, 3] k> { y = Conv (x, k) }"
    onnx.save_model(text_model(text), path, save_as_external_data=True, location="weights", size_threshold=0)
    result = bench(path, "--runs", 1, "--json", tmp_path / "report.json")
    assert result.exit_code == 0
    (model,) = json.loads((tmp_path / "report.json").read_text())["models"]
    files = path.read_bytes(), (tmp_path / "weights").read_bytes()
    assert model["bytes"] == sum(map(len, files))
    assert model["sha256"] == hashlib.sha256(b"".join(files)).hexdigest()


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("corrupt.onnx", (), "onnxruntime cannot load"),
        ("missing.onnx", (), "missing.onnx is not a file"),
        ("custom.onnx", (), "house:Something"),
        ("text.onnx", (), "input 'x' is a tensor(string)"),
        ("float.onnx", ("--shape", "1x3x8"), "input 'image' is [n, 3, h, w]: a shape of 1x3x8 does not fit"),
        ("float.onnx", ("--shape", "1x4x8x8"), "a shape of 1x4x8x8 does not fit"),
        ("float.onnx", ("--shape", "picture:8x8"), "no model has an input 'picture': there are image"),
        ("float.onnx", ("--shape", "0x8"), "--shape 0x8: write sizes as"),
        ("float.onnx", ("--shape", "999999999x999999999"), "does not fit into memory"),
        ("free.onnx", ("--shape", "1x4x8x8"), "it cannot run on x of 1x4x8x8"),
        ("float.onnx", ("--device", "npu"), "there is no device 'npu': the devices are cpu"),
        ("float.onnx", ("--runs", "2", "--min-time", "2"), "give one"),
    ],
)
def test_bad_input_is_one_line_exit_code_two_and_no_json(
    tmp_path: Path, model: str, options: tuple[str, ...], message: str
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "corrupt.onnx").write_bytes(b"corrupt")
    for name, text in {
        "custom": "net (float[2] x) => (float[2] y) { y = house.Something (x) }",
        "text": "net (string[2] x) => (string[2] y) { y = Identity (x) }",
        "free": "net (float[n, c, h, w] x) => (float[] y) <float[2, 3, 1, 1] k> { y = Conv (x, k) }",
    }.items():
        onnx.save(text_model(text), folder / f"{name}.onnx")
    onnx.save(text_model(FLOAT_CONV), folder / "float.onnx")
    output = tmp_path / "output"
    output.mkdir()
    result = bench(folder / model, *options, "--json", output / "report.json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(output.iterdir()) == []


def test_json_that_exists_is_replaced_only_by_force(models: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    report.write_text("precious")
    refused = bench(models / "float.onnx", "--runs", 1, "--json", report)
    assert (refused.exit_code, report.read_text()) == (2, "precious")
    assert "pass --force" in refused.stderr
    assert bench(models / "float.onnx", "--runs", 1, "--json", report, "--force").exit_code == 0
    assert json.loads(report.read_text())["format"] == "qnas-bench"


def test_json_never_replaces_a_model(models: Path) -> None:
    path = models / "float.onnx"
    before = path.read_bytes()
    assert bench(path, "--json", path, "--force").exit_code == 2
    assert path.read_bytes() == before


def test_interrupt_exits_130_and_leaves_no_json(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("qnas.runtime_bench.benchmark.measure", interrupted)
    result = bench(models / "float.onnx", "--json", tmp_path / "report.json")
    assert (result.exit_code, result.stdout) == (130, "")
    assert list(tmp_path.iterdir()) == []


def in_a_process(*arguments: object) -> "subprocess.CompletedProcess[str]":
    program = "from qnas.runtime_bench.cli import main; main()"
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_process_without_a_terminal_prints_the_table_and_no_progress(models: Path) -> None:
    result = in_a_process(models / "float.onnx", "--min-time", 0.01, "--warmup", 0)
    assert (result.returncode, result.stderr) == (0, "")
    assert "median latency (ms)" in result.stdout


def test_process_fails_with_exit_code_two_and_no_traceback(tmp_path: Path) -> None:
    result = in_a_process(tmp_path / "missing.onnx")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"error: {tmp_path / 'missing.onnx'} is not a file: name an .onnx model\n"


# Rounds ------------------------------------------------------------------------------------------------


def test_models_run_in_turns_after_each_has_warmed_up() -> None:
    order: list[str] = []
    candidates = [
        Candidate(Path(name), SimpleNamespace(run=lambda *_, name=name: order.append(name)), {}, {})
        for name in "AB"
    ]
    told: list[float] = []
    samples = measure(candidates, Plan(rounds=3, warmup=2), told.append)
    assert "".join(order) == "AABB" + "ABABAB"
    assert [len(times) for times in samples] == [3, 3]
    assert told == pytest.approx([1 / 3, 2 / 3, 1])


def test_timed_plan_needs_both_the_time_and_the_fewest_rounds_but_ends_at_the_most() -> None:
    plan = Plan(seconds=2)
    assert plan.fraction_done(rounds=FEWEST_ROUNDS, nanoseconds=1_000_000_000) == 0.5
    assert plan.fraction_done(rounds=FEWEST_ROUNDS // 2, nanoseconds=9_000_000_000) == 0.5
    assert plan.fraction_done(rounds=FEWEST_ROUNDS, nanoseconds=2_000_000_000) == 1
    assert plan.fraction_done(rounds=MOST_ROUNDS, nanoseconds=1) == 1


# Inputs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name", "sizes"),
    [
        ("1x3x64x48", None, (1, 3, 64, 48)),
        ("64x48", None, (64, 48)),
        ("image:64x48", "image", (64, 48)),
        ("input:0:7", "input:0", (7,)),
    ],
)
def test_shape_is_read(text: str, name: str | None, sizes: tuple[int, ...]) -> None:
    assert parse_shape(text) == ShapeRequest(name, sizes)


@pytest.mark.parametrize("text", ["", "axb", "3x", "-1x3", "3,4", "image:", "0x4", "1x3x9999999999x1"])
def test_shape_that_is_none_raises(text: str) -> None:
    with pytest.raises(UsageError, match="write sizes as"):
        parse_shape(text)


@pytest.mark.parametrize(
    ("dims", "asked", "expected"),
    [
        ((None, None, None, None), (), (1, 3, 128, 128)),
        (("n", 1, "h", "w"), (), (1, 1, 128, 128)),
        ((1, 3, 32, 32), (), (1, 3, 32, 32)),
        (("n", "h", "w", 3), (), (1, 128, 128, 3)),
        (("n", "h", "w", 3), ("20x30",), (1, 20, 30, 3)),
        (("n", 3, "h", "w"), ("20x30",), (1, 3, 20, 30)),
        (("n", 3, "h", "w"), ("2x3x20x30",), (2, 3, 20, 30)),
        (("n", "m"), (), (1, 1)),
        (("n", "m"), ("5x6",), (5, 6)),
        ((), (), ()),
    ],
)
def test_free_dimensions_take_what_is_asked_or_an_image(
    dims: tuple[object, ...], asked: tuple[str, ...], expected: tuple[int, ...]
) -> None:
    assert resolve_shapes(declared(x=dims), [parse_shape(text) for text in asked]) == {"x": expected}


def test_inputs_that_share_a_symbol_share_its_size() -> None:
    session = declared(image=("n", 3, "h", "w"), ids=("n", 7), rest=("m",))
    asked = [parse_shape("image:5x3x8x9")]
    assert resolve_shapes(session, asked) == {"image": (5, 3, 8, 9), "ids": (5, 7), "rest": (1,)}


def test_height_and_width_go_to_every_image_among_several_inputs() -> None:
    session = declared(left=(1, 3, "h", "w"), right=(1, 3, "h", "w"), gain=("n", "m"))
    assert resolve_shapes(session, [parse_shape("8x9")]) == {
        "left": (1, 3, 8, 9),
        "right": (1, 3, 8, 9),
        "gain": (1, 1),
    }


def test_full_shape_without_a_name_raises_among_several_inputs() -> None:
    with pytest.raises(UsageError, match="the model has 2 inputs: name the one meant"):
        resolve_shapes(declared(a=("n",), b=("n",)), [parse_shape("3x4x5")])


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [
        ("float", 0, 1),
        ("float16", 0, 1),
        ("uint8", 0, 255),
        ("int8", -128, 127),
        ("int64", 0, 1),
        ("bool", 0, 1),
    ],
)
def test_random_inputs_have_the_type_and_range_of_the_input(kind: str, low: int, high: int) -> None:
    session = SimpleNamespace(get_inputs=lambda: [SimpleNamespace(name="x", type=f"tensor({kind})")])
    values = random_inputs(session, {"x": (50, 60)}, seed=1)["x"]
    assert values.dtype == np.dtype({"float": "float32"}.get(kind, kind))
    assert values.shape == (50, 60)
    assert values.min() == pytest.approx(low, abs=0.01)
    assert values.max() == pytest.approx(high, abs=0.01)
    assert np.array_equal(values, random_inputs(session, {"x": (50, 60)}, seed=1)["x"])
    assert not np.array_equal(values, random_inputs(session, {"x": (50, 60)}, seed=2)["x"])


# Memory and environment --------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="the system does not tell a peak")
def test_peak_memory_is_that_of_the_model_and_not_of_this_process(models: Path) -> None:
    held = np.ones(50_000_000)  # 400 MB
    small = peak_memory(models / "float.onnx", 1, {"image": (1, 3, 32, 32)}, 0)
    large = peak_memory(models / "float.onnx", 1, {"image": (1, 3, 1024, 1024)}, 0)
    assert small is not None
    assert large is not None
    assert small < held.nbytes
    # The input has 3 float32 values a pixel, the convolution's output 12: 63 MB at least.
    assert large - small > 60_000_000


def test_failure_of_the_measuring_process_raises(models: Path) -> None:
    with pytest.raises(ModelError, match="fails in a process of its own: it cannot run on image of 1x4x8x8"):
        peak_memory(models / "float.onnx", 1, {"image": (1, 4, 8, 8)}, 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor\t: 0\nmodel name\t: Fast CPU @ 3 GHz\n", "Fast CPU @ 3 GHz"),
        ("CPU implementer\t: 0x41\nCPU part\t: 0xd0c\nCPU implementer\t: 0x41\n", "ARM 0x41 0xd0c"),
    ],
)
def test_processor_is_named_as_the_kernel_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, expected: str
) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(environment, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(environment, "GOVERNOR", tmp_path / "absent")
    found = environment.current_environment()
    assert (found.cpu, found.governor) == (expected, None)
