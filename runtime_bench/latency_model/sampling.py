"""Measures networks for a fit: each kernel in the company of its network, and the network as a whole."""

from __future__ import annotations

import gc
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qnas.runtime_bench.latency_model.kernels import Kernel, kernels
from qnas.runtimes.inputs import Feed, ShapeRequest, random_inputs, resolve_shapes
from qnas.runtimes.onnxruntime import CPU_DEVICE, execute

WARMUP = 3
PROFILED = 10  # runs of one round
TIMED = 12


@dataclass(frozen=True)
class Sample:
    """One round of one network at one size: `kernel_ns` one a kernel, `total_ns` of an unprofiled run."""

    kernels: tuple[Kernel, ...]
    kernel_ns: tuple[float, ...]
    total_ns: float


@dataclass(frozen=True)
class Network:
    """All rounds of one network at one size."""

    kernels: tuple[Kernel, ...]
    total_ns: float


def sample(model: Path, requests: Sequence[ShapeRequest], threads: int) -> Sample:
    """Profile and time a model in this process. Raises ModelError or UsageError."""
    loaded = CPU_DEVICE.load("", model, threads, {})
    shapes = resolve_shapes(loaded.inputs, requests)
    feed: Feed = random_inputs(loaded.inputs, shapes, 0)
    loaded.feed(feed)
    times = []
    collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(WARMUP + TIMED):
            start = time.perf_counter_ns()
            loaded.run()
            times.append(time.perf_counter_ns() - start)
    finally:
        if collecting:
            gc.enable()
    executed = execute(model, feed, threads, PROFILED, warmup=WARMUP)
    return Sample(
        kernels(executed.nodes, executed.graph),
        tuple(middle(node.nanoseconds) for node in executed.nodes),
        statistics.median(times[WARMUP:]),
    )


def middle(values: Sequence[float]) -> float:
    """Mean of the middle half: as robust as the median, and finer than the profiler's microseconds."""
    ordered = np.sort(np.asarray(values, np.float64))
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())


def joined(rounds: Sequence[Sample]) -> Network:
    """The rounds of one network at one size."""
    return Network(rounds[0].kernels, statistics.median(each.total_ns for each in rounds))


def kernel_times(samples: Sequence[Sample]) -> dict[Kernel, tuple[float, int]]:
    """(median nanoseconds, number of samples) of every kernel, wherever it ran."""
    found: dict[Kernel, list[float]] = defaultdict(list)
    for each in samples:
        for kernel, spent in zip(each.kernels, each.kernel_ns, strict=True):
            found[kernel].append(spent)
    return {kernel: (statistics.median(spent), len(spent)) for kernel, spent in found.items()}
