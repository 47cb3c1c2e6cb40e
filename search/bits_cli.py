"""The command `qnas-search bits`."""

from pathlib import Path
from typing import Any

import click

from qnas.cli import QnasCommand, say
from qnas.cost.allocation import Unit

PATH = click.Path(path_type=Path)


# fmt: off
@click.command(cls=QnasCommand)
@click.argument("model", type=PATH)
@click.argument("images", type=PATH, nargs=-1, required=True)
@click.option("--budget", "budgets", multiple=True, default=("50%",), show_default=True, metavar="50%|2.3G",
              help="The most: a share of what 8 bits cost, or a number; repeatable, for a front.")
@click.option("--unit", type=click.Choice(["bitops", "bytes"]), default="bitops", show_default=True,
              help="What the budget counts: bit operations, or bytes of weights.")
@click.option("--image", default="32x32", show_default=True, metavar="HxW",
              help="LR pixels for which BitOps are counted.")
@click.option("--calibration", type=PATH, help="8 bits of qnas-calibrate, with IMAGES. Default: made first.")
@click.option("--hr", is_flag=True, help="IMAGES are high resolution: shrink them first, to calibrate.")
@click.option("--count", type=click.IntRange(2), help="Patches, to calibrate. Default: as qnas-calibrate.")
@click.option("--input-range", type=click.Choice(["0..1", "0..255"]),
              help="What an image is to MODEL. Default: found out by running it.")
@click.option("-o", "--output", type=PATH, help="Default: MODEL with the ending .mixed.calibration.json.")
@click.option("--json", "json_path", type=PATH, help="Write what was found out to this file.")
@click.option("--threads", type=click.IntRange(0), default=0, show_default=True, help="0: one per core.")
@click.option("--force", is_flag=True, help="Replace existing files.")
def main(
    model: Path, images: tuple[Path, ...], budgets: tuple[str, ...], image: str, output: Path | None,
    json_path: Path | None, unit: Unit, calibration: Path | None, force: bool, **settings: Any,
) -> None:
    # fmt: on
    """Choose 4 or 8 bits for each layer of MODEL, so that a budget is kept and least is lost.

    MODEL is a float network, ONNX or TFLite; `qnas-export MODEL --calibration OUTPUT` writes the integer
    model. Each layer alone is measured with weights of 4 bits on IMAGES, files and folders; the choice among
    all of them is exact, and measured on images held out. With several budgets each has an OUTPUT of its own,
    named after it.
    """
    from qnas.calibration.calibrate import Settings
    from qnas.calibration.mixed_bits import Request, mix_calibration
    from qnas.calibration.progress import bars
    from qnas.search.bits.budgets import outputs_of, parse_budgets
    from qnas.search.bits.table import show_bits
    from qnas.search.space.space_options import parse_image

    parsed = parse_budgets(budgets)
    outputs = outputs_of(output or model.with_suffix(".mixed.calibration.json"), parsed)
    request = Request(
        model, images, calibration, parsed, outputs, Settings(**settings), unit, parse_image(image),
        json_path, force,
    )  # fmt: skip
    with bars() as display:
        report = mix_calibration(request, display)
    show_bits(report)
    for path in (*outputs, *([json_path] if json_path else [])):
        say(f"wrote {path} ({path.stat().st_size} bytes)")
