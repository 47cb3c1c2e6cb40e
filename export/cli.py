"""qnas-export: a network -> ONNX and TFLite models of the same integers, and the proof."""

from pathlib import Path
from typing import Any

import click

from qnas.cli import QnasCommand, say

PATH = click.Path(path_type=Path)
RUNTIMES = (
    "onnxruntime", "onnxruntime-unoptimized", "reference", "openvino", "onnxruntime-web", "litert-xnnpack",
    "litert",
)  # fmt: skip


def _size(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[int, int] | None:
    """HxW -> (height, width)."""
    if text is None:
        return None
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise click.BadParameter(f"{text!r} is no HxW, such as 180x320")
    return int(height), int(width)


@click.command(cls=QnasCommand)
@click.argument("source", type=PATH)
@click.option(
    "--format", "formats", multiple=True, default=["onnx-qdq"], show_default=True,
    type=click.Choice(["onnx-qdq", "tflite", "onnx-float32"]), help="Repeatable.",
)  # fmt: skip
@click.option("-o", "--output", type=PATH, help="Default: SOURCE with the ending of the format.")
@click.option(
    "--target", type=click.Choice(["onnxruntime", "openvino", "portable", "portable-int4", "litert"]),
    help="The runtime whose fast forms to use. Default: onnxruntime for ONNX, litert for TFLite.",
)  # fmt: skip
@click.option(
    "--layout", type=click.Choice(["nchw", "nhwc"]), default="nchw", show_default=True, help="ONNX images."
)
@click.option(
    "--size", callback=_size, metavar="HxW", help="TFLite: images of one size. Default: every size."
)
@click.option(
    "--io", type=click.Choice(["int8", "uint8"]), default="int8", show_default=True, help="TFLite images."
)
@click.option(
    "--input-range", type=click.Choice(["0..1", "0..255"]),
    help="What an image is to SOURCE, a model in float at its ends. Default: found out of it, and told.",
)  # fmt: skip
@click.option(
    "--adq", type=click.Choice(["frozen", "per-image"]), default="frozen", show_default=True,
    help="ADQ's deviation: a constant in the weights, or computed for each image (onnxruntime only).",
)  # fmt: skip
@click.option(
    "--saturation", type=click.Choice(["ignore", "warn", "error"]), default="ignore", show_default=True,
    help="Layers that may pass 16 bits on machines without VNNI.",
)  # fmt: skip
@click.option(
    "--images", type=PATH,
    help="HR images to calibrate what SOURCE leaves open: a float model, float residuals, ADQ's deviation.",
)  # fmt: skip
@click.option("--calibration", type=PATH, help="A file of qnas-calibrate, for a float model.")
@click.option("--check", type=PATH, help="HR images to compare on. Default: --images, else photographs.")
@click.option(
    "--parity/--no-parity", default=True, show_default=True, help="Compare, and save MODEL.parity.json."
)
@click.option("--check-layers", "layers", is_flag=True, help="Compare every layer too.")
@click.option("--html", is_flag=True, help="Save MODEL.parity.html as well.")
@click.option(
    "--min-equal", type=click.FloatRange(0, 1), default=0.999, show_default=True, help="Share of values."
)
@click.option("--max-steps", type=click.IntRange(0), default=1, show_default=True, help="Grey levels.")
@click.option(
    "--gate", multiple=True, type=click.Choice(RUNTIMES),
    help="A runtime that decides the exit code; repeatable. Default: those whose arithmetic is exact.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Replace existing files.")
def main(source: Path, output: Path | None, formats: tuple[str, ...], **options: Any) -> None:
    """Write SOURCE as integer models: a found.pt of qnas-train, or an ONNX or TFLite model made elsewhere.

    Models of integers (QDQ ONNX, int8 TFLite) are taken as they are, float ones are calibrated.
    onnx-qdq and tflite are fully integer, 8-bit image in and out; onnx-float32 is the full-precision twin.
    A format that refuses the network costs the others nothing, and ends with 2.
    Exits with 1 when a runtime computes something else than the network, beyond --min-equal or --max-steps.
    """
    from qnas.calibration.progress import bars
    from qnas.export import run
    from qnas.export.checks.table import show_report
    from qnas.export.options import Options
    from qnas.terminal import stdout

    with bars() as display:
        wanted = Options(formats=tuple(dict.fromkeys(formats)), **options)
        done = run.export(source, wanted, output, display)
    if done.report is not None:
        show_report(done.report, stdout(100))
    for note in done.notes if done.report is None else ():
        say(f"note: {note}")
    for path in done.files:
        say(f"wrote {path} ({path.stat().st_size} bytes)")
    for reason in done.refused:
        say(f"error: {reason}", err=True)
    if done.report is not None and not done.report.passed:
        raise SystemExit(1)
    if done.refused:
        raise SystemExit(2)
