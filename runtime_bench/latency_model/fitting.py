"""`qnas-bench fit`: networks -> measured kernels -> latency model, with its error on networks held out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from qnas.documents.latency_model import Accuracy
from qnas.errors import UsageError
from qnas.runtime_bench.environment import current_environment
from qnas.runtime_bench.latency_model.networks import SPACES, write_members
from qnas.runtime_bench.latency_model.operations import built_in_spaces, image_sizes, operation_times
from qnas.runtime_bench.latency_model.rank import spearman
from qnas.runtime_bench.latency_model.sampling import Network, Sample, joined, kernel_times, sample
from qnas.runtime_bench.latency_model.table import KernelTime, LatencyModel
from qnas.runtimes.inputs import ShapeRequest
from qnas.runtimes.onnxruntime import CPU_DEVICE
from qnas.temporary import temporary_folder

HELD_OUT = 5  # one network of so many is left out for the error
FEWEST = 10  # networks at one size
MOST_ROUNDS = 5


@dataclass(frozen=True)
class FitSettings:
    """`sizes` are input shapes, `budget` seconds of measuring."""

    sizes: tuple[ShapeRequest, ...]
    threads: int = 1
    budget: float = 600.0
    device: str = "cpu"


@contextmanager
def sources(folder: Path | None, spaces: Sequence[str], count: int) -> Iterator[list[Path]]:
    """The networks to measure: those of a folder, or `count` random ones of each space, for a while.

    Raises UsageError when the folder has too few.
    """
    if folder is not None:
        if spaces:
            raise UsageError("--models and --space both say what to measure: give one")
        found = sorted(folder.glob("*.onnx"))
        if len(found) < FEWEST:
            raise UsageError(f"{folder} holds {len(found)} .onnx files, a fit needs {FEWEST}: add networks")
        yield found
        return
    with temporary_folder() as temporary:
        yield [path for space in spaces or SPACES for path in write_members(space, count, temporary)]


def fit(
    models: Sequence[Path], settings: FitSettings, progress: Callable[[float], None] = lambda done: None
) -> LatencyModel:
    """Measure `models` in rounds over all of them and fit. Raises ModelError, UsageError.

    The machine drifts; rounds over everything make that the noise of each kernel, not the bias of some. The
    model's accuracy is that of a fit without every fifth network; the one returned has them all.
    """
    if settings.device != "cpu":
        raise UsageError(f"--device {settings.device}: only cpu tells the times of its kernels")
    rounds = measure_rounds(models, settings, progress)
    names = sorted({name for name, _ in rounds})
    if len(names) < FEWEST:  # a budget that ended early
        raise UsageError(
            f"only {len(names)} networks were measured, a fit needs {FEWEST}: give more --models or --budget"
        )
    held = set(names[HELD_OUT - 1 :: HELD_OUT])
    seen = {key: value for key, value in rounds.items() if key[0] not in held}
    unseen = [joined(value) for key, value in rounds.items() if key[0] in held]
    accuracy = evaluate(assemble(seen, settings.threads), unseen) if unseen else None
    model = assemble(rounds, settings.threads)
    operations = operation_times(model, built_in_spaces(), image_sizes(settings.sizes))
    return replace(model, accuracy=accuracy, operations=tuple(operations))


def measure_rounds(
    models: Sequence[Path], settings: FitSettings, progress: Callable[[float], None] = lambda done: None
) -> dict[tuple[Path, ShapeRequest], list[Sample]]:
    """Round after round over all networks and sizes until the budget ends."""
    pairs = list(product(models, settings.sizes))
    order = np.random.default_rng(0).permutation(len(pairs))  # a budget that ends early leaves out any
    found: dict[tuple[Path, ShapeRequest], list[Sample]] = {}
    start = time.monotonic()
    for count, index in enumerate([*order] * MOST_ROUNDS):
        spent = (time.monotonic() - start) / settings.budget
        progress(max(spent, count / (MOST_ROUNDS * len(pairs))))
        if spent >= 1:
            break
        model, size = pairs[index]
        found.setdefault(pairs[index], []).append(sample(model, (size,), settings.threads))
    progress(1.0)
    return found


def assemble(rounds: Mapping[Any, Sequence[Sample]], threads: int) -> LatencyModel:
    """A model of networks in rounds; what a run takes besides its kernels is fitted to their totals."""
    times = kernel_times([each for samples in rounds.values() for each in samples])
    rows = tuple(KernelTime(kernel, spent, count) for kernel, (spent, count) in times.items())
    environment = asdict(current_environment(CPU_DEVICE.version()))
    bare = LatencyModel("cpu", threads, environment, rows, 0.0, 0.0)
    networks = [joined(samples) for samples in rounds.values()]
    kernels = np.array([_kernel_sum(bare, each) for each in networks])
    totals = np.array([each.total_ns for each in networks])
    columns = np.array([(len(each.kernels), 1) for each in networks], np.float64)
    node, run = np.linalg.lstsq(columns / totals[:, None], (totals - kernels) / totals, rcond=None)[0]
    return replace(bare, node_ns=float(node), run_ns=float(run))


def _kernel_sum(model: LatencyModel, network: Network) -> float:
    return sum(model.time(kernel)[0] for kernel in network.kernels)


def predicted(model: LatencyModel, network: Network) -> float:
    """Nanoseconds of one run."""
    return model.total(_kernel_sum(model, network), len(network.kernels))


def evaluate(model: LatencyModel, networks: Sequence[Network]) -> Accuracy:
    """The error of `model` on networks it was not fitted to."""
    guessed = np.array([predicted(model, each) for each in networks])
    true = np.array([each.total_ns for each in networks])
    errors = np.abs(guessed / true - 1)
    return Accuracy(
        networks=len(networks),
        mape=float(errors.mean()),
        within_5=float((errors <= 0.05).mean()),
        within_10=float((errors <= 0.10).mean()),
        spearman=spearman(guessed, true),
    )
