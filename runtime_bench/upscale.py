"""Upscales images of any size with a super-resolution model, in tiles, so that memory stays bounded.

What a tile reads around the part that is kept has to reach as far as the model looks. How far that is, is
found by running it; a model that looks at the whole image (squeeze-and-excite, normalization by the image's
own statistics) runs in one piece.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path

import numpy as np

from qnas.calibration.prepare.sr_shape import InputRange
from qnas.errors import ModelError, UsageError
from qnas.images.evaluation import Image
from qnas.images.files import full_range_luma
from qnas.images.resize import resize_bicubic
from qnas.runtime_bench.image_models import open_image_model, size_text

TILE = 256
OVERLAPS = (16, 32, 64)  # tried in this order
MULTIPLES = (1, 2, 4, 8, 16, 32, 64)
PROBE_SIZES = (1, 8, 16, 32, 64)
BICUBIC_REACH = 3  # LR pixels that a bicubic output pixel can read on either side, when enlarging


@dataclass(frozen=True)
class Upscaler:
    """A model that was seen to enlarge images by `scale`, 1 of one that restores: RGB ones, or with one of
    `channels` their luma.

    `run`: the model itself. Sides below `smallest` pixels, and those that are no multiple of `multiple`, are
    what it cannot run on: such images are padded by repeating the edge. So are all for a model whose output
    has `missing` rows and columns less than `scale` times as many: it leaves out as many on each side.
    `note`: how its images are read, where that was found out.
    """

    run: Callable[[Image], Image]
    scale: int
    smallest: int
    channels: int
    multiple: int = 1
    missing: int = 0
    note: str = ""

    @cached_property
    def overlap(self) -> int | None:
        """How many LR pixels of context tiles need to equal one piece, None if no number tried is enough.

        Tried on an image whose parts differ in brightness and contrast: its tiles have their own statistics.
        """
        return next((overlap for overlap in OVERLAPS if self.tiles_equal_one_piece(overlap)), None)

    def tiles_equal_one_piece(self, overlap: int) -> bool:
        """Whether `overlap` LR pixels of context are enough; see `overlap`."""
        overlap = -(-overlap // self.multiple) * self.multiple
        tile = 2 * overlap + max(32, self.multiple)
        y, x = np.mgrid[: tile + 21, : tile + 37] / (tile + 37)
        noise = np.random.default_rng(0).uniform(-1, 1, (*y.shape, 3))
        ramp = (210 * x)[..., None] + (40 * y)[..., None] * noise
        image = np.clip(np.rint(ramp), 0, 255).astype(np.uint8)
        return np.array_equal(self.in_tiles(image, tile, overlap), self(image))

    def in_tiles(self, image: Image, tile: int, overlap: int) -> Image:
        """Upscale in tiles that begin where the model's own blocks of `multiple` pixels do."""
        (height, width), step = image.shape[:2], self.multiple
        padding = [(0, -side % step) for side in (height, width)]
        whole = np.pad(image, [*padding, (0, 0)], mode="edge")
        large = _in_tiles(self, whole, self.scale, tile // step * step, -(-overlap // step) * step)
        return large[: self.scale * height, : self.scale * width]

    def __call__(self, image: Image) -> Image:
        """Upscale uint8 [H, W, 3] in one piece to uint8 [scale*H, scale*W, 3]; may raise ModelError.

        A model of one channel upscales the luma; what the colours are more or less than that, bicubic
        interpolation.
        """
        if self.channels == 3:
            return self._planes(image)
        luma = full_range_luma(image)
        upscaled = self._planes(luma)
        colours = resize_bicubic(image.astype(np.float64) - luma, upscaled.shape[:2])
        return np.clip(np.rint(upscaled + colours), 0, 255).astype(np.uint8)

    def _planes(self, image: Image) -> Image:
        """Upscale [H, W, channels]."""
        height, width = image.shape[:2]
        border = -(-self.missing // (2 * self.scale))
        run = [self._side_run(side + 2 * border) for side in (height, width)]
        around = [(border, n - border - side) for n, side in zip(run, (height, width), strict=True)]
        output = self.run(np.pad(image, [*around, (0, 0)], mode="edge"))
        if list(output.shape[:2]) != [self.scale * n - self.missing for n in run]:
            raise ModelError(
                f"the model made {size_text(output)} pixels of {size_text(image)}, not {self.scale} times "
                "as many a side: use a super-resolution model"
            )
        first = self.scale * border - self.missing // 2
        return output[first : first + self.scale * height, first : first + self.scale * width]

    def _side_run(self, side: int) -> int:
        """The next side that the model can run on."""
        return -(-max(self.smallest, side) // self.multiple) * self.multiple


def load_upscaler(model: Path, threads: int = 0, input_range: InputRange | None = None) -> Upscaler:
    """Open a model file of any kind, and run it on small images for what it does to their size.

    Raises ModelError when it cannot be loaded or is no super-resolution model of free height and width,
    UsageError where what runs such files is not installed.
    """
    opened = open_image_model(model, input_range, threads)
    error: Exception | None = None
    for multiple, size in product(MULTIPLES, PROBE_SIZES):  # pooling layers refuse the smallest
        if size % multiple:
            continue
        probe = np.zeros((size, size + multiple, opened.channels), np.uint8)
        try:
            outputs = [opened.run(each) for each in (probe, np.tile(probe, (2, 2, 1)))]
        except ModelError as failure:
            error = failure if multiple == 1 else error
            continue
        scale, missing = _enlargement(probe, *outputs)
        if scale >= 1:
            return Upscaler(opened.run, scale, size, opened.channels, multiple, missing, opened.note)
        if multiple == 1:
            error = ModelError(f"it makes {size_text(outputs[0])} pixels of {size_text(probe)}")
    raise ModelError(f"{model} is no super-resolution model: {error}; use one that `qnas-export` wrote")


def _enlargement(image: Image, output: Image, of_twice: Image) -> tuple[int, int]:
    """(scale, missing) of what makes `output` of `image` and `of_twice` of one of twice the sides, (0, 0) if
    it does not enlarge both sides alike."""
    growth = {(of_twice.shape[k] - output.shape[k]) / image.shape[k] for k in (0, 1)}
    scale = int(min(growth))
    missing = {scale * image.shape[k] - output.shape[k] for k in (0, 1)}
    return (scale, min(missing)) if growth == {scale} and len(missing) == 1 and min(missing) >= 0 else (0, 0)


def upscale(upscaler: Upscaler, image: Image, tile: int = TILE, overlap: int | None = None) -> Image:
    """Upscale uint8 [H, W, 3] RGB to uint8 [scale*H, scale*W, 3] in tiles of at most `tile`² LR pixels.

    Equals the run in one piece when no output pixel depends on inputs more than `overlap` LR pixels away.
    None: as many as that takes, and one piece of any size where there is no such number.
    Raises ModelError when the model fails, UsageError when the tile is not larger than two overlaps.
    """
    if overlap is None:
        overlap = upscaler.overlap if max(image.shape[:2]) > tile else None
        if overlap is None:
            return upscaler(image)
    return upscaler.in_tiles(image, tile, overlap)


def upscale_alpha(alpha: Image, scale: int, tile: int = TILE) -> Image:
    """Upscale a uint8 [H, W] plane bicubically to uint8 [scale*H, scale*W].

    Tiles bound the memory; they do not change the result.
    """

    def bicubic(piece: Image) -> Image:
        return resize_bicubic(piece, (scale * piece.shape[0], scale * piece.shape[1]))

    return _in_tiles(bicubic, alpha, scale, max(tile, 2 * BICUBIC_REACH + 1), BICUBIC_REACH)


def _in_tiles(enlarge: Callable[[Image], Image], image: Image, scale: int, tile: int, overlap: int) -> Image:
    height, width = image.shape[:2]
    result = np.empty((scale * height, scale * width, *image.shape[2:]), np.uint8)
    for row in tile_spans(height, tile, overlap):
        for column in tile_spans(width, tile, overlap):
            piece = enlarge(image[row.start : row.stop, column.start : column.stop])
            result[row.kept(scale), column.kept(scale)] = piece[row.inside(scale), column.inside(scale)]
    return result


@dataclass(frozen=True)
class Span:
    """One tile along one axis, in LR pixels: it reads start..stop and its keep_start..keep_stop is kept."""

    start: int
    stop: int
    keep_start: int
    keep_stop: int

    def kept(self, scale: int) -> slice:
        """Where the kept part goes in the result."""
        return slice(scale * self.keep_start, scale * self.keep_stop)

    def inside(self, scale: int) -> slice:
        """Where the kept part lies in the tile's own output."""
        return slice(scale * (self.keep_start - self.start), scale * (self.keep_stop - self.start))


def tile_spans(length: int, tile: int, overlap: int) -> list[Span]:
    """Cut 0..length into tiles whose kept parts adjoin, with `overlap` pixels of context around each.

    All tiles have the same size, so that the runtime plans its memory once. Raises UsageError as `upscale`.
    """
    if tile <= 2 * overlap:
        raise UsageError(
            f"a tile of {tile} pixels is not larger than two overlaps of {overlap}: raise --tile"
        )
    spans: list[Span] = []
    kept = 0
    while kept < length:
        start = max(0, min(kept - overlap, length - tile))
        stop = min(start + tile, length)
        keep_stop = length if stop == length else stop - overlap
        spans.append(Span(start, stop, kept, keep_stop))
        kept = keep_stop
    return spans
