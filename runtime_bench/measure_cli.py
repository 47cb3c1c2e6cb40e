"""The command `qnas-bench MODEL...`, which is `qnas-bench measure`."""

from pathlib import Path
from typing import Any

import click

from qnas.cli import QnasCommand
from qnas.runtime_bench.load_options import load_options

FILE = click.Path(path_type=Path)


@click.command(cls=QnasCommand)
@click.argument("models", metavar="MODEL...", type=FILE, nargs=-1)
@click.option("--device", "devices", multiple=True, help="Where to run; repeatable. See --list-devices.")
@click.option("--list-devices", is_flag=True, help="Name the devices, and what is missing here.")
@click.option("--all", "every", is_flag=True, help="With --list-devices: why each absent provider is absent.")
@load_options
@click.option("--runs", type=click.IntRange(min=1), help="Inferences of every model.")
@click.option(
    "--min-time",
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds that every model runs at least, in 20 to 10 000 rounds.  [default: 3]",
)
@click.option("--warmup", type=click.IntRange(min=0), help="Inferences before.  [default: until stable]")
@click.option("--profile", is_flag=True, help="Show time, MACs and share of the machine's peak per node.")
@click.option(
    "--require-delegated",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="Exit with 1 when a smaller share of the MACs runs on the device asked for.",
)
@click.option(
    "--require-integer",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="Exit with 1 when a smaller share of the MACs runs in integers.",
)
@click.option("--json", "json_path", type=FILE, help="Write the report, with every sample, to this file.")
@click.option("--force", is_flag=True, help="Replace the JSON file if it exists.")
@click.option("--convention", type=click.Choice(["decimal", "paper"]), default="decimal", show_default=True,
              help="G of MACs and BitOps: 10^9, or 2^30 as in the QuantNAS paper.")  # fmt: skip
def main(
    models: tuple[Path, ...], devices: tuple[str, ...], list_devices: bool, every: bool, runs: int | None,
    min_time: float | None, warmup: int | None, profile: bool, require_delegated: float | None,
    require_integer: float | None, json_path: Path | None, force: bool, convention: str, **load: Any,
) -> None:  # fmt: skip
    """Measure ONNX and TFLite models: latency, memory, size and what they compute.

    Several models and devices run in interleaved rounds, each in a process of its own, and are compared with
    the first. Latency is the median with its 95 % bootstrap interval; memory is the peak resident set of that
    process, with interpreter and runtime. MACs are multiply-adds, BitOps = MACs x weight bits x activation
    bits: they are counted, not measured, and say nothing about time on processors without 4-bit arithmetic.
    """
    from qnas.runtime_bench import measure_run
    from qnas.runtime_bench.benchmark import Settings
    from qnas.runtime_bench.measure import Schedule
    from qnas.runtime_bench.workers.process import LoadOptions

    if list_devices:
        measure_run.show_devices(devices, load["remote_python"], every)
        return
    schedule = Schedule(runs, min_time or Schedule.seconds, warmup)
    settings = Settings(devices, LoadOptions(**load), schedule, profile)
    measure_run.check(models, runs, min_time, json_path, force)
    wanted = measure_run.Requirements(require_delegated, require_integer)
    raise SystemExit(measure_run.run(models, settings, wanted, json_path, force, convention))
