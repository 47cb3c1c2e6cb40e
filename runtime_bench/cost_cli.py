"""The command `qnas-bench cost`."""

from pathlib import Path

import click

from qnas.cli import QnasCommand, say

FILE = click.Path(path_type=Path)


@click.command(cls=QnasCommand)
@click.argument("models", metavar="MODEL...", type=FILE, nargs=-1, required=True)
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    help="Shape of an input: 1x3x128x128, 128x128 (height x width) or name:1x3x64x64; repeatable. "
    "Free dimensions default to 1x3x128x128.",
)
@click.option(
    "--convention",
    type=click.Choice(["decimal", "paper"]),
    default="decimal",
    show_default=True,
    help="G of MACs and BitOps: 10^9, or 2^30 as in the QuantNAS paper.",
)
@click.option("--per-layer/--totals", default=True, show_default=True, help="Every layer, or sums only.")
@click.option("--json", "json_path", type=FILE, help="Write the counts, as whole numbers, to this file.")
@click.option("--force", is_flag=True, help="Replace the JSON file if it exists.")
def main(
    models: tuple[Path, ...],
    shapes: tuple[str, ...],
    convention: str,
    per_layer: bool,
    json_path: Path | None,
    force: bool,
) -> None:
    """Count what ONNX and TFLite models compute: MACs, BitOps and bytes, per layer and in total.

    Nothing is run. One MAC is a multiply-add; BitOps = MACs x weight bits x activation bits, the bits those
    of the values. Executed BitOps take the bits of the containers: what today's 8-bit units multiply. An
    operation that nobody counts is named below the table.
    """
    from qnas.export.formats.table import files_of
    from qnas.files import check_outputs
    from qnas.runtime_bench.cost_report import print_tables, uncovered, write_json
    from qnas.runtime_bench.model_cost import cost_models
    from qnas.runtimes.inputs import parse_shape

    check_outputs([json_path], force, (file for path in models for file in files_of(path)))
    costs = cost_models(models, tuple(parse_shape(text) for text in shapes))
    if json_path is not None:
        write_json(costs, json_path, force)
    print_tables(costs, convention, per_layer)
    for line in uncovered(costs):
        say(line, err=True)
