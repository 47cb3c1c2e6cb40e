"""Where a model's time goes, node by node and operation by operation, beside what the machine can do.

A node's time is the median of its runs, the model's the sum of these: what lies between nodes is in neither.
Nodes that a runtime gives no time for keep their order and are shown without one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from rich.table import Table

from qnas.documents.reading import Count, Number, Text
from qnas.runtime_bench.environment import threads_text
from qnas.runtime_bench.profile.peak import Peak
from qnas.runtime_bench.stats import median
from qnas.runtimes.executed import ExecutedNode, ExecutedTensor

UNKNOWN = "-"
_T = TypeVar("_T")
_PACKED_BITS = {"int4": 4, "uint4": 4, "int2": 2, "uint2": 2, "bfloat16": 16}  # types that numpy has not


@dataclass(frozen=True)
class ProfileRow:
    """A node, or all nodes of one operation. What nothing is known of is None.

    `share`: of the time of all nodes. `gops`: 10^9 operations a second, two for each MAC. `peak_share`: of
    the peak for its kind of arithmetic, over 1 where another runtime's kernels are better than onnxruntime's.
    `gigabytes`: 10^9 bytes of its tensors a second, of which caches may have held some.
    """

    name: Text
    op: Text
    provider: Text
    nodes: Count
    integer: bool | None
    microseconds: Number | None
    share: Number | None
    macs: Count
    gops: Number | None
    peak_share: Number | None
    gigabytes: Number | None


@dataclass(frozen=True)
class Profile:
    """`rows` and `operations` by falling time; `total` are all nodes together."""

    rows: tuple[ProfileRow, ...]
    operations: tuple[ProfileRow, ...]
    total: ProfileRow
    peak: Peak | None


def profile(nodes: Sequence[ExecutedNode], peak: Peak | None = None) -> Profile:
    """The profile of what ran; `dataclasses.asdict` of it is JSON."""
    times = [_microseconds(node) for node in nodes]
    known = [time for time in times if time is not None]
    whole = sum(known) if known else None

    def row(name: str, members: Sequence[int]) -> ProfileRow:
        return _row(name, [nodes[i] for i in members], [times[i] for i in members], whole, peak)

    groups: dict[str, list[int]] = {}
    for index, node in enumerate(nodes):
        groups.setdefault(node.op, []).append(index)
    return Profile(
        rows=_by_time(row(node.name, [index]) for index, node in enumerate(nodes)),
        operations=_by_time(row(op, members) for op, members in groups.items()),
        total=row("total", range(len(nodes))),
        peak=peak,
    )


def node_table(found: Profile) -> Table:
    """One line a node, the sum below."""
    grid = Table()
    grid.add_column("node", overflow="fold")
    for title in ("operation", "provider"):
        grid.add_column(title)
    _add_numbers(grid)
    for row in found.rows:
        grid.add_row(row.name, row.op, row.provider, *_cells(row))
    grid.add_section()
    grid.add_row("total", "", "", *_cells(found.total))
    return grid


def operation_table(found: Profile) -> Table:
    """One line an operation, the sum below."""
    grid = Table()
    grid.add_column("operation")
    grid.add_column("nodes", justify="right")
    _add_numbers(grid)
    for row in found.operations:
        grid.add_row(row.op, str(row.nodes), *_cells(row))
    grid.add_section()
    grid.add_row("total", str(found.total.nodes), *_cells(found.total))
    return grid


def peak_line(peak: Peak) -> str:
    """What the shares are shares of."""
    return (
        f"peak: {peak.integer_gops:.0f} GOPS in 8-bit integers, {peak.float_gflops:.0f} GFLOPS in float32, "
        f"memory {peak.gigabytes:.0f} GB/s: the best of the kernels of {peak.runtime} here, "
        f"{threads_text(peak.threads)}"
    )


def _row(
    name: str,
    nodes: Sequence[ExecutedNode],
    times: Sequence[float | None],
    whole: float | None,
    peak: Peak | None,
) -> ProfileRow:
    """Rates are of the nodes whose time is known; at the peak they would take `peak_share` of it."""
    timed = [(node, time) for node, time in zip(nodes, times, strict=True) if time is not None]
    spent = sum(time for _, time in timed) if timed else None
    macs = sum(node.macs for node, _ in timed)
    ideal = _ideal_microseconds([node for node, _ in timed], peak)
    return ProfileRow(
        name=name,
        op=_common({node.op for node in nodes}) or "",
        provider=_common({node.provider for node in nodes}) or "",
        nodes=len(nodes),
        integer=_common({node.integer for node in nodes if node.macs}),
        microseconds=spent,
        share=_ratio(spent, whole),
        macs=sum(node.macs for node in nodes),
        gops=_ratio(2e-3 * macs, spent) if macs else None,
        peak_share=_ratio(ideal, spent) if macs else None,
        gigabytes=_ratio(1e-3 * sum(_bytes(node) for node, _ in timed), spent),
    )


def _ideal_microseconds(nodes: Iterable[ExecutedNode], peak: Peak | None) -> float | None:
    """What the multiply-adds would take at the peak of their kind; None when the kind of some is unknown."""
    multiplying = [node for node in nodes if node.macs]
    if peak is None or any(node.integer is None for node in multiplying):
        return None
    rates = {True: peak.integer_gops, False: peak.float_gflops}
    return sum(2e-3 * node.macs / rates[bool(node.integer)] for node in multiplying)


def _microseconds(node: ExecutedNode) -> float | None:
    return median(node.nanoseconds) / 1000 if node.nanoseconds else None


def _bytes(node: ExecutedNode) -> int:
    return sum(_tensor_bytes(each) for each in (*node.inputs, *node.outputs))


def _tensor_bytes(tensor: ExecutedTensor) -> int:
    bits = _PACKED_BITS.get(tensor.dtype)
    if bits is None:
        try:
            bits = 8 * np.dtype(tensor.dtype).itemsize if tensor.dtype else 0
        except TypeError:  # a type that only its runtime knows
            bits = 0
    return -(-math.prod(tensor.shape) * bits // 8)


def _by_time(rows: Iterable[ProfileRow]) -> tuple[ProfileRow, ...]:
    """Stable, so that rows without a time stay in the order in which they ran."""
    return tuple(sorted(rows, key=lambda row: -(row.microseconds or 0)))


def _common(values: set[_T]) -> _T | None:
    return next(iter(values)) if len(values) == 1 else None


def _ratio(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole


def _add_numbers(grid: Table) -> None:
    for title in _COLUMNS:
        grid.add_column(title, justify="right", no_wrap=True)


def _cells(row: ProfileRow) -> list[str]:
    return [cell(row) for cell in _COLUMNS.values()]


def _shown(value: float | None, form: str) -> str:
    return UNKNOWN if value is None else format(value, form)


_COLUMNS: dict[str, Callable[[ProfileRow], str]] = {
    "µs": lambda row: _shown(row.microseconds, ",.1f"),
    "share": lambda row: _shown(row.share, ".1%"),
    "MACs": lambda row: f"{row.macs:,}" if row.macs else "",
    "GOPS": lambda row: _shown(row.gops, ",.1f") if row.macs else "",
    "of peak": lambda row: _shown(row.peak_share, ".1%") if row.macs else "",
    "GB/s": lambda row: _shown(row.gigabytes, ".1f"),
}
