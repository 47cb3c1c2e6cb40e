"""The report of a check in the terminal, and the words that its HTML page shares."""

import math

from rich.table import Table

from qnas.export.checks.report import (
    CheckReport,
    Difference,
    FileResult,
    LayerTable,
    RuntimeResult,
    Thresholds,
    share,
)
from qnas.terminal import Terminal

SHOWN_LAYERS = 8


def show_report(report: CheckReport, console: Terminal) -> None:
    """Per file the runtimes, what else is known of it, and the first layers that differ; then the verdict."""
    for file in report.files:
        console.print(_file_table(report, file))
        for line in (*map(layer_line, file.layers), *file_lines(file)):
            console.print(line)
        for table in file.layers:
            if table.first_difference is not None:
                console.print(_layer_table(table))
    for line in _closing(report):
        console.print(line)


def _closing(report: CheckReport) -> list[str]:
    """What concerns all files: near ties, notes, and the verdict last."""
    lines = [f"note: {note}" for note in report.notes]
    if report.near_ties is not None:
        lines.append(f"values within 2^-20 of a rounding tie: {sum(report.near_ties.values())}")
    t = report.thresholds
    if not report.defined and not any(r.gated for file in report.files for r in file.runtimes):
        return [
            *lines,
            "not judged: what computes in float rounds as its runtime does (--gate names one that decides)",
        ]
    if report.passed:
        return [
            *lines,
            f"passed: at least {share(t.min_equal)} equal, at most {t.max_steps} grey levels apart",
        ]
    return [*lines, "FAILED:", *(f"  {miss}" for miss in report.misses)]


def decibel(value: float) -> str:
    """dB, "equal" for infinity."""
    return "equal" if value == math.inf else f"{value:.1f} dB"


def layer_line(table: LayerTable) -> str:
    """What the layers of one runtime show, in a sentence."""
    seen, first = len(table.layers), table.first_difference
    if not seen:
        return f"layers in {table.runtime}: {table.note or 'none of its tensors has the name of a layer'}"
    text = f"all {seen} layers are equal"
    if first is not None:
        text = (
            f"the first of {seen} layers that differs is {first.name} ({first.operation}): "
            f"{first.differing} of {first.values} values, by at most {first.largest} steps, "
            f"SQNR {decibel(first.sqnr)}"
        )
    unseen = f"; not in the file: {', '.join(table.unseen)}" if table.unseen else ""
    return f"layers in {table.runtime}: {text}{unseen}" + (f"; {table.note}" if table.note else "")


def file_lines(file: FileResult) -> tuple[str, ...]:
    """What stands below the table of a file, but for its layers."""
    lines = [f"{result.runtime}: {result.error}" for result in file.runtimes if result.error is not None]
    if file.fusion is not None:
        fusion = file.fusion
        others = ", ".join(fusion.float_ops) or "none"
        lines.append(
            f"integer convolutions in the graph that onnxruntime runs: {fusion.integer} of {fusion.total}; "
            f"other float operations: {others}"
        )
    if file.delegated is not None:
        lines.append(f"nodes that XNNPACK runs: {file.delegated[0]} of {file.delegated[1]}")
    return (*lines, *(f"not checked: {what}" for what in file.not_checked))


def psnr_y(result: RuntimeResult) -> str:
    """dB against the photographs, empty when it is not known."""
    return "" if math.isnan(result.psnr_y) else f"{result.psnr_y:.3f} dB"


def verdict(result: RuntimeResult, thresholds: Thresholds) -> str:
    """pass, FAIL, what it would be of a runtime that decides nothing; empty when nothing was compared."""
    if not result.against and result.error is None:
        return ""
    missed = bool(result.misses(thresholds))
    if not result.gated:
        return "differs, not gated" if missed else "pass, not gated"
    return "FAIL" if missed else "pass"


def rows(result: RuntimeResult) -> list[tuple[str, str, str, str, str]]:
    """Per reference: its name, values, equal share, largest difference, PSNR; all empty without one.

    References that the runtime differs from in the same way share a row.
    """
    names: dict[Difference, list[str]] = {}
    for name, difference in result.against.items():
        names.setdefault(difference, []).append(name)
    return [
        (", ".join(same), f"{d.values:,}", share(d.equal), str(d.largest), decibel(d.psnr))
        for d, same in names.items()
    ] or [("", "", "", "", "")]


def _file_table(report: CheckReport, file: FileResult) -> Table:
    table = Table(title=f"{file.file} ({len(report.images)} images)")
    left = ("runtime", "against", "verdict")
    for heading in ("runtime", "against", "values", "equal", "levels", "PSNR", "PSNR-Y", "verdict"):
        table.add_column(heading, justify="left" if heading in left else "right")
    for result in (*report.references, *file.runtimes):
        first, *others = rows(result)
        table.add_row(result.runtime, *first, psnr_y(result), verdict(result, report.thresholds))
        for row in others:
            table.add_row("", *row, "", "")
    return table


def _layer_table(table: LayerTable) -> Table:
    """The first layers that differ; the HTML report has all."""
    differing = [layer for layer in table.layers if layer.differing]
    shown = Table(title=f"the first of {len(differing)} layers that differ in {table.runtime}")
    for heading in ("layer", "operation", "values", "equal", "steps", "SQNR", "near ties"):
        shown.add_column(heading, justify="left" if heading in ("layer", "operation") else "right")
    for layer in differing[:SHOWN_LAYERS]:
        shown.add_row(
            layer.name, layer.operation, f"{layer.values:,}", share(layer.equal), str(layer.largest),
            decibel(layer.sqnr), str(layer.near_ties),
        )  # fmt: skip
    return shown
