"""The command `qnas-bench MODEL...`, which is `qnas-bench measure`."""

from pathlib import Path

import click

from qnas.cli import QnasCommand

FILE = click.Path(path_type=Path)


def device_option(text: str) -> tuple[str, str]:
    """Read KEY=VALUE."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise click.BadParameter(f"{text!r} is not KEY=VALUE")
    return key, value


def processors(text: str) -> tuple[int, ...]:
    """Read 0,2,3."""
    if not all(part.isdecimal() for part in text.split(",")):
        raise click.BadParameter(f"{text!r} is no list of processors such as 0,1")
    return tuple(map(int, text.split(",")))


@click.command(cls=QnasCommand)
@click.argument("models", metavar="MODEL...", type=FILE, nargs=-1)
@click.option("--device", "devices", multiple=True, help="Where to run; repeatable. See --list-devices.")
@click.option("--list-devices", is_flag=True, help="Name the devices, and what is missing here.")
@click.option(
    "--device-option",
    "options",
    type=device_option,
    multiple=True,
    metavar="KEY=VALUE",
    help="Of the execution provider, delegate or plugin; repeatable.",
)
@click.option("--adb-binary", type=FILE, help="LiteRT's benchmark_model or onnxruntime_perf_test, for adb.")
@click.option("--remote-python", default="python3", show_default=True, help="Python with qnas behind ssh.")
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    help="Shape of an input: 1x3x128x128, 128x128 (height x width) or name:1x3x64x64; repeatable. "
    "Free dimensions default to 1x3x128x128.",
)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads.")
@click.option("--cpus", type=processors, default=None, metavar="0,1,...", help="Only on these processors.")
@click.option("--runs", type=click.IntRange(min=1), help="Inferences of every model.")
@click.option(
    "--min-time",
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds that every model runs at least, in 20 to 10 000 rounds.  [default: 3]",
)
@click.option("--warmup", type=click.IntRange(min=0), help="Inferences before.  [default: until stable]")
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=300,
    show_default=True,
    help="Seconds that a device may take to answer.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of all chance.")
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
    models: tuple[Path, ...], devices: tuple[str, ...], list_devices: bool,
    options: tuple[tuple[str, str], ...], adb_binary: Path | None, remote_python: str,
    shapes: tuple[str, ...], threads: int, cpus: tuple[int, ...] | None, runs: int | None,
    min_time: float | None, warmup: int | None, timeout: float, seed: int, profile: bool,
    require_delegated: float | None, require_integer: float | None, json_path: Path | None, force: bool,
    convention: str,
) -> None:  # fmt: skip
    """Measure ONNX and TFLite models: latency, memory, size and what they compute.

    Several models and devices run in interleaved rounds, each in a process of its own, and are compared with
    the first. Latency is the median with its 95 % bootstrap interval; memory is the peak resident set of that
    process, with interpreter and runtime. MACs are multiply-adds, BitOps = MACs x weight bits x activation
    bits: they are counted, not measured, and say nothing about time on processors without 4-bit arithmetic.
    """
    from qnas.runtime_bench import measure_run
    from qnas.runtime_bench.benchmark import Settings
    from qnas.runtime_bench.measure import Plan
    from qnas.runtime_bench.workers.process import LoadOptions

    if list_devices:
        measure_run.show_devices(devices, remote_python)
        return
    load = LoadOptions(threads, shapes, seed, cpus or (), options, remote_python, timeout, adb_binary)
    settings = Settings(devices, load, Plan(runs, min_time or Plan.seconds, warmup), profile)
    measure_run.check(models, runs, min_time, json_path, force)
    wanted = measure_run.Requirements(require_delegated, require_integer)
    raise SystemExit(measure_run.run(models, settings, wanted, json_path, force, convention))
