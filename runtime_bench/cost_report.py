"""How the cost of models is shown: tables for people, JSON with whole numbers for programs."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from rich.table import Table

from qnas.cost.file_cost import FileCost, NodeCost
from qnas.cost.network_cost import CONVENTIONS, NetworkCost
from qnas.files import write_file
from qnas.runtime_bench.model_cost import ModelCost
from qnas.runtimes.inputs import shape_text
from qnas.terminal import stdout

FORMAT = "qnas-cost"
VERSION = 1
UNKNOWN = "unknown"
Cost = TypeVar("Cost", FileCost, NetworkCost)


def write_json(costs: Sequence[ModelCost], path: Path, force: bool) -> None:
    """Write them whole or not at all; OutputError when `path` exists or cannot be written."""
    document = {"format": FORMAT, "version": VERSION, "models": [_model_document(each) for each in costs]}
    write_file(path, json.dumps(document) + "\n", force)


def cost_document(cost: FileCost) -> dict[str, Any]:
    """A cost as JSON data: sums, and every node with its own; bytes and counts as they are."""
    nodes = [
        asdict(node) | {"bitops": node.bitops, "executed_bitops": node.executed_bitops}
        for node in cost.layers
    ]
    sums = {name: count(cost) for name, (_, count) in {**_COUNTS, **_NUMBERS}.items()}
    return {**sums, "uncovered": cost.uncovered, "nodes": nodes}


def _model_document(model: ModelCost) -> dict[str, Any]:
    architecture = model.architecture
    return {
        "path": str(model.path),
        "inputs": model.shapes,
        "cost": cost_document(model.cost),
        "architecture": architecture and {name: count(architecture) for name, count in _OF_IMAGE.items()},
    }


def print_tables(costs: Sequence[ModelCost], convention: str, per_layer: bool) -> None:
    """Print to stdout, wide enough for their numbers where there is no terminal to fit."""
    console = stdout(max(200, 60 + 40 * len(costs)))
    for model in costs if per_layer else ():
        console.print(layer_table(model, convention))
    console.print(total_table(costs, convention))


def layer_table(model: ModelCost, convention: str) -> Table:
    """One row for each node that multiplies."""
    giga, shown = CONVENTIONS[convention]
    shapes = ", ".join(map(shape_text, model.shapes.values()))
    grid = Table(title=f"{model.path.name} at {shapes}, G = {shown}")
    for name in ("layer", "operation", "output"):
        grid.add_column(name)
    for name in ("bits w/a", "GMACs", "GBitOps", "executed GBitOps", "weight bytes", "activation bytes"):
        grid.add_column(name, justify="right")
    for node in model.cost.layers:
        grid.add_row(*_cells(node, giga))
    return grid


def _cells(node: NodeCost, giga: int) -> list[str]:
    return [
        node.name,
        node.op,
        shape_text(node.output_shape),
        f"{node.weight_bits}/{node.activation_bits}",
        *(_scaled(count, giga) for count in (node.macs, node.bitops, node.executed_bitops)),
        f"{node.weight_bytes:,}",
        f"{node.activation_bytes:,}",
    ]


def total_table(costs: Sequence[ModelCost], convention: str) -> Table:
    """One column a model; the architecture it came from, as the paper counts it, below what the file does."""
    giga, shown = CONVENTIONS[convention]
    grid = Table()
    grid.add_column("total")
    for model in costs:
        unique = sum(other.path.name == model.path.name for other in costs) == 1
        name = model.path.name if unique else str(model.path)
        grid.add_column(name, justify="right", overflow="fold")
    grid.add_row("input", *(", ".join(map(shape_text, model.shapes.values())) for model in costs))
    for label, count in _COUNTS.values():
        grid.add_row(f"{label} (G = {shown})", *(_scaled(count(model.cost), giga) for model in costs))
    if any(model.architecture for model in costs):
        for name, of_image in _OF_IMAGE.items():
            label = f"{_COUNTS[name][0]} of the architecture, one image (G = {shown})"
            grid.add_row(label, *(count_text(model.architecture, of_image, giga) for model in costs))
    for label, number in _NUMBERS.values():
        values = (number(model.cost) for model in costs)
        grid.add_row(label, *(UNKNOWN if value is None else f"{value:,}" for value in values))
    return grid


def uncovered(costs: Sequence[ModelCost]) -> list[str]:
    """The operations that nobody counted, one line a model that has some."""
    return [
        f"{model.path}: not counted: {', '.join(model.cost.uncovered)}"
        for model in costs
        if model.cost.uncovered
    ]


def _scaled(count: int, giga: int) -> str:
    return f"{count / giga:.4g}"


def count_text(cost: Cost | None, count: Callable[[Cost], int], giga: int) -> str:
    """A count in the unit `giga`."""
    return UNKNOWN if cost is None else _scaled(count(cost), giga)


_COUNTS: dict[str, tuple[str, Callable[[FileCost], int]]] = {
    "macs": ("MACs", lambda cost: cost.macs),
    "bitops": ("BitOps", lambda cost: cost.bitops),
    "executed_bitops": ("executed BitOps", lambda cost: cost.executed_bitops),
}
_NUMBERS: dict[str, tuple[str, Callable[[FileCost], int | None]]] = {
    "parameters": ("parameters", lambda cost: cost.parameters),
    "weight_bytes": ("weights (bytes)", lambda cost: cost.weight_bytes),
    "activation_bytes": ("read and written (bytes)", lambda cost: cost.activation_bytes),
    "peak_activation_bytes": ("peak activations (bytes)", lambda cost: cost.peak_activation_bytes),
}
_OF_IMAGE: dict[str, Callable[[NetworkCost], int]] = {
    "macs": lambda cost: cost.macs,
    "bitops": lambda cost: cost.bitops,
}
