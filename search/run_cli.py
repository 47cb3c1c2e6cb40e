"""The command `qnas-search run`."""

from pathlib import Path
from typing import Any, get_args

import click
from click.core import ParameterSource

from qnas.cli import QnasCommand
from qnas.network.architecture import Activation, Normalization

PATH = click.Path(path_type=Path)
COUNT = click.IntRange(1, 2**31 - 1)
WHOLE = click.IntRange(0, 2**63 - 1)
SHARE = click.FloatRange(0, 1e9)
RATE = click.FloatRange(0, 1e9, min_open=True)  # beyond the range of its numbers PyTorch fails oddly


def choice(*values: str) -> click.Choice[str]:
    """One of these."""
    return click.Choice(values)


@click.command(cls=QnasCommand, context_settings={"show_default": True})
@click.option("--space", help="A space that `qnas-search spaces` lists, or a JSON or TOML file.")
@click.option("--data", multiple=True, type=PATH, help="Folder of training images; repeatable.")
@click.option("-o", "--output", type=PATH, required=True, help="The run's folder.")
@click.option("--bits", help="Bit widths to search, as 4,8, in place of the space's own.")
@click.option("--channels", type=COUNT, help="In place of the space's own.")
@click.option("--blocks", type=COUNT, help="In place of the space's own.")
@click.option("--normalization", type=choice(*get_args(Normalization)), help="In place of the space's own.")
@click.option("--activation", type=choice(*get_args(Activation)), help="Of --bits 32, as the space's own.")
@click.option("--operations", help="Architecture (file or name) whose operations stay: search bits alone.")
@click.option("--penalty", default=1e-4, type=SHARE, help="Weight of the cost, as a share of the start's.")
@click.option(
    "--target-bitops", "target", metavar="2.4G|60%",
    help="Cost to end at within 3 %, of --cost, or a share of the dearest architecture's; moves the penalty.",
)  # fmt: skip
@click.option("--cost", default="bitops", type=choice("bitops", "macs", "latency"))
@click.option("--latency-table", type=PATH, help="Measured latencies, for --cost latency.")
@click.option("--image", default="32x32", help="HEIGHTxWIDTH of the image whose cost is weighed.")
@click.option("--mixer", default="san", type=choice("independent", "shared", "san"), help="Of bit widths.")
@click.option(
    "--mixing", default="exact", type=choice("exact", "merged"), help="merged: faster, inputs alike."
)
@click.option("--compile", is_flag=True, help="Quantize and mix inputs in one compiled pass; needs g++.")
@click.option("--selector", default="softmax", type=choice("softmax", "gumbel"))
@click.option(
    "--temperatures", default=(10.0, 0.1), type=(RATE, RATE), help="Gumbel's, first and last epoch."
)
@click.option("--epochs", default=20, type=COUNT)
@click.option("--epoch-steps", default=1000, type=COUNT, help="Steps of the weights in an epoch.")
@click.option("--warm-up", default=5, type=WHOLE, help="Epochs of the weights alone.")
@click.option("--batch", default=16, type=COUNT)
@click.option("--patch", default=32, type=COUNT, help="Side of a crop, LR pixels.")
@click.option("--optimizer", default="sgd", type=choice("sgd", "adam"), help="Of the weights.")
@click.option("--lr", "learning_rate", default=1e-3, type=RATE, help="Of the weights, falling to zero.")
@click.option("--weight-decay", default=3e-7, type=SHARE)
@click.option("--clip", default=5.0, type=RATE, help="Bound of the norm of the weights' gradient.")
@click.option(
    "--alpha-lr", "alpha_rate", type=RATE, help="Of the alphas.  [default: 0.3 / their steps an epoch]"
)
@click.option("--alpha-every", default=1, type=COUNT, help="Steps of the weights for one of the alphas.")
@click.option("--entropy", type=SHARE, help="mu0.  [default: 1e-4, in full precision 1e-3]")
@click.option("--seed", default=0, type=WHOLE)
@click.option("--cache-mib", default=1024, type=COUNT, help="Bound of decoded pixels.")
@click.option("--threads", default=0, type=WHOLE, help="0: all cores.")
@click.option("--resume", is_flag=True, help="Continue the run in OUTPUT; its options need not be repeated.")
@click.option("--force", is_flag=True, help="Discard the run that OUTPUT holds.")
@click.pass_context
def main(
    ctx: click.Context, /, output: Path, threads: int, resume: bool, force: bool, **options: Any
) -> None:  # fmt: skip
    """Search a space and write OUTPUT/arch.json, which `qnas-train` trains.

    OUTPUT also gets search.json (what was asked), log.jsonl, tensorboard/, result.json, and the state of the
    search after every epoch: after Ctrl-C, or a kill, `qnas-search run -o OUTPUT --resume` goes on with the
    same bits.
    """
    from qnas.errors import UsageError
    from qnas.search.runs.run_folder import read_plan
    from qnas.search.runs.search_options import search_plan
    from qnas.search.search_run import run_search

    if resume and force:
        raise UsageError("--resume continues a run and --force discards it: pass one of them")
    given = {
        name: value
        for name, value in options.items()
        if value not in (None, ())
        and (not resume or ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE)
    }
    plan = search_plan(given, read_plan(output) if resume else None)
    run_search(plan, output, threads, resume=resume, force=force)


if __name__ == "__main__":  # `qnas-search sweep` runs it so, without a script on the path
    from qnas.processes import die_with_parent

    die_with_parent()
    main()
