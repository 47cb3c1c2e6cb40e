"""The whole page of any set of result files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path

from qnas.html_page import Markup, element, facts, page, table
from qnas.runtime_bench.environment import Environment
from qnas.runtime_bench.page.axes import si
from qnas.runtime_bench.page.charts import STYLE
from qnas.runtime_bench.page.documents import BenchFile, GateFile, GateRow, read_document
from qnas.runtime_bench.page.layers import layer_section, profile_section
from qnas.runtime_bench.page.sections import (
    bitops_section,
    history_section,
    latency_section,
    shown,
    threads,
)
from qnas.runtime_bench.page.series import histories, measurements, newest

TITLE = "Benchmark report"
GATE_TITLES = ("model", "gate", "verdict", "new", "old", "limit", "detail")
MOST_FILES = 5  # named beside an environment
STATUS_CLASSES = {"pass": "good", "fail": "warn", "inconclusive": "soft", "skipped": "soft"}


def report_page(paths: Sequence[Path]) -> str:
    """HTML of the files at `paths`; UsageError when one of them cannot be read."""
    documents = [read_document(path) for path in dict.fromkeys(paths)]
    benches = [each for each in documents if isinstance(each, BenchFile)]
    gates = [each for each in documents if isinstance(each, GateFile)]
    found = measurements(benches)
    parts: list[Markup] = []
    if found:
        rows = shown(newest(found))
        parts += [
            *latency_section(rows),
            *bitops_section(rows),
            *history_section(histories(found)),
            *layer_section(rows),
            *profile_section(rows),
        ]
    parts = [_summary(benches, gates), *_failures(benches), *_gates(gates), *parts, *_environments(documents)]
    return page(TITLE, *parts, style=STYLE)


def _summary(benches: Sequence[BenchFile], gates: Sequence[GateFile]) -> Markup:
    candidates = [each for file in benches for each in file.candidates]
    times = sorted(f"{file.taken:%Y-%m-%d %H:%M}" for file in benches)
    environments = [each.environment for each in candidates] + [each.environment for each in gates]
    cpus = {each.cpu for each in environments}
    pairs: dict[str, object] = {"files": len(benches) + len(gates), "processor": ", ".join(sorted(cpus))}
    if benches:
        pairs |= {
            "measurements": len(candidates),
            "taken (UTC)": times[0] if times[0] == times[-1] else f"{times[0]} to {times[-1]}",
            "intervals": ", ".join(sorted({f"{file.confidence:.0%}" for file in benches})),
        }
    return facts(pairs)


def _failures(benches: Sequence[BenchFile]) -> tuple[Markup, ...]:
    rows = [
        (file.file.name, each.path.name, each.device, each.reason)
        for file in benches
        for each in file.failures
    ]
    if not rows:
        return ()
    grid = table(("file", "model", "device", "reason"), rows, texts=4)
    return element("h2", "Failures", class_="warn"), element("div", grid, class_="wrap")


def _gates(gates: Sequence[GateFile]) -> tuple[Markup, ...]:
    if not gates:
        return ()
    verdicts = (
        (
            _status(each.status),
            Path(each.model).name,
            Path(each.against).name if each.against else "",
            f"{each.device}, {threads(each.threads)}",
            _ratio(each),
            "" if each.seconds is None else f"{each.seconds:.1f} s",
        )
        for each in gates
    )
    rows = (
        (Path(each.model).name, row.gate, _status(row.status), *_gate_numbers(row), row.detail)
        for each in gates
        for row in each.rows
    )
    return (
        element("h2", "Gates"),
        table(("verdict", "model", "against", "where", "ratio [interval]", "took"), verdicts, texts=4),
        element("div", table(GATE_TITLES, rows, texts=len(GATE_TITLES)), class_="wrap"),
    )


def _status(status: str) -> Markup:
    return element("span", status, class_=STATUS_CLASSES.get(status))


def _ratio(gate: GateFile) -> str:
    if gate.ratio is None:
        return ""
    value, low, high = ("?" if each is None else f"{each:.4f}" for each in gate.ratio)
    return f"{value} [{low}, {high}]"


def _gate_numbers(row: GateRow) -> tuple[str, ...]:
    numbers = (row.new, row.old, row.limit)
    new, old, limit = ("" if each is None else _with_unit(each, row.unit) for each in numbers)
    return new, old, f"{row.sign} {limit}"


def _with_unit(value: float, unit: str) -> str:
    """As the gate's own table has them; a unit that it has not is written out."""
    match unit:
        case "ratio":
            return f"{value:.4f}"
        case "share":
            return f"{value:.2%}"
        case "dB":
            return f"{value:.3f} dB"
        case _:
            return f"{value:,.0f} {unit}" if abs(value) < 1e15 else si(value, unit)


def _environments(documents: Sequence[BenchFile | GateFile]) -> tuple[Markup, ...]:
    files: dict[Environment, dict[str, None]] = {}
    for document in documents:
        if isinstance(document, BenchFile):
            own = [each.environment for each in document.candidates]
        else:
            own = [document.environment]
        for environment in own:
            files.setdefault(environment, {})[document.file.name] = None
    titles = [field.name.replace("_", " ") for field in fields(Environment)]
    rows = (
        (*("unknown" if cell is None else cell for cell in astuple(each)), _few(list(names)))
        for each, names in files.items()
    )
    return element("h2", "Environments"), table((*titles, "files"), rows, texts=len(titles) + 1)


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_FILES} more" if len(names) > MOST_FILES else ""
    return ", ".join(names[:MOST_FILES]) + more
