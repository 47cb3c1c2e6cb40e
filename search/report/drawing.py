"""The picture of an architecture, as inline SVG: a box for each layer, coloured by its bits."""

from collections.abc import Sequence
from dataclasses import replace

from qnas.html_page import Markup, element, table
from qnas.network.architecture import Architecture
from qnas.search.report.colours import bits_chip, bits_class, bits_legend
from qnas.search.report.graph import SOURCE, Block, Box, Diagram, Picture, picture
from qnas.search.report.layout import Drawing, place, wire
from qnas.search.report.numbers import percent, si

LETTER = 6.7  # width of a letter of 11 pixels
NARROWEST, HALF_HEIGHT = 146.0, 32.0  # of a layer's box
PLAIN_HALF = 12.0
RADIUS = 9.0  # of a sum
PAD, HEADING = 16.0, 20.0  # inside a block's border
STRIPE = 5.0
WIDEST = 1330.0  # a picture that is wider shows its blocks apart
MARGIN = 8.0
SMALLEST = 0.7  # of its size may a picture have; a page that is narrower scrolls


def architecture_section(architecture: Architecture, image: tuple[int, int]) -> Markup:
    """The drawing, with shares of the cost of an image of (height, width) pixels, and a table of all numbers.

    Raises ArchitectureError.
    """
    drawn = picture(architecture, image)
    height, width = image
    note = (
        f"Percentages: shares of {si(drawn.macs, 'MACs')} and {si(drawn.bitops, 'BitOps')} for an image of "
        f"{height}\N{MULTIPLICATION SIGN}{width} pixels; bars: BitOps. Equal blocks are drawn once, with the "
        "shares of all of them. Dashed: fixed by the network, not searched."
    )
    return element(
        "div", bits_legend(architecture), *_drawings(drawn), element("p", note, class_="soft"),
        element("details", element("summary", "Layers in numbers"), _layer_table(drawn)),
    )  # fmt: skip


def architecture_text(architecture: Architecture) -> str:
    """What network it is, in a line."""
    a = architecture
    norm = "" if a.normalization == "none" else f", {a.normalization.upper()}"
    blocks = f"{a.blocks} blocks, " if any(name.startswith("body.") for name in a.layers) else ""
    return f"{a.space}, {blocks}{a.channels} channels, \N{MULTIPLICATION SIGN}{a.scale}{norm}"


def _drawings(drawn: Picture) -> list[Markup]:
    """One picture, where that is not too wide; else one of the frame, and one of each kind of block."""
    whole = _placed(drawn, drawn.frame, inline=len(drawn.rows) == 1)
    if len(drawn.rows) == 1 and whole.width > WIDEST:
        whole = _placed(drawn, drawn.frame, inline=False)
    elif len(drawn.rows) <= 1:
        return [_svg(whole, "the network")]
    cards = element("div", *(_block_card(drawn, block) for block in drawn.blocks), class_="blocks")
    return [_svg(whole, "the network"), cards]


def _block_card(drawn: Picture, block: Block) -> Markup:
    inside = _svg(_placed(drawn, block.graph), block.title)
    return element("div", element("h3", block.title.capitalize()), inside, class_="card")


def _svg(shape: Drawing, label: str) -> Markup:
    width, height = shape.width + 2 * MARGIN, shape.above + shape.below + 2 * MARGIN
    moved = element("g", shape.markup, transform=f"translate({MARGIN:g} {shape.above + MARGIN:.1f})")
    drawn = element(
        "svg", moved, viewBox=f"0 0 {width:.1f} {height:.1f}", class_="drawing", role="img", aria_label=label,
        style=f"width: {width:.0f}px; min-width: {SMALLEST * width:.0f}px",
    )  # fmt: skip
    return element("div", drawn, class_="wide")


def _placed(drawn: Picture, graph: Diagram, inline: bool = False) -> Drawing:
    shapes = {}
    for key, box in graph.boxes.items():
        if box.kind != "block":
            shapes[key] = _shape(box, drawn)
        elif inline:
            shapes[key] = _framed(_placed(drawn, drawn.rows[key].graph), drawn.rows[key].title)
        else:
            shapes[key] = _closed(drawn.rows[key], box, drawn)
    return place(shapes, graph.edges)


def _shape(box: Box, drawn: Picture) -> Drawing:
    match box.kind:
        case "searched" | "fixed":
            return _layer(box, drawn)
        case "join":
            bar = f"M{RADIUS - 4:g} 0h8M{RADIUS:g} -4v8"
            circle = element("circle", cx=RADIUS, cy=0, r=RADIUS, class_="join")
            shown = element("g", element("title", box.name), circle, element("path", d=bar, class_="sign"))
            return Drawing(2 * RADIUS, RADIUS, RADIUS, shown)
        case _ if box.name == SOURCE:
            return Drawing(0, 3, 3, element("circle", cx=0, cy=0, r=3, class_="tip"))
        case _:
            return _plain(box, drawn)


def _layer(box: Box, drawn: Picture) -> Drawing:
    width = max(NARROWEST, LETTER * len(box.text) + 20, 5.7 * len(box.name) + 42)
    bits = box.bits or 32
    length = (width - 16) * box.bitops / max(drawn.largest, 1)
    shares = f"MACs {_share(box.macs, drawn.macs)}  BitOps {_share(box.bitops, drawn.bitops)}"
    hover = f"{box.name}: {box.text}, {bits} bits, {box.macs:,} MACs, {box.bitops:,} BitOps"
    parts = (
        element("title", hover),
        element("rect", x=0, y=-HALF_HEIGHT, width=f"{width:.1f}", height=2 * HALF_HEIGHT, rx=6,
                class_=f"layer {box.kind}"),
        element("rect", x=0, y=-HALF_HEIGHT + 6, width=4, height=2 * HALF_HEIGHT - 12, class_="edge"),
        element("text", box.name, x=10, y=-17, class_="small"),
        element("text", bits, x=f"{width - 8:.1f}", y=-16.5, class_="bits"),
        element("text", box.text, x=10, y=-1, class_="operation"),
        element("text", shares, x=10, y=13.5, class_="small"),
        element("rect", x=10, y=20, width=f"{width - 18:.1f}", height=4, rx=2, class_="all"),
        element("rect", x=10, y=20, width=f"{length:.1f}", height=4, rx=2, class_="edge"),
    )  # fmt: skip
    return Drawing(width, HALF_HEIGHT, HALF_HEIGHT, element("g", *parts, class_=bits_class(bits)))


def _plain(box: Box, drawn: Picture) -> Drawing:
    width = LETTER * len(box.text) + 14
    cost = f", {_share(box.macs, drawn.macs)} of the MACs" if box.macs else ""
    parts = (
        element("title", f"{box.name}: {box.text}{cost}"),
        element("rect", x=0, y=-PLAIN_HALF, width=f"{width:.1f}", height=2 * PLAIN_HALF,
                rx=PLAIN_HALF if box.kind == "end" else 4, class_="plain"),
        element("text", box.text, x=f"{width / 2:.1f}", y=3.7, class_="word"),
    )  # fmt: skip
    return Drawing(width, PLAIN_HALF, PLAIN_HALF, element("g", *parts))


def _framed(inside: Drawing, title: str) -> Drawing:
    """A block with its border and its title."""
    width = inside.width + 2 * PAD
    above, below = inside.above + HEADING + 8, inside.below + PAD - 4
    parts = (
        element("rect", x=0, y=f"{-above:.1f}", width=f"{width:.1f}", height=f"{above + below:.1f}", rx=9,
                class_="block"),
        element("text", title, x=PAD, y=f"{16 - above:.1f}", class_="heading"),
        wire([(0, 0), (PAD, 0)], arrow=False),
        wire([(PAD + inside.width, 0), (width, 0)], arrow=False),
        element("g", inside.markup, transform=f"translate({PAD:g} 0)"),
    )  # fmt: skip
    return Drawing(width, above, below, element("g", *parts))


def _closed(row: Block, box: Box, drawn: Picture) -> Drawing:
    """A row of equal blocks that is drawn elsewhere: the bits of its layers as stripes."""
    layers = [each for each in row.graph.boxes.values() if each.kind == "searched"]
    shares = f"BitOps {_share(box.bitops, drawn.bitops)}"
    width = max(LETTER * len(row.title) + 16, STRIPE * 1.4 * len(layers) + 16, 92)
    step = (width - 16) / max(len(layers), 1)
    stripes = (
        element("rect", element("title", f"{each.name}: {each.text}, {each.bits} bits"),
                x=f"{8 + index * step:.1f}", y=-6, width=f"{step - 1.5:.1f}", height=12, rx=1.5,
                class_=f"edge {bits_class(each.bits or 32)}")
        for index, each in enumerate(layers)
    )  # fmt: skip
    parts = (
        element("rect", x=0, y=-HALF_HEIGHT, width=f"{width:.1f}", height=2 * HALF_HEIGHT, rx=9,
                class_="block"),
        element("text", row.title, x=8, y=-14, class_="heading"),
        *stripes,
        element("text", shares, x=8, y=21, class_="small"),
    )  # fmt: skip
    return Drawing(width, HALF_HEIGHT, HALF_HEIGHT, element("g", *parts))


def _share(part: float, whole: float) -> str:
    return percent(part / whole) if whole else "0%"


def _layer_table(drawn: Picture) -> Markup:
    boxes = [box for box in drawn.frame.boxes.values() if box.kind != "block"]
    at = next((index for index, box in enumerate(drawn.frame.boxes.values()) if box.kind == "block"), 0)
    inside = [_titled(block, box) for block in drawn.blocks for box in block.graph.boxes.values()]
    rows = [_row(box, drawn) for box in (*boxes[:at], *inside, *boxes[at:]) if box.macs]
    total: Sequence[object] = ("all", "", "", si(drawn.macs), "100%", si(drawn.bitops), "100%")
    headings = ("layer", "operation", "bits", "MACs", "share", "BitOps", "share")
    return table(headings, rows, texts=2, footer=total)


def _titled(block: Block, box: Box) -> Box:
    """With its blocks in its name, where they are several."""
    several = len(block.numbers) > 1
    return replace(box, name=f"{box.name} ({block.title})") if several else box


def _row(box: Box, drawn: Picture) -> Sequence[object]:
    chip = bits_chip(box.bits) if box.bits else ""
    macs, bitops = _share(box.macs, drawn.macs), _share(box.bitops, drawn.bitops)
    return box.name, box.text, chip, si(box.macs), macs, si(box.bitops), bitops


STYLE = """
.drawing { display: block; max-width: 100%; height: auto;
  font-family: ui-monospace, "DejaVu Sans Mono", monospace; }
.drawing .layer { fill: var(--bits); fill-opacity: .11; stroke: var(--bits); stroke-width: 1; }
.drawing .fixed { stroke-dasharray: 4 3; } .drawing .edge { fill: var(--bits); }
.drawing .all { fill: var(--line); opacity: .7; }
.drawing text { fill: var(--ink); } .drawing .small { fill: var(--soft); font-size: 9px; white-space: pre; }
.drawing .operation { font-size: 11px; font-weight: 600; }
.drawing .bits { fill: var(--bits); font-size: 12px; font-weight: 700; text-anchor: end; }
.drawing .word { font-size: 11px; text-anchor: middle; } .drawing .heading { font-size: 11px; }
.drawing .plain { fill: var(--card); stroke: var(--line); }
.drawing .block { fill: var(--card); fill-opacity: .6; stroke: var(--line); stroke-width: 1.3; }
.drawing .join { fill: var(--paper); stroke: var(--soft); }
.drawing .sign { stroke: var(--ink); stroke-width: 1.4; }
.drawing .wire { fill: none; stroke: var(--soft); stroke-width: 1.2; } .drawing .tip { fill: var(--soft); }
.blocks { display: flex; flex-wrap: wrap; gap: .8rem; margin: .8rem 0; } .blocks .card { max-width: 100%; }
"""
