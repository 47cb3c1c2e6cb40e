"""Workers: the processes that hold a model, and what happens when they die, hang, lie or are far away."""

import base64
import hashlib
import os
import signal
import stat
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from qnas.errors import ModelError, UsageError
from qnas.onnx.session import open_session
from qnas.runtime_bench import model_cache
from qnas.runtime_bench.model_files import ModelFiles, model_files
from qnas.runtime_bench.workers.process import LoadOptions, Worker, WorkerRunner
from qnas.runtime_bench.workers.protocol import Done, Hello, Times
from qnas.runtimes.names import DeviceName, default_device, parse_device
from qnas.testing.text_models import INTEGER_CONV, text_model

CPU = parse_device("cpu")
REMOTE = parse_device("ssh:board/cpu")
OPTIONS = LoadOptions(shapes=("8x9",), remote_python=sys.executable)


@pytest.fixture
def model(tmp_path: Path) -> ModelFiles:
    onnx.save(text_model(INTEGER_CONV), tmp_path / "model.onnx")
    return model_files(tmp_path / "model.onnx")


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine behind ssh: what ssh would run there runs here, with a cache of its own."""
    return transport(tmp_path, monkeypatch, 'exec sh -c "$command"')


# hello and has arrive there; the connection drops before the next is answered
TWO_REQUESTS = """
{ read -r a; echo "$a"; read -r b; echo "$b"; } | sh -c "$command"; echo Connection reset >&2; exit 255"""


def transport(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str) -> Path:
    script = tmp_path / "ssh"
    script.write_text(f"#!/bin/sh\nfor command; do :; done\n{ending}\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("QNAS_SSH", str(script))
    monkeypatch.setenv("QNAS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


# Names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("cpu", DeviceName("cpu")),
        ("ort:XNNPACK", DeviceName("ort", "XNNPACK")),
        ("openvino", DeviceName("openvino")),
        ("openvino:GPU.1", DeviceName("openvino", "GPU.1")),
        ("litert:external=/opt/lib/gpu.so", DeviceName("litert", "external=/opt/lib/gpu.so")),
        ("ssh:pi@board/litert:xnnpack", DeviceName("litert", "xnnpack", "ssh", "pi@board")),
        ("ssh:pi/litert:external=/a/b.so", DeviceName("litert", "external=/a/b.so", "ssh", "pi")),
        ("adb:1A2B/cpu", DeviceName("cpu", "", "adb", "1A2B")),
    ],
)
def test_device_is_read_and_written_by_its_name(text: str, name: DeviceName) -> None:
    assert parse_device(text) == name
    assert str(name) == text


@pytest.mark.parametrize(
    "text", ["", "gpu", "ort", "ort:", "cpu:0", "ssh:", "ssh:pi", "ssh:/cpu", "ssh:a/ssh:b/cpu"]
)
def test_device_that_is_none_raises(text: str) -> None:
    with pytest.raises(UsageError):
        parse_device(text)


def test_models_have_the_default_device_of_their_kind() -> None:
    assert str(default_device(Path("a.onnx"))) == "cpu"
    assert str(default_device(Path("a.tflite"))) == "litert:xnnpack"


# A worker here -----------------------------------------------------------------------------------------


def test_worker_loads_runs_and_tells_what_it_wrote(model: ModelFiles) -> None:
    runner = WorkerRunner(model, CPU, OPTIONS)
    try:
        assert runner.name == "model.onnx on cpu"
        assert runner.loaded.input_shapes == {"image": (1, 3, 8, 9)}
        assert runner.loaded.output_shapes == {"upscaled": (1, 3, 16, 18)}
        assert runner.loaded.input_types == {"image": "uint8"}
        assert min(runner.loaded.load_ns, runner.loaded.first_ns, runner.loaded.peak_memory) > 0
        assert runner.loaded.environment.runtime.startswith("onnxruntime ")
        times = runner.run(3)
        assert len(times) == 3
        assert min(times) > 0
        feed = np.random.default_rng(0).integers(0, 255, (1, 3, 8, 9), np.uint8, endpoint=True)
        expected = open_session(model.path, 1).run(None, {"image": feed})[0]
        np.testing.assert_array_equal(runner.outputs()["upscaled"], expected)
        nodes, provider = runner.executed(2)
        assert {node.provider for node in nodes} == {provider} == {"CPUExecutionProvider"}
        assert all(len(node.nanoseconds) == 2 for node in nodes)
    finally:
        runner.close()
    runner.close()  # harmless


def test_runtime_that_crashes_ends_the_worker_only(model: ModelFiles) -> None:
    runner = WorkerRunner(model, CPU, OPTIONS)
    os.kill(runner.worker._program.process.pid, signal.SIGSEGV)
    with pytest.raises(
        ModelError, match="runtime of cpu crashed: its process was killed by SIGSEGV during 'run'"
    ):
        runner.run(1)
    runner.close()


def test_worker_that_hangs_is_given_up(model: ModelFiles) -> None:
    runner = WorkerRunner(model, CPU, OPTIONS)
    runner.worker._patience = 0.3  # only now: a busy machine starts a process in seconds
    os.kill(runner.worker._program.process.pid, signal.SIGSTOP)
    with pytest.raises(ModelError, match="cpu did not answer 'run' within"):
        runner.run(1)
    runner.close()
    assert (
        runner.worker._program.process.returncode == -signal.SIGKILL
    )  # a stopped process ends in no other way


def test_worker_ends_when_the_bench_is_gone(model: ModelFiles) -> None:
    runner = WorkerRunner(model, CPU, OPTIONS)
    process = runner.worker._program.process
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(120) == 0
    runner.close()


def test_request_that_no_worker_knows_is_the_callers_fault() -> None:
    worker = Worker(CPU, OPTIONS)
    try:
        with pytest.raises(UsageError, match="a worker cannot 'dance'"):
            worker.ask("dance", Done)
        with pytest.raises(UsageError, match="no model is loaded"):
            worker.ask("run", Times, count=1)
        assert worker.ask("hello", Hello).protocol == 1
    finally:
        worker.close()


# A worker far away -------------------------------------------------------------------------------------


def test_model_is_sent_once_and_runs_there(model: ModelFiles, board: Path) -> None:
    there = board / model.digest / "model.onnx"
    for _ in range(2):
        runner = WorkerRunner(model, REMOTE, OPTIONS)
        assert runner.loaded.input_shapes == {"image": (1, 3, 8, 9)}
        runner.close()
        assert there.read_bytes() == model.path.read_bytes()
        first = there.stat().st_mtime_ns if there.exists() else 0
    assert there.stat().st_mtime_ns == first


def test_model_of_several_files_arrives_whole_in_pieces(
    tmp_path: Path, board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qnas.runtime_bench.workers.process.PIECE", 1000)
    path = tmp_path / "big.onnx"
    text = "net (float[1, 8, 4, 4] x) => (float[] y) <float[8, 8, 3, 3] k> { y = Conv (x, k) }"
    onnx.save_model(text_model(text), path, save_as_external_data=True, location="weights", size_threshold=0)
    runner = WorkerRunner(model_files(path), REMOTE, LoadOptions(remote_python=sys.executable))
    runner.close()
    assert (board / model_files(path).digest / "weights").read_bytes() == (tmp_path / "weights").read_bytes()


def test_model_that_was_damaged_there_is_removed_and_sent_again(model: ModelFiles, board: Path) -> None:
    WorkerRunner(model, REMOTE, OPTIONS).close()
    there = board / model.digest / "model.onnx"
    there.write_bytes(b"damaged")
    with pytest.raises(UsageError, match="is damaged and was removed: try again"):
        WorkerRunner(model, REMOTE, OPTIONS)
    WorkerRunner(model, REMOTE, OPTIONS).close()
    assert there.read_bytes() == model.path.read_bytes()


def test_connection_that_drops_is_said_with_the_last_words(
    model: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport(tmp_path, monkeypatch, TWO_REQUESTS)
    with pytest.raises(
        ModelError, match="ssh:board/cpu: the connection ended during 'put': Connection reset; check"
    ):
        WorkerRunner(model, REMOTE, OPTIONS)


def test_machine_without_qnas_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transport(tmp_path, monkeypatch, "echo No module named qnas >&2; exit 1")
    with pytest.raises(
        ModelError, match="No module named qnas; check that ssh works there and that its python has"
    ):
        Worker(REMOTE, OPTIONS)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ('{"protocol": 99}', "speaks version 99 of the bench's protocol"),
        ("Welcome to this board!", "the answer of .* to 'hello' is not JSON .*: is it the same qnas"),
        ("[1]", "the answer of .* to 'hello' is no reply: is it the same qnas"),
        ("{}", "the answer of .* to 'hello': protocol is missing"),
    ],
)
def test_stranger_who_answers_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, message: str
) -> None:
    transport(tmp_path, monkeypatch, f"echo '{said}'; sleep 1")
    with pytest.raises((UsageError, ModelError), match=message):
        Worker(REMOTE, OPTIONS)


def test_ssh_that_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QNAS_SSH", "no-such-ssh")
    with pytest.raises(UsageError, match="cannot be reached"):
        Worker(REMOTE, OPTIONS)


# Models that were sent ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("digest", "name", "message"),
    [
        ("../../etc", "a", "named by its SHA-256"),
        ("0" * 64, "../a", "no plain file name"),
        ("0" * 64, "/a", "no plain file name"),
        ("0" * 64, "", "no plain file name"),
    ],
)
def test_name_that_leads_out_of_the_cache_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digest: str, name: str, message: str
) -> None:
    monkeypatch.setenv("QNAS_CACHE", str(tmp_path))
    with pytest.raises(UsageError, match=message):
        model_cache.put(digest, name, "", first=True, last=True)
    assert list(tmp_path.iterdir()) == []


def test_transfer_that_was_cut_off_starts_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QNAS_CACHE", str(tmp_path))
    data = b"whole"
    digest = hashlib.sha256(data).hexdigest()
    text = base64.b64encode(data).decode()
    model_cache.put(digest, "m.onnx", text, first=True, last=False)
    assert not model_cache.has(digest)
    model_cache.put(digest, "m.onnx", text, first=True, last=True)
    assert model_cache.kept(digest, "m.onnx", digest).read_bytes() == data
    with pytest.raises(UsageError, match="arrived damaged"):
        model_cache.put("1" * 64, "m.onnx", "no base64!", first=True, last=True)
