"""qnas-train: ARCH + images -> found.pt."""

from pathlib import Path
from typing import Literal

import click

from qnas.cli import QnasCommand, say

PATH = click.Path(path_type=Path)
COUNT = click.IntRange(1, 2**31 - 1)


@click.command(cls=QnasCommand)
@click.argument("arch")
@click.option("--data", multiple=True, type=PATH, help="Folder of training images; repeatable.")
@click.option("-o", "--output", type=PATH, default=Path("found.pt"), show_default=True)
@click.option("--validate", type=PATH, help="Folder of HR images for PSNR-Y while training.")
@click.option("--bits", type=int, help="All layers at this bit width (32: full precision).")
@click.option("--levels", type=click.Choice(["uniform", "lloyd"]), help="Of activations below 8 bits.")
@click.option(
    "--activation-steps", default="learned", show_default=True, type=click.Choice(["learned", "hwgq"]),
    help="Of quantizers: trained for a while, or HWGQ's constants.",
)  # fmt: skip
@click.option("--warm-start", type=PATH, help="found.pt of the same network at other bits or levels.")
@click.option("--steps", default=20_000, show_default=True, type=COUNT)
@click.option("--batch", default=16, show_default=True, type=COUNT)
@click.option("--patch", default=32, show_default=True, type=COUNT, help="Side of a crop, LR pixels.")
@click.option("--lr", default=1e-3, show_default=True, type=click.FloatRange(0, 1e38, min_open=True))
@click.option(
    "--weight-decay", default=0.0, show_default=True, type=click.FloatRange(0, 1e9),
    help="Of weights; QuantNAS trains with 3e-7.",
)  # fmt: skip
@click.option("--loss", default="l1", show_default=True, type=click.Choice(["l1", "mse"]))
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**63 - 1))
@click.option("--threads", default=0, show_default=True, type=click.IntRange(0), help="0: all cores.")
@click.option(
    "--cache-mib", default=1024, show_default=True, type=COUNT, help="Of pixels in memory; more are on disk."
)
@click.option("--resume", is_flag=True, help="Continue the interrupted run of OUTPUT.")
@click.option("--force", is_flag=True, help="Replace OUTPUT, and an interrupted run of it.")
@click.option("--show", is_flag=True, help="Print the architecture as JSON, its cost on stderr, and stop.")
def main(
    arch: str, data: tuple[Path, ...], output: Path, validate: Path | None, bits: int | None,
    levels: Literal["uniform", "lloyd"] | None, activation_steps: str, warm_start: Path | None, steps: int,
    batch: int, patch: int, lr: float, weight_decay: float, loss: str, seed: int, threads: int,
    cache_mib: int, resume: bool, force: bool, show: bool,
) -> None:  # fmt: skip
    """Train ARCH (a JSON file or a name such as espcn-w8) on the images of --data and write found.pt.

    The state of the run lives in OUTPUT.run while it lasts: after Ctrl-C, or a kill, add --resume.
    """
    from qnas.search.training import train_run as run

    architecture = run.architecture(arch, bits, levels)
    if show:
        say(architecture.to_json(), nl=False)
        say(run.cost_line(architecture), err=True)
        return
    recipe = run.recipe(
        architecture, data, steps=steps, batch=batch, patch=patch, learning_rate=lr, loss=loss, seed=seed,
        warm_start=warm_start, cache_mib=cache_mib, activation_steps=activation_steps,
        weight_decay=weight_decay,
    )  # fmt: skip
    run.run(architecture, recipe, output, validate, threads, resume=resume, force=force, source=Path(arch))


if __name__ == "__main__":  # `qnas-search sweep` runs it so, without a script on the path
    from qnas.processes import die_with_parent

    die_with_parent()
    main()
