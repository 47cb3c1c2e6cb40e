"""The command qnas-bench, and what it measures with."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import click
import onnx
import pytest
from click.testing import CliRunner, Result

from qnas.runtime_bench.cli import main
from qnas.runtime_bench.correlate_cli import main as correlate
from qnas.runtime_bench.gate_cli import main as gate
from qnas.runtime_bench.measure_cli import main as measure
from qnas.runtime_bench.workers.process import LoadOptions
from qnas.testing.text_models import FLOAT_CONV, INTEGER_CONV, text_model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    onnx.save(text_model(FLOAT_CONV), folder / "float.onnx")
    onnx.save(text_model(INTEGER_CONV), folder / "integer.onnx")
    return folder


def bench(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments])


# The command -------------------------------------------------------------------------------------------


def test_json_holds_every_sample_and_what_they_were_taken_on(models: Path, tmp_path: Path) -> None:
    path, report_path = models / "integer.onnx", tmp_path / "report.json"
    result = bench(path, "--device", "cpu", "--shape", "16x24", "--runs", 7, "--json", report_path)
    assert result.exit_code == 0
    report = json.loads(report_path.read_text())
    assert (report["format"], report["version"]) == ("qnas-bench", 2)
    assert report["settings"]["threads"] == 1
    (model,) = report["models"]
    assert set(model["environment"]) >= {"cpu", "cores", "governor", "runtime", "python", "qnas"}
    assert (model["device"], model["environment"]["runtime"].split()[0]) == ("cpu", "onnxruntime")
    assert model["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert model["bytes"] == path.stat().st_size
    assert model["inputs"] == {"image": {"type": "uint8", "shape": [1, 3, 16, 24]}}
    assert model["outputs"] == {"upscaled": [1, 3, 32, 48]}
    samples = [ns for burst in model["rounds_ns"] for ns in burst]
    assert len(samples) == 7
    assert all(isinstance(sample, int) and sample > 0 for sample in samples)
    assert model["latency_ns"]["value"] == sorted(samples)[3]
    assert min(samples) <= model["latency_ns"]["low"] <= model["latency_ns"]["high"] <= max(samples)
    assert model["megapixels_per_second"] == pytest.approx(32 * 48 * 1e3 / sorted(samples)[3])
    assert model["peak_memory_bytes"] > 10 * 2**20
    cost_path = tmp_path / "cost.json"
    assert bench("cost", path, "--shape", "16x24", "--json", cost_path).exit_code == 0
    assert model["cost"] == json.loads(cost_path.read_text())["models"][0]["cost"]
    assert model["cost"]["macs"] == 12 * 27 * 16 * 24
    assert model["cost"]["bitops"] == 64 * model["cost"]["macs"]
    assert model["cost"]["executed_bitops"] == 64 * model["cost"]["macs"]
    assert model["fusion"] == {"total": 1, "integer": 1, "float_ops": [], "float_names": []}
    assert model["delegation"]["provider"] == "CPUExecutionProvider"
    assert (
        model["delegation"]["delegated_macs"] == model["delegation"]["integer_macs"] == model["cost"]["macs"]
    )
    assert model["percentiles_ns"]["p50"] == sorted(samples)[3]
    assert model["first_ns"] > 0
    assert model["load_ns"] > 0


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
    assert len(model["rounds_ns"]) == 1


def test_weights_in_a_file_beside_the_model_belong_to_its_size(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    text = "net (float[1, 8, 4, 4] x) => (float[] y) <float[8, 8, 3, 3] k> { y = Conv (x, k) }"
    onnx.save_model(text_model(text), path, save_as_external_data=True, location="weights", size_threshold=0)
    result = bench(path, "--runs", 1, "--json", tmp_path / "report.json")
    assert result.exit_code == 0
    (model,) = json.loads((tmp_path / "report.json").read_text())["models"]
    files = path.read_bytes(), (tmp_path / "weights").read_bytes()
    assert model["bytes"] == sum(map(len, files))
    each = "".join(hashlib.sha256(data).hexdigest() for data in files)
    assert model["sha256"] == hashlib.sha256(each.encode()).hexdigest()


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("corrupt.onnx", (), "is no readable ONNX model"),
        ("missing.onnx", (), "missing.onnx is not a file"),
        ("custom.onnx", (), "house:Something"),
        ("text.onnx", (), "input 'x' is a string"),
        ("float.onnx", ("--shape", "1x3x8"), "input 'image' is [n, 3, h, w]: a shape of 1x3x8 does not fit"),
        ("float.onnx", ("--shape", "1x4x8x8"), "a shape of 1x4x8x8 does not fit"),
        ("float.onnx", ("--shape", "picture:8x8"), "no model has an input 'picture': there are image"),
        ("float.onnx", ("--shape", "0x8"), "--shape 0x8: write sizes as"),
        ("float.onnx", ("--shape", "999999999x999999999"), "does not fit into memory"),
        ("free.onnx", ("--shape", "1x4x8x8"), "it cannot run on x of 1x4x8x8"),
        ("float.onnx", ("--device", "npu"), "there is no device 'npu': there are cpu, ort:PROVIDER"),
        ("float.onnx", ("--device", "litert"), "none of litert runs .onnx files"),
        ("float.onnx", ("--device", "cpu", "--device", "litert"), "--device litert runs .tflite files"),
        ("float.onnx", ("--device", "ort:Nonsense"), "has no execution provider 'Nonsense'"),
        ("float.onnx", ("--device", "ssh:host"), "name machine and device, as ssh:HOST/cpu"),
        ("float.onnx", ("--device", "ssh:-oProxyCommand=x/cpu"), "name machine and device"),
        ("float.onnx", ("--cpus", "4096"), "--cpus 4096: this machine has"),
        ("float.onnx", ("--cpus", "a"), "'a' is no list of processors"),
        ("float.onnx", ("--device-option", "a"), "'a' is not KEY=VALUE"),
        ("model.bin", (), "is no .onnx or .tflite file"),
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

    monkeypatch.setattr("qnas.runtime_bench.benchmark.measure", interrupted)  # when the workers run
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    try:
        result = bench(models / "float.onnx", "--json", tmp_path / "report.json")
    finally:
        signal.signal(signal.SIGINT, before)
    assert (result.exit_code, result.stdout) == (130, "")
    assert list(tmp_path.iterdir()) == []


def in_a_process(*arguments: object) -> "subprocess.CompletedProcess[str]":
    program = "from qnas.runtime_bench.cli import main; main()"
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_process_without_a_terminal_prints_the_table_and_no_progress(models: Path) -> None:
    result = in_a_process(models / "float.onnx", "--min-time", 0.01, "--warmup", 0)
    assert result.returncode == 0
    assert "median latency (ms)" in result.stdout
    assert "measuring" not in result.stderr


def test_process_fails_with_exit_code_two_and_no_traceback(tmp_path: Path) -> None:
    result = in_a_process(tmp_path / "missing.onnx")
    assert (result.returncode, result.stdout) == (2, "")
    path = tmp_path / "missing.onnx"
    assert result.stderr == f"error: {path} is not a file: name an .onnx or .tflite model\n"


@pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="the system does not tell a peak")
def test_peak_memory_is_that_of_the_model_alone(models: Path, tmp_path: Path) -> None:
    peaks = []
    for shape in ("32x32", "1024x1024"):
        path = tmp_path / f"{shape}.json"
        assert bench(models / "float.onnx", "--shape", shape, "--runs", 1, "--json", path).exit_code == 0
        peaks.append(json.loads(path.read_text())["models"][0]["peak_memory_bytes"])
    # The input has 3 float32 values a pixel, the convolution's output 12: 63 MB at least.
    assert peaks[1] - peaks[0] > 60_000_000


# Requirements and devices ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "option", "code"),
    [
        ("integer", "--require-integer", 0),
        ("float", "--require-integer", 1),
        ("float", "--require-delegated", 0),
    ],
)
def test_a_share_of_macs_that_is_required_decides_the_exit_code(
    models: Path, model: str, option: str, code: int
) -> None:
    result = bench(models / f"{model}.onnx", "--shape", "8x8", "--runs", 1, option, 1)
    assert result.exit_code == code
    assert ("missed: " in result.stderr) == bool(code)


def test_devices_are_listed_with_what_is_missing() -> None:
    result = bench("--list-devices")
    assert result.exit_code == 0
    rows = {cells[0].strip(): cells[1].strip() for cells in table_cells(result.stdout)}
    assert rows["cpu"] == "yes"
    assert rows["ort:CPU"] == "yes"
    assert any(reason != "yes" for reason in rows.values())  # nobody has all of them


def test_providers_that_onnxruntime_lacks_are_one_line_and_with_all_a_row_each() -> None:
    short, full = bench("--list-devices").stdout, bench("--list-devices", "--all").stdout
    (line,) = (each for each in short.splitlines() if each.startswith("not in this onnxruntime: "))
    absent = line.removeprefix("not in this onnxruntime: ").removesuffix(" (--all says why)").split(", ")
    assert len(absent) > 5  # no build has nearly all of them
    assert "not in this onnxruntime" not in full
    names, every = ({row[0].strip() for row in table_cells(text)} for text in (short, full))
    assert every - names == {f"ort:{name}" for name in absent}


def test_profile_shows_the_nodes_that_ran(models: Path) -> None:
    result = bench(models / "integer.onnx", "--shape", "16x16", "--runs", 1, "--profile")
    assert result.exit_code == 0
    assert "QLinearConv" in result.stdout
    assert "GOPS" in result.stdout


@pytest.mark.parametrize("command", [measure, gate, correlate])
def test_all_that_loading_a_model_can_be_told_is_an_option(command: click.Command) -> None:
    known = {each.name for each in command.params}
    assert {field.name for field in fields(LoadOptions)} <= known


def test_nothing_named_is_an_error_and_help_is_no_measurement() -> None:
    assert "no model is named" in bench("--threads", 2).stderr
    assert "gate" in bench("--help").stdout
    assert "--require-integer" in bench("measure", "--help").stdout
