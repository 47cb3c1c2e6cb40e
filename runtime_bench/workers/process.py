"""The bench's end of a worker: starts it, here or over ssh, and asks it."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from qnas.documents.reading import Document
from qnas.errors import ModelError, UsageError, system_error
from qnas.export.formats.table import file_kind
from qnas.processes import ENDING, Program, TooMuch, ending
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
    check_times,
)
from qnas.runtimes.executed import ExecutedNode
from qnas.runtimes.inputs import parse_shape, resolve_shapes
from qnas.runtimes.names import DeviceName

MODULE = "qnas.runtime_bench.workers.worker"
PATIENCE = 300.0  # seconds until an answer; a float network of 4K takes tens of them
LONGEST_REPLY = 1 << 24  # bytes
LONGEST_OUTPUTS = 1 << 28  # bytes; those of 4K take half of it
PIECE = 1 << 20  # bytes of a model sent at once

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
        try:
            self._program = Program(worker_command(device, options.remote_python))
        except FileNotFoundError as error:
            raise UsageError(f"{device} cannot be reached: install {error.filename}") from error
        except OSError as error:
            raise UsageError(f"{device}: no process starts: {system_error(error)}") from error
        try:
            self._greet()
        except BaseException:
            self.close()
            raise

    def ask(self, do: str, reply: type[_Reply], **arguments: Any) -> _Reply:
        """The reply to one request; UsageError or ModelError as the worker says."""
        line = json.dumps({"do": do, **arguments}).encode()
        try:
            longest = LONGEST_OUTPUTS if reply is Outputs else LONGEST_REPLY
            said = self._program.ask(line, self._patience, longest)
        except TimeoutError as error:
            self._program.close(0)
            raise ModelError(
                f"{self._device} did not answer {do!r} within {self._patience:g} s: "
                "choose a smaller --shape or a longer --timeout"
            ) from error
        except TooMuch as error:
            self._program.close(0)
            raise ModelError(f"{self._device} says more than an answer to {do!r}: {SAME_QNAS}") from error
        except EOFError:
            raise self._death(do) from None
        where = f"the answer of {self._device} to {do!r}"
        refusal = REFUSAL.parse(said, where)
        if refusal.error:
            raise (UsageError if refusal.usage else ModelError)(refusal.error)
        return Document(reply, "reply", SAME_QNAS, ModelError).parse(said, where)

    def close(self) -> None:
        """End the process; harmless when it has ended."""
        self._program.close(ENDING if sys.exc_info()[0] is None else 0.1)

    def _greet(self) -> None:
        spoken = self.ask("hello", Hello).protocol
        if spoken != PROTOCOL:
            raise UsageError(
                f"{self._device} speaks version {spoken} of the bench's protocol, this is "
                f"{PROTOCOL}: install the same qnas on both machines"
            )

    def _death(self, do: str) -> ModelError:
        """Why the process is no more, in its last words."""
        status = 0
        with contextlib.suppress(TimeoutError, TooMuch):
            status = self._program.wait(ENDING, LONGEST_REPLY).status
        self._program.close(0)
        said = self._program.errors.strip().splitlines()
        words = f": {said[-1][:300]}" if said else ""
        if self._device.transport:
            return ModelError(
                f"{self._device}: the connection ended during {do!r}{words}; check that ssh works there and "
                "that its python has qnas (--remote-python)"
            )
        return ModelError(
            f"the runtime of {self._device} crashed: its process {ending(status)} during {do!r}{words}"
        )


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
            _check_shapes(model.path, self.loaded, options.shapes)
        except (ModelError, UsageError) as error:
            self.close()
            raise type(error)(f"{model.path}: {error}") from error
        except BaseException:
            self.close()
            raise

    def run(self, count: int) -> list[int]:
        """Nanoseconds of `count` inferences in a row."""
        begun = time.perf_counter_ns()
        times = self.worker.ask("run", Times, count=count).ns
        check_times(times, count, time.perf_counter_ns() - begun, self.name)
        return times

    def executed(self, runs: int) -> tuple[tuple[ExecutedNode, ...], str]:
        """What ran, profiled over `runs` inferences, and what the device is called there."""
        reply = self.worker.ask("executed", Executed, runs=runs)
        if any(len(node.nanoseconds) not in (0, 1, runs) for node in reply.nodes):  # 1: their mean
            raise ModelError(f"{self.name} tells times of other than {runs} runs: {SAME_QNAS}")
        return reply.nodes, reply.provider

    def outputs(self) -> dict[str, NDArray[Any]]:
        """What the last run wrote."""
        written = self.worker.ask("outputs", Outputs).outputs
        if {name: each.shape for name, each in written.items()} != self.loaded.output_shapes:
            raise ModelError(f"{self.name} sent other outputs than it announced: {SAME_QNAS}")
        try:
            return {
                n: np.frombuffer(each.data, each.dtype).reshape(each.shape) for n, each in written.items()
            }
        except ValueError as error:
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


def _check_shapes(model: Path, loaded: Loaded, shapes: Sequence[str]) -> None:
    """What was loaded has as many inputs as the file, of the shapes that were asked for. Raises ModelError.

    Where there are several, shapes that they share are known by a name, which not every runtime knows.
    """
    declared = file_kind(model).inputs(model)
    expected = resolve_shapes(declared, [parse_shape(text) for text in shapes])
    found = list(loaded.input_shapes.values())
    if len(found) != len(expected) or (len(found) == 1 and found != list(expected.values())):
        raise ModelError(f"another model was loaded, with inputs of {found}: {SAME_QNAS}")


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
