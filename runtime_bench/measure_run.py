"""What `qnas-bench MODEL...` does, step by step."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from qnas.cli import say
from qnas.errors import UsageError
from qnas.export.formats.table import files_of
from qnas.files import check_outputs
from qnas.runtime_bench.benchmark import Settings, benchmark
from qnas.runtime_bench.document import write_json
from qnas.runtime_bench.report import missed, print_profiles, print_table, remarks
from qnas.runtime_bench.terminal import progress_bar
from qnas.runtime_bench.workers.process import LoadOptions, Worker
from qnas.runtime_bench.workers.protocol import Listing
from qnas.runtimes.inputs import parse_shape
from qnas.runtimes.names import listing, parse_device
from qnas.terminal import stdout

MISSED = 1
FAILED = 2
PROVIDER = "ort:"  # how the name of an execution provider begins


@dataclass(frozen=True)
class Requirements:
    """Smallest shares of the MACs; None: no matter."""

    delegated: float | None = None
    integer: float | None = None


def check(
    models: Sequence[Path], runs: int | None, min_time: float | None, json_path: Path | None, force: bool
) -> None:
    """Raise UsageError or OutputError for what is wrong before anything is measured."""
    if not models:
        raise UsageError("no model is named: see qnas-bench --help")
    if runs is not None and min_time is not None:
        raise UsageError("--runs and --min-time both say how long to measure: give one")
    check_outputs([json_path], force, (file for path in models for file in files_of(path)))


def run(
    models: Sequence[Path],
    settings: Settings,
    wanted: Requirements,
    json_path: Path | None,
    force: bool,
    convention: str,
) -> int:
    """Measure and show; the exit code is 1 when a requirement is missed, 2 when a candidate failed."""
    for text in settings.load.shapes:
        parse_shape(text)
    with progress_bar() as progress:
        report = benchmark(models, settings, progress)
    if json_path is not None:
        write_json(report, json_path, force)
    print_table(report, convention)
    if settings.profile:
        print_profiles(report)
    for line in remarks(report):
        say(f"note: {line}", err=True)
    lines = missed(report, wanted.delegated, wanted.integer)
    for line in lines:
        say(f"missed: {line}", err=True)
    return FAILED if report.failures else MISSED if lines else 0


def show_devices(devices: Sequence[str], remote_python: str, every: bool) -> None:
    """Print the devices here, and those of the machines of `ssh:HOST/...` names.

    The execution providers that an onnxruntime lacks are one line, or with `every` a row each, with reasons.
    """
    machines = [("", "this onnxruntime", listing())]
    for name in map(parse_device, devices):
        if name.transport == "ssh":
            worker = Worker(name, LoadOptions(remote_python=remote_python))
            try:
                there = list(worker.ask("listing", Listing).devices)
            finally:
                worker.close()
            where = f"ssh:{name.machine}"
            machines.append((f"{where}/", f"the onnxruntime of {where}", there))
    grid, folded = Table("device", "here"), []
    for prefix, runtime, rows in machines:
        absent = [device for device, reason in rows if reason and device.startswith(PROVIDER) and not every]
        for device, reason in rows:
            if device not in absent:
                grid.add_row(prefix + device, reason or "yes")
        if absent:
            folded.append(f"not in {runtime}: {', '.join(each.removeprefix(PROVIDER) for each in absent)}")
    stdout().print(grid)
    for line in folded:
        say(f"{line} (--all says why)")
    say("elsewhere: ssh:HOST/DEVICE (any of these there), adb:SERIAL/DEVICE (see --adb-binary)")
