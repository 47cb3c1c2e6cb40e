"""Colours by name: bit widths and series look the same in every picture, on light and on dark pages.

matplotlib draws with the light ones; `plots.py` puts the names of these CSS variables in their place.
"""

from qnas.html_page import Markup, element
from qnas.network.architecture import Architecture

LIGHT = (
    "#2a6fdb", "#c8600b", "#188a5a", "#a03fb8", "#c22e4f", "#6a7a16", "#0f8a9d", "#7a5230", "#69707f",
)  # fmt: skip
DARK = (
    "#7aa5f5", "#f09a4a", "#5cc795", "#d58ae8", "#f2788f", "#b3c254", "#4fc3d6", "#c99a72", "#9aa3b2",
)  # fmt: skip
INK, SOFT, LINE, PAPER = "#1d2330", "#626b7d", "#d9dee8", "#ffffff"  # of qnas.html_page
VARIABLES = {
    **{colour: f"--c{index}" for index, colour in enumerate(LIGHT)},
    INK: "--ink", SOFT: "--soft", LINE: "--line", PAPER: "--paper",
}  # fmt: skip
OF_BITS = {2: 3, 3: 4, 4: 1, 5: 5, 6: 6, 7: 7, 8: 0, 32: 8}  # indices of LIGHT


def bits_colour(bits: int) -> str:
    """The light one."""
    return LIGHT[OF_BITS[bits]]


def bits_class(bits: int) -> str:
    """The class of an element whose colour `--bits` is."""
    return f"b{bits}"


def bits_chip(bits: int) -> Markup:
    """The bit width in its colour, in a line of text."""
    return element("span", f"{bits} bit", class_=f"chip {bits_class(bits)}")


def bits_legend(architecture: Architecture) -> Markup:
    """The bit widths of a network."""
    return element("p", *map(bits_chip, sorted({choice.bits for choice in architecture.layers.values()})))


def _declarations(colours: tuple[str, ...]) -> str:
    return " ".join(f"--c{index}: {colour};" for index, colour in enumerate(colours))


STYLE = f"""
:root {{ {_declarations(LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_declarations(DARK)} }} }}
{" ".join(f".{bits_class(bits)} {{ --bits: var(--c{index}); }}" for bits, index in OF_BITS.items())}
.chip {{ display: inline-block; background: var(--bits); color: var(--paper); border-radius: .7rem;
  padding: 0 .55rem; margin-right: .35rem; font-size: .75rem; font-weight: 600; }}
"""
