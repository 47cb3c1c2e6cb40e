"""A gate's report for people, programs and CI: table, JSON, Markdown, JUnit XML. Files are written whole."""

import json
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from qnas.errors import printable
from qnas.files import write_file
from qnas.runtime_bench.environment import threads_text
from qnas.runtime_bench.gate.request import Outputs
from qnas.runtime_bench.gate.sequential import CONFIRMING, FIRST, Looks, Sample, Status
from qnas.runtime_bench.gate.timing import Timed
from qnas.runtime_bench.gate.verdict import GateReport, Row
from qnas.runtime_bench.result_files import GATE, head
from qnas.terminal import stdout

WIDTH = 200
STYLES = {Status.PASS: "green", Status.FAIL: "bold red", Status.INCONCLUSIVE: "yellow", Status.SKIPPED: "dim"}
MARKS = {Status.PASS: "✅", Status.FAIL: "❌", Status.INCONCLUSIVE: "⚠️", Status.SKIPPED: "⏭️"}
UNITS: dict[str, Callable[[float], str]] = {
    "bytes": lambda value: f"{value:,.0f}",
    "MACs": lambda value: f"{value:,.0f}",
    "BitOps": lambda value: f"{value:,.0f}",
    "share": lambda value: f"{value:.2%}",
    "dB": lambda value: f"{value:.3f}",
    "ratio": lambda value: f"{value:.4f}",
}


def write_outputs(report: GateReport, outputs: Outputs, force: bool) -> None:
    """Write what was asked for, each whole or not at all; OutputError when it cannot be written."""
    texts = (
        (outputs.json, json.dumps(as_document(report), allow_nan=False) + "\n"),
        (outputs.markdown, markdown(report)),
        (outputs.junit, junit(report)),
    )
    for path, text in texts:
        if path is not None:
            write_file(path, text, force)


def shown(value: float | None, unit: str) -> str:
    """A number as people read it, "" when there is none."""
    return "" if value is None else UNITS[unit](value)


def cells(row: Row) -> tuple[str, ...]:
    """Gate, status, new, old, limit, detail."""
    limit = f"{row.kind} {shown(row.limit, row.unit)}"
    return row.gate, row.status.value, shown(row.new, row.unit), shown(row.old, row.unit), limit, row.detail


HEADS = ("gate", "status", "new", "old", "limit", "detail")


def print_report(report: GateReport) -> None:
    """Print to stdout."""
    console = stdout(WIDTH)
    grid = Table(*HEADS)
    for row in report.rows:
        gate, status, *rest = cells(row)
        grid.add_row(gate, Text(status, STYLES[row.status]), *rest)
    console.print(grid)
    for line in _lines(report):
        console.print(line, soft_wrap=True)
    console.print(report.status.value, style=STYLES[report.status])


def _lines(report: GateReport) -> list[str]:
    environment = report.environment
    against = f" against {report.against}" if report.against else ""
    where = f"{report.device}, {environment.cpu}, {threads_text(report.threads)}, {environment.runtime}"
    return [f"{report.model}{against}", where, *(f"note: {note}" for note in report.notes)]


def as_document(report: GateReport) -> dict[str, Any]:
    """The report as JSON data, with every sample; times in nanoseconds, what is infinite is null."""
    return {
        **head(GATE),
        "status": report.status.value,
        "exit_code": report.exit_code,
        "model": printable(str(report.model)),
        "against": printable(str(report.against)) if report.against else None,
        "device": report.device,
        "threads": report.threads,
        "seed": report.seed,
        "budget_seconds": report.budget,
        "environment": asdict(report.environment),
        "rows": [_row(row) for row in report.rows],
        "notes": report.notes,
        "timing": None if report.timed is None else _timing(report.timed),
    }


def _row(row: Row) -> dict[str, Any]:
    numbers = {"new": _finite(row.new), "old": _finite(row.old), "limit": _finite(row.limit)}
    return asdict(row) | {"status": row.status.value} | numbers


def _timing(timed: Timed) -> dict[str, Any]:
    decision = timed.decision
    confirmation = decision.confirmation
    return {
        "status": decision.status.value,
        "seconds": timed.seconds,
        "load": timed.load,
        "first": _sample(decision.first, FIRST),
        "confirmation": None if confirmation is None else _sample(confirmation, CONFIRMING),
        "rounds_ns": [drawn.rounds for drawn in timed.drawn],
    }


def _sample(sample: Sample, looks: Looks) -> dict[str, Any]:
    return {
        "status": sample.status.value,
        "ratio": {key: _finite(value) for key, value in asdict(sample.interval).items()},
        "looks": looks.counts,
        "level_of_a_look": looks.level,
        "ratios": sample.ratios,
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def markdown(report: GateReport) -> str:
    """A section of a CI summary."""
    head = f"### {MARKS[report.status]} {_text(report.model.name)}: {report.status.value}"
    table = ["| " + " | ".join(HEADS) + " |", "|" + "---|" * len(HEADS)]
    for row in report.rows:
        gate, status, *rest = map(_text, cells(row))
        table.append("| " + " | ".join((gate, f"{MARKS[row.status]} {status}", *rest)) + " |")
    return "\n".join((head, "", *table, "", *(f"{_text(line)}  " for line in _lines(report)))) + "\n"


def _text(text: str) -> str:
    """Text that Markdown and the HTML in it leave alone, in one line."""
    return re.sub(r"([\\`*_\[\]<>|#&])", lambda found: f"&#{ord(found[1])};", printable(text))


def junit(report: GateReport) -> str:
    """One test case a row; an inconclusive one counts as skipped: JUnit knows no third way."""
    seconds = {"latency": report.timed.seconds} if report.timed else {}
    count = {status: sum(row.status is status for row in report.rows) for status in Status}
    suite = ET.Element(
        "testsuite", name="qnas-bench gate", tests=str(len(report.rows)), failures=str(count[Status.FAIL]),
        errors="0", skipped=str(count[Status.INCONCLUSIVE] + count[Status.SKIPPED]),
        time=f"{sum(seconds.values()):.3f}",
    )  # fmt: skip
    for row in report.rows:
        case = ET.SubElement(
            suite, "testcase", classname=printable(report.model.name), name=printable(row.gate),
            time=f"{seconds.get(row.gate, 0):.3f}",
        )  # fmt: skip
        _, status, new, old, limit, detail = map(printable, cells(row))
        message = f"{status}: {new or 'unknown'}, allowed {limit}; {detail}"
        if row.status is Status.FAIL:
            ET.SubElement(case, "failure", message=message)
        elif row.status is not Status.PASS:
            ET.SubElement(case, "skipped", message=message)
        said = (f"old {old or 'unknown'}", *_lines(report))
        ET.SubElement(case, "system-out").text = "\n".join(map(printable, said))
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suite, encoding="unicode") + "\n"
