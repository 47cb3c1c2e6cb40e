"""The whole page of any set of result files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, fields
from pathlib import Path

from qnas.html_page import Markup, element, facts, page, table
from qnas.runtime_bench.environment import Environment
from qnas.runtime_bench.page.charts import STYLE
from qnas.runtime_bench.page.gates import gate_section
from qnas.runtime_bench.page.history import TIME, history_section
from qnas.runtime_bench.page.layers import layer_section, profile_section
from qnas.runtime_bench.page.sections import bitops_section, latency_section, shown
from qnas.runtime_bench.page.series import histories, measurements, newest
from qnas.runtime_bench.result_files import BenchFile, GateFile, read_result

TITLE = "Benchmark report"
MOST_FILES = 5  # named beside an environment


def report_page(paths: Sequence[Path]) -> str:
    """HTML of the files at `paths`; UsageError when one of them cannot be read."""
    files = {path: read_result(path) for path in paths}
    benches = {path: each for path, each in files.items() if isinstance(each, BenchFile)}
    gates = {path: each for path, each in files.items() if isinstance(each, GateFile)}
    found = measurements(benches)
    parts: list[Markup] = [
        _summary(list(benches.values()), list(gates.values())),
        *_failures(benches),
        *gate_section(gates),
    ]
    if found:
        rows = shown(newest(found))
        parts += [
            *latency_section(rows),
            *bitops_section(rows),
            *history_section(histories(found)),
            *layer_section(rows),
            *profile_section(rows),
        ]
    return page(TITLE, *parts, *_environments(files), style=STYLE)


def _summary(benches: Sequence[BenchFile], gates: Sequence[GateFile]) -> Markup:
    candidates = [each for file in benches for each in file.models]
    taken = [each.taken for each in benches] + [each.taken for each in gates if each.taken]
    times = sorted(f"{each:{TIME}}" for each in taken)
    environments = [each.environment for each in candidates] + [each.environment for each in gates]
    cpus = {each.cpu for each in environments}
    pairs: dict[str, object] = {"files": len(benches) + len(gates), "processor": ", ".join(sorted(cpus))}
    if times:
        pairs["taken (UTC)"] = times[0] if times[0] == times[-1] else f"{times[0]} to {times[-1]}"
    if benches:
        pairs["measurements"] = len(candidates)
        pairs["intervals"] = ", ".join(sorted({f"{file.interval.confidence:.0%}" for file in benches}))
    return facts(pairs)


def _failures(benches: Mapping[Path, BenchFile]) -> tuple[Markup, ...]:
    rows = [
        (path.name, Path(each.path).name, each.device, each.reason)
        for path, file in benches.items()
        for each in file.failures
    ]
    if not rows:
        return ()
    grid = table(("file", "model", "device", "reason"), rows, texts=4)
    return element("h2", "Failures", class_="warn"), element("div", grid, class_="wrap")


def _environments(documents: Mapping[Path, BenchFile | GateFile]) -> tuple[Markup, ...]:
    files: dict[Environment, dict[str, None]] = {}
    for path, document in documents.items():
        if isinstance(document, BenchFile):
            own = [each.environment for each in document.models]
        else:
            own = [document.environment]
        for environment in own:
            files.setdefault(environment, {})[path.name] = None
    titles = [field.name.replace("_", " ") for field in fields(Environment)]
    rows = (
        (*("unknown" if cell is None else cell for cell in astuple(each)), _few(list(names)))
        for each, names in files.items()
    )
    return element("h2", "Environments"), table((*titles, "files"), rows, texts=len(titles) + 1)


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_FILES} more" if len(names) > MOST_FILES else ""
    return ", ".join(names[:MOST_FILES]) + more
