"""Histograms of tensors with the range chosen, and bars of scores."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qnas.calibration.document import Score
from qnas.calibration.ranges.histogram import Histogram
from qnas.calibration.ranges.ranges import Range
from qnas.html_page import Markup, element

BINS = 96
HEIGHT = 60  # units
MARGIN = 0.04  # of the width, left of what is lowest and right of what is highest
LEAST_SPAN = 1.0  # dB: differences of less should not look large
STYLE = """
.range svg { display: block; width: 100%; height: 5.2rem; border-bottom: 1px solid var(--line); }
.kept { fill: var(--bar); opacity: .1; } .lost { fill: var(--warn); }
.end { stroke: var(--bar); stroke-width: 1.5; vector-effect: non-scaling-stroke; }
.zero { stroke: var(--soft); stroke-dasharray: 2 3; vector-effect: non-scaling-stroke; }
.scores { display: grid; grid-template-columns: max-content minmax(6rem, 30rem) max-content max-content;
  gap: .35rem 1rem; align-items: center; margin: 1rem 0; }
.scores .track { background: var(--card); border: 1px solid var(--line); border-radius: .25rem;
  height: 1.1rem; }
.scores .fill { display: block; height: 100%; border-radius: .2rem; background: var(--soft); opacity: .55; }
.scores .chosen .fill { background: var(--bar); opacity: 1; }
.scores .control .fill { background: var(--warn); }
.scores .row { display: contents; } .scores .chosen > span:first-child { font-weight: 600; }
@media (max-width: 45rem) { .scores { grid-template-columns: minmax(0, 1fr) max-content; }
  .scores .track, .scores .soft { grid-column: 1 / 3; } }
"""


def range_histogram(histogram: Histogram, chosen: Range, title: str) -> Markup:
    """All values of a tensor, bars as high as the roots of their counts; those outside `chosen` are red.

    The bar of zero is cut off where it is higher than all others.
    """
    values, counts, width = histogram.occupied()
    low, high = min(histogram.low, chosen.low, 0.0), max(histogram.high, chosen.high, 0.0)
    span = (high - low) or 1.0
    low, span = low - MARGIN * span, span * (1 + 2 * MARGIN)

    def place(value: float) -> float:
        return min(max((value - low) / span, 0.0), 1.0) * BINS

    bins = np.minimum(((values - low) / span * BINS).astype(np.intp), BINS - 1)
    outside = (values + width / 2 < chosen.low) | (values - width / 2 > chosen.high)  # all of the bin
    heights = np.sqrt(np.bincount(bins, counts, BINS))
    lost = np.bincount(bins, counts * outside, BINS) > 0
    others = np.delete(heights, int((0.0 - low) / span * BINS))  # behind a ReLU most values are zero
    heights = np.minimum(heights / (others.max(initial=0.0) or heights.max(initial=1.0)), 1.0)
    left, right = place(chosen.low), place(chosen.high)
    ends = "".join(f"M{x:.2f} 0V{HEIGHT}" for x in (left, right))
    drawing = (
        element("title", title),
        element(
            "rect", x=f"{left:.2f}", y=0, width=f"{max(right - left, 0.1):.2f}", height=HEIGHT, class_="kept"
        ),
        element("path", d=_bars(heights, ~lost), class_="bar"),
        element("path", d=_bars(heights, lost), class_="lost"),
        element("path", d=f"M{place(0):.2f} 0V{HEIGHT}", class_="zero"),
        element("path", d=ends, class_="end"),
    )
    svg = element("svg", *drawing, viewBox=f"0 0 {BINS} {HEIGHT}", preserveAspectRatio="none", role="img")
    share = float((counts * outside).sum() / max(counts.sum(), 1))
    seen = f"seen {number(histogram.low)} to {number(histogram.high)}"
    cut = f"{share:.3%} outside" if share >= 1e-5 else "a few outside" if share else "none outside"
    caption = element(
        "figcaption", element("span", seen), element("span", cut, class_="warn" if share else None)
    )
    return element("figure", svg, caption, class_="range")


def _bars(heights: NDArray[np.float64], shown: NDArray[np.bool_]) -> str:
    """A path of the bars that are `shown`; whatever holds a value can be seen."""
    return "".join(
        f"M{x} {HEIGHT}v-{max(height * HEIGHT, 1):.3g}h.9V{HEIGHT}z"
        for x, (height, show) in enumerate(zip(heights, shown, strict=True))
        if height and show
    )


def score_bars(scores: Sequence[Score], chosen: str) -> Markup:
    """A bar for each candidate, beginning below the worst of them so that differences can be seen."""
    finite = [score.psnr for score in scores if math.isfinite(score.psnr)]
    top, bottom = max(finite, default=1.0), min(finite, default=0.0)
    span = max(top - bottom, LEAST_SPAN) * 1.15
    rows = []
    for score in scores:
        share = 1.0 if math.isinf(score.psnr) else 1 - (top - score.psnr) / span
        kind = "chosen" if score.name == chosen else "row" if score.eligible else "control"
        note = "chosen" if score.name == chosen else "" if score.eligible else "control: shown, never chosen"
        fill = element("span", class_="fill", style=f"width:{100 * share:.1f}%")
        rows.append(
            element(
                "div",
                element("span", score.name),
                element("span", fill, class_="track"),
                element("span", decibels(score.psnr), class_="number"),
                element("span", note, class_="soft"),
                class_=f"row {kind}",
            )
        )
    return element("div", *rows, class_="scores")


def decibels(psnr: float) -> str:
    """dB with two digits; of no difference at all, the word."""
    return "no difference" if math.isinf(psnr) else f"{psnr:.2f} dB"


def number(value: float) -> str:
    """Four digits, a minus that is as wide as a plus, and none before zero."""
    return f"{value or 0.0:.4g}".replace("-", "−")
