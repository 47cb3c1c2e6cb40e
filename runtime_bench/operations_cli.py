"""The command `qnas-bench operations`."""

from pathlib import Path

import click

from qnas.cli import QnasCommand, say

FILE = click.Path(path_type=Path)


@click.command(cls=QnasCommand)
@click.option("--model", "table", type=FILE, required=True, help="A file of `qnas-bench fit`.")
@click.option(
    "--space",
    "spaces",
    multiple=True,
    help="Search space, by its name or a .json or .toml file; repeatable.  [default: all named ones]",
)
@click.option(
    "--size", "sizes", multiple=True, default=("128x128",), show_default=True,
    help="Height x width of the image; repeatable.",
)  # fmt: skip
@click.option("-o", "--output", type=FILE, required=True, help="The JSON file to write.")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
def main(table: Path, spaces: tuple[str, ...], sizes: tuple[str, ...], output: Path, force: bool) -> None:
    """Add to a latency model what the operations of a space take, for `qnas-search run --cost latency`.

    Nothing is measured: kernels that were not are predicted. `fit` has done it for the named spaces at the
    sizes that it measured.
    """
    from qnas.files import check_outputs, write_file
    from qnas.runtime_bench.latency_model.operations import (
        built_in_spaces,
        image_sizes,
        operation_times,
        with_operations,
    )
    from qnas.runtime_bench.latency_model.table import read_latency_model
    from qnas.runtimes.inputs import parse_shape
    from qnas.search.space.search_space import find_space

    check_outputs([output], force, [table, *map(Path, spaces)])
    model = read_latency_model(table)
    asked = [find_space(each) for each in spaces] or built_in_spaces()
    times = operation_times(model, asked, image_sizes([parse_shape(each) for each in sizes]))
    write_file(output, with_operations(model, list(times)).to_json(), force)
    say(f"{len(times)} operations of {', '.join(each.name for each in asked)} -> {output}")
    far = sorted({row.op for row, basis in times.items() if basis == "extrapolated"})
    if far:
        count = sum(basis == "extrapolated" for basis in times.values())
        say(f"note: {count} of them are unlike anything that was measured, of {', '.join(far)}", err=True)
