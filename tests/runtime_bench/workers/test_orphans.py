"""However a bench ends, no process that it started goes on: the real command, a hung device, real signals."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest

from qnas.testing.phone import program
from qnas.testing.text_models import INTEGER_CONV, text_model

HUNG = """#!/bin/sh
sleep 600 &
echo $! >> "$PIDS"
echo $$ >> "$PIDS"
wait
"""  # neither reads nor writes: a hung device, and a child of its own
COMMANDS = {
    "measure": "runtime_bench.measure_cli q.onnx --device {device}",
    "gate": "runtime_bench.gate_cli q.onnx --against r.onnx --device {device}",
    "correlate": "runtime_bench.correlate_cli . --device {device} -o page.html",
}


@pytest.fixture
def hung(tmp_path: Path) -> Iterator[Path]:
    for name in ("q.onnx", "r.onnx", "s.onnx"):
        onnx.save(text_model(INTEGER_CONV), tmp_path / name)
    program(tmp_path / "hung", HUNG)
    yield tmp_path
    for pid in pids(tmp_path):
        if alive(pid):
            os.kill(pid, signal.SIGKILL)


def pids(folder: Path) -> list[int]:
    written = folder / "pids"
    return [int(each) for each in written.read_text().split()] if written.exists() else []


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def soon(what: object, seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while not what() and time.monotonic() < end:  # type: ignore[operator]
        time.sleep(0.05)
    return what()  # type: ignore[operator,no-any-return]


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked for in /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
@pytest.mark.parametrize("device", ["ssh:board/cpu", "adb:phone/cpu"])
def test_a_bench_that_ends_takes_a_hung_device_with_it(hung: Path, how: signal.Signals, device: str) -> None:
    assert ends_with_bench(hung, COMMANDS["measure"].format(device=device), how)


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked for in /proc")
@pytest.mark.parametrize("command", ["gate", "correlate"])
def test_every_command_takes_a_hung_device_with_it(hung: Path, command: str) -> None:
    assert ends_with_bench(hung, COMMANDS[command].format(device="ssh:board/cpu"), signal.SIGTERM)


def ends_with_bench(folder: Path, line: str, how: signal.Signals) -> bool:
    """Whether all processes of the command have ended soon after it was sent the signal."""
    module, *words = line.split()
    both = {name: str(folder / "hung") for name in ("QNAS_SSH", "QNAS_ADB")}
    bench = subprocess.Popen(
        [sys.executable, "-c", f"from qnas.{module} import main; main()", *words, "--adb-binary", "hung"],
        cwd=folder, env=os.environ | both | {"PIDS": str(folder / "pids")}, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert soon(lambda: len(pids(folder)) >= 2)
        bench.send_signal(how)
        bench.wait(60)
    finally:
        bench.kill()
    return soon(lambda: not any(map(alive, pids(folder))), 30)


def test_a_worker_ends_whose_connection_dropped_while_it_was_hung(tmp_path: Path) -> None:
    hang = (
        "import runpy, time; from qnas.runtime_bench.workers import worker; "
        "worker.LAST_WORDS = 0.1; worker._end_with_bench()"
    )
    process = subprocess.Popen([sys.executable, "-c", hang], stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(60) == 1
