"""The command `qnas-search bits`."""

from pathlib import Path
from typing import Any

import click

from qnas.cli import QnasCommand, say
from qnas.cost.allocation import Unit

PATH = click.Path(path_type=Path)


# fmt: off
@click.command(cls=QnasCommand)
@click.argument("model")
@click.argument("images", type=PATH, nargs=-1, required=True)
@click.option("--budget", "budgets", multiple=True, default=("50%",), show_default=True, metavar="50%|2.3G",
              help="The most: a share of what 8 bits cost, or a number; repeatable, for a front.")
@click.option("--unit", type=click.Choice(["bitops", "bytes", "ms"]), default="bitops", show_default=True,
              help="What the budget counts: bit operations, bytes of weights, measured milliseconds.")
@click.option("--image", default="32x32", show_default=True, metavar="HxW",
              help="LR pixels for which costs are counted.")
@click.option("--weights", type=PATH, help="The found.pt of MODEL, where that is an architecture.")
@click.option("--latency-table", type=PATH, help="For --unit ms: a file of `qnas-bench operations`.")
@click.option("--calibration", type=PATH, help="8 bits of qnas-calibrate, with IMAGES. Default: made first.")
@click.option("--activation-bits", type=click.Choice(["8", "4,8"]), default="4,8", show_default=True,
              help="Of what layers of a float MODEL read; 8: weights alone get 4.")
@click.option("--hr", is_flag=True, help="IMAGES are high resolution: shrink them first, to calibrate.")
@click.option("--count", type=click.IntRange(2), help="Patches, to calibrate. Default: as qnas-calibrate.")
@click.option("--patch", type=click.IntRange(8), help="Its side, LR pixels. Default: 96, or 48.")
@click.option("--input-range", type=click.Choice(["0..1", "0..255"]),
              help="What an image is to a float MODEL. Default: found out by running it.")
@click.option("-o", "--output", type=PATH,
              help="Default: MODEL with the ending .mixed.calibration.json or .mixed.json.")
@click.option("--json", "report", type=PATH, help="Write what was found out to this file.")
@click.option("--threads", type=click.IntRange(0), default=0, show_default=True, help="0: one per core.")
@click.option("--force", is_flag=True, help="Replace existing files.")
def main(
    model: str, images: tuple[Path, ...], budgets: tuple[str, ...], unit: Unit, image: str,
    output: Path | None, report: Path | None, threads: int, force: bool, **options: Any,
) -> None:
    # fmt: on
    """Choose 4 or 8 bits for each layer of MODEL, so that a budget is kept and least is lost.

    MODEL is a float network, ONNX or TFLite: OUTPUT is a calibration then, and
    `qnas-export MODEL --calibration OUTPUT` writes the integer model. Or it is a found.pt, or an architecture
    and its --weights: `qnas-train OUTPUT --warm-start FOUND.pt` trains what is chosen, and
    IMAGES are folders of HR images.

    Each layer alone is measured in 4 bits on IMAGES; the choice among all of them is exact, and measured on
    images held out. With several budgets each has an OUTPUT of its own, named after it.
    """
    from qnas.calibration.progress import bars
    from qnas.mixed_bits import choose_bits
    from qnas.search.bits.table import show_bits
    from qnas.search.bits.task import bits_task

    task = bits_task(model, images, budgets, output, unit, image, report, force, threads)
    with bars() as display:
        found = choose_bits(model, task, display, **options)
    show_bits(found)
    for path in task.files:
        say(f"wrote {path} ({path.stat().st_size} bytes)")
