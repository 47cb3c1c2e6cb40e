"""Charts as inline SVG that follow the width of the page: places are percent, text keeps its size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qnas.html_page import Markup, element
from qnas.runtime_bench.page.axes import Axis, log_axis, spread_axis, tick_text
from qnas.runtime_bench.stats import Estimate

COLOURS = 8
SHAPES = (
    "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z",
    "M-4 -4h8v8h-8z",
    "M0 -5.5L5.5 0L0 5.5L-5.5 0z",
    "M0 -5L5 4h-10z",
    "M0 5L5 -4h-10z",
)
ROW = 26  # pixels
NEAR = (4.0, 5.0)  # percent: a label so close to another one is left out
MOST_LABELS = 24
LONG = 20  # rows of an interval chart with its scale above as well


@dataclass(frozen=True)
class Strip:
    """A row of an interval chart; `number` is its value in words."""

    label: str
    series: int
    estimate: Estimate
    number: str


@dataclass(frozen=True)
class Dot:
    """A point of a scatter chart; `mark` is the text beside it, if any, `title` that under the pointer."""

    x: float
    y: float
    series: int
    mark: str
    title: str


@dataclass(frozen=True)
class Moment:
    """A point of a history; `mark` numbers what changed before it, `joined` draws a line from the last."""

    estimate: Estimate
    when: str
    title: str
    mark: str
    joined: bool


def swatch(series: int) -> Markup:
    """The marker of a series, in a line of text."""
    return element("svg", _marker(series), class_="swatch", viewBox="-8 -8 16 16", aria_hidden="true")


def legend(names: Sequence[str]) -> Markup:
    """Markers and names of all series."""
    items = (element("span", swatch(index), " ", name) for index, name in enumerate(names))
    return element("p", *items, class_="legend")


def interval_chart(groups: Iterable[tuple[str, Sequence[Strip]]], unit: str) -> Markup:
    """A dot with its interval for every row, the rows of a group under its name; values in `unit`."""
    listed = [(name, tuple(strips)) for name, strips in groups]
    ends = [end for _, strips in listed for each in strips for end in _ends(each.estimate)]
    axis = spread_axis(ends, zero=True)
    rows: list[Markup] = []
    for name, strips in listed:
        rows.append(element("h3", name))
        rows += [_strip(each, axis) for each in strips]
    numbers = element("svg", *_numbers_below(axis, unit), class_="plot", height=ROW, role="presentation")
    scale = element("div", element("span"), numbers, element("span"), class_="strip")
    rows = [scale, *rows, scale] if len(rows) > LONG else [*rows, scale]
    return element("div", *rows, class_="strips")


def scatter_chart(dots: Sequence[Dot], heading: str, unit: str, y_unit: str) -> Markup:
    """Dots on two logarithmic axes."""
    x, y = log_axis([dot.x for dot in dots]), log_axis([dot.y for dot in dots])
    parts = [*_grid(x), *_scale_at_left(y, y_unit), *_numbers_below(x, unit, "100%")]
    placed: list[tuple[float, float]] = []
    for dot in dots:
        left, top = x.place(dot.x), 100 - y.place(dot.y)
        parts.append(_at(left, top, _marker(dot.series, dot.title)))
        free = all(abs(left - a) > NEAR[0] or abs(top - b) > NEAR[1] for a, b in placed)
        if dot.mark and free and len(placed) < MOST_LABELS:
            placed.append((left, top))
            parts.append(element("text", dot.mark, x=_percent(left), y=_percent(top), dx=8, dy=-6))
    picture = element("svg", *parts, class_="plot tall", role="img", aria_label=heading)
    return element("figure", element("h3", heading), picture, class_="chart")


def history_chart(moments: Sequence[Moment], series: int, heading: str, unit: str) -> Markup:
    """Dots with intervals in the order of time, at equal distances."""
    axis = spread_axis([end for each in moments for end in _ends(each.estimate)])
    step = 100 / len(moments)
    parts = _scale_at_left(axis, unit)
    before = 0.0
    for index, each in enumerate(moments):
        left, top = step * (index + 0.5), 100 - axis.place(each.estimate.value)
        if each.mark:
            edge = _percent(step * index)
            parts.append(element("line", x1=edge, x2=edge, y1=0, y2="100%", class_="change"))
            parts.append(element("text", each.mark, x=edge, y=-5, text_anchor="middle", class_="change"))
        if each.joined:
            parts.append(_line(left - step, before, left, top, "joined"))
        high, low = (100 - axis.place(end) for end in (each.estimate.high, each.estimate.low))
        parts.append(_line(left, high, left, low, "interval", series))
        parts.append(_at(left, top, _marker(series, each.title)))
        before = top
    for index in _few(len(moments)):
        place = _percent(step * (index + 0.5))
        parts.append(element("text", moments[index].when, x=place, y="100%", dy=18, text_anchor="middle"))
    picture = element("svg", *parts, class_="plot middle", role="img", aria_label=heading)
    return element("figure", element("h3", heading), picture, class_="chart")


def bar(share: float, kind: str = "value") -> Markup:
    """A bar of `share` of the width of its place."""
    width = f"{100 * min(max(share, 0), 1):.3g}%"
    rectangle = element("rect", width=width, height="100%", class_=kind)
    return element("svg", rectangle, class_="cell", aria_hidden="true")


def two_bars(outer: float, inner: float) -> Markup:
    """A pale bar of `outer` and in it a full one of `inner`, shares of the width."""
    widths = (f"{100 * min(max(share, 0), 1):.3g}%" for share in (outer, inner))
    pale, full = (
        element("rect", width=width, height="100%", class_=kind)
        for width, kind in zip(widths, ("pale", "value"), strict=True)
    )
    return element("svg", pale, full, class_="cell", aria_hidden="true")


def _strip(each: Strip, axis: Axis) -> Markup:
    low, high = axis.place(each.estimate.low), axis.place(each.estimate.high)
    middle = ROW / 2
    line = element("line", x1=_percent(low), x2=_percent(high), y1=middle, y2=middle,
                   class_=f"interval s{each.series % COLOURS}")  # fmt: skip
    dot = _at(axis.place(each.estimate.value), 50, _marker(each.series, f"{each.label}: {each.number}"))
    plot = element(
        "svg", *_grid(axis), line, dot, class_="plot", height=ROW, role="img", aria_label=each.number
    )
    return element(
        "div",
        element("span", swatch(each.series), " ", each.label),
        plot,
        element("span", each.number, class_="number"),
        class_="strip",
    )


def _grid(axis: Axis) -> list[Markup]:
    places = (_percent(axis.place(tick)) for tick in axis.ticks)
    return [element("line", x1=place, x2=place, y1=0, y2="100%", class_="grid") for place in places]


def _numbers_below(axis: Axis, unit: str, y: object = 0) -> list[Markup]:
    return [
        element("text", tick_text(tick, unit), x=_percent(axis.place(tick)), y=y, dy=18, text_anchor="middle")
        for tick in axis.ticks
    ]


def _scale_at_left(axis: Axis, unit: str) -> list[Markup]:
    parts = []
    for tick in axis.ticks:
        top = _percent(100 - axis.place(tick))
        parts.append(element("line", x1=0, x2="100%", y1=top, y2=top, class_="grid"))
        parts.append(element("text", tick_text(tick, unit), x=0, y=top, dx=-8, dy=4, text_anchor="end"))
    return parts


def _marker(series: int, title: str | None = None) -> Markup:
    inside = () if title is None else (element("title", title),)
    return element("path", *inside, d=SHAPES[series % len(SHAPES)], class_=f"mark s{series % COLOURS}")


def _at(left: float, top: float, inside: Markup) -> Markup:
    return element("svg", inside, x=_percent(left), y=_percent(top), overflow="visible")


def _line(x1: float, y1: float, x2: float, y2: float, kind: str, series: int | None = None) -> Markup:
    ends = {name: _percent(value) for name, value in (("x1", x1), ("y1", y1), ("x2", x2), ("y2", y2))}
    return element("line", class_=kind if series is None else f"{kind} s{series % COLOURS}", **ends)


def _ends(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.low, estimate.value, estimate.high


def _percent(value: float) -> str:
    return f"{value:.2f}%"


def _few(count: int) -> list[int]:
    """The first and the last of `count`, and what fits between."""
    if count <= 5:
        return list(range(count))
    return [0, count // 2, count - 1] if count % 2 else [0, count - 1]


STYLE = """
.s0 { --c: #2a6fdb; } .s1 { --c: #c8600b; } .s2 { --c: #188a5a; } .s3 { --c: #a03fb8; }
.s4 { --c: #c22e4f; } .s5 { --c: #6a7a16; } .s6 { --c: #0f8a9d; } .s7 { --c: #7a5230; }
@media (prefers-color-scheme: dark) {
  .s0 { --c: #7aa5f5; } .s1 { --c: #f09a4a; } .s2 { --c: #5cc795; } .s3 { --c: #d58ae8; }
  .s4 { --c: #f2788f; } .s5 { --c: #b3c254; } .s6 { --c: #4fc3d6; } .s7 { --c: #c99a72; } }
.mark { fill: var(--c); stroke: var(--paper); stroke-width: 1; }
.interval { stroke: var(--c); stroke-width: 2.5; stroke-linecap: round; }
.grid { stroke: var(--line); } .joined { stroke: var(--soft); stroke-width: 1.2; }
line.change { stroke: var(--warn); stroke-dasharray: 4 3; }
.plot { display: block; width: 100%; overflow: visible; }
.plot text { fill: var(--soft); font-size: 11px; } .plot text.change { fill: var(--warn); }
.tall { height: 20rem; } .middle { height: 11rem; }
.chart { padding: 0 1.5rem 2rem 4.2rem; min-width: 0; } .chart h3 { margin: 0 0 1.2rem -4.2rem; }
.charts { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); }
.swatch { width: .9rem; height: .9rem; vertical-align: -.12rem; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; }
.strips h3 { margin: .7rem 0 .1rem; }
.strip { display: grid; grid-template-columns: minmax(6rem, 15rem) minmax(0, 1fr) 15rem; gap: 0 1.5rem;
  align-items: center; font-size: .85rem; overflow-wrap: anywhere; }
@media (max-width: 50rem) { .strip { grid-template-columns: minmax(0, 1fr) auto; padding: 0 1.5rem 0 .5rem; }
  .strip .plot { grid-row: 2; grid-column: 1 / 3; } }
.cell { display: block; width: 100%; min-width: 5rem; height: .6rem; margin-top: .15rem; }
.value { fill: var(--bar); } .pale { fill: var(--bar); opacity: .3; }
details { border: 1px solid var(--line); border-radius: .5rem; padding: .4rem .9rem; margin: .6rem 0; }
summary { cursor: pointer; overflow-wrap: anywhere; }
.changes { font-size: .85rem; overflow-wrap: anywhere; padding-left: 1.5rem; margin: 0; }
.wide + h3, .wide + .wrap { margin-top: 1rem; }
.wrap td:last-child { white-space: normal; overflow-wrap: anywhere; min-width: 15rem; }
"""
