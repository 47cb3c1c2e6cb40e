"""The command `qnas-bench report`."""

from pathlib import Path

import click

from qnas.cli import QnasCommand, say

FILE = click.Path(path_type=Path)


@click.command(cls=QnasCommand)
@click.argument("files", metavar="FILE.json...", type=FILE, nargs=-1, required=True)
@click.option("-o", "--output", type=FILE, required=True, help="The HTML file to write.")
@click.option("--force", is_flag=True, help="Replace the HTML file if it exists.")
def main(files: tuple[Path, ...], output: Path, force: bool) -> None:
    """Make one HTML page, which needs nothing else, of results that qnas-bench wrote with --json.

    Measurements of the same model name, device, shapes and threads are one series: the newest is compared
    with others, and all of them are its history. Results of `qnas-bench gate --json` can be among the files:
    those of the same two model names, device and threads are a series as well.
    """
    from qnas.files import check_outputs, write_file
    from qnas.runtime_bench.page.report_page import report_page

    check_outputs([output], force, files)
    write_file(output, report_page(files), force)
    say(f"wrote {output}")
