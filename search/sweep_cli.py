"""The command `qnas-search sweep`."""

from pathlib import Path
from typing import Any

import click

from qnas.cli import QnasCommand

PATH = click.Path(path_type=Path)
COUNT = click.IntRange(1)


def pair(text: str) -> tuple[str, str]:
    """Read KEY=VALUE."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise click.BadParameter(f"{text!r} is not KEY=VALUE")
    return key, value


# fmt: off
@click.command(cls=QnasCommand)
@click.option("-o", "--output", type=PATH, required=True, help="The sweep's folder.")
@click.option("--config", type=PATH, help="TOML file of the tables sweep, search, train and grid.")
@click.option("--method", "methods", multiple=True, metavar="METHOD",
              help="search, full-precision, two-fold, random, uniform-lsq, uniform-hwgq, edmips; repeatable. "
                   "[default: search]")
@click.option("--space", multiple=True, help="Named space or file; repeatable.  [default: basic]")
@click.option("--bits", multiple=True, metavar="4,8", help="Bit widths; repeatable for several sets.")
@click.option("--penalty", multiple=True, type=click.FloatRange(0), help="Repeatable.  [default: 1e-4]")
@click.option("--seeds", type=COUNT, help="So many, from 0 on.  [default: 1]")
@click.option("--data", multiple=True, type=PATH, help="Folder of training images; repeatable.")
@click.option("--validate", type=PATH, help="Folder of HR images on which the front is measured.")
@click.option("--architecture", "architectures", multiple=True,
              help="For uniform and edmips: espcn, srresnet, rfdn; uniform: any file, too.  [default: espcn]")
@click.option("--samples", type=COUNT, help="Random architectures for each seed.  [default: 8]")
@click.option("--max-bitops", metavar="2.4G", help="Of random architectures; G is 10^9.")
@click.option("--min-bitops", metavar="2.0G", help="[default: 20 % below the most]")
@click.option("--image", metavar="HxW", help="LR pixels for which costs are counted.  [default: 32x32]")
@click.option("--train-warm-start", is_flag=True,
              help="Train in full precision first, for as many steps: quantized networks end better.")
@click.option("--search-epochs", type=COUNT, help="As --search epochs=N.")
@click.option("--epoch-steps", type=COUNT, help="As --search epoch-steps=N.")
@click.option("--train-steps", type=COUNT, help="As --train steps=N.")
@click.option("--search", type=pair, multiple=True, metavar="KEY=VALUE",
              help="Any option of `qnas-search run`, as mixer=shared; repeatable.")
@click.option("--train", type=pair, multiple=True, metavar="KEY=VALUE",
              help="Any option of `qnas-train`, as lr=5e-4; repeatable.")
@click.option("--workers", default=1, show_default=True, type=COUNT, help="Members at a time.")
@click.option("--threads", default=0, show_default=True, type=click.IntRange(0),
              help="Of a member; 0: the cores divided among the workers.")
@click.option("--ray", metavar="ADDRESS", help="Run on this Ray cluster; local: start Ray here.")
@click.option("--resume", is_flag=True, help="Do what is missing in OUTPUT; settings need not be repeated.")
def main(output: Path, workers: int, threads: int, ray: str | None, resume: bool, **settings: Any) -> None:
    # fmt: on
    """Search with every penalty, seed and setting, train each winner, and write the Pareto front.

    OUTPUT gets members/NAME/ (arch.json, found.pt, trained.json), logs/, pareto.csv, pareto.json and
    report.html. What fails is told, and the rest goes on: exit code 1. After Ctrl-C, a kill or a failure
    `qnas-search sweep -o OUTPUT --resume` goes on; with more settings it adds members.
    """
    import sys

    from qnas.search.sweep.flags import plan_of_flags
    from qnas.search.sweep_run import Resources, run_sweep

    plan = plan_of_flags(settings, resume)
    if not run_sweep(plan, output, Resources(workers, threads, ray), resume=resume):
        sys.exit(1)
