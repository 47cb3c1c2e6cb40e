"""Patches to look at: those that leave the nominal range, and held-out ones as float and as integers."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto
from PIL import Image as Pillow

from qnas.calibration.calibrate import Run
from qnas.calibration.judge import as_bytes
from qnas.calibration.patches.representative import Crop, RepresentativeSet
from qnas.calibration.patches.taming import TOLERANCE, shrink_contrast
from qnas.calibration.prepare.float_model import Runner
from qnas.calibration.progress import Display
from qnas.calibration.ptq.integer_model import IntegerRunner
from qnas.html_page import Markup, element
from qnas.images.evaluation import Batch, Image

ROWS = 6  # patches of each kind
SIDE = 96  # pixels of a crop of an output
LOOKED_AT = 64  # held-out patches of which the most telling are shown
GAIN = 16  # of differences, to be seen
RED, BLUE = (224, 66, 40), (60, 132, 246)


@dataclass(frozen=True, eq=False)
class Offender:
    """A patch whose output leaves the nominal range: before and after taming, uint8 [H, W, 3].

    `ends`: the lowest and the highest grey level of the output before and after. `map`: where it leaves the
    range before. `contrast` None: not even its flat colour is in range.
    """

    crop: Crop
    contrast: float | None
    kept: bool
    natural: Image
    tamed: Image
    map: Image
    ends: tuple[float, float]
    tamed_ends: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Part of an output, uint8 [H, W, 3]: what the float model makes, clipped, INT8, and INT8's error.

    `outside`: share of the pixels of the whole patch that the clip changes.
    """

    crop: Crop
    marked: Image
    clipped: Image
    integer: Image
    error: Image
    outside: float
    psnr: float


def offenders(run: Run) -> list[Offender]:
    """The patches that taming changed most, of different files, `ROWS` at most."""
    order = sorted(
        (i for i, contrast in enumerate(run.taming.contrasts) if contrast != 1),
        key=lambda i: (run.taming.contrasts[i] or 0.0, i),
    )
    crops = run.images.crops
    first = {crops[i].file: i for i in reversed(order)}
    chosen = sorted(first.values(), key=order.index)[:ROWS]
    runner = Runner(run.network)
    return [_offender(run, runner, i) for i in chosen]


def _offender(run: Run, runner: Runner, index: int) -> Offender:
    contrast = run.taming.contrasts[index]
    natural = _patches(run.images, run.images.crops[index])
    tamed = shrink_contrast(natural, np.array([contrast or 0.0]))
    before, after = runner(natural), runner(tamed)
    return Offender(
        run.images.crops[index], contrast, contrast is not None and contrast >= run.taming.minimum,
        colours(natural[0]), colours(tamed[0]), shrunken_map(before[0], run.network.scale),
        _ends(before), _ends(after),
    )  # fmt: skip


def comparisons(run: Run, model: ModelProto, display: Display) -> list[Comparison]:
    """The held-out patches, of different files, that the clip changes most: there the two models differ."""
    show = display.step("drawing")
    crops = run.judge.images.crops[:LOOKED_AT]
    runner = Runner(run.network)
    outside = []
    for done, crop in enumerate(crops):
        output = runner(_patches(run.judge.images, crop))
        outside.append(float(np.mean((output < -TOLERANCE) | (output > 255 + TOLERANCE))))
        show(done + 1, len(crops))
    order = sorted(range(len(crops)), key=lambda i: (-outside[i], i))
    first = {crops[i].file: i for i in reversed(order)}
    integer = IntegerRunner(run.judge.network, model)
    return [
        _comparison(run, runner, integer, crops[i], outside[i])
        for i in sorted(first.values(), key=order.index)[:ROWS]
    ]


def _comparison(run: Run, runner: Runner, integer: IntegerRunner, crop: Crop, outside: float) -> Comparison:
    natural = _patches(run.judge.images, crop)
    output = runner(natural)[0]
    clipped, made = as_bytes(output), as_bytes(integer(natural)[0])
    error = made.astype(np.int32) - clipped
    excess = np.maximum(np.maximum(-output, output - 255), 0).sum(axis=2)
    where = busiest(excess if outside else np.abs(error).sum(axis=2).astype(np.float32))
    square = float(np.square(error).mean())
    return Comparison(
        crop, marked(output[where]), colours(clipped[where]), colours(made[where]),
        colours(128.0 + GAIN * error[where]), outside, 10 * np.log10(255**2 / square) if square else np.inf,
    )  # fmt: skip


def busiest(weights: NDArray[np.float32]) -> tuple[slice, slice]:
    """Rows and columns of the crop of [H, W] with the largest sum, `SIDE` or all of each."""
    height, width = (min(SIDE, side) for side in weights.shape)
    sums = np.pad(weights.astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    tall = sums[height:] - sums[:-height]
    inside = tall[:, width:] - tall[:, :-width]
    top, left = (int(i) for i in np.unravel_index(int(inside.argmax()), inside.shape))
    return slice(top, top + height), slice(left, left + width)


def colours(pixels: NDArray[np.floating] | Image) -> Image:
    """[H, W, 1 or 3] as uint8 [H, W, 3]."""
    found = as_bytes(np.asarray(pixels, np.float32))
    return np.repeat(found, 3, axis=2) if found.shape[2] == 1 else found


def picture(image: Image, label: str) -> Markup:
    """The image inside the page."""
    file = io.BytesIO()
    Pillow.fromarray(image).save(file, format="PNG", optimize=True)
    data = base64.b64encode(file.getvalue()).decode()
    return element("img", src=f"data:image/png;base64,{data}", alt=label)


def _patches(images: RepresentativeSet, crop: Crop) -> Batch:
    return next(replace(images, crops=(crop,)).batches(1))


def _ends(output: Batch) -> tuple[float, float]:
    return float(output.min()), float(output.max())


def marked(output: Batch) -> Image:
    """An output [H, W, C], dimmed, with what is too bright in red and what is too dark in blue."""
    image = colours(output / 2 + 64)
    image[(output > 255 + TOLERANCE).any(axis=2)] = RED
    image[(output < -TOLERANCE).any(axis=2)] = BLUE
    return image


def shrunken_map(output: Batch, scale: int) -> Image:
    """`marked` at the size of the input: a pixel is marked where any of its scale x scale ones is."""
    height, width = (side // scale for side in output.shape[:2])
    blocks = output[: height * scale, : width * scale].reshape(height, scale, width, scale, -1)
    image = colours(blocks.mean(axis=(1, 3)) / 2 + 64)
    image[(blocks > 255 + TOLERANCE).any(axis=(1, 3, 4))] = RED
    image[(blocks < -TOLERANCE).any(axis=(1, 3, 4))] = BLUE
    return image
