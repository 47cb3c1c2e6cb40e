"""qnas-calibrate: a float network and images -> calibration.json, which qnas-export takes."""

from pathlib import Path
from typing import Any

import click

from qnas.cli import QnasCommand

PATH = click.Path(path_type=Path)


@click.command(cls=QnasCommand)
@click.argument("model", type=PATH)
@click.argument("images", type=PATH, nargs=-1, required=True)
@click.option("-o", "--output", type=PATH, help="Default: MODEL with the ending .calibration.json.")
@click.option("--hr", is_flag=True, help="IMAGES are high resolution: shrink them (bicubic) first.")
@click.option(
    "--patch",
    type=click.IntRange(8),
    help="Side of a patch, in input pixels. Default: 96, less for small images.",
)
@click.option(
    "--count",
    type=click.IntRange(2),
    help="Patches. Default: 256 and one of each image, fewer for large networks.",
)
@click.option("--crops-of", type=PATH, help="Take the patches that this calibration.json names, of IMAGES.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Which patches.")
@click.option(
    "--input-range", type=click.Choice(["0..1", "0..255"]),
    help="What an image is to MODEL. Default: found out by running it.",
)  # fmt: skip
@click.option(
    "--observer", type=click.Choice(["min-max", "percentile", "mse", "entropy"]), default="min-max",
    show_default=True, help="How the range of a tensor comes of its values.",
)  # fmt: skip
@click.option(
    "--weight-bits", type=click.Choice(["4", "8"]), default="8", show_default=True, help="Of the weights."
)
@click.option(
    "--float-layer", "float_layers", multiple=True, metavar="NAME",
    help="Leave this layer in float; repeatable, * and ? stand for any characters.",
)  # fmt: skip
@click.option(
    "--fallback-float", "fallback", type=click.IntRange(1), metavar="N",
    help="Leave the N most sensitive layers in float.",
)  # fmt: skip
@click.option(
    "--target-fidelity", "target", type=click.FloatRange(0, 100, min_open=True), metavar="DB",
    help="Leave sensitive layers in float until this PSNR against the float model is reached.",
)  # fmt: skip
@click.option("--threads", type=click.IntRange(0), default=0, show_default=True, help="0: one per core.")
@click.option("--html", is_flag=True, help="Save a report beside OUTPUT as well.")
@click.option("--force", is_flag=True, help="Replace existing files.")
def main(
    model: Path, images: tuple[Path, ...], output: Path | None, html: bool, force: bool, **options: Any
) -> None:
    """Calibrate the float network MODEL, ONNX or TFLite, with IMAGES, for integers without a clip.

    IMAGES are files and folders. Tries several ways to find the range of each tensor, makes an integer model
    with each, and keeps the one nearest to the float model on patches of images held out. No HR images are
    needed. `qnas-export MODEL --calibration OUTPUT` then writes the integer model.
    """
    from qnas.calibration import command

    options["weight_bits"] = int(options["weight_bits"])
    command.calibrate_command(model, images, output, html=html, force=force, **options)
