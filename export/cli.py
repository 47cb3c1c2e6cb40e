"""qnas-export: found.pt -> integer ONNX model + parity report."""

from pathlib import Path

import click

from qnas.cli import QnasCommand


@click.command(cls=QnasCommand)
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "format_name",
    default="onnx-qdq",
    show_default=True,
    type=click.Choice(["onnx-qdq", "onnx-float32"]),
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Default: SOURCE with the ending .onnx."
)
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="HR images for the parity report. Default: sample photographs.",
)
@click.option(
    "--parity/--no-parity",
    default=True,
    show_default=True,
    help="Compare with torch and save MODEL.parity.json.",
)
@click.option("--force", is_flag=True, help="Replace existing files.")
def main(
    source: Path, format_name: str, output: Path | None, images: Path | None, parity: bool, force: bool
) -> None:
    """Write SOURCE (a found.pt of qnas-train) as an ONNX model.

    onnx-qdq is fully integer, uint8 image in and out; onnx-float32 is its full-precision twin.
    """
    from rich.console import Console

    from qnas.export import run

    report = run.export(source, format_name, output, images, parity=parity, force=force)
    target = output or source.with_suffix(".onnx")
    if report is not None:
        console = Console()
        run.show(report, target, console if console.is_terminal else Console(width=100))
    else:
        click.echo(f"wrote {target}")
