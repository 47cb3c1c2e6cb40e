"""matplotlib's figures as parts of a page, in its font and colours; the same numbers give the same bytes."""

import io
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure

from qnas.html_page import Markup, element
from qnas.search.report.colours import INK, LINE, SOFT, VARIABLES

PIXELS_PER_INCH = 72  # of matplotlib's SVG
SETTINGS: dict[Any, object] = {
    "svg.fonttype": "none",  # text stays text, in the font of the page
    "text.parse_math": False,  # a "$" in a name is one
    "font.size": 10.5,
    "text.color": INK,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "grid.color": LINE,
    "legend.frameon": False,
    "legend.fontsize": 10.5,
    "axes.formatter.useoffset": False,
}
_DROPPED = {"metadata", "style", "title"}
_SHOWN_AT = {"width", "height", "version", "id"}  # of the whole picture: the page decides
_REFERENCE = re.compile(r"#([\w-]+)")
_FONT = re.compile(r"font-family:[^;]*;?")


def plot(
    name: str, label: str, size: tuple[float, float], draw: Callable[[Figure], None],
    titles: Mapping[str, str] | None = None,
) -> Markup:  # fmt: skip
    """What `draw` puts into a figure of `size` (width, height) pixels, as an inline SVG.

    `name` keeps its ids apart from those of other pictures of the page; `label` is for who cannot see it.
    Artists with the gid of one of `titles` say that text under the pointer.
    """
    width, height = size
    written = io.BytesIO()
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that matplotlib's font lacks, the page's may have
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**SETTINGS, "svg.hashsalt": name})
        figure = Figure(figsize=(width / PIXELS_PER_INCH, height / PIXELS_PER_INCH))
        draw(figure)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(written, format="svg", metadata=nothing)
    root = ElementTree.fromstring(written.getvalue())
    referenced = {match for node in root.iter() for value in node.attrib.values() for match in _ids(value)}
    kept = {key: value for key, value in root.attrib.items() if key not in _SHOWN_AT}
    inside = _children(root, referenced, titles or {})
    shown = {"class_": "plot", "role": "img", "aria_label": label, "style": f"max-width: {width:g}px"}
    return element("svg", *inside, **kept, **shown)


def _ids(value: str) -> list[str]:
    return _REFERENCE.findall(value) if value.startswith(("#", "url(#")) else []


def _children(
    node: ElementTree.Element, referenced: set[str], titles: Mapping[str, str]
) -> list[Markup]:  # fmt: skip
    made = (_converted(child, referenced, titles) for child in node)
    return [child for child in made if child is not None]


def _converted(
    node: ElementTree.Element, referenced: set[str], titles: Mapping[str, str]
) -> Markup | None:  # fmt: skip
    tag = _local(node.tag)
    if tag in _DROPPED:
        return None
    inside: list[object] = list(_children(node, referenced, titles))
    if not inside and tag in ("defs", "g"):
        return None
    attributes = {_local(key): value for key, value in node.attrib.items()}
    own = attributes.get("id", "")
    if own not in referenced:
        attributes.pop("id", None)
    if own in titles:
        inside.insert(0, element("title", titles[own]))
    if "style" in attributes:
        attributes["style"] = _page_style(attributes["style"])
    text = node.text or ""
    return element(tag, *([text] if text.strip() else []), *inside, **attributes)


def _page_style(style: str) -> str:
    """With the page's own font and colours."""
    for colour, variable in VARIABLES.items():
        style = style.replace(colour, f"var({variable})")
    return _FONT.sub("", style).strip()


def _local(name: str) -> str:
    return name.rpartition("}")[2]
