"""The whole page: what was decided and why, what taming did, what INT8 looks like, every tensor's range."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from qnas.calibration.calibrate import Run
from qnas.calibration.candidates import CLIPPED
from qnas.calibration.progress import Display
from qnas.calibration.ranges.histogram import Histogram
from qnas.calibration.ranges.ranges import Range
from qnas.calibration.report.charts import STYLE as CHART_STYLE
from qnas.calibration.report.charts import decibels, number, range_histogram, score_bars
from qnas.calibration.report.pictures import (
    GAIN,
    Comparison,
    Offender,
    comparisons,
    offenders,
    picture,
)
from qnas.calibration.sensitivity import mac_shares, sensitivity
from qnas.html_page import Markup, element, facts, page, table
from qnas.images.evaluation import Image

STYLE = (
    CHART_STYLE
    + """
.pictures { display: grid; gap: .8rem; margin: 1rem 0;
  grid-template-columns: repeat(auto-fill, minmax(min(34rem, 100%), 1fr)); }
.strip { display: grid; grid-auto-flow: column; grid-auto-columns: minmax(0, 1fr); gap: .6rem;
  margin-top: .5rem; }
.strip figure { margin: 0; } .strip figcaption { display: block; margin-top: .2rem; }
.strip img { display: block; width: 100%; border-radius: .25rem; }
.tag { display: inline-block; font-size: .72rem; border: 1px solid var(--line); border-radius: .7rem;
  padding: 0 .5rem; color: var(--soft); margin-left: .4rem; white-space: nowrap; }
.red { color: #e04228; } .blue { color: #3c84f6; } code { font-size: .9em; overflow-wrap: anywhere; }
details { border: 1px solid var(--line); border-radius: .5rem; padding: .4rem .9rem; margin: .8rem 0; }
summary { cursor: pointer; } .last td:last-child { white-space: normal; overflow-wrap: anywhere; }
"""
)


def calibration_page(run: Run, display: Display) -> str:
    """The document, self-contained."""
    calibration = run.calibration
    return page(
        f"Calibration of {calibration.source.name}",
        *_decision(run),
        *_tamed(run, offenders(run)),
        *_compared(comparisons(run, run.model, display)),
        *_tensors(run),
        *_sensitivity(run, display),
        *_images(run),
        style=STYLE,
    )


def _decision(run: Run) -> Iterator[Markup]:
    c = run.calibration
    yield facts({
        "network": f"×{c.source.scale}, {'RGB' if c.source.channels == 3 else 'gray'}, 0..{c.source.white:g}",
        "chosen": c.chosen,
        "INT8 against float": decibels(c.fidelity),
        "clip": "kept" if c.options.kept_clips else "removed" if c.source.clip.nodes else "none",
        "weights": f"{c.options.weight_bits} bits",
        "layers of 4-bit weights": len(c.options.int4_layers),
        "tensors of 16 bits": sum(bits > 8 for bits in c.bits.values()),
        "layers in float": len(c.options.float_layers),
    })  # fmt: skip
    yield element("h2", "Decision")
    yield element(
        "p",
        "PSNR of the integer model against the clipped float model, over all values of the patches held out, "
        "both rounded to whole grey levels. Bars begin near the worst of them.",
    )
    yield score_bars(c.scores, c.chosen)
    yield element("p", _reason(run))
    yield element("p", element("strong", "Clip: "), c.source.clip.explanation)
    if c.widening is not None:
        yield element("h3", "Tensors of 16 bits")
        worth = [(each.tensor, decibels(each.psnr), f"{each.macs:.1%}") for each in c.widening.tensors]
        yield table(("tensor", "PSNR with it alone in 8 bits", "share of the MACs around it"), worth)
    if c.fallback:
        yield element("h3", "Layers left in float")
        rows = [
            (kept.layer, decibels(kept.psnr), f"{kept.bytes:,}", f"{kept.macs:.1%}") for kept in c.fallback
        ]
        yield table(
            ("layer", "PSNR with it and those above", "bytes of the model", "share of the MACs"), rows
        )


def _reason(run: Run) -> str:
    scores = run.calibration.scores
    handicaps = {each.name: each.handicap for each in run.found}
    mine = next(score for score in scores if score.name == run.best.name)
    rivals = [score for score in scores if score.eligible and score.name != mine.name]
    rival = max(rivals, key=lambda score: score.psnr)
    if mine.psnr < rival.psnr:
        why = "a clip in every image" if rival.name == CLIPPED else "ranges that cut more off"
        return (
            f"“{mine.name}” is chosen: “{rival.name}” is {rival.psnr - mine.psnr:.2f} dB above it, and less "
            f"than {handicaps[rival.name]:g} dB are not worth {why}."
        )
    if mine.psnr == rival.psnr:
        return f"“{mine.name}” is chosen: “{rival.name}” is as good, and comes after it."
    return f"“{mine.name}” is chosen: it is {mine.psnr - rival.psnr:.2f} dB above the next, “{rival.name}”."


def _tamed(run: Run, shown: Sequence[Offender]) -> Iterator[Markup]:
    counts = run.calibration.taming
    yield element("h2", "Patches that leave the nominal range")
    dropped = counts.low_contrast + counts.flat
    yield facts({
        "patches": counts.patches,
        "in range as they are": counts.untouched,
        "tamed": counts.tamed,
        "dropped": dropped,
    })  # fmt: skip
    if not shown:
        yield element("p", "None does: taming changes nothing, and all rests on the pinned ranges.")
        return
    yield element(
        "p",
        "Taming shrinks the contrast of a patch around its mean colour until the float output stays within "
        "half a grey level of 0 to 255. These need it most. In the map, output that is ",
        element("span", "too bright is red", class_="red"),
        " and ",
        element("span", "too dark is blue", class_="blue"),
        ".",
    )
    yield element("div", *map(_offender, shown), class_="pictures")


def _offender(each: Offender) -> Markup:
    if each.contrast is None:
        heading = "out of range even as a flat colour: dropped"
    else:
        heading = f"contrast {each.contrast:.2f}" + ("" if each.kept else ": dropped")
    pictures = (
        (each.natural, "natural"),
        (each.map, f"output {_grey(each.ends)}"),
        (each.tamed, f"{'tamed' if each.kept else 'dropped'}: output {_grey(each.tamed_ends)}"),
    )
    return _strip(each.crop.file, each.crop.box, heading, pictures)


def _compared(shown: Sequence[Comparison]) -> Iterator[Markup]:
    yield element("h2", "Float, clipped, INT8")
    yield element(
        "p",
        "Patches held out, where the float output leaves the nominal range most: as the network writes it "
        "without a clip, clipped, and as the integer model writes it. "
        f"The error is drawn {GAIN} times as large, gray where there is none.",
    )
    yield element("div", *map(_comparison, shown), class_="pictures")


def _comparison(each: Comparison) -> Markup:
    pictures = (
        (each.marked, f"float, {each.outside:.2%} outside"),
        (each.clipped, "float, clipped"),
        (each.integer, f"INT8, {decibels(each.psnr)}"),
        (each.error, f"error × {GAIN}"),
    )
    return _strip(each.crop.file, each.crop.box, "", pictures)


def _strip(file: str, box: Sequence[int], heading: str, pictures: Sequence[tuple[Image, str]]) -> Markup:
    figures = [
        element("figure", picture(image, label), element("figcaption", label)) for image, label in pictures
    ]
    place = f"{box[2]}×{box[3]} at {box[0]}, {box[1]}" + (f": {heading}" if heading else "")
    title = element("h3", file)
    return element("div", title, element("p", place), element("div", *figures, class_="strip"), class_="card")


def _tensors(run: Run) -> Iterator[Markup]:
    calibration = run.calibration
    natural = run.watched.natural
    yield element("h2", "Tensors")
    yield element(
        "p",
        "Values on the natural patches, heights as square roots of counts, that of zero cut off. The shaded "
        "part is the range chosen; what is ",
        element("span", "outside is red", class_="red"),
        " and saturates. Pinned tensors carry the image itself: their range is the nominal one. Tensors that "
        "only move or bound what another holds share its grid, and a card.",
    )
    yield element("div", *_grid_cards(run, natural), class_="cards")
    names = [each.name for each in run.found]
    rows = [
        (
            name,
            *(
                _ends(each.ranges[name].low, each.ranges[name].high) if name in each.ranges else ""
                for each in run.found
            ),
        )
        for name in calibration.ranges
    ]
    yield element("details", element("summary", "Ranges of all candidates"), table(("tensor", *names), rows))


def _grid_cards(run: Run, natural: Mapping[str, Histogram]) -> Iterator[Markup]:
    """A card for each grid, with the input or the last of its tensors, what those before become."""
    members: dict[str, list[str]] = {}
    grids = run.grids
    for name in natural:
        if (group := grids.groups.of(name)) in grids.params:
            members.setdefault(group, []).append(name)
    for names in members.values():
        name = names[0] if names[0] == run.network.input else names[-1]
        others = ", ".join(each for each in names if each != name)
        grid = grids.of(name)
        step = float(grid.scale)
        chosen = Range(-step * grid.zero_point, step * (grid.high - grid.zero_point))
        tag = element("span", "pinned", class_="tag") if name in run.calibration.pinned else ""
        line = f"{number(chosen.low)} to {number(chosen.high)}, step {step:.3g}, zero point {grid.zero_point}"
        chart = range_histogram(natural[name], chosen, f"values of {name}")
        shared = element("p", f"same grid: {others}") if others else ""
        yield element("div", element("h3", name, tag), element("p", line), chart, shared, class_="card")


def _sensitivity(run: Run, display: Display) -> Iterator[Markup]:
    display.step("comparing layers")
    best, options = run.best, run.calibration.options
    errors = sensitivity(best.network, run.calibration.ranges, options, run.patches.batches(), run.weights)
    yield element("h2", "Sensitivity of the layers")
    yield element(
        "p",
        "Signal to quantization noise: of the network's output when this layer alone is quantized (worst "
        "first), and of the layer's tensor when all are. Layers left in float are not in the list.",
    )
    shares = mac_shares(best.network, options)
    rows = [
        (e.layer, e.tensor, decibels(e.alone), decibels(e.everything), f"{shares.get(e.layer, 0.0):.1%}")
        for e in errors
    ]
    headings = ("layer", "tensor", "output, it alone", "tensor, all layers", "share of the MACs")
    yield table(headings, rows, texts=2)


def _images(run: Run) -> Iterator[Markup]:
    yield element("h2", "Images")
    used, judged = run.images, run.judge.images
    yield facts({
        "patch": f"{used.patch[1]}×{used.patch[0]}",
        "for ranges": f"{len(used.crops)} of {len(used.files)} files",
        "for scores": f"{len(judged.crops)} of {len(judged.files)} files",
        "made by": f"bicubic, 1/{used.hr_scale}" if used.hr_scale else "as they are",
        "seed": used.seed,
        "skipped files": len(used.skipped),
    })  # fmt: skip
    for notice in run.notices:
        yield element("p", notice)
    if used.skipped:
        rows = [(each.file, each.cause, each.reason) for each in used.skipped]
        yield element("div", table(("skipped file", "cause", "reason"), rows, texts=3), class_="last")


def _ends(low: float, high: float) -> str:
    return f"{number(low)} … {number(high)}"


def _grey(ends: tuple[float, float]) -> str:
    return f"{round(ends[0])} to {round(ends[1])}".replace("-", "−")
