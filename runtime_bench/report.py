"""How a benchmark is shown: a table for people, JSON with every sample for programs."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from qnas.cost import DECIMAL_G, PAPER_G, NetworkCost
from qnas.files import atomic_write
from qnas.onnx_cost import OnnxCost
from qnas.runtime_bench.benchmark import BenchReport, ModelFacts, ModelReport
from qnas.runtime_bench.stats import CONFIDENCE, RESAMPLES, Estimate

FORMAT = "qnas-bench"
VERSION = 1
CONVENTIONS = {"decimal": (DECIMAL_G, "10^9"), "paper": (PAPER_G, "2^30")}
REFRESH = 0.2  # seconds
UNKNOWN = "unknown"


def write_json(report: BenchReport, path: Path, force: bool) -> None:
    """Write the report whole or not at all; OutputError when `path` exists or cannot be written."""
    with atomic_write(path, force) as temporary:
        temporary.write_text(json.dumps(as_document(report)) + "\n", encoding="utf-8")


def as_document(report: BenchReport) -> dict[str, Any]:
    """The report as JSON data; times in nanoseconds, sizes in bytes, counts as they are."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "environment": asdict(report.environment),
        "settings": asdict(report.settings),
        "interval": {"confidence": CONFIDENCE, "method": "percentile bootstrap", "resamples": RESAMPLES},
        "models": [_model_document(model) for model in report.models],
    }


def _model_document(model: ModelReport) -> dict[str, Any]:
    facts = model.facts
    inputs = {
        name: {"type": facts.input_types[name], "shape": shape} for name, shape in facts.input_shapes.items()
    }
    return {
        "path": str(facts.path),
        "sha256": facts.sha256,
        "bytes": facts.size,
        "inputs": inputs,
        "outputs": facts.output_shapes,
        "latency_ns": asdict(model.latency),
        "p90_ns": model.p90,
        "ratio_to_first": asdict(model.ratio) if model.ratio else None,
        "megapixels_per_second": model.megapixels_per_second,
        "peak_memory_bytes": facts.peak_memory,
        "cost": _cost_document(facts.cost) if facts.cost else None,
        "cost_problem": facts.cost_problem,
        "architecture": _architecture_document(facts.architecture_cost) if facts.architecture_cost else None,
        "fusion": asdict(facts.fusion),
        "samples_ns": model.samples,
    }


def _cost_document(cost: OnnxCost) -> dict[str, Any]:
    return {
        "macs": cost.macs,
        "bitops": cost.bitops,
        "parameters": cost.parameters,
        "weight_bytes": cost.weight_bytes,
        "uncovered": cost.uncovered,
        "nodes": [asdict(node) | {"bitops": node.bitops} for node in cost.layers],
    }


def _architecture_document(cost: NetworkCost) -> dict[str, Any]:
    """Per image; `cost` counts what the file executes for the whole batch."""
    return {"macs": cost.macs, "bitops": cost.bitops, "weight_bytes": cost.weight_bytes}


def table(report: BenchReport, convention: str = "decimal") -> Table:
    """One column a model; G is 10^9, or the paper's 2^30 by `convention`."""
    giga, shown = CONVENTIONS[convention]
    grid = Table()
    grid.add_column("")
    paths = [model.facts.path for model in report.models]
    for path in paths:
        unique = sum(other.name == path.name for other in paths) == 1
        grid.add_column(escape(path.name if unique else str(path)), justify="right", overflow="fold")
    for label, cell in _ROWS.items():
        grid.add_row(label, *(cell(model) for model in report.models))
    for label, count in _COUNTS.items():
        cells = (_count(model.facts, count, giga) for model in report.models)
        grid.add_row(f"{label} (G = {shown})", *cells)
    if any(model.facts.architecture_cost for model in report.models):
        for label, of_network in _ARCHITECTURE_COUNTS.items():
            cells = (_architecture_count(model.facts, of_network, giga) for model in report.models)
            grid.add_row(f"{label} (G = {shown})", *cells)
    if any(model.facts.cost is not None and model.facts.cost.uncovered for model in report.models):
        grid.add_row("not in MACs", *(_uncovered(model.facts) for model in report.models))
    return grid


def problems(report: BenchReport) -> list[str]:
    """Why a model's analytic cost is unknown, one line each."""
    return [
        f"{each.facts.path}: {each.facts.cost_problem}" for each in report.models if each.facts.cost_problem
    ]


def _interval(estimate: Estimate, unit: float = 1, digits: int = 3) -> str:
    value, low, high = (f"{x / unit:.{digits}f}" for x in (estimate.value, estimate.low, estimate.high))
    return f"{value} \\[{low}, {high}]"  # escaped: brackets are markup


def _fusion(model: ModelReport) -> str:
    fusion = model.facts.fusion
    return f"{fusion.integer} of {fusion.total}"


def _shapes(model: ModelReport) -> str:
    return ", ".join("x".join(map(str, shape)) or "scalar" for shape in model.facts.input_shapes.values())


def _weights(model: ModelReport) -> str:
    return f"{model.facts.cost.weight_bytes:,}" if model.facts.cost else UNKNOWN


def _uncovered(facts: ModelFacts) -> str:
    return ", ".join(facts.cost.uncovered) if facts.cost else UNKNOWN


def _count(facts: ModelFacts, count: Callable[[OnnxCost], int], giga: int) -> str:
    return f"{count(facts.cost) / giga:.4g}" if facts.cost else UNKNOWN


def _architecture_count(facts: ModelFacts, count: Callable[[NetworkCost], int], giga: int) -> str:
    cost = facts.architecture_cost
    return f"{count(cost) / giga:.4g}" if cost else UNKNOWN


def _speed(model: ModelReport) -> str:
    speed = model.megapixels_per_second
    return "no image" if speed is None else f"{speed:.3f}"


def _memory(model: ModelReport) -> str:
    peak = model.facts.peak_memory
    return UNKNOWN if peak is None else f"{peak / 2**20:.1f}"


_ROWS: dict[str, Callable[[ModelReport], str]] = {
    "input": _shapes,
    "median latency (ms)": lambda model: _interval(model.latency, 1e6),
    "ratio to the first": lambda model: _interval(model.ratio) if model.ratio else "1",
    "90th percentile (ms)": lambda model: f"{model.p90 / 1e6:.3f}",
    "output megapixels/s": _speed,
    "peak memory (MiB)": _memory,
    "model size (bytes)": lambda model: f"{model.facts.size:,}",
    "weights (bytes)": _weights,
    "integer convolutions": _fusion,
    "other float operations": lambda model: ", ".join(model.facts.fusion.float_ops) or "none",
}
_COUNTS: dict[str, Callable[[OnnxCost], int]] = {
    "MACs": lambda cost: cost.macs,
    "BitOps": lambda cost: cost.bitops,
}


_ARCHITECTURE_COUNTS: dict[str, Callable[[NetworkCost], int]] = {
    "MACs of the architecture": lambda cost: cost.macs,
    "BitOps of the architecture": lambda cost: cost.bitops,
}


def print_table(report: BenchReport, convention: str) -> None:
    """Print to stdout, wide enough for its numbers where there is no terminal to fit."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=60 + 40 * len(report.models))
    console.print(table(report, convention))
    environment, threads = report.environment, report.settings.threads
    console.print(
        f"{environment.cpu}, {threads} thread{'s' * (threads > 1)}, onnxruntime {environment.onnxruntime}, "
        f"{len(report.models[0].samples)} rounds; in brackets: {CONFIDENCE:.0%} intervals",
        highlight=False,
    )


@contextmanager
def progress_bar() -> Iterator[Callable[[float], None]]:
    """Yield what takes the fraction done; draws on stderr, only on a terminal and only when called.

    A bar that refreshes itself from a thread of its own would take its time from what is measured.
    """
    console = Console(stderr=True)
    columns = (TextColumn("measuring"), BarColumn(), TimeRemainingColumn())
    bar = Progress(
        *columns, console=console, auto_refresh=False, transient=True, disable=not console.is_terminal
    )
    with bar:
        task, drawn = bar.add_task("measuring", total=1.0), 0.0

        def show(done: float) -> None:
            nonlocal drawn
            if time.monotonic() - drawn > REFRESH:
                drawn = time.monotonic()
                bar.update(task, completed=done, refresh=True)

        yield show
