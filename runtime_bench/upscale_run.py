"""What `qnas-upscale` does: checks first, then an image, or all of a folder, one after another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from qnas.calibration.prepare.sr_shape import InputRange
from qnas.calibration.progress import bars
from qnas.export.formats.table import files_of
from qnas.files import check_outputs
from qnas.images.evaluation import Image
from qnas.images.files import check_png_name, list_images, pngs_in, read_image_with_alpha, write_png
from qnas.runtime_bench.upscale import Upscaler, load_upscaler, upscale, upscale_alpha
from qnas.runtime_bench.video import check_video_name, is_video, open_video, write_video


@dataclass(frozen=True)
class Request:
    """What the command was told."""

    model: Path
    image: Path
    output: Path
    tile: int
    overlap: int | None
    input_range: InputRange | None
    threads: int
    force: bool


def upscale_files(request: Request) -> Iterator[str]:
    """Upscale what was asked for, and say so image by image. Raises QnasError."""
    if is_video(request.image):
        yield from _upscale_video(request)
        return
    images = list_images(request.image) if request.image.is_dir() else [request.image]
    targets = [request.output]
    if request.image.is_dir():
        targets = pngs_in(request.output, images)
    for target in targets:
        check_png_name(target)
    check_outputs(targets, request.force, chain(files_of(request.model), images))
    upscaler = load_upscaler(request.model, request.threads, request.input_range)
    if upscaler.note:
        yield f"note: {upscaler.note}"
    told = False
    for index, (image, target) in enumerate(zip(images, targets, strict=True), 1):
        pixels, alpha = read_image_with_alpha(image)
        if max(pixels.shape[:2]) > request.tile and not told:
            told = True
            yield from _about_tiles(upscaler, request)
        large = upscale(upscaler, pixels, request.tile, request.overlap)
        large_alpha = None if alpha is None else upscale_alpha(alpha, upscaler.scale, request.tile)
        write_png(target, large, large_alpha, request.force)
        count = f"{index} of {len(images)}: " if request.image.is_dir() else ""
        yield f"{count}{target}: {pixels.shape[1]}x{pixels.shape[0]} -> {large.shape[1]}x{large.shape[0]}"


def _upscale_video(request: Request) -> Iterator[str]:
    """Upscale a video frame by frame, with a bar."""
    check_video_name(request.output)
    check_outputs([request.output], request.force, [*files_of(request.model), request.image])
    video = open_video(request.image)
    upscaler = load_upscaler(request.model, request.threads, request.input_range)
    if upscaler.note:
        yield f"note: {upscaler.note}"
    if max(video.width, video.height) > request.tile:
        yield from _about_tiles(upscaler, request)
    with bars() as display:
        show, done = display.step(f"upscaling {video.path.name}"), 0

        def enlarge(frame: Image) -> Image:
            nonlocal done
            large, done = upscale(upscaler, frame, request.tile, request.overlap), done + 1
            show(done, max(done, video.frames))
            return large

        count = write_video(video, request.output, upscaler.scale, enlarge, request.force)
    size = f"{upscaler.scale * video.width}x{upscaler.scale * video.height}"
    yield f"{request.output}: {video.width}x{video.height} -> {size}, {count} frames"


def _about_tiles(upscaler: Upscaler, request: Request) -> Iterator[str]:
    """What is to be known of tiles."""
    if request.overlap is None and upscaler.overlap is None:
        yield f"note: {request.model} looks at the whole image, which runs in one piece"
    elif request.overlap is not None and not upscaler.tiles_equal_one_piece(request.overlap):
        yield f"WARNING: {request.model} looks further than --overlap {request.overlap}: tiles may show"
