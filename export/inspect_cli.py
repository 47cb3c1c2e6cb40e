"""The command `qnas-inspect`."""

from pathlib import Path

import click

from qnas.cli import QnasCommand, say

FILE = click.Path(path_type=Path)
LARGEST_SIDE = 4096


def _size(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, int]:
    sides = value.lower().split("x")
    if len(sides) != 2 or not all(side.isdecimal() and 0 < int(side) <= LARGEST_SIDE for side in sides):
        raise click.BadParameter(f"{value!r} is no HEIGHTxWIDTH of 1 to {LARGEST_SIDE} pixels, such as 64x64")
    return int(sides[0]), int(sides[1])


@click.command(cls=QnasCommand)
@click.argument("file", type=FILE)
@click.option(
    "--size",
    default="64x64",
    show_default=True,
    callback=_size,
    metavar="HxW",
    help="Input pixels that costs are counted for; a TFLite file has its own size.",
)
@click.option(
    "--images",
    type=FILE,
    help="Folder of HR images that levels of outputs are counted on. Default: sample photographs.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@click.option("--html", type=FILE, help="Also write a page with histograms of the weights on their grids.")
@click.option("--force", is_flag=True, help="Replace the page if it exists.")
def main(
    file: Path, size: tuple[int, int], images: Path | None, as_json: bool, html: Path | None, force: bool
) -> None:
    """Say what each layer of FILE, a found.pt, ONNX or TFLite model, costs and how it uses its bits."""
    import json
    from itertools import chain

    from qnas.export.formats.table import files_of
    from qnas.export.inspect import inspect
    from qnas.export.inspection.inspection import Request
    from qnas.export.inspection.report import WIDTH, as_document, as_page, show
    from qnas.files import check_outputs, write_file
    from qnas.images.files import images_in
    from qnas.terminal import stdout

    check_outputs([html], force, chain(files_of(file), images_in([images])))
    inspection = inspect(file, Request(*size, images))
    if html is not None:
        write_file(html, as_page(inspection), force)
    if as_json:
        say(json.dumps(as_document(inspection)))
    else:
        show(inspection, stdout(WIDTH))
    if html is not None:
        say(f"wrote {html}", err=as_json)
