"""The command `qnas-upscale`."""

from pathlib import Path
from typing import Any

import click

from qnas.cli import QnasCommand, say

FILE = click.Path(path_type=Path)


@click.command(cls=QnasCommand)
@click.argument("model", type=FILE)
@click.argument("image", type=FILE)
@click.option(
    "-o",
    "--output",
    type=FILE,
    required=True,
    help="The PNG file to write; of a folder the folder for them; of a video a video.",
)
@click.option(
    "--tile",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    help="Side of a tile, in input pixels.",
)
@click.option(
    "--overlap",
    type=click.IntRange(min=0),
    help="Context read on each side of a tile, part of it, in input pixels. Default: as far as MODEL looks.",
)
@click.option(
    "--input-range", type=click.Choice(["0..1", "0..255"]),
    help="What an image is to a MODEL in float32. Default: found out of it.",
)  # fmt: skip
@click.option(
    "--threads", type=click.IntRange(min=0), default=0, show_default=True, help="Threads; 0 = one per core."
)
@click.option("--force", is_flag=True, help="Replace files that exist.")
def main(
    model: Path,
    image: Path,
    output: Path,
    tile: int,
    overlap: int | None,
    input_range: Any,
    threads: int,
    force: bool,
) -> None:
    """Upscale IMAGE, or each image of that folder, with the super-resolution MODEL: ONNX, TFLite or found.pt.

    IMAGE may be a video (.mp4, .mkv, ...) where ffmpeg is installed: its sound is copied.

    Memory is bounded: the model never sees more than TILE x TILE pixels at once. Besides that one run, memory
    holds the image and the result, 8 bytes a pixel while it is written. A smaller TILE needs less memory
    and more time, and changes nothing else: how far the model looks is found by running it. One that looks at
    the whole image runs in one piece. Transparency is kept, enlarged bicubically.
    """
    from qnas.runtime_bench.upscale_run import Request, upscale_files

    for line in upscale_files(Request(model, image, output, tile, overlap, input_range, threads, force)):
        say(line, err=line.startswith(("note:", "WARNING:")))
