"""How fast this machine could be: the highest rates of onnxruntime's kernels, on shapes that suit them.

That is an achievable peak, below the data sheet's and above what a network's layers reach; other runtimes may
pass it. One multiply-add is two operations. It is measured once a machine, version of onnxruntime and number
of threads, and kept in the cache.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from qnas.documents.reading import Document
from qnas.errors import OutputError
from qnas.files import write_file
from qnas.onnx.session import open_session
from qnas.runtime_bench.environment import Environment, current_environment
from qnas.runtime_bench.model_cache import cache_folder
from qnas.runtime_bench.profile.peak import Peak
from qnas.runtimes.inputs import Feed

KERNELS_VERSION = 1  # raise it when the kernels below change: what was kept is measured again
SECONDS = 0.4  # of each kernel
LIMIT = 3.0  # seconds of each kind; after it a slow machine is told by the kernels before, the small ones
FEWEST = 3  # runs of a kernel
STREAMED = 1 << 24  # floats of a tensor: 64 MiB, beyond the caches of most machines


@dataclass(frozen=True)
class _Kernel:
    """A model of one node, and how many operations or bytes a run of it takes."""

    model: bytes
    feed: Feed
    work: int


def machine_peak(threads: int) -> Peak:
    """The peak of this machine, from the cache or measured now (under 10 s)."""
    import onnxruntime

    environment = current_environment(f"onnxruntime {onnxruntime.__version__}")
    key = _key(environment, threads)
    kept = cache_folder() / "roofline" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
    found = _read(kept, key)
    if found is None:
        found = measure_peak(threads, environment.runtime)
        _write(kept, key, found)
    return found


def measure_peak(threads: int, runtime: str) -> Peak:
    """Each rate is the highest of the medians of its kernels."""
    return Peak(
        integer_gops=_highest(_integer_kernels(), threads),
        float_gflops=_highest(_float_kernels(), threads),
        gigabytes=_highest(_streaming_kernels(), threads),
        threads=threads,
        runtime=runtime,
    )


def _highest(kernels: Iterator[_Kernel], threads: int) -> float:
    best, end = 0.0, time.monotonic() + LIMIT
    for kernel in kernels:
        best = max(best, kernel.work / _median_ns(kernel, threads))
        if time.monotonic() > end:
            break
    return best


def _median_ns(kernel: _Kernel, threads: int) -> float:
    session = open_session(kernel.model, threads)
    session.run(None, kernel.feed)
    times: list[int] = []
    end = time.monotonic() + SECONDS
    while len(times) < FEWEST or time.monotonic() < end:
        start = time.perf_counter_ns()
        session.run(None, kernel.feed)
        times.append(time.perf_counter_ns() - start)
    return statistics.median(times)


def _integer_kernels() -> Iterator[_Kernel]:
    """Signed and unsigned activations: which is fast depends on the processor's instructions."""
    shapes = ((64, 64, np.uint8), (128, 64, np.uint8), (256, 32, np.uint8), (128, 32, np.int8))
    for channels, size, kind in shapes:
        data, weights = _whole(kind, 1, size, size, channels), _whole(np.int8, channels, channels, 3, 3)
        grid = {
            "x_scale": np.float32(0.1), "x_zero": kind(100), "w": weights, "w_scale": np.float32(0.01),
            "w_zero": np.int8(0), "y_scale": np.float32(3), "y_zero": kind(100),
        }  # fmt: skip
        node = helper.make_node(
            "QLinearConv", ["x", *grid], ["y"], domain="com.microsoft", channels_last=1, pads=[1, 1, 1, 1]
        )
        yield _kernel(node, {"x": data}, grid, data.dtype, 2 * data.size * channels * 9)
    for size in (256, 512):
        data, weights = _whole(np.uint8, size, size), _whole(np.int8, size, size)
        node = helper.make_node("MatMulInteger", ["x", "w"], ["y"])
        yield _kernel(node, {"x": data}, {"w": weights}, np.dtype(np.int32), 2 * size**3)


def _float_kernels() -> Iterator[_Kernel]:
    for size in (256, 512):
        data = _real(size, size)
        node = helper.make_node("MatMul", ["x", "w"], ["y"])
        yield _kernel(node, {"x": data}, {"w": _real(size, size)}, data.dtype, 2 * size**3)
    for channels, size in ((64, 64), (256, 32)):
        data, weights = _real(1, channels, size, size), _real(channels, channels, 3, 3)
        node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
        yield _kernel(node, {"x": data}, {"w": weights}, data.dtype, 2 * data.size * channels * 9)


def _streaming_kernels() -> Iterator[_Kernel]:
    """A sum reads two tensors and writes one."""
    data = np.ones(STREAMED, np.float32)
    node = helper.make_node("Add", ["x", "z"], ["y"])
    yield _kernel(node, {"x": data, "z": data.copy()}, {}, data.dtype, 3 * data.nbytes)


def _kernel(
    node: NodeProto, feed: Feed, constants: dict[str, Any], output: np.dtype[Any], work: int
) -> _Kernel:
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in feed.items()
    ]
    outputs = [helper.make_tensor_value_info("y", helper.np_dtype_to_tensor_dtype(output), None)]
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    model = helper.make_model(
        helper.make_graph([node], "kernel", inputs, outputs, stored),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)],
        ir_version=8,
    )
    return _Kernel(model.SerializeToString(), feed, work)


def _whole(kind: type[np.integer[Any]], *shape: int) -> NDArray[np.integer[Any]]:
    """Values that no kernel saturates on."""
    return np.random.default_rng(0).integers(0, 64, shape, np.int64).astype(kind)


def _real(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).random(shape, np.float32)


def _key(environment: Environment, threads: int) -> str:
    """What the peak depends on, as JSON."""
    known = asdict(environment)
    named = {name: known[name] for name in ("cpu", "machine", "usable_cores", "governor", "runtime")}
    return json.dumps({**named, "threads": threads, "kernels": KERNELS_VERSION}, sort_keys=True)


@dataclass(frozen=True)
class _Kept:
    key: str
    peak: Peak


_FILE = Document(_Kept, "measured peak", "measure it again")


def _read(path: Path, key: str) -> Peak | None:
    """What was kept for `key`; None when there is nothing, or nothing sound."""
    kept = _FILE.read_sound(path)
    return kept.peak if kept is not None and kept.key == key else None


def _write(path: Path, key: str, peak: Peak) -> None:
    """Keep it for the next time; a cache that cannot be written only costs these seconds again."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"key": key, "peak": asdict(peak)}, indent=1) + "\n"
        write_file(path, text, force=True)
    except (OSError, OutputError):
        pass
