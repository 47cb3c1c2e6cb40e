"""qnas-calibrate: a float network and images -> calibration.json, which qnas-export takes."""

from pathlib import Path
from typing import Any

import click

from qnas.cli import QnasCommand

PATH = click.Path(path_type=Path)


@click.command(cls=QnasCommand)
@click.argument("model", type=PATH)
@click.argument("images", type=PATH, nargs=-1)
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
    "--activation-bits", type=click.Choice(["8", "16", "8,16"]), default="8", show_default=True,
    help="Of what layers read and write. 8,16: 16 for the fewest tensors that reach --target-fidelity.",
)  # fmt: skip
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
    help="Spend what it takes to reach this PSNR against the float model: layers in float, or 16 bits.",
)  # fmt: skip
@click.option("--threads", type=click.IntRange(0), default=0, show_default=True, help="0: one per core.")
@click.option("--html", is_flag=True, help="Save a report beside OUTPUT as well.")
@click.option(
    "--dry-run", is_flag=True, help="Without IMAGES: say what becomes of MODEL in each format, and why."
)
@click.option("--json", "json_path", type=PATH, help="With --dry-run: write what it found to this file.")
@click.option(
    "--latency-table", type=PATH, help="With --dry-run: a file of `qnas-bench fit`, to predict latencies."
)
@click.option("--force", is_flag=True, help="Replace existing files.")
def main(
    model: Path, images: tuple[Path, ...], output: Path | None, html: bool, force: bool, dry_run: bool,
    json_path: Path | None, latency_table: Path | None, **options: Any,
) -> None:  # fmt: skip
    """Calibrate the float network MODEL, ONNX or TFLite, with IMAGES, for integers without a clip.

    IMAGES are files and folders. Tries several ways to find the range of each tensor, makes an integer model
    with each, and keeps the one nearest to the float model on patches of images held out. No HR images are
    needed. `qnas-export MODEL --calibration OUTPUT` then writes the integer model.
    `--dry-run` exits with 2 where no format works.
    """
    from functools import partial

    from qnas.calibration import command
    from qnas.calibration.calibrate import Settings
    from qnas.errors import UsageError
    from qnas.runtime_bench.dry_run import dry_run_command, told_before

    options["weight_bits"] = int(options["weight_bits"])
    options["activation_bits"] = tuple(map(int, options["activation_bits"].split(",")))
    if dry_run:
        dry_run_command(model, json_path, latency_table, force, Settings(**options))
        return
    if not images:
        raise UsageError("no images: name IMAGES to calibrate with, or --dry-run")
    if json_path is not None or latency_table is not None:
        raise UsageError("--json and --latency-table are for --dry-run: leave them out")
    before = partial(told_before, model)
    command.calibrate_command(model, images, output, before, html=html, force=force, **options)
