"""What `qnas-evaluate` does: checks first, a bar while it runs, then a table, a document and pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw
from rich.table import Table

from qnas.cli import say
from qnas.export.formats.table import files_of
from qnas.files import check_outputs, write_file
from qnas.images.evaluation import Image
from qnas.images.files import images_in, pngs_in, write_png
from qnas.runtime_bench.evaluate import (
    MOST,
    Evaluation,
    Pair,
    Request,
    evaluation,
    method_names,
    methods,
    open_models,
    pairs,
    scored,
)
from qnas.runtime_bench.stats import Estimate
from qnas.runtime_bench.terminal import progress_bar
from qnas.terminal import stdout

SIDE, ZOOM = 96, 2  # of a detail in HR pixels, and how many times larger it is shown
LABEL = 14  # pixels above it for its name


def evaluate_models(request: Request, output: Path | None, pictures: Path | None, force: bool) -> Evaluation:
    """Score `request.models`, and write `output` and a strip of details of each image. Raises QnasError."""
    images = list(images_in([request.data]))
    strips = [] if pictures is None else pngs_in(pictures, images)
    reads = chain(*(files_of(path) for path in request.models), images, images_in([request.lr]))
    check_outputs([output, *strips], force, reads)
    models = open_models(request)
    scale, results = models[0].scale, []
    names = method_names(request.models, scale)
    with progress_bar() as show:
        for index, pair in enumerate(pairs(request, scale)):
            made = list(methods(request, models, pair, scale))
            results.append((pair.name, [scored(request, pair, sr, scale) for sr in made]))
            if pictures is not None:
                write_png(strips[index], detail(pair, made, names, results[-1][1]), None, force)
            show((index + 1) / len(images))
    found = evaluation(request, models, results)
    if output is not None:
        write_file(output, json.dumps(found.to_json(), indent=1, allow_nan=False) + "\n", force)
    return found


def show_evaluation(found: Evaluation) -> None:
    """The table, what it means, and the notes."""
    count = len(found.images)
    table = Table(title=f"{found.request.data} ({count} images, scale {found.scale}, border {found.border})")
    for heading in ("model", "PSNR-Y (dB)", "PSNR (dB)", "SSIM-Y", "PSNR-Y above the first model"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    first = found.rows[1]
    for row in found.rows:
        gain = "" if row is first else _interval(row.above(first), 3, "+")
        table.add_row(
            row.name, _interval(row.mean("psnr_y"), 3), f"{row.mean('psnr').value:.3f}",
            f"{row.mean('ssim_y').value:.4f}", gain,
        )  # fmt: skip
    stdout(100).print(table)
    say("means over the images, with their interval of 95 % in brackets; differences are of the same images")
    if any(value == MOST for row in found.rows for value in row.scores["psnr"]):
        say(f"note: images that are equal count as {MOST:g} dB")
    for note in found.notes:
        say(f"note: {note}")


def _interval(estimate: Estimate, digits: int, sign: str = "") -> str:
    value, low, high = (f"{each:{sign}.{digits}f}" for each in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]"


def detail(
    pair: Pair, made: Sequence[Image], names: Sequence[str], scores: Sequence[Sequence[float]]
) -> Image:
    """The part of an image where the plain method errs most: HR, and what each method made of it."""
    height, width = (min(SIDE, side) for side in pair.hr.shape[:2])
    error = np.square(pair.hr.astype(np.float64) - made[0]).sum(axis=2).cumsum(0).cumsum(1)
    sums = np.pad(error, ((1, 0), (1, 0)))
    boxes = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    top, left = np.unravel_index(boxes.argmax(), boxes.shape)
    labels = ["HR", *(f"{each[0]:.2f} dB {name}" for name, each in zip(names, scores, strict=True))]
    parts = [each[top : top + height, left : left + width] for each in (pair.hr, *made)]
    strip = Pillow.new("RGB", (len(parts) * (ZOOM * width + 4), ZOOM * height + LABEL), "white")
    for index, (part, label) in enumerate(zip(parts, labels, strict=True)):
        x = index * (ZOOM * width + 4)
        large = Pillow.fromarray(part).resize((ZOOM * width, ZOOM * height), Pillow.Resampling.NEAREST)
        strip.paste(large, (x, LABEL))
        ImageDraw.Draw(strip).text((x, 1), label[: ZOOM * width // 6], fill="black")
    return np.asarray(strip)
