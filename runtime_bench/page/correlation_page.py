"""The page of `qnas-bench correlate`: a picture for every cost and device, and the numbers behind it."""

from __future__ import annotations

from collections.abc import Sequence

from qnas.html_page import Markup, element, facts, page, table
from qnas.runtime_bench.latency_model.correlation import PREDICTED, Correlation, Row, Study
from qnas.runtime_bench.page.axes import si
from qnas.runtime_bench.page.charts import STYLE, Dot, scatter_chart

GIGA = 1e9  # of the counts in tables
NUMBERS = ("device", "cost", "networks", "Spearman", "95 % interval", "Kendall tau-b")


def correlation_page(study: Study, title: str) -> str:
    """The whole document, self-contained."""
    costs = list(dict.fromkeys(name for row in study.rows for name in row.costs))
    devices = list(dict.fromkeys(name for row in study.rows for name in row.ms))
    pictures = [_picture(study.rows, each, devices.index(each.device)) for each in study.correlations]
    networks = (
        (row.name, *(_cost(row, name) for name in costs), *(_ms(row, name) for name in devices))
        for row in study.rows
    )
    return page(
        title,
        facts({"networks": len(study.rows), "devices": ", ".join(devices)}),
        element(
            "p",
            "1 means that a cost puts the networks into the order of their latency, 0 that it says nothing.",
        ),
        table(NUMBERS, map(_numbers, study.correlations), texts=2),
        element("h2", "Costs against latency"),
        element("div", *pictures, class_="charts"),
        element("h2", "Networks"),
        table(("network", *map(_heading, costs), *(f"{name}, ms" for name in devices)), networks),
        *(element("p", text, class_="warn") for text in study.failures),
        style=STYLE,
    )


def _numbers(each: Correlation) -> tuple[object, ...]:
    interval = f"{each.low:.3f} to {each.high:.3f}"
    return each.device, each.cost, each.networks, f"{each.spearman:.3f}", interval, f"{each.kendall:.3f}"


def _picture(rows: Sequence[Row], correlation: Correlation, series: int) -> Markup:
    """Latency over cost, both logarithmic: a network without the cost, or without any of it, is no dot."""
    cost, device = correlation.cost, correlation.device
    unit = "s" if cost == PREDICTED else ""
    dots = []
    for row in rows:
        if row.costs.get(cost, 0) > 0 and row.ms.get(device, 0) > 0:
            x, y = row.costs[cost] * (1e-3 if unit else 1), row.ms[device] * 1e-3
            dots.append(Dot(x, y, series, "", f"{row.name}: {cost} {si(x, unit)}, latency {si(y, 's')}"))
    heading = f"{device} over {cost}: Spearman {correlation.spearman:.3f}"
    return scatter_chart(dots, heading, unit, "s") if dots else element("p", f"{heading}: all are 0")


def _heading(cost: str) -> str:
    return cost if cost == PREDICTED else f"G {cost}"


def _cost(row: Row, name: str) -> str:
    return f"{row.costs[name] / (1 if name == PREDICTED else GIGA):.3f}" if name in row.costs else ""


def _ms(row: Row, device: str) -> str:
    return f"{row.ms[device]:.3f}" if device in row.ms else ""
