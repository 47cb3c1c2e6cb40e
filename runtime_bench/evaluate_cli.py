"""The command `qnas-evaluate`."""

from pathlib import Path
from typing import Any

import click

from qnas.cli import QnasCommand, say

FILE = click.Path(path_type=Path)


@click.command(cls=QnasCommand)
@click.argument("models", metavar="MODEL...", type=FILE, nargs=-1, required=True)
@click.option("--data", type=FILE, required=True, help="A folder of HR images.")
@click.option("--lr", type=FILE, help="A folder of what models read. Default: HR images, shrunk (bicubic).")
@click.option(
    "--border", type=click.IntRange(0), help="Pixels that are left out on each side. Default: the scale."
)
@click.option(
    "--luma", type=click.Choice(["studio", "full"]), default="studio", show_default=True,
    help="Y: of BT.601 in 16..235, as in the papers, or in 0..255.",
)  # fmt: skip
@click.option(
    "--input-range", type=click.Choice(["0..1", "0..255"]),
    help="What an image is to a MODEL in float32. Default: found out of it.",
)  # fmt: skip
@click.option("--threads", type=click.IntRange(0), default=0, show_default=True, help="0: one per core.")
@click.option("--json", "output", type=FILE, help="Save all scores of all images.")
@click.option("--pictures", type=FILE, help="A folder for a strip of details of each image.")
@click.option("--force", is_flag=True, help="Replace existing files.")
def main(
    models: tuple[Path, ...], output: Path | None, pictures: Path | None, force: bool, **options: Any
) -> None:
    """Tell how good MODELs are on the images of --data: found.pt, ONNX or TFLite files, side by side.

    PSNR and SSIM of each and of bicubic interpolation (for models that restore: of what they read), and by
    how much each is better than the first on the same images. A float model among them shows what its
    integers cost.
    """
    from qnas.runtime_bench.evaluate import Request
    from qnas.runtime_bench.evaluate_run import evaluate_models, show_evaluation

    show_evaluation(evaluate_models(Request(models, **options), output, pictures, force))
    for path in (output, pictures):
        if path is not None:
            say(f"wrote {path}")
