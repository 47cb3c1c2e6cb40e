"""`qnas-bench correlate`: which count or prediction puts the networks of a folder in the order of latency."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isnan, nan
from pathlib import Path
from typing import Any

import numpy as np

from qnas.errors import ModelError, UsageError
from qnas.export.formats.table import FILE_KINDS, file_kind
from qnas.runtime_bench.latency_model.prediction import predict
from qnas.runtime_bench.latency_model.rank import kendall, spearman
from qnas.runtime_bench.latency_model.table import LatencyModel
from qnas.runtime_bench.model_cost import architecture_cost
from qnas.runtime_bench.model_files import model_files
from qnas.runtime_bench.workers.process import LoadOptions
from qnas.runtime_bench.workers.start import start_runner
from qnas.runtimes.inputs import parse_shape, resolve_shapes
from qnas.runtimes.names import DeviceName, default_device, parse_device

FEWEST = 3  # networks that can be put into an order
RESAMPLES = 1000
PASSES = 3  # over all models: drift between neighbours is small, and a median stands above one disturbance
SECONDS = 0.2
FEWEST_RUNS, MOST_RUNS = 7, 100  # in a row: the first after another process ran find their caches cold
WARMUP = 5  # inferences
PREDICTED = "predicted ms"


@dataclass(frozen=True)
class Row:
    """One network: files of one folder that differ only in their suffix. `costs` and `ms` are by name."""

    name: str
    costs: Mapping[str, float]
    ms: Mapping[str, float]


@dataclass(frozen=True)
class Correlation:
    """The correlation of a cost with the latency on a device; `low` to `high` holds 95 % of resamples."""

    cost: str
    device: str
    networks: int
    spearman: float
    low: float
    high: float
    kendall: float


@dataclass(frozen=True)
class Study:
    """The networks, how well costs order them, and the names of models that could not be measured."""

    rows: tuple[Row, ...]
    correlations: tuple[Correlation, ...]
    failures: tuple[str, ...]

    def to_document(self) -> dict[str, Any]:
        """Plain data for JSON, which has no nan: null."""
        known = [{key: _known(value) for key, value in vars(each).items()} for each in self.correlations]
        return {"format": "qnas-correlation", "version": 1, **asdict(self), "correlations": known}


@dataclass(frozen=True)
class Settings:
    """`devices` by name, empty: the default one of each kind of file. `seconds` of run time in each pass."""

    devices: tuple[str, ...] = ()
    load: LoadOptions = field(default_factory=LoadOptions)
    seconds: float = SECONDS
    model: LatencyModel | None = None


def correlate(
    folder: Path, settings: Settings, progress: Callable[[float], None] = lambda done: None
) -> Study:
    """Count, predict and measure every model of `folder`. Raises UsageError, ModelError."""
    networks = _networks(folder)
    pairs = _pairs(networks, settings.devices)
    costs = {name: _costs(files, settings) for name, files in networks.items()}
    times, failures = _measure(pairs, settings, progress)
    rows = tuple(Row(name, costs[name], times[name]) for name in networks if name in times)
    if len(rows) < FEWEST:
        raise ModelError(f"only {len(rows)} networks of {folder} ran: {'; '.join(failures)}")
    return Study(rows, correlations(rows), tuple(failures))


def correlations(rows: Sequence[Row]) -> tuple[Correlation, ...]:
    """Correlate every cost with every device, over the networks that have both."""
    found = []
    for device in dict.fromkeys(name for row in rows for name in row.ms):
        for cost in dict.fromkeys(name for row in rows for name in row.costs):
            both = [row for row in rows if cost in row.costs and device in row.ms]
            if len(both) >= FEWEST:
                found.append(_correlation(cost, device, both))
    return tuple(found)


def _correlation(cost: str, device: str, rows: Sequence[Row]) -> Correlation:
    x = np.array([row.costs[cost] for row in rows])
    y = np.array([row.ms[device] for row in rows])
    generator = np.random.default_rng(0)
    draws = generator.integers(0, len(rows), (RESAMPLES, len(rows)))
    resampled = np.array([spearman(x[draw], y[draw]) for draw in draws])
    ordered = resampled[~np.isnan(resampled)]  # empty where a cost is the same for all networks
    low, high = np.percentile(ordered, [2.5, 97.5]) if len(ordered) else (nan, nan)
    return Correlation(cost, device, len(rows), spearman(x, y), float(low), float(high), kendall(x, y))


def _known(value: object) -> object:
    return None if isinstance(value, float) and isnan(value) else value


def _networks(folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder: name one of .onnx or .tflite models")
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in FILE_KINDS:
            found[path.stem].append(path)
    if len(found) < FEWEST:
        raise UsageError(f"{folder} holds {len(found)} networks: an order needs {FEWEST}")
    return dict(found)


def _pairs(networks: Mapping[str, Sequence[Path]], devices: Sequence[str]) -> list[tuple[Path, DeviceName]]:
    """Each model with the devices that run its kind of file."""
    paths = [path for files in networks.values() for path in files]
    if not devices:
        return [(path, default_device(path)) for path in paths]
    named = [parse_device(text) for text in devices]
    for each in named:
        if all(path.suffix.lower() != each.device.suffix for path in paths):
            raise UsageError(f"--device {each} runs {each.device.suffix} files: the folder has none")
    return [(path, each) for each in named for path in paths if path.suffix.lower() == each.device.suffix]


def _costs(files: Sequence[Path], settings: Settings) -> dict[str, float]:
    """The costs of the ONNX file where there is one: only that can be predicted."""
    path = min(files, key=lambda each: each.suffix.lower() != ".onnx")
    requests = tuple(map(parse_shape, settings.load.shapes))
    shapes = resolve_shapes(file_kind(path).inputs(path), requests)
    cost = file_kind(path).cost(path, shapes)
    costs = {
        "MACs": float(cost.macs),
        "BitOps": float(cost.bitops),
        "executed BitOps": float(cost.executed_bitops),
    }
    if (searched := architecture_cost(path, shapes)) is not None:
        costs |= {"architecture MACs": float(searched.macs), "architecture BitOps": float(searched.bitops)}
    if settings.model is not None and path.suffix.lower() == ".onnx":
        costs[PREDICTED] = predict(path, settings.model, requests).ms
    return costs


def _measure(
    pairs: Sequence[tuple[Path, DeviceName]], settings: Settings, progress: Callable[[float], None]
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """(network -> device -> median ms, why others have none)."""
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    failures: dict[str, None] = {}
    for number, (path, device) in enumerate([*pairs] * PASSES):
        try:
            values[path.stem, str(device)].append(_ms(path, device, settings))
        except ModelError as error:
            failures[str(error)] = None
        progress((number + 1) / (PASSES * len(pairs)))
    times: dict[str, dict[str, float]] = defaultdict(dict)
    for (name, where), each in values.items():
        if each:
            times[name][where] = statistics.median(each)
    return times, list(failures)


def _ms(path: Path, device: DeviceName, settings: Settings) -> float:
    """One pass over one model: inferences in a row, as where it is in use, in a process of its own."""
    runner = start_runner(model_files(path), device, settings.load)
    try:
        warm = statistics.median(runner.run(WARMUP))
        count = max(FEWEST_RUNS, min(MOST_RUNS, round(settings.seconds * 1e9 / warm)))
        return statistics.median(runner.run(count)) / 1e6
    finally:
        runner.close()
