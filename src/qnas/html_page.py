"""Self-contained HTML pages: no scripts, nothing loaded from elsewhere, light or dark as the system is.

A page is made of `Markup`; whatever else is put into an element is text and is escaped.
"""

import html
import math
from collections.abc import Iterable, Mapping, Sequence

from qnas.errors import printable


class Markup(str):
    """HTML that goes into a page as it is; only this module and literals should make it."""


def markup(value: object) -> Markup:
    """`value` as HTML: Markup stays, anything else is shown as printable text."""
    return value if isinstance(value, Markup) else Markup(html.escape(printable(str(value))))


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """`<tag attributes>children</tag>`; an attribute `class_` is class, `stroke_width` stroke-width.

    Attributes are escaped whatever they are; one that is None is left out.
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(printable(str(value)))}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{tag}{written}>{''.join(markup(child) for child in children)}</{tag}>")


def page(title: str, *parts: object, style: str = "") -> str:
    """The whole document, with a `style` of its own after the common one.

    Its policy forbids scripts and whatever lies outside; images may be data: URLs.
    """
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    head = (
        Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        element("title", title),
        element("style", Markup(STYLE + style)),
    )
    body = (element("h1", title), *parts)
    document = element("html", element("head", *head), element("body", *body), lang="en")
    return f"<!DOCTYPE html>\n{document}\n"


def facts(pairs: Mapping[str, object]) -> Markup:
    """A row of labelled numbers."""
    tiles = (element("div", element("dt", label), element("dd", value)) for label, value in pairs.items())
    return element("dl", *tiles)


def table(
    headings: Sequence[object],
    rows: Iterable[Sequence[object]],
    texts: int = 1,
    footer: Sequence[object] | None = None,
) -> Markup:
    """Rows of cells under `headings`; all but the first `texts` columns are numbers, at the right."""

    def line(cells: Sequence[object], tag: str) -> Markup:
        kinds = (None if column < texts else "number" for column in range(len(cells)))
        return element(
            "tr", *(element(tag, cell, class_=kind) for cell, kind in zip(cells, kinds, strict=True))
        )

    parts = [
        element("thead", line(headings, "th")),
        element("tbody", *(line(cells, "td") for cells in rows)),
    ]
    if footer is not None:
        parts.append(element("tfoot", line(footer, "td")))
    return element("div", element("table", *parts), class_="wide")


def histogram(counts: Sequence[int], first: int, title: str, root: bool = False) -> Markup:
    """One bar for each level from `first` on, and below it a strip that is red where no value lies.

    Bars are as high as their counts, or with `root` as the square roots of these.
    """
    scaled = [math.sqrt(count) if root else float(count) for count in counts]
    highest = max(scaled, default=0.0) or 1.0
    width = 0.9 if len(counts) <= FEW_LEVELS else 1
    bars = "".join(
        f"M{level} {BARS}v-{max(height * BARS / highest, 1):.4g}h{width}V{BARS}z"
        for level, height in enumerate(scaled)
        if height
    )
    mark = f"{BARS + 2}h{width}v{STRIP}h-{width}z"
    empty = "".join(f"M{level} {mark}" for level, count in enumerate(counts) if not count)
    picture = element(
        "svg",
        element("title", title),
        Markup(f'<path class="bar" d="{bars}"/><path class="empty" d="{empty}"/>'),
        viewBox=f"0 0 {len(counts)} {BARS + 2 + STRIP}",
        preserveAspectRatio="none",
        role="img",
    )
    last = first + len(counts) - 1
    ends = (element("span", number) for number in (first, f"most {max(counts, default=0):,}", last))
    return element("figure", picture, element("figcaption", *ends), class_="histogram")


BARS = 60  # units of height
STRIP = 4
FEW_LEVELS = 32  # bars that leave gaps between them
STYLE = """
:root { color-scheme: light dark; --ink: #1d2330; --soft: #626b7d; --line: #d9dee8;
  --paper: #fff; --card: #f5f7fa; --bar: #3b6fd4; --warn: #c2412d; --good: #2b7a4b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8f0; --soft: #97a1b3; --line: #343c4b;
  --paper: #14181f; --card: #1d232d; --bar: #7aa5f5; --warn: #f0806c; --good: #6cc492; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.5rem 4rem; max-width: 90rem; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
h3 { font-size: .95rem; margin: 0; overflow-wrap: anywhere; }
p { max-width: 60rem; }
.soft { color: var(--soft); } .warn { color: var(--warn); } .good { color: var(--good); }
dl { display: flex; flex-wrap: wrap; gap: .6rem; margin: 1rem 0; }
dl > div, .card { background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: .5rem .9rem; }
dt { color: var(--soft); font-size: .8rem; } dd { margin: 0; }
dd, .number, figcaption, code { font-family: ui-monospace, "DejaVu Sans Mono", monospace;
  font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .85rem; width: 100%; }
th, td { padding: .25rem .45rem; text-align: left; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
thead th { color: var(--soft); font-weight: 600; vertical-align: bottom; white-space: normal; }
thead th.number { font-family: inherit; }
tbody tr:hover { background: var(--card); } tfoot td { font-weight: 600; border-bottom: 0; }
th.number, td.number { text-align: right; }
.cards { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); }
.card p { margin: .1rem 0 .5rem; font-size: .8rem; color: var(--soft); }
figure { margin: .4rem 0 0; } figcaption { display: flex; justify-content: space-between; font-size: .72rem;
  color: var(--soft); }
.histogram svg { display: block; width: 100%; height: 5rem; border-bottom: 1px solid var(--line); }
.bar { fill: var(--bar); } .empty { fill: var(--warn); opacity: .55; }
img { max-width: 100%; image-rendering: pixelated; }
"""
