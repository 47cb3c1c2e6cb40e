"""The command `qnas-search spaces`."""

from pathlib import Path

import click

from qnas.cli import QnasCommand

FILE = click.Path(path_type=Path)


@click.command(cls=QnasCommand)
@click.argument("space", required=False)
@click.option("--bits", help="Count with these bit widths, as 4,8, in place of the space's own.")
@click.option("--json", "json_path", type=FILE, help="Write the counts, as whole numbers, to this file.")
@click.option("--force", is_flag=True, help="Replace the JSON file if it exists.")
def main(space: str | None, bits: str | None, json_path: Path | None, force: bool) -> None:
    """List the named search spaces, or SPACE: a name, or a JSON or TOML file of your own.

    Tells how many architectures each holds, and what its smallest and its largest network cost for an image
    of 32x32 pixels: multiply-adds, and BitOps = MACs x weight bits x activation bits.
    """
    import json

    from qnas.files import check_outputs, write_file
    from qnas.search.space.search_space import find_space, named_spaces
    from qnas.search.space.space_options import parse_bits
    from qnas.search.space.space_table import space_size, space_table
    from qnas.terminal import stdout

    check_outputs([json_path], force, [Path(space)] if space else [])
    spaces = [find_space(name) for name in ([space] if space else named_spaces())]
    if bits is not None:
        spaces = [each.with_bits(parse_bits(bits)) for each in spaces]
    sizes = [space_size(each) for each in spaces]
    if json_path is not None:
        document = {"format": "qnas-spaces", "version": 1, "spaces": [size.to_document() for size in sizes]}
        write_file(json_path, json.dumps(document, indent=1) + "\n", force)
    stdout().print(space_table(sizes))
