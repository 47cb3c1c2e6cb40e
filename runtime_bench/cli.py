"""The command `qnas-bench`."""

from pathlib import Path

import click

from qnas.cli import QnasCommand

FILE = click.Path(path_type=Path)


@click.command(cls=QnasCommand)
@click.argument("models", metavar="MODEL...", type=FILE, nargs=-1, required=True)
@click.option("--device", default="cpu", show_default=True, help="Where to run.")
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    help="Shape of an input: 1x3x128x128, 128x128 (height x width) or name:1x3x64x64; repeatable. "
    "Free dimensions default to 1x3x128x128.",
)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads.")
@click.option("--runs", type=click.IntRange(min=1), help="Rounds, in each of which every model runs once.")
@click.option(
    "--min-time",
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds that every model runs at least, in 20 to 10 000 rounds.  [default: 3]",
)
@click.option("--warmup", type=click.IntRange(min=0), default=5, show_default=True, help="Runs before these.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of inputs and intervals."
)
@click.option("--json", "json_path", type=FILE, help="Write the report, with every sample, to this file.")
@click.option("--force", is_flag=True, help="Replace the JSON file if it exists.")
@click.option(
    "--convention",
    type=click.Choice(["decimal", "paper"]),
    default="decimal",
    show_default=True,
    help="G of MACs and BitOps: 10^9, or 2^30 as in the QuantNAS paper.",
)
def main(
    models: tuple[Path, ...],
    device: str,
    shapes: tuple[str, ...],
    threads: int,
    runs: int | None,
    min_time: float | None,
    warmup: int,
    seed: int,
    json_path: Path | None,
    force: bool,
    convention: str,
) -> None:
    """Measure ONNX models: latency, memory, size and what they compute.

    Several models run in interleaved rounds and are compared with the first. Latency is the median with its
    95 % bootstrap interval; memory is the peak resident set of a fresh process, with interpreter and runtime.
    MACs are multiply-adds, BitOps = MACs x weight bits x activation bits: they are counted, not measured, and
    say nothing about time on processors without 4-bit arithmetic.
    """
    from qnas.errors import UsageError
    from qnas.files import check_output
    from qnas.runtime_bench.benchmark import Settings, benchmark
    from qnas.runtime_bench.inputs import parse_shape
    from qnas.runtime_bench.measure import Plan
    from qnas.runtime_bench.report import print_table, problems, progress_bar, write_json

    if runs is not None and min_time is not None:
        raise UsageError("--runs and --min-time both say how long to measure: give one")
    if json_path is not None:
        if json_path in models:
            raise UsageError(f"--json {json_path} would replace a model: name another file")
        check_output(json_path, force)
    requests = tuple(parse_shape(text) for text in shapes)
    plan = Plan(runs, min_time or Plan.seconds, warmup)
    with progress_bar() as progress:
        report = benchmark(models, Settings(device, threads, requests, plan, seed), progress)
    if json_path is not None:
        write_json(report, json_path, force)
    print_table(report, convention)
    for problem in problems(report):
        click.echo(f"cost unknown: {problem}", err=True)
