"""qnas-train: ARCH + images -> found.pt."""

import signal
from pathlib import Path

import click

from qnas.cli import QnasCommand


@click.command(cls=QnasCommand)
@click.argument("arch")
@click.option("--data", multiple=True, type=click.Path(path_type=Path), help="Folder of training images; repeatable.")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("found.pt"), show_default=True)
@click.option("--validate", type=click.Path(path_type=Path), help="Folder of HR images for PSNR-Y while training.")
@click.option("--bits", type=int, help="All layers at this bit width (32: full precision).")
@click.option("--warm-start", type=click.Path(path_type=Path), help="found.pt of the same network at other bits.")
@click.option("--steps", default=20_000, show_default=True, type=click.IntRange(1))
@click.option("--batch", default=16, show_default=True, type=click.IntRange(1))
@click.option("--patch", default=32, show_default=True, type=click.IntRange(4), help="Side of a crop, LR pixels.")
@click.option("--lr", default=1e-3, show_default=True, type=click.FloatRange(0, min_open=True))
@click.option("--loss", default="l1", show_default=True, type=click.Choice(["l1", "mse"]))
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0))
@click.option("--threads", default=0, show_default=True, type=click.IntRange(0), help="0: all cores.")
@click.option("--cache-mib", default=1024, show_default=True, type=click.IntRange(1), help="Bound of decoded pixels.")
@click.option("--resume", is_flag=True, help="Continue the interrupted run of OUTPUT.")
@click.option("--force", is_flag=True, help="Replace OUTPUT.")
@click.option("--show", is_flag=True, help="Print the architecture as JSON and its cost, and stop.")
def main(
    arch: str, data: tuple[Path, ...], output: Path, validate: Path | None, bits: int | None, warm_start: Path | None,
    steps: int, batch: int, patch: int, lr: float, loss: str, seed: int, threads: int, cache_mib: int,
    resume: bool, force: bool, show: bool,
) -> None:  # fmt: skip
    """Train ARCH (a JSON file or a name such as espcn-w8) on the images of --data and write found.pt.

    The state of the run lives in OUTPUT.run while it lasts: after Ctrl-C, or a kill, add --resume.
    """
    from qnas.search import session

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    architecture = session.architecture(arch, bits)
    if show:
        click.echo(session.describe(architecture))
        return
    recipe = session.recipe(
        data, steps=steps, batch=batch, patch=patch, learning_rate=lr, loss=loss, seed=seed, warm_start=warm_start,
        cache_mib=cache_mib,
    )  # fmt: skip
    session.run(architecture, recipe, output, validate, threads, resume=resume, force=force)
