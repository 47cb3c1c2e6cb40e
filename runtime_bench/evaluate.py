"""How good models are on images with a known answer: PSNR and SSIM of each, side by side, with intervals.

HR images are cut to a multiple of the scale; LR ones are made of them by antialiased bicubic, as the papers
do, unless they are given. `border` pixels on each side are left out, by default as many as the scale.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from qnas.calibration.prepare.sr_shape import InputRange
from qnas.errors import ImageError, UsageError
from qnas.images.evaluation import Image, shrink
from qnas.images.files import crop_to_multiple, full_range_luma, list_images, read_image
from qnas.images.quality import psnr, psnr_y, ssim_y
from qnas.images.resize import resize_bicubic
from qnas.runtime_bench.stats import Estimate, mean_interval
from qnas.runtime_bench.upscale import Upscaler, load_upscaler, upscale

Luma = Literal["studio", "full"]
MOST = 100.0  # dB: of equal images
METRICS = ("psnr_y", "psnr", "ssim_y")
BICUBIC, UNTOUCHED = "bicubic", "input"  # the row that every model has to beat, by the scale


@dataclass(frozen=True)
class Request:
    """What the command was told. `lr`: a folder of the images that models read, None to make them.

    `luma`: BT.601 in 16..235, not rounded, as the papers have it (studio), or in 0..255 as JPEG has it.
    """

    models: tuple[Path, ...]
    data: Path
    lr: Path | None = None
    border: int | None = None
    luma: Luma = "studio"
    input_range: InputRange | None = None
    threads: int = 0


@dataclass(frozen=True)
class Pair:
    """An image and its answer: uint8 LR [H, W, 3] and HR [s H, s W, 3]."""

    name: str
    lr: Image
    hr: Image


@dataclass(frozen=True)
class Row:
    """One method. `scores`: of each metric its value for each image, in their order."""

    name: str
    scores: dict[str, list[float]]

    def mean(self, metric: str) -> Estimate:
        """Over the images, with its interval of 95 %."""
        return mean_interval(self.scores[metric])

    def above(self, other: Row, metric: str = "psnr_y") -> Estimate:
        """By how much it is better than `other`, image by image."""
        return mean_interval(np.subtract(self.scores[metric], other.scores[metric]))


@dataclass(frozen=True)
class Evaluation:
    """All methods on all images; `notes` say how models read their images."""

    request: Request
    scale: int
    border: int
    images: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "format": "qnas-evaluation", "version": 1, "data": self.request.data.name,
            "lr": self.request.lr.name if self.request.lr else None, "scale": self.scale,
            "border": self.border, "luma": self.request.luma, "images": list(self.images),
            "methods": [
                {"name": row.name, "means": {m: _ends(row.mean(m)) for m in METRICS}, "scores": row.scores}
                for row in self.rows
            ],
            "notes": list(self.notes),
        }  # fmt: skip


def open_models(request: Request) -> list[Upscaler]:
    """The models, all of one scale. Raises QnasError."""
    models = [load_upscaler(path, request.threads, request.input_range) for path in request.models]
    scales = {model.scale for model in models}
    if len(scales) > 1:
        shown = ", ".join(f"{p} {m.scale}" for p, m in zip(request.models, models, strict=True))
        raise UsageError(f"the models enlarge by different factors ({shown}): evaluate those of one together")
    if scales == {1} and request.lr is None:
        raise UsageError("models that restore need the images to restore: give their folder with --lr")
    return models


def pairs(request: Request, scale: int) -> Iterator[Pair]:
    """The images with their answers, one after another. Raises ImageError where they do not fit together."""
    for path in list_images(request.data):
        hr = _cut(path, scale)
        lr = shrink(hr, scale) if request.lr is None else read_image(_twin(path, request.lr))
        if lr.shape[0] * scale != hr.shape[0] or lr.shape[1] * scale != hr.shape[1]:
            raise ImageError(
                f"{path} is {hr.shape[1]}x{hr.shape[0]} and its LR image {lr.shape[1]}x{lr.shape[0]}, not "
                f"{scale} times less: give LR images of that size with --lr, or leave it out"
            )
        yield Pair(path.name, lr, hr)


def _cut(path: Path, scale: int) -> Image:
    """An HR image without what is no multiple of the scale. Raises ImageError, which names it."""
    try:
        return crop_to_multiple(read_image(path), scale)
    except ImageError as error:
        raise ImageError(str(error) if str(path) in str(error) else f"{path}: {error}") from error


def _twin(path: Path, folder: Path) -> Path:
    """The LR image of `path`: of the same name, or of that with something behind it, such as x2."""
    found = [each for each in list_images(folder) if each.stem == path.stem]
    found = found or [each for each in list_images(folder) if each.stem.startswith(path.stem)]
    if len(found) != 1:
        what = "no" if not found else f"{len(found)}"
        raise ImageError(f"{folder} has {what} images whose name begins with {path.stem}: one is needed")
    return found[0]


def scored(request: Request, pair: Pair, sr: Image, scale: int) -> tuple[float, float, float]:
    """METRICS of what a method made of the LR image; equal images have MOST dB, so that means are numbers."""
    border = scale if request.border is None else request.border
    ys = (sr, pair.hr) if request.luma == "studio" else (_full(sr), _full(pair.hr))
    return min(psnr_y(*ys, border), MOST), min(psnr(sr, pair.hr, border), MOST), ssim_y(*ys, border)


def _full(image: Image) -> Image:
    luma: Image = full_range_luma(image)[:, :, 0]
    return luma


def methods(request: Request, models: Sequence[Upscaler], pair: Pair, scale: int) -> Iterator[Image]:
    """What each method makes of the LR image, the plain one first."""
    height, width = pair.hr.shape[:2]
    yield pair.lr if scale == 1 else resize_bicubic(pair.lr, (height, width))
    for model in models:
        yield upscale(model, pair.lr)


def evaluation(
    request: Request, models: Sequence[Upscaler], results: Sequence[tuple[str, Sequence[Sequence[float]]]]
) -> Evaluation:
    """What the scores of all images say; `results`: (image, the scores of each method)."""
    scale = models[0].scale
    rows = tuple(
        Row(name, {metric: [scores[i][m] for _, scores in results] for m, metric in enumerate(METRICS)})
        for i, name in enumerate(method_names(request.models, scale))
    )
    notes = tuple(
        f"{path}: {model.note}" for path, model in zip(request.models, models, strict=True) if model.note
    )
    border = scale if request.border is None else request.border
    return Evaluation(request, scale, border, tuple(name for name, _ in results), rows, notes)


def method_names(models: Sequence[Path], scale: int) -> list[str]:
    """What the methods are called: the plain one, and of each model as many parts of its path as tell."""
    plain = UNTOUCHED if scale == 1 else BICUBIC
    for count in range(1, max(len(path.parts) for path in models)):
        names = [str(Path(*path.parts[-count:])) for path in models]
        if len({*names}) == len({*models}):
            return [plain, *names]
    return [plain, *map(str, models)]


def _ends(estimate: Estimate) -> list[float]:
    return [estimate.value, estimate.low, estimate.high]
