"""The command `qnas-search report`."""

from pathlib import Path

import click

from qnas.cli import QnasCommand, say

PATH = click.Path(path_type=Path)


@click.command(cls=QnasCommand)
@click.argument("folder", type=PATH)
@click.option("-o", "--output", type=PATH, help="The HTML file to write.  [default: FOLDER/report.html]")
@click.option("--image", "images", multiple=True, type=PATH, help="A photograph to cut from; repeatable.")
@click.option("--force", is_flag=True, help="Replace the HTML file if it exists.")
def main(folder: Path, output: Path | None, images: tuple[Path, ...], force: bool) -> None:
    """Make one HTML page, which needs nothing else, of the FOLDER of a run or a sweep, finished or under way.

    Before and after are shown for networks that were trained (found.pt in the folder), on the photographs of
    scikit-image unless others are named.
    """
    from qnas.search.report.page import write_report

    target = folder / "report.html" if output is None else output
    write_report(folder, target, force, images)
    say(f"wrote {target}")
