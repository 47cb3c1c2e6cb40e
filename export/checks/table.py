"""The report of a check in the terminal, and the words that its HTML page shares."""

import math
from dataclasses import replace

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
    if report.passed:
        return [*lines, *passed_lines(report)]
    return [*lines, "FAILED:", *(f"  {miss}" for miss in report.misses)]


def passed_lines(report: CheckReport) -> list[str]:
    """What a verdict without misses covers: what is equal, and what is only near."""
    t = report.thresholds
    runtimes = [(file, result) for file in report.files for result in file.runtimes if result.decides]
    kinds = {"pass": list[str](), "near": list[str]()}
    for file, result in runtimes:
        name = result.runtime if len(report.files) == 1 else f"{result.runtime} ({file.kind})"
        kinds[verdict(result, t)].append(name)
    lines = []
    if kinds["pass"]:
        limits = f"at least {share(t.min_equal)} equal, at most {t.max_steps} grey levels apart"
        lines.append(f"passed in {'; '.join(kinds['pass'])}: {limits}")
    if kinds["near"]:
        found = [d for _, each in runtimes if verdict(each, t) == "near" for d in each.against.values()]
        least, psnr = share(min(d.equal for d in found)), min(d.psnr for d in found)
        most = max(d.largest for d in found)
        lines.append(
            f"near, not equal, in {'; '.join(kinds['near'])}: at least {least} of the values equal, at most "
            f"{most} grey levels apart, {psnr:.1f} dB at least; what computes in float, "
            "or on scales of many bits, rounds as its runtime does (--gate names what must be equal)"
        )
    return lines or ["not judged: no runtime that decides is installed (--gate names one)"]


def headline(report: CheckReport) -> str:
    """The verdict in a word or two: "near" is no "passed"."""
    if not report.passed:
        return "FAILED"
    found = {
        verdict(result, report.thresholds)
        for file in report.files
        for result in file.runtimes
        if result.decides
    }
    return "passed" if "pass" in found else "near, not equal" if found else "not judged"


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
        work = _integer_macs(file.macs)
        lines.append(
            f"in the graph that onnxruntime runs: {work}{fusion.integer} of {fusion.total} convolutions; "
            f"other float operations: {others}"
        )
    if file.delegated is not None:
        lines.append(f"nodes that XNNPACK runs: {file.delegated[0]} of {file.delegated[1]}")
    return (*lines, *(f"not checked: {what}" for what in file.not_checked))


def _integer_macs(macs: tuple[int, int] | None) -> str:
    """ "100.0 % of 0.61 G multiply-adds in integers, "."""
    if macs is None or not macs[1]:
        return "in integers: "
    shown = share(macs[0] / macs[1], digits=1)
    return f"{shown} of {macs[1] / 1e9:.2f} G multiply-adds in integers, "


def psnr_y(result: RuntimeResult) -> str:
    """dB against the photographs, empty when it is not known."""
    return "" if math.isnan(result.psnr_y) else f"{result.psnr_y:.3f} dB"


def verdict(result: RuntimeResult, thresholds: Thresholds) -> str:
    """pass, near, FAIL, what it would be of one that decides nothing; empty when nothing was compared."""
    if not result.against and result.error is None:
        return ""
    if result.decides and result.misses(thresholds):
        return "FAIL"
    equal = not replace(result, near=None).misses(thresholds)
    if result.near is not None and not result.gated:  # near is asked of it: a pass is more than that
        equal = not any(difference.differing for difference in result.against.values())
    if not result.decides:
        return "pass, not gated" if equal else "differs, not gated"
    return "pass" if equal else "near"


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
