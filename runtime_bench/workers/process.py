"""The bench's end of a worker: starts it, here or over ssh, and asks it."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import selectors
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from qnas.documents.reading import Document
from qnas.errors import ModelError, UsageError
from qnas.runtime_bench.machine_state import State
from qnas.runtime_bench.model_files import ModelFiles
from qnas.runtime_bench.profile.peak import Peak
from qnas.runtime_bench.workers.protocol import (
    PROTOCOL,
    Done,
    Executed,
    Has,
    Hello,
    Kept,
    Loaded,
    LoadRequest,
    Outputs,
    Refusal,
    Times,
)
from qnas.runtimes.executed import ExecutedNode
from qnas.runtimes.names import DeviceName

MODULE = "qnas.runtime_bench.workers.worker"
PATIENCE = 300.0  # seconds until an answer; a float network of 4K takes tens of them
LONGEST_REPLY = 2**31  # bytes
PIECE = 1 << 20  # bytes of a model sent at once
ENDING = 2.0  # seconds that a worker has to end by itself

_Reply = TypeVar("_Reply")
SAME_QNAS = "is it the same qnas?"
REFUSAL = Document(Refusal, "reply", SAME_QNAS, ModelError)


@dataclass(frozen=True)
class LoadOptions:
    """What is the same for every candidate of one benchmark.

    `remote_python`: the interpreter that has qnas on machines behind ssh. `patience`: seconds for one answer.
    `adb_binary`: the benchmark program for devices behind adb.
    """

    threads: int = 1
    shapes: tuple[str, ...] = ()
    seed: int = 0
    cpus: tuple[int, ...] = ()
    device_options: tuple[tuple[str, str], ...] = ()
    remote_python: str = "python3"
    patience: float = PATIENCE
    adb_binary: Path | None = None


class Worker:
    """A running worker process. Every method raises ModelError when it dies, hangs or talks nonsense."""

    def __init__(self, device: DeviceName, options: LoadOptions) -> None:
        self._device, self._patience = device, options.patience
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        try:
            self._process = subprocess.Popen(
                worker_command(device, options.remote_python),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                start_new_session=True,  # Ctrl-C is ours to answer
            )
        except OSError as error:
            self._errors.close()
            raise UsageError(f"{device} cannot be reached ({error.strerror}): install ssh") from error
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._pending = bytearray()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._process.stdout, selectors.EVENT_READ)
        try:
            self._greet()
        except BaseException:
            self.close()
            raise

    def ask(self, do: str, reply: type[_Reply], **arguments: Any) -> _Reply:
        """The reply to one request; UsageError or ModelError as the worker says."""
        line = json.dumps({"do": do, **arguments}).encode() + b"\n"
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except (BrokenPipeError, OSError):
            raise self._death(do) from None
        said, where = self._line(do), f"the answer of {self._device} to {do!r}"
        refusal = REFUSAL.parse(said, where)
        if refusal.error:
            raise (UsageError if refusal.usage else ModelError)(refusal.error)
        return Document(reply, "reply", SAME_QNAS, ModelError).parse(said, where)

    def close(self) -> None:
        """End the process; harmless when it has ended."""
        with contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        try:
            self._process.wait(ENDING if sys.exc_info()[0] is None else 0.1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._selector.close()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()

    def _greet(self) -> None:
        spoken = self.ask("hello", Hello).protocol
        if spoken != PROTOCOL:
            raise UsageError(
                f"{self._device} speaks version {spoken} of the bench's protocol, this is "
                f"{PROTOCOL}: install the same qnas on both machines"
            )

    def _line(self, do: str) -> bytes:
        end = time.monotonic() + self._patience
        stdout = self._process.stdout
        assert stdout is not None
        while b"\n" not in self._pending:
            left = end - time.monotonic()
            if left <= 0 or not self._selector.select(left):
                raise ModelError(
                    f"{self._device} did not answer {do!r} within {self._patience:g} s: "
                    "choose a smaller --shape or a longer --timeout"
                )
            piece = stdout.read(1 << 16)
            if not piece:
                raise self._death(do)
            self._pending += piece
            if len(self._pending) > LONGEST_REPLY:
                raise ModelError(f"{self._device} answers without end: {SAME_QNAS}")
        line, _, rest = self._pending.partition(b"\n")
        self._pending = rest
        return bytes(line)

    def _death(self, do: str) -> ModelError:
        """Why the process is no more, in its last words."""
        try:
            status = self._process.wait(ENDING)
        except subprocess.TimeoutExpired:
            status = 0
        self._errors.seek(0)
        said = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        words = f": {said[-1][:300]}" if said else ""
        if self._device.transport:
            return ModelError(
                f"{self._device}: the connection ended during {do!r}{words}; check that ssh works there and "
                "that its python has qnas (--remote-python)"
            )
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        return ModelError(f"the runtime of {self._device} crashed: its process {how} during {do!r}{words}")


def worker_command(device: DeviceName, remote_python: str) -> list[str]:
    """How a worker is started; $QNAS_SSH stands for `ssh` with options of its own, as in git."""
    if device.transport == "":
        return [sys.executable, "-P", "-m", MODULE]
    ssh = shlex.split(os.environ.get("QNAS_SSH", "ssh"))
    keep = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=15"]
    return [*ssh, *keep, "--", device.machine, f"{shlex.quote(remote_python)} -P -m {MODULE}"]


class WorkerRunner:
    """A model in a worker, loaded and run once (see `workers.runner.Runner`)."""

    def __init__(self, model: ModelFiles, device: DeviceName, options: LoadOptions) -> None:
        self.name = f"{model.path.name} on {device}"
        self.worker = Worker(device, options)
        try:
            path = send(model, self.worker) if device.transport else str(model.path.absolute())
            request = LoadRequest(
                model=path,
                device=str(device.here),
                options=dict(options.device_options),
                threads=options.threads,
                shapes=options.shapes,
                seed=options.seed,
                cpus=options.cpus,
            )
            self.loaded = self.worker.ask("load", Loaded, **vars(request))
        except (ModelError, UsageError) as error:
            self.close()
            raise type(error)(f"{model.path}: {error}") from error
        except BaseException:
            self.close()
            raise

    def run(self, count: int) -> list[int]:
        """Nanoseconds of `count` inferences in a row."""
        return self.worker.ask("run", Times, count=count).ns

    def executed(self, runs: int) -> tuple[tuple[ExecutedNode, ...], str]:
        """What ran, profiled over `runs` inferences, and what the device is called there."""
        reply = self.worker.ask("executed", Executed, runs=runs)
        return reply.nodes, reply.provider

    def outputs(self) -> dict[str, NDArray[Any]]:
        """What the last run wrote."""
        written = self.worker.ask("outputs", Outputs).outputs
        try:
            return {
                n: np.frombuffer(each.data, each.dtype).reshape(each.shape) for n, each in written.items()
            }
        except (TypeError, ValueError) as error:
            raise ModelError(f"{self.name} sent a damaged output ({error}): {SAME_QNAS}") from error

    def state(self) -> State:
        """The machine as it is now."""
        return self.worker.ask("state", State)

    def peak(self, threads: int) -> Peak:
        """How fast its machine can be; measured there once, which takes seconds."""
        return self.worker.ask("peak", Peak, threads=threads)

    def close(self) -> None:
        """End the process."""
        self.worker.close()


def send(model: ModelFiles, worker: Worker) -> str:
    """Bring the model to the worker's machine if it has not got it; returns its path there."""
    if not worker.ask("has", Has, digest=model.digest).there:
        pieces = [(file.name, piece) for file in model.files for piece in _pieces(file)]
        for index, (name, piece) in enumerate(pieces):
            data = base64.b64encode(piece).decode("ascii")
            ends = {"first": index == 0, "last": index == len(pieces) - 1}
            worker.ask("put", Done, digest=model.digest, name=name, data=data, **ends)
    paths = [
        worker.ask("kept", Kept, digest=model.digest, name=file.name, sha256=sha256).path
        for file, sha256 in zip(model.files, model.sha256, strict=True)
    ]
    return paths[0]


def _pieces(file: Path) -> list[bytes]:
    data = file.read_bytes()
    return [data[start : start + PIECE] for start in range(0, max(len(data), 1), PIECE)]
