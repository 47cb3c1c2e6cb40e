"""The section of the page on gates: verdicts, rows, and the ratios of a series of files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from qnas.html_page import Markup, element, table
from qnas.runtime_bench.environment import Environment, threads_text
from qnas.runtime_bench.page.axes import si
from qnas.runtime_bench.page.history import TIME, Result, history_figure
from qnas.runtime_bench.page.series import Change, differing
from qnas.runtime_bench.result_files import GateFile, GateRow
from qnas.runtime_bench.stats import Estimate

VERDICTS = ("taken (UTC)", "model", "verdict", "against", "where", "ratio [interval]", "took")
ROWS = ("model", "gate", "verdict", "new", "old", "limit", "detail")
STATUS_CLASSES = {"pass": "good", "fail": "warn", "inconclusive": "soft", "skipped": "soft"}
UNKNOWN = datetime.min.replace(tzinfo=UTC)


def gate_section(gates: Mapping[Path, GateFile]) -> tuple[Markup, ...]:
    """All gates, the oldest first, under numbers that their rows have too."""
    if not gates:
        return ()
    ordered = dict(sorted(gates.items(), key=lambda item: item[1].taken or UNKNOWN))
    named = [(f"{number}. {Path(each.model).name}", each) for number, each in enumerate(ordered.values(), 1)]
    rows = (
        (title, row.gate, _status(row.status), *_numbers(row), row.detail)
        for title, each in named
        for row in each.rows
    )
    return (
        element("h2", "Gates"),
        table(VERDICTS, (_verdict(title, each) for title, each in named), texts=5),
        element("div", table(ROWS, rows, texts=len(ROWS)), class_="wrap"),
        *_history(ordered),
    )


def _verdict(title: str, gate: GateFile) -> tuple[object, ...]:
    return (
        f"{gate.taken:{TIME}}" if gate.taken else "",
        title,
        _status(gate.status),
        _against(gate),
        _where(gate),
        _ratio(gate.timing.ratio) if gate.timing else "",
        f"{gate.timing.seconds:.1f} s" if gate.timing else "",
    )


def _history(gates: Mapping[Path, GateFile]) -> tuple[Markup, ...]:
    """One chart for the gates of one model against one other in one place, of those that have a ratio."""
    series: dict[str, list[Result]] = {}
    last: dict[str, Environment] = {}
    for file, each in gates.items():
        ratio = None if each.timing is None else each.timing.ratio
        if each.taken is None or ratio is None or not math.isfinite(ratio.high):
            continue
        heading = f"{Path(each.model).name} against {_against(each)}, {_where(each)}"
        texts = differing(last.get(heading, each.environment), each.environment)
        changed = Change(texts, comparable=False) if texts else None
        words = f"{each.status}, {_ratio(ratio)}"
        series.setdefault(heading, []).append(Result(file, each.taken, ratio, words, changed))
        last[heading] = each.environment
    charts = [history_figure(found, heading, "") for heading, found in series.items() if len(found) > 1]
    if not charts:
        return ()
    text = "Latency over that of the other model, with its interval, the oldest first."
    return element("p", text, class_="soft"), element("div", *charts, class_="charts")


def _status(status: str) -> Markup:
    return element("span", status, class_=STATUS_CLASSES.get(status))


def _against(gate: GateFile) -> str:
    return Path(gate.against).name if gate.against else ""


def _where(gate: GateFile) -> str:
    return f"{gate.device}, {threads_text(gate.threads)}"


def _ratio(ratio: Estimate) -> str:
    value, low, high = (
        f"{each:.4f}" if math.isfinite(each) else "?" for each in (ratio.value, ratio.low, ratio.high)
    )
    return f"{value} [{low}, {high}]"


def _numbers(row: GateRow) -> tuple[str, ...]:
    numbers = (row.new, row.old, row.limit)
    new, old, limit = ("" if each is None else _with_unit(each, row.unit) for each in numbers)
    return new, old, f"{row.kind} {limit}"


def _with_unit(value: float, unit: str) -> str:
    """Write a value as the gate's own table has it; a unit that it has not is written out."""
    match unit:
        case "ratio":
            return f"{value:.4f}"
        case "share":
            return f"{value:.2%}"
        case "dB":
            return f"{value:.3f} dB"
        case _:
            return f"{value:,.0f} {unit}" if abs(value) < 1e15 else si(value, unit)
