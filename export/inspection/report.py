"""How an inspection is shown: two tables for a terminal, JSON, and a page with histograms."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from qnas.export.inspection.inspection import Inspection
from qnas.export.inspection.layer_rows import LayerRow
from qnas.html_page import Markup, element, facts, histogram, page, table
from qnas.terminal import Terminal

FORMAT = "qnas-inspect"
VERSION = 1
WIDTH = 100  # of tables that no terminal bounds
Cell = Callable[[LayerRow], str]


def as_document(inspection: Inspection) -> dict[str, Any]:
    """The inspection as JSON data; scales as numbers, counts as they are."""
    document = {name: value for name, value in asdict(inspection).items() if name != "rows"}
    totals = {name: getattr(inspection, name) for name in ("macs", "bitops", "weight_bytes", "bias_bytes")}
    return {
        "format": FORMAT,
        "version": VERSION,
        **document,
        "totals": totals,
        "layers": [_layer_document(row) for row in inspection.rows],
    }


def _layer_document(row: LayerRow) -> dict[str, Any]:
    output = row.output and {
        "scale": float(row.output.scale),
        "zero_point": row.output.zero_point,
        "low": row.output.low,
        "high": row.output.high,
    }
    properties = {"bitops": row.bitops, "unused_levels": row.unused_levels, "saturation": row.saturation}
    return {**asdict(row), "output": output, **properties}


def show(inspection: Inspection, console: Terminal) -> None:
    """Print what the layers cost, and how they use their levels."""
    console.print(f"{inspection.file}  {_about(inspection)}", soft_wrap=True)
    console.print(_terminal_table(inspection.rows, _COST, _totals(inspection)))
    numbers = [row for row in inspection.rows if row.output is not None or row.weight_counts]
    if numbers:
        console.print(_terminal_table(numbers, _NUMBERS))
        console.print(LEGEND)
    for note in inspection.notes:
        console.print(f"note: {note}")


def _terminal_table(
    rows: Sequence[LayerRow], cells: dict[str, Cell], totals: dict[str, str] | None = None
) -> Table:
    cells = {heading: cell for heading, cell in cells.items() if any(map(cell, rows))}
    grid = Table(box=None, show_footer=totals is not None, header_style="bold", footer_style="bold")
    for heading in cells:
        text = heading in _TEXTS
        footer = (totals or {}).get(heading, "")
        grid.add_column(
            heading, footer, justify="left" if text else "right", overflow="fold", no_wrap=not text
        )
    for row in rows:
        grid.add_row(*(cell(row) for cell in cells.values()))
    return grid


def as_page(inspection: Inspection) -> str:
    """One HTML file that needs nothing else."""
    cells = {**_COST, **{heading: cell for heading, cell in _NUMBERS.items() if heading not in _COST}}
    totals = _totals(inspection)
    rows = [[_page_cell(row, heading, cell) for heading, cell in cells.items()] for row in inspection.rows]
    footer = [totals.get(heading, "") for heading in cells]
    summary = {
        "file": f"{inspection.file_bytes:,} bytes",
        "layers": len(inspection.rows),
        "MACs": totals["MACs"],
        "BitOps": totals["BitOps"],
        "weights": f"{inspection.weight_bytes:,} bytes",
        "biases": f"{inspection.bias_bytes:,} bytes",
    }
    cards = [_card(row) for row in inspection.rows if row.weight_counts]
    return page(
        inspection.file,
        element("p", _about(inspection), class_="soft"),
        facts(summary),
        *(element("p", note, class_="soft") for note in inspection.notes),
        element("h2", "Layers"),
        table(list(cells), rows, texts=2, footer=footer),
        element("p", LEGEND, class_="soft"),
        *((element("h2", "Weights on their grids"), element("div", *cards, class_="cards")) if cards else ()),
    )


def _page_cell(row: LayerRow, heading: str, cell: Cell) -> object:
    shown = cell(row)
    return element("span", shown, class_="warn") if heading == "sum bits" and row.saturating_pairs else shown


def _card(row: LayerRow) -> Markup:
    """A convolution's weights over their whole grid, and its outputs over theirs."""
    words = f"{row.operation}, {_bits(row)} bits, {_unused(row)} levels unused"
    parts: list[object] = [
        element("h3", row.name),
        element("p", words),
        histogram(row.weight_counts, row.weight_low, f"weights of {row.name}"),
    ]
    if row.output is not None and row.output_counts:
        low = row.output.low - row.output.zero_point
        lowest, highest = map(percent, row.saturation or (0, 0))
        parts.append(element("p", f"outputs, square roots of counts; {lowest} lowest, {highest} highest"))
        parts.append(histogram(row.output_counts, low, f"outputs of {row.name}", root=True))
    return element("section", *parts, class_="card")


def _about(inspection: Inspection) -> str:
    size = "its own size" if inspection.size is None else "x".join(map(str, inspection.size))
    images = f"; levels counted on {', '.join(inspection.images)}" if inspection.images else ""
    return f"{inspection.kind}, {inspection.file_bytes:,} bytes, at {size}{images}"


def _totals(inspection: Inspection) -> dict[str, str]:
    return {
        "layer": "total",
        "MACs": engineering(inspection.macs),
        "BitOps": engineering(inspection.bitops),
        "weights": f"{inspection.weight_bytes:,}",
        "biases": f"{inspection.bias_bytes:,}",
    }


def engineering(count: int) -> str:
    """Four digits at most, with k, M, G, T, P or E: 38 400 is "38.4k"."""
    value = float(count)
    for unit in ("", "k", "M", "G", "T", "P"):
        if value < 999.95:
            return f"{value:.4g}{unit}"
        value /= 1000
    return f"{value:.4g}E"


def scale_words(scale: float) -> str:
    """A power of two as such, another number with three digits."""
    mantissa, exponent = math.frexp(scale)
    return f"2^{exponent - 1}" if mantissa == 0.5 else f"{scale:.3g}"


def percent(share: float) -> str:
    """Two digits behind the point; no "0.00%" for a share that is not zero."""
    return "0" if share == 0 else "<0.01%" if share < 1e-4 else f"{share:.2%}"


def _bits(row: LayerRow) -> str:
    return "x".join(str(bits) for bits in (row.weight_bits, row.activation_bits) if bits is not None)


def _weight_scale(row: LayerRow) -> str:
    return "" if row.weight_scale is None else " .. ".join(f"{end:.3g}" for end in row.weight_scale)


def _ends(row: LayerRow) -> str:
    return "" if row.saturation is None else " / ".join(map(percent, row.saturation))


def _unused(row: LayerRow) -> str:
    return f"{row.unused_levels} of {len(row.weight_counts)}" if row.weight_counts else ""


def _sum_bits(row: LayerRow) -> str:
    return "" if row.accumulator_bits is None else f"{row.accumulator_bits}{'!' * row.saturating_pairs}"


def _count(count: int) -> str:
    return f"{count:,}" if count else ""


LEGEND = (
    "bits: weights x what is read; weights, biases: bytes; low / high: share of the values at the lowest and "
    "the highest level (the lowest of a ReLU is its zero); unused: levels that no weight takes; sum bits: "
    "what any image can need, ! where two products may leave 16 bits, which machines without VNNI saturate"
)
_TEXTS = ("layer", "operation")
_COST: dict[str, Cell] = {
    "layer": lambda row: row.name,
    "operation": lambda row: row.operation,
    "output": lambda row: "x".join(map(str, row.shape)) if row.shape is not None else "?",
    "bits": _bits,
    "MACs": lambda row: engineering(row.macs) if row.macs else "",
    "BitOps": lambda row: engineering(row.bitops) if row.bitops else "",
    "weights": lambda row: _count(row.weight_bytes),
    "biases": lambda row: _count(row.bias_bytes),
}
_NUMBERS: dict[str, Cell] = {
    "layer": lambda row: row.name,
    "weight scale": _weight_scale,
    "output scale": lambda row: "" if row.output is None else scale_words(float(row.output.scale)),
    "low / high": _ends,
    "unused": _unused,
    "sum bits": _sum_bits,
}
