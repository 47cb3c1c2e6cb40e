"""The process that holds one model: `python -P -m qnas.runtime_bench.workers.worker`, here or over ssh.

A runtime that crashes ends this process and nothing else. What runtimes print goes to stderr: stdout is the
conversation of `protocol`.
"""

import base64
import gc
import json
import os
import platform
import select
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from qnas import __version__
from qnas.errors import ModelError, QnasError, UsageError
from qnas.runtime_bench import model_cache
from qnas.runtime_bench.environment import current_environment
from qnas.runtime_bench.machine_state import snapshot
from qnas.runtime_bench.memory import own_peak
from qnas.runtime_bench.profile.roofline import machine_peak
from qnas.runtime_bench.workers.protocol import PROTOCOL, Loaded, LoadRequest
from qnas.runtimes.inputs import Feed, parse_shape, random_inputs, resolve_shapes
from qnas.runtimes.names import listing, parse_device
from qnas.runtimes.runtime import Model

Json = dict[str, Any]
LAST_WORDS = 5.0  # seconds that a worker has to end by itself once nobody asks it any more


class Worker:
    """Answers requests; the model comes with the first `load`."""

    def __init__(self) -> None:
        self._request: LoadRequest | None = None
        self._model: Model | None = None
        self._feed: Feed = {}

    def answer(self, asked: Json) -> Json:
        """One reply; raises QnasError for what is the caller's fault."""
        do = asked.pop("do")
        if do not in ANSWERS:
            raise UsageError(f"a worker cannot {do!r}: install the same qnas on both machines")
        return ANSWERS[do](self, **asked)

    def hello(self) -> Json:
        return {"protocol": PROTOCOL, "qnas": __version__, "python": platform.python_version()}

    def listing(self) -> Json:
        return {"devices": listing()}

    def state(self) -> Json:
        return asdict(snapshot())

    def put(self, **piece: Any) -> Json:
        model_cache.put(**piece)
        return {}

    def peak(self, threads: int) -> Json:
        return asdict(machine_peak(threads))

    def load(self, **wanted: Any) -> Json:
        request = self._request = msgspec.convert(wanted, LoadRequest)
        if request.cpus:
            _stay_on(request.cpus)
        name = parse_device(request.device)
        device = name.device
        if reason := device.missing(name.argument):
            raise UsageError(reason)
        runtime = device.version()
        start = time.perf_counter_ns()
        model = device.load(name.argument, Path(request.model), request.threads, request.options)
        loaded = time.perf_counter_ns()
        shapes = resolve_shapes(model.inputs, [parse_shape(text) for text in request.shapes])
        self._feed = random_inputs(model.inputs, shapes, request.seed)
        model.feed(self._feed)
        fed = time.perf_counter_ns()
        model.run()
        first = time.perf_counter_ns()
        self._model = model
        gc.collect()
        gc.disable()
        return asdict(
            Loaded(
                environment=current_environment(runtime),
                input_shapes=shapes,
                input_types={each.name: each.dtype for each in model.inputs},
                output_shapes={name: value.shape for name, value in model.outputs().items()},
                load_ns=loaded - start,
                first_ns=first - fed,
                peak_memory=0 if device.elsewhere else own_peak(),
            )
        )

    def run(self, count: int) -> Json:
        model, times = self._ready(), []
        for _ in range(count):
            start = time.perf_counter_ns()
            model.run()
            times.append(time.perf_counter_ns() - start)
        return {"ns": times}

    def executed(self, runs: int) -> Json:
        self._ready()
        request = self._request
        assert request is not None
        name = parse_device(request.device)
        nodes = name.device.executed(
            name.argument, Path(request.model), self._feed, request.threads, request.options, runs
        )
        return {"nodes": [asdict(node) for node in nodes], "provider": name.device.provider(name.argument)}

    def outputs(self) -> Json:
        written = self._ready().outputs()
        return {
            "outputs": {
                name: {"dtype": value.dtype.name, "shape": value.shape, "data": _text(value.tobytes())}
                for name, value in written.items()
            }
        }

    def _ready(self) -> Model:
        if self._model is None:
            raise UsageError("no model is loaded")
        return self._model


ANSWERS: dict[str, Callable[..., Json]] = {
    "hello": Worker.hello,
    "has": lambda worker, digest: {"there": model_cache.has(digest)},
    "put": Worker.put,
    "kept": lambda worker, **file: {"path": str(model_cache.kept(**file))},
    "load": Worker.load,
    "run": Worker.run,
    "executed": Worker.executed,
    "outputs": Worker.outputs,
    "state": Worker.state,
    "peak": Worker.peak,
    "listing": Worker.listing,
}


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _stay_on(cpus: tuple[int, ...]) -> None:
    if not hasattr(os, "sched_setaffinity"):
        raise UsageError("this system cannot bind a process to processors: leave --cpus out")
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as error:
        shown = ", ".join(map(str, sorted(os.sched_getaffinity(0))))
        raise UsageError(f"--cpus {','.join(map(str, cpus))}: this machine has {shown}") from error


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer every line until there is none."""
    worker = Worker()
    for line in requests:
        try:
            reply = worker.answer(msgspec.json.decode(line, type=Json))
        except UsageError as error:
            reply = {"error": str(error), "usage": True}
        except QnasError as error:
            reply = {"error": str(error)}
        except MemoryError:
            reply = {"error": str(ModelError("it does not fit into memory: choose a smaller --shape"))}
        replies.write(json.dumps(reply).encode() + b"\n")
        replies.flush()


def _end_with_bench() -> None:
    """Wait until the bench is gone or its connection dropped, and end, whatever the runtime does then."""
    gone = select.poll()
    gone.register(0, getattr(select, "POLLRDHUP", 0))  # hanging up is told without being asked for
    gone.poll()
    time.sleep(LAST_WORDS)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_bench, daemon=True).start()
    conversation = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        serve(sys.stdin.buffer, conversation)
    except KeyboardInterrupt:
        sys.exit(130)
