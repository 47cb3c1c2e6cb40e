"""Devices behind adb: what is sent, what is run, what is understood of what programs print."""

import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from qnas.errors import ModelError, UsageError
from qnas.export.to_tflite.writer import write_tflite
from qnas.runtime_bench.gate_cli import main as gate
from qnas.runtime_bench.measure_cli import main
from qnas.runtime_bench.model_files import ModelFiles, model_files
from qnas.runtime_bench.profile.delegation import delegation
from qnas.runtime_bench.workers.adb import AdbRunner
from qnas.runtime_bench.workers.adb_tools import TOOLS, Call, Printed
from qnas.runtime_bench.workers.process import LoadOptions
from qnas.runtime_bench.workers.start import start_runner
from qnas.runtimes.inputs import Input
from qnas.runtimes.names import parse_device
from qnas.testing.phone import BENCHMARK_MODEL, PERF_TEST, connect, program
from qnas.testing.small_networks import conv, grid, image, network
from qnas.testing.text_models import INTEGER_CONV, text_model

# Recorded: github.com/google/XNNPACK/issues/999, a Raspberry Pi 4.
RECORDED = """\
count=9 first=64791 curr=56295 min=54873 max=65831 avg=57758.2 std=4065

count=50 first=58154 curr=53809 min=53077 max=60727 avg=55043.2 std=1562

Inference timings in us: Init: 18777, First inference: 64791, Warmup (avg): 57758.2, Inference (avg): 55043.2
Memory footprint delta from the start of the tool (MB): init=8.97656 overall=18.7227
"""
# Recorded from an onnxruntime_perf_test of 2025; 62 % of four processors.
RECORDED_ORT = """\
Setting intra_op_num_threads to 1
Session creation time cost: 0.169475 s
First inference time cost: 109 ms
Total inference time cost: 0.0727021 s
Average inference time cost total: 7.270205 ms
Avg CPU usage: 62 %
Peak working set size: 91336704 bytes
"""
LITERT, ORT = TOOLS[".tflite"], TOOLS[".onnx"]


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return connect(tmp_path, monkeypatch)


@pytest.fixture
def onnx_model(tmp_path: Path) -> ModelFiles:
    onnx.save(text_model(INTEGER_CONV), tmp_path / "it's a model.onnx")  # names reach a shell
    return model_files(tmp_path / "it's a model.onnx")


@pytest.fixture
def tflite_model(tmp_path: Path) -> ModelFiles:
    weight = np.arange(-54, 54).reshape(4, 3, 3, 3)
    small = network(image(), conv("head", "image", weight, grid(2.0**-4), scale=2.0**-7))
    (tmp_path / "model.tflite").write_bytes(write_tflite(small, 8, 9).data)
    return model_files(tmp_path / "model.tflite")


def start(model: ModelFiles, device: str, binary: Path, **options: object) -> AdbRunner:
    runner = start_runner(model, parse_device(device), replace(LoadOptions(adb_binary=binary), **options))  # type: ignore[arg-type]
    assert isinstance(runner, AdbRunner)
    return runner


def call(device: str, *, dims: tuple[int | str | None, ...] = (1, 3, 8, 8), profile: bool = False) -> Call:
    shape = {"image": tuple(each if isinstance(each, int) else 8 for each in dims)}
    return Call("m", parse_device(device), 2, 5, 0, (Input("image", "uint8", dims),), shape, profile=profile)


# Running -----------------------------------------------------------------------------------------------


def test_perf_test_tells_every_inference(phone: Path, tmp_path: Path, onnx_model: ModelFiles) -> None:
    runner = start(onnx_model, "adb:phone1/cpu", program(tmp_path / "perf test", PERF_TEST), shapes=("8x9",))
    assert runner.loaded.input_shapes == {"image": (1, 3, 8, 9)}
    assert runner.loaded.peak_memory == 91336704
    assert runner.loaded.load_ns > 0
    assert runner.loaded.environment.runtime.startswith("onnxruntime_perf_test ")
    times = runner.run(1)
    assert len(times) > 1  # a burst fills its time: a start costs much more
    assert all(time > 0 for time in times)
    assert runner.state().monotonic_ns > 0
    nodes, provider = runner.executed(3)
    proof = delegation(nodes, provider, 0)
    assert (proof.mac_share, proof.integer_share, proof.macs) == (1, 1, 12 * 27 * 72)
    assert len(nodes[0].nanoseconds) == 3
    runner.close()
    assert sorted(each.name for each in phone.glob("qnas/run-*")) == []


def test_benchmark_model_tells_means(phone: Path, tmp_path: Path, tflite_model: ModelFiles) -> None:
    runner = start(tflite_model, "adb:phone1/litert:xnnpack", program(tmp_path / "bench", BENCHMARK_MODEL))
    times = runner.run(2)
    assert len(set(times)) == 1
    assert runner.loaded.environment.runtime.endswith(" (means of bursts)")
    nodes, provider = runner.executed(1)
    assert delegation(nodes, provider, 0).mac_share == 1
    assert [node.op for node in nodes if node.macs] == ["CONV_2D"]


def test_built_in_kernels_are_not_taken_for_a_delegate(
    phone: Path, tmp_path: Path, tflite_model: ModelFiles
) -> None:
    binary = program(tmp_path / "bench", BENCHMARK_MODEL.replace('given["use_xnnpack"] == "false"', "True"))
    nodes, provider = start(tflite_model, "adb:phone1/litert:xnnpack", binary).executed(1)
    assert provider == "XNNPACK"
    assert delegation(nodes, provider, 0).mac_share == 0
    nodes, provider = start(tflite_model, "adb:phone1/litert", binary).executed(1)
    assert delegation(nodes, provider, 0).mac_share == 1


def test_model_and_program_are_pushed_once(phone: Path, tmp_path: Path, onnx_model: ModelFiles) -> None:
    binary = program(tmp_path / "perf_test", PERF_TEST)
    start(onnx_model, "adb:phone1/cpu", binary, shapes=("8x8",))
    pushed = phone / "qnas" / onnx_model.digest / onnx_model.path.name
    assert pushed.read_bytes() == onnx_model.path.read_bytes()
    before = pushed.stat().st_mtime_ns
    start(onnx_model, "adb:phone1/cpu", binary, shapes=("8x8",))
    assert pushed.stat().st_mtime_ns == before
    assert len(list(phone.glob("qnas/*/*"))) == 2


def test_command_measures_on_a_phone(phone: Path, tmp_path: Path, onnx_model: ModelFiles) -> None:
    binary = program(tmp_path / "perf_test", PERF_TEST)
    words = [
        str(onnx_model.path),
        "--device",
        "adb:phone1/cpu",
        "--adb-binary",
        str(binary),
        "--shape",
        "8x8",
    ]
    result = CliRunner().invoke(main, [*words, "--runs", "2", "--warmup", "1", "--require-integer", "1"])
    assert result.exit_code == 0, result.output
    found = re.search(r"on adb:phone1/cpu: --runs is a lower bound there: (\d+) runs", result.stderr)
    assert found is not None
    assert int(found[1]) >= 2
    here = CliRunner().invoke(main, [str(onnx_model.path), "--shape", "8x8", "--runs", "2"])
    assert "lower bound" not in here.stderr


def test_gate_runs_on_a_phone(phone: Path, tmp_path: Path, onnx_model: ModelFiles) -> None:
    binary = program(tmp_path / "perf_test", PERF_TEST)
    words = [str(onnx_model.path), "--device", "adb:phone1/cpu", "--shape", "8x8", "--min-integer", "1.0"]
    result = CliRunner().invoke(gate, [*words, "--adb-binary", str(binary)])
    assert result.exit_code == 0, result.output
    assert "integer share" in result.stdout
    assert "as --adb-binary" in CliRunner().invoke(gate, words).stderr


# What goes wrong ---------------------------------------------------------------------------------------


def test_missing_adb_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, onnx_model: ModelFiles
) -> None:
    monkeypatch.setenv("QNAS_ADB", str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="adb is not installed"):
        start(onnx_model, "adb:phone1/cpu", program(tmp_path / "perf_test", PERF_TEST))


@pytest.mark.parametrize("says", ["device 'phone2' not found", "device unauthorized.", "device offline"])
def test_absent_device_is_told_in_the_words_of_adb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, onnx_model: ModelFiles, says: str
) -> None:
    adb = program(tmp_path / "adb", f'#!/bin/sh\necho "error: {says}" >&2; exit 1\n')
    monkeypatch.setenv("QNAS_ADB", str(adb))
    with pytest.raises(UsageError, match=f"adb:phone2: error: {says}"):
        start(onnx_model, "adb:phone2/cpu", program(tmp_path / "perf_test", PERF_TEST))


def test_missing_program_and_foreign_models_are_refused(tmp_path: Path, onnx_model: ModelFiles) -> None:
    with pytest.raises(UsageError, match=r"give the onnxruntime_perf_test .* as --adb-binary"):
        start_runner(onnx_model, parse_device("adb:phone1/cpu"), LoadOptions())
    for device in ("adb:phone1/litert", "adb:phone1/openvino"):
        with pytest.raises(UsageError, match="does not run"):
            start(onnx_model, device, program(tmp_path / "perf_test", PERF_TEST))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("echo cannot open model; exit 3", "ended with status 3: cannot open model"),
        ("echo starting; kill -SEGV $$", "killed by SIGSEGV"),
        ("echo all is well", "wrote no result.csv"),
        ("touch result.csv", "wrote no result.csv"),
        ("echo > result.csv", "times of 0 inferences, not 1"),
    ],
)
def test_crash_of_the_program_is_told(
    phone: Path, tmp_path: Path, onnx_model: ModelFiles, body: str, says: str
) -> None:
    with pytest.raises(ModelError, match=says):
        start(onnx_model, "adb:phone1/cpu", program(tmp_path / "perf_test", f"#!/bin/sh\n{body}\n"))
    assert list(phone.glob("qnas/run-*")) == []


def test_device_that_goes_away_is_told(phone: Path, tmp_path: Path, onnx_model: ModelFiles) -> None:
    runner = start(onnx_model, "adb:phone1/cpu", program(tmp_path / "perf_test", PERF_TEST), shapes=("8x8",))
    program(tmp_path / "adb", "#!/bin/sh\necho 'error: device offline' >&2; exit 1\n")
    with pytest.raises(ModelError, match="the connection ended: error: device offline"):
        runner.run(1)


def test_device_that_hangs_is_told(phone: Path, tmp_path: Path, onnx_model: ModelFiles) -> None:
    runner = start(
        onnx_model,
        "adb:phone1/cpu",
        program(tmp_path / "perf_test", PERF_TEST),
        shapes=("8x8",),
        patience=120,
    )
    runner._adb._patience = 0.3
    program(tmp_path / "adb", "#!/bin/sh\nexec sleep 600\n")
    with pytest.raises(ModelError, match=r"did not answer within 0.3 s"):
        runner.run(1)


# How programs are called -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("adb:p/litert", ["--use_xnnpack=false"]),
        ("adb:p/litert:xnnpack", ["--use_xnnpack=true"]),
        ("adb:p/litert:gpu", ["--use_xnnpack=false", "--use_gpu=true"]),
        ("adb:p/litert:external=/v/l.so", ["--use_xnnpack=false", "--external_delegate_path=/v/l.so"]),
    ],
)
def test_every_litert_device_is_asked_for(device: str, words: list[str]) -> None:
    expected = ["--graph=m", "--num_threads=2", "--num_runs=5", "--min_secs=0", *words]
    assert LITERT.arguments(call(device)) == expected


def test_sizes_and_options_reach_benchmark_model() -> None:
    free = replace(call("adb:p/litert:external=l", dims=(1, None, None, 3)), options=(("a", "1"), ("b", "2")))
    assert LITERT.arguments(free)[-3:] == [
        "--external_delegate_options=a:1;b:2", "--input_layer=image", "--input_layer_shape=1,8,8,3",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("device", "provider"),
    [
        ("adb:p/cpu", "cpu"), ("adb:p/ort:XNNPACK", "xnnpack"), ("adb:p/ort:nnapi", "nnapi"),
        ("adb:p/ort:QNNExecutionProvider", "qnn"),
    ],
)  # fmt: skip
def test_every_onnxruntime_device_is_asked_for(device: str, provider: str) -> None:
    words = ORT.arguments(call(device, dims=(1, 3, "h", 8)))
    assert words == [*f"-m times -r 5 -e {provider} -x 2 -y 1 -I -S 0 -f h:8".split(), "m", "result.csv"]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (call("adb:p/litert:nnapi"), "litert:nnapi is not there on adb"),
        (replace(call("adb:p/litert"), options=(("a", "1"),)), "external delegates only"),
        (call("adb:p/ort:a b"), "name an execution provider"),
        (call("adb:p/cpu", dims=(1, 3, None, 8)), "fix it in the model"),
    ],
)
def test_what_programs_cannot_do_is_refused(asked: Call, says: str) -> None:
    tool = LITERT if asked.device.kind == "litert" else ORT
    with pytest.raises(UsageError, match=says):
        tool.arguments(asked)


# What programs print -----------------------------------------------------------------------------------


def test_recorded_benchmark_model_is_understood(tmp_path: Path) -> None:
    expected = Printed(18_777_000, 64_791_000, (55_043_200,) * 3, round(18.7227 * 2**20))
    assert LITERT.parse(RECORDED, tmp_path, 3) == expected
    older = RECORDED.replace("Memory footprint delta from the start of the tool", "Peak memory footprint")
    assert LITERT.parse(older, tmp_path, 3) == expected


def test_slow_models_print_exponents(tmp_path: Path) -> None:
    slow = RECORDED.replace("Inference (avg): 55043.2", "Inference (avg): 1.25e+06")
    assert LITERT.parse(slow, tmp_path, 1).times == (1_250_000_000,)


@pytest.mark.parametrize(
    "rows",
    [
        "dir,0.007,91336704,62,0\ndir,0.0085,91336704,62,1\n",
        "dir,0.001,0.007,91336704,62,0\ndir,0.001,0.0085,91336704,62,1\n",  # submission, then the whole
    ],
)
def test_recorded_perf_test_is_understood(tmp_path: Path, rows: str) -> None:
    (tmp_path / "result.csv").write_text(rows + "\nMin Latency: 0.007 s\n")
    expected = Printed(169_475_000, 109_000_000, (7_000_000, 8_500_000), 91336704)
    assert ORT.parse(RECORDED_ORT, tmp_path, 2) == expected


DAMAGE = st.lists(st.tuples(st.integers(0, 800), st.text(max_size=6)), max_size=6)


def damaged(text: str, damage: list[tuple[int, str]]) -> str:
    for place, inserted in damage:
        text = text[:place] + inserted + text[place + len(inserted) + 1 :]
    return text


@settings(max_examples=60, deadline=None)
@given(damage=DAMAGE, count=st.integers(1, 3))
def test_damaged_output_is_an_error_or_times(
    damage: list[tuple[int, str]], count: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    rows = "dir,0.001,0.007,91336704,62,0\ndir,0.001,0.0085,91336704,62,1\n"
    (folder / "result.csv").write_text(damaged(rows, damage), "utf-8")
    for tool, text in ((LITERT, RECORDED), (ORT, RECORDED_ORT)):
        try:
            printed = tool.parse(damaged(text, damage), folder, count)
        except ModelError:
            continue
        assert len(printed.times) == count
        assert all(0 < time <= 10**15 for time in printed.times)


@settings(max_examples=40, deadline=None)
@given(damage=DAMAGE)
def test_damaged_profile_is_an_error_or_nodes(
    damage: list[tuple[int, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("profile")
    onnx.save(text_model(INTEGER_CONV), folder / "m.onnx")
    shapes = '[{"uint8": [1, 3, 8, 8]}]'
    event = (
        '{"name": "c_kernel_time", "dur": 7, "args": {"op_name": "Conv", "provider": "P", '
        f'"input_type_shape": {shapes}, "output_type_shape": {shapes}}}}}, {{"name": "model_run", "dur": 9}}'
    )
    (folder / "profile_1.json").write_text(damaged(f"[{event}]", damage), "utf-8")
    with suppress(ModelError):
        ORT.nodes(folder / "m.onnx", call("adb:p/cpu", profile=True), "", folder)


def test_damaged_profile_of_litert_is_an_error_or_nodes(tflite_model: ModelFiles, tmp_path: Path) -> None:
    head, row = (
        "Operator-wise Profiling Info for Regular Benchmark Runs:\n",
        "\tCONV_2D\t0.1\t0.1\t1\t[head]:{}\n",
    )
    asked = call("adb:p/litert:xnnpack", profile=True)
    for text in ("", head, head + row.format(99), head + row.format("9" * 30), head + "\tCONV_2D\t[head]\n"):
        with suppress(ModelError):
            nodes, _ = LITERT.nodes(tflite_model.path, asked, text, tmp_path)
            assert len(nodes) > 0
    with pytest.raises(ModelError, match="printed no profile"):
        LITERT.nodes(tflite_model.path, asked, RECORDED, tmp_path)
