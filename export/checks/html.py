"""The report of a check as one self-contained HTML page."""

import base64
import io
import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from qnas.export.checks.report import CheckReport, Evidence, FileResult, LayerTable, RuntimeResult, share
from qnas.export.checks.table import (
    decibel,
    file_lines,
    headline,
    layer_line,
    passed_lines,
    psnr_y,
    rows,
    verdict,
)
from qnas.html_page import Markup, element, facts, page, table
from qnas.images.files import planar

FULL_BAR = 60.0  # dB
EXPLANATION = (
    "A value is one colour of one pixel; levels are grey levels of 255. PSNR compares with the reference, "
    "PSNR-Y with the photograph. SQNR compares the interpreter's tensor with what the runtime's differs by. "
    "Near ties are values within 2^-20 of a rounding tie: another order of float32 operations may round them "
    "the other way."
)


def check_page(report: CheckReport) -> str:
    """The document."""
    t = report.thresholds
    tiles: dict[str, object] = {
        "verdict": element("span", headline(report), class_=_colour(report.passed)),
        "wanted": f"≥ {share(t.min_equal)} equal, ≤ {t.max_steps} grey levels",
        "images": len(report.images),
    }
    if report.near_ties is not None:
        tiles["near ties"] = sum(report.near_ties.values())
    lines = [element("p", miss, class_="warn") for miss in report.misses]
    lines += [element("p", line) for line in (passed_lines(report) if report.passed else ())]
    notes = [element("p", f"note: {note}", class_="soft") for note in report.notes]
    closing = (EXPLANATION, f"images: {', '.join(report.images)}")
    return page(
        "Parity report", facts(tiles), *lines, *notes, *(_file(report, file) for file in report.files),
        *(element("p", text, class_="soft") for text in closing),
    )  # fmt: skip


def _colour(good: bool) -> str:
    return "good" if good else "warn"


def _file(report: CheckReport, file: FileResult) -> Markup:
    headings = ("runtime", "version", "against", "values", "equal", "levels", "PSNR", "PSNR-Y", "verdict")
    lines = [line for result in (*report.references, *file.runtimes) for line in _rows(report, result)]
    parts: list[object] = [element("h2", file.file), table(headings, lines, texts=3)]
    parts += [element("p", line) for line in file_lines(file)]
    for result in file.runtimes:
        if result.evidence is not None:
            parts.append(_figure(result.runtime, result.evidence))
    parts += [_layers(each) if each.layers else element("p", layer_line(each)) for each in file.layers]
    return element("section", *parts)


def _rows(report: CheckReport, result: RuntimeResult) -> list[tuple[object, ...]]:
    good = not replace(result, near=None).misses(report.thresholds)
    shown = element("span", verdict(result, report.thresholds), class_=_colour(good))
    first, *others = rows(result)
    return [
        (result.runtime, result.version, *first, psnr_y(result), shown),
        *(("", "", *row, "", "") for row in others),
    ]


def _layers(layers: LayerTable) -> Markup:
    """All layers, with a bar for the SQNR: full at 60 dB, and of another colour when nothing differs."""
    headings = ("layer", "operation", "SQNR", "", "values", "equal", "steps", "near ties")
    lines = [
        (
            layer.name, layer.operation, _bar(layer.sqnr), decibel(layer.sqnr), f"{layer.values:,}",
            share(layer.equal), layer.largest, layer.near_ties,
        )
        for layer in layers.layers
    ]  # fmt: skip
    summary = element("summary", layer_line(layers))
    return element(
        "details", summary, table(headings, lines, texts=3), open="" if layers.first_difference else None
    )


def _bar(sqnr: float) -> Markup:
    exact = sqnr == math.inf
    width = 100 * min(max(sqnr, 0.0), FULL_BAR) / FULL_BAR
    colour = "var(--good)" if exact else "var(--bar)"
    bar = element("rect", width=f"{width:.1f}", height=8, fill=colour)
    return element("svg", bar, width=100, height=8, role="img")


def _figure(runtime: str, evidence: Evidence) -> Markup:
    """Reference, runtime and the difference, amplified, around the largest one."""
    difference = np.abs(evidence.got.astype(np.int16) - evidence.expected)
    factor = 255 // int(difference.max())
    pictures = {
        evidence.reference: evidence.expected,
        runtime: evidence.got,
        f"difference x {factor}": (difference * factor).astype(np.uint8),
    }
    cards = (
        element("div", element("p", name), _png(name, pixels), class_="card")
        for name, pixels in pictures.items()
    )
    caption = element("p", f"{evidence.image}, around the largest difference of {runtime}")
    return element("div", caption, element("div", *cards, class_="cards"))


def _png(name: str, pixels: NDArray[np.uint8]) -> Markup:
    """uint8 [h, w, C] as an image of three times the size, inside the page."""
    file = io.BytesIO()
    Image.fromarray(planar(pixels)).save(file, format="PNG")
    data = base64.b64encode(file.getvalue()).decode()
    height, width = pixels.shape[:2]
    return element("img", src=f"data:image/png;base64,{data}", alt=name, width=3 * width, height=3 * height)
