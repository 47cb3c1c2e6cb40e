"""How long the commands take here: start-up, the export of each example, a look at the machine's state.

python benchmarks/speed.py [--rounds 5]

Seconds of processor time; of start-ups the least of some rounds. They hang on the machine and on what else it
does, so no test asserts them: the last column is what they are meant to stay below on a quiet one.
"""

import resource
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from qnas.runtime_bench.environment import current_environment
from qnas.runtime_bench.machine_state import snapshot

ROOT = Path(__file__).resolve().parent.parent
HELP_SECONDS = 0.3
EXPORT_SECONDS = 15.0
SNAPSHOT_SECONDS = 0.001
SNAPSHOTS = 20


def processor_seconds(command: list[str]) -> float:
    """What `command` and the processes that it waits for take."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def snapshot_seconds() -> float:
    """The least that a look at the machine's state takes."""
    spent = []
    for _ in range(SNAPSHOTS):
        start = time.process_time()
        snapshot()
        spent.append(time.process_time() - start)
    return min(spent)


@click.command(help=__doc__)
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="Of each start-up.")
def main(rounds: int) -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    environment = current_environment("")
    table = Table(title=f"{environment.cpu}, Python {environment.python}")
    for heading in ("command", "seconds", "aim"):
        table.add_column(heading, justify="left" if heading == "command" else "right")

    def row(words: list[str], seconds: float, most: float) -> None:
        table.add_row(" ".join(words), f"{seconds:.2g}", f"{most:g}")

    for script in sorted(scripts):
        words = [script, "--help"]
        row(words, min(processor_seconds(installed(words)) for _ in range(rounds)), HELP_SECONDS)
    with tempfile.TemporaryDirectory() as folder:
        for found in sorted(ROOT.glob("examples/*/found.pt")):
            name = found.parent.name
            words = ["qnas-export", str(found.relative_to(ROOT)), "-o", f"{name}.onnx"]
            if name.endswith("w32"):  # full precision has no integer form
                words += ["--format", "onnx-float32"]
            command = [*installed(words)[:1], str(found), "-o", f"{folder}/{name}.onnx", *words[4:]]
            row(words, processor_seconds(command), EXPORT_SECONDS)
    row(["snapshot of the machine"], snapshot_seconds(), SNAPSHOT_SECONDS)
    Console(width=100).print(table)


def installed(words: list[str]) -> list[str]:
    """The command of this environment."""
    return [str(Path(sys.executable).with_name(words[0])), *words[1:]]


if __name__ == "__main__":
    main()
