"""The page of `qnas-bench correlate`: a picture for every cost and device, and the numbers behind it."""

from __future__ import annotations

from collections.abc import Sequence

from qnas.html_page import Markup, element, facts, page, table
from qnas.runtime_bench.latency_model.correlation import Correlation, Row, Study

WIDTH, HEIGHT, MARGIN = 320, 240, 34
GIGA = 1e9  # of the counts; predictions are milliseconds
_STYLE = (
    "svg{width:100%;height:auto} circle{fill:var(--bar);opacity:.7} line{stroke:var(--line)} "
    "text{fill:var(--soft);font-size:11px}"
)


def correlation_page(study: Study, title: str) -> str:
    """The whole document, self-contained."""
    pictures = [scatter(study.rows, each) for each in study.correlations]
    costs = list(dict.fromkeys(name for row in study.rows for name in row.costs))
    devices = list(dict.fromkeys(name for row in study.rows for name in row.ms))
    numbers = (
        (row.name, *(_cost(row, name) for name in costs), *(_ms(row, name) for name in devices))
        for row in study.rows
    )
    return page(
        title,
        element("style", Markup(_STYLE)),
        facts({"networks": len(study.rows), "devices": ", ".join(devices)}),
        element(
            "p",
            "1 means that a cost puts the networks into the order of their latency, 0 that it says nothing.",
        ),
        table(
            ("device", "cost", "networks", "Spearman", "95 % interval", "Kendall tau-b"),
            (
                (
                    c.device,
                    c.cost,
                    c.networks,
                    f"{c.spearman:.3f}",
                    f"{c.low:.3f} to {c.high:.3f}",
                    f"{c.kendall:.3f}",
                )
                for c in study.correlations
            ),
            texts=2,
        ),
        element("h2", "Costs against latency"),
        element("div", *pictures, class_="cards"),
        element("h2", "Networks"),
        table(("network", *map(_heading, costs), *(f"{name}, ms" for name in devices)), numbers),
        *(element("p", text, class_="warn") for text in study.failures),
    )


def scatter(rows: Sequence[Row], correlation: Correlation) -> Markup:
    """Latency over cost, both from zero; a dot tells its network."""
    cost, device = correlation.cost, correlation.device
    shown = [row for row in rows if cost in row.costs and device in row.ms]
    right = max(row.costs[cost] for row in shown) or 1.0
    top = max(row.ms[device] for row in shown) or 1.0
    dots = (
        element(
            "circle",
            element("title", f"{row.name}: {_cost(row, cost)} {_heading(cost)}, {_ms(row, device)} ms"),
            cx=f"{MARGIN + row.costs[cost] / right * (WIDTH - 2 * MARGIN):.1f}",
            cy=f"{HEIGHT - MARGIN - row.ms[device] / top * (HEIGHT - 2 * MARGIN):.1f}",
            r=3,
        )
        for row in shown
    )
    base, edge = HEIGHT - MARGIN, WIDTH - MARGIN
    picture = element(
        "svg",
        element("title", f"{device}: latency over {cost}"),
        element("line", x1=MARGIN, y1=base, x2=edge, y2=base),
        element("line", x1=MARGIN, y1=base, x2=MARGIN, y2=MARGIN),
        element("text", f"{top:.3g} ms", x=2, y=MARGIN - 6),
        element(
            "text", f"{_scaled(cost, right):.3g} {_heading(cost)}", x=edge, y=base + 16, text_anchor="end"
        ),
        *dots,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
    )
    heading = f"{device}: {cost}"
    note = f"Spearman {correlation.spearman:.3f}, Kendall {correlation.kendall:.3f}"
    return element("div", element("h3", heading), element("p", note), picture, class_="card")


def _scaled(cost: str, value: float) -> float:
    return value if cost.endswith(" ms") else value / GIGA


def _heading(cost: str) -> str:
    return cost if cost.endswith(" ms") else f"G {cost}"


def _cost(row: Row, name: str) -> str:
    return f"{_scaled(name, row.costs[name]):.3f}" if name in row.costs else ""


def _ms(row: Row, device: str) -> str:
    return f"{row.ms[device]:.3f}" if device in row.ms else ""
