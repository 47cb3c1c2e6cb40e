"""The command `qnas-upscale`."""

from pathlib import Path

import click

from qnas.cli import QnasCommand, say

FILE = click.Path(path_type=Path)


@click.command(cls=QnasCommand)
@click.argument("model", type=FILE)
@click.argument("image", type=FILE)
@click.option("-o", "--output", type=FILE, required=True, help="The PNG file to write.")
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
    "--threads", type=click.IntRange(min=0), default=0, show_default=True, help="Threads; 0 = one per core."
)
@click.option("--force", is_flag=True, help="Replace OUTPUT if it exists.")
def main(
    model: Path, image: Path, output: Path, tile: int, overlap: int | None, threads: int, force: bool
) -> None:
    """Upscale IMAGE with the ONNX super-resolution MODEL; one of scale 1 restores it.

    Memory is bounded: the model never sees more than TILE x TILE pixels at once. Besides that one run, memory
    holds the image and the result, 8 bytes a pixel while it is written. A smaller TILE needs less memory
    and more time, and changes nothing else: how far the model looks is found by running it. One that looks at
    the whole image runs in one piece. Transparency is kept, enlarged bicubically.
    """
    from itertools import chain

    from qnas.export.formats.table import files_of
    from qnas.files import check_outputs
    from qnas.images.files import check_png_name, read_image_with_alpha, write_png
    from qnas.runtime_bench.upscale import load_upscaler, upscale, upscale_alpha

    check_png_name(output)
    check_outputs([output], force, chain(files_of(model), [image]))
    pixels, alpha = read_image_with_alpha(image)
    upscaler = load_upscaler(model, threads)
    if max(pixels.shape[:2]) > tile:
        if overlap is None and upscaler.overlap is None:
            say(f"note: {model} looks at the whole image, which runs in one piece", err=True)
        elif overlap is not None and not upscaler.tiles_equal_one_piece(overlap):
            say(f"WARNING: {model} looks further than --overlap {overlap}: tiles may show", err=True)
    large = upscale(upscaler, pixels, tile, overlap)
    large_alpha = None if alpha is None else upscale_alpha(alpha, upscaler.scale, tile)
    write_png(output, large, large_alpha, force)
    say(f"{output}: {pixels.shape[1]}x{pixels.shape[0]} -> {large.shape[1]}x{large.shape[0]}")
