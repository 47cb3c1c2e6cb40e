"""Kills every long command at random moments, and asks whether nothing is lost; `--docs` writes the table.

python benchmarks/kill.py --kills 50 --docs
python benchmarks/kill.py --command train --kills 200

A command is killed by SIGKILL, at a moment drawn evenly from the time that it takes, and called again: with
--resume where it has begun something. What it then ends with has to be what it ends with undisturbed, nothing
else may lie there, and no process that it started may live on. Kills that were made are not made again.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from qnas.export.model import build_float32
from qnas.images.files import write_png
from qnas.one_writer import HIDDEN
from qnas.testing import small_searches
from qnas.torch.checkpoint import load_found

ROOT = Path(__file__).resolve().parent.parent
TITLE = "## Kills"
TOKEN = "QNAS_KILL_STUDY"  # in the environment of all processes of one call
PATIENCE = 10.0  # seconds for the processes of a killed command to end
TIMES = ("seconds", "images_per_second")
# The state of a training is saved every minute; here so often that most kills have one to go on from.
PROGRAM = """
import functools, importlib, sys
from qnas.search.training import train
train.train = functools.partial(train.train, checkpoint_seconds=0.2)
importlib.import_module(sys.argv.pop(1)).main()
"""
ENDED, SAME = "ended before the kill", "same"
HEADINGS = ("kills", "same", "others", "before the end", "seconds undisturbed")


@dataclass(frozen=True)
class Command:
    """`line`: arguments, `{data}` and others stand for what the study makes. `begun`: what has to be resumed.

    `ends_with` reads what has to be equal from the folder in which the command ran; times are left out.
    """

    module: str
    line: str
    ends_with: Callable[[Path], Any]
    begun: str | None = None  # the file that is there from when on --resume goes on
    again: str = "--resume"


@dataclass(frozen=True)
class Kill:
    """One kill, `share` of the way, and what was wrong then."""

    command: str
    index: int
    share: float
    verdict: str


# What commands end with ------------------------------------------------------------------------------------


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(each) for key, each in value.items() if key not in TIMES}
    return [_timeless(each) for each in value] if isinstance(value, list) else value


def _json(path: Path) -> Any:
    return _timeless(json.loads(path.read_text()))


def _network(path: Path) -> tuple[Any, ...]:
    found = load_found(path)
    return found.architecture, dict(found.network.state_dict()), _timeless(dict(found.training))


def _search(folder: Path) -> list[Any]:
    run = folder / "run"
    read = (small_searches.state, small_searches.timeless, small_searches.result, small_searches.events)
    return [(run / "arch.json").read_bytes(), *(each(run) for each in read)]


def _sweep(folder: Path) -> list[Any]:
    members = sorted((folder / "sweep" / "members").iterdir())
    kept = [(each.name, _network(each / "found.pt"), _json(each / "trained.json")) for each in members]
    return [kept, (folder / "sweep" / "pareto.csv").read_bytes()]


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


_TINY = " ".join(small_searches.TINY)
COMMANDS = {
    "train": Command(
        "qnas.search.train_cli",
        "basic-adq-w48-example --data {data} -o found.pt --steps 60 --patch 8 --batch 2 --threads 1",
        lambda folder: _network(folder / "found.pt"), "found.pt.run",
    ),
    "search": Command(
        "qnas.search.run_cli", f"{_TINY} --data {{data}} -o run", _search, "run/search.json"
    ),
    "sweep": Command(
        "qnas.search.sweep_cli",
        "-o sweep --method search --method uniform-lsq --space {space} --bits 4 --data {data} "
        "--validate {data} --search-epochs 3 --epoch-steps 3 --search warm-up=1 --search patch=8 "
        "--search batch=2 --train-steps 20 --train patch=8 --train batch=2 --threads 1 --workers 2",
        _sweep, "sweep/sweep.json",
    ),
    "random": Command(
        "qnas.search.random_cli", "--space basic-small --max-bitops 2G --samples 200 -o drawn", _files,
        "drawn", "--force",
    ),
    "calibrate": Command(
        "qnas.calibration.cli", "{model} {data} -o c.json --html --patch 24 --count 64 --threads 1", _files,
        "c.json", "--force",
    ),
    "export": Command(
        "qnas.export.cli", "{model} --images {data} -o model.onnx --html", _files, "model.onnx", "--force"
    ),
}  # fmt: skip


# One kill --------------------------------------------------------------------------------------------------


def call(
    command: Command, inputs: dict[str, Path], folder: Path, token: str, *more: str
) -> subprocess.Popen[bytes]:
    """Start a command in `folder`."""
    line = [word.format(**inputs) for word in command.line.split()]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, command.module, *line, *more], cwd=folder, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, TOKEN: token},
    )  # fmt: skip


def finish(command: Command, inputs: dict[str, Path], folder: Path, *more: str) -> str:
    """Run a command to its end; what it said if that was bad."""
    process = call(command, inputs, folder, "", *more)
    _, said = process.communicate()
    return "" if process.returncode == 0 else said.decode(errors="replace").strip()[-300:]


def living(token: str) -> list[int]:
    """The processes of a call."""
    found, mark = [], f"{TOKEN}={token}".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:  # it has ended, or is another's
            continue
    return found


def orphans(token: str) -> bool:
    """Whether processes of a killed call live on; they are then ended."""
    end = time.monotonic() + PATIENCE
    while (left := living(token)) and time.monotonic() < end:
        time.sleep(0.05)
    for process in left:
        os.kill(process, signal.SIGKILL)
    return bool(left)


def leftovers(folder: Path) -> list[str]:
    """What a finished command must not leave."""
    paths = [path for path in folder.rglob("*") if path.name.startswith(HIDDEN) or path.suffix == ".run"]
    return [str(path.relative_to(folder)) for path in paths]


def killed(command: Command, inputs: dict[str, Path], folder: Path, after: float, expected: Any) -> str:
    """Kill a command after so many seconds, and call it again; the verdict."""
    token = f"{os.getpid()}-{time.monotonic_ns()}"
    process = call(command, inputs, folder, token)
    try:
        process.communicate(timeout=after)
        return ENDED
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
    if orphans(token):
        return "orphans"
    begun = command.begun is not None and (folder / command.begun).exists()
    more = [command.again] if begun or command.again == "--force" else []
    if command.module.endswith("train_cli") and (folder / "found.pt").exists():
        more.append("--force")  # killed between the last two steps: the output is complete
    if said := finish(command, inputs, folder, *more):
        return f"not finished: {said}"
    if left := leftovers(folder):
        return f"left {', '.join(left)}"
    return SAME if small_searches.same(command.ends_with(folder), expected) else "another result"


# The study -------------------------------------------------------------------------------------------------


def make_inputs(work: Path) -> dict[str, Path]:
    """Images, a float network, and a space."""
    inputs = {"data": work / "data", "model": work / "espcn.onnx", "space": work / "tiny.json"}
    inputs["data"].mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[:128, :144]
    for k in range(4):
        waves = [np.sin(x / (3 + k + c)) + np.cos(y / (5 - k + c)) for c in range(3)]
        image = np.round(127 + 60 * np.stack(waves, 2)).astype(np.uint8)
        write_png(inputs["data"] / f"{k}.png", image, force=True)
    found = load_found(ROOT / "examples" / "espcn-w32" / "found.pt")
    inputs["model"].write_bytes(build_float32(found).SerializeToString())
    inputs["space"].write_text(json.dumps({
        "network": "basic", "channels": 6, "blocks": 1, "scale": 2, "normalization": "adq",
        "identical_blocks": True, "bits": [4, 8], "operations": {"*": ["simple_1x1", "simple_3x3"]},
    }))  # fmt: skip
    return inputs


def table(kills: list[Kill], seconds: dict[str, float]) -> list[tuple[str, ...]]:
    """A row for each command, as in `HEADINGS`."""
    rows = []
    for name in seconds:
        verdicts = Counter(kill.verdict for kill in kills if kill.command == name)
        before, same = verdicts.total() - verdicts[ENDED], verdicts[SAME]
        counts = (verdicts.total(), same, before - same, before)
        rows.append((f"`{name}`", *map(str, counts), f"{seconds[name]:.1f}"))
    return rows


SECTION = """
## Kills

Every long command is killed by SIGKILL at random moments and called again, with `--resume` where something
was begun. It counts as the same when the result is that of an undisturbed call, byte for byte or, where times
are recorded, value for value; when no temporary file, lock or state is left; and when no process of the
killed call lives on. Made by

    python benchmarks/kill.py --docs

| command | {headings} |
|---|{rule}
{rows}
"""


def document(rows: list[tuple[str, ...]], old: str) -> str:
    """docs/fuzzing.md with this section, its last."""
    lines = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    section = SECTION.format(headings=" | ".join(HEADINGS), rule="---:|" * len(HEADINGS), rows=lines)
    return old.partition(TITLE)[0].rstrip("\n") + "\n" + section


@click.command()
@click.option("--command", "names", multiple=True, type=click.Choice(list(COMMANDS)), help="Only these.")
@click.option("--kills", default=50, show_default=True, help="Of each command.")
@click.option("--seed", default=0, show_default=True)
@click.option("--minutes", type=float, help="Begin no kill after that.")
@click.option("--work", type=click.Path(path_type=Path), help="Folder of the study, with kills.json.")
@click.option("--docs", is_flag=True, help="Write docs/fuzzing.md.")
def main(
    names: tuple[str, ...], kills: int, seed: int, minutes: float | None, work: Path | None, docs: bool
) -> None:
    """Exit 1 when a kill loses something."""
    begun = time.monotonic()
    work = (work or Path(tempfile.gettempdir()) / "qnas-kill").absolute()
    inputs, record = make_inputs(work), work / "kills.json"
    done = [Kill(**each) for each in json.loads(record.read_text())] if record.exists() else []
    known = {(kill.command, kill.index) for kill in done}
    seconds: dict[str, float] = {}
    expected: dict[str, Any] = {}
    for name in names or COMMANDS:
        folder, start = fresh(work / "undisturbed" / name), time.monotonic()
        if said := finish(COMMANDS[name], inputs, folder):
            raise click.ClickException(f"{name} fails undisturbed: {said}")
        seconds[name], expected[name] = time.monotonic() - start, COMMANDS[name].ends_with(folder)
    for index in range(kills):
        for name in names or COMMANDS:
            if (name, index) in known or (minutes and time.monotonic() - begun > 60 * minutes):
                continue
            share = Random(f"{name} {seed} {index}").random()
            folder = fresh(work / "killed" / name)
            verdict = killed(COMMANDS[name], inputs, folder, share * seconds[name], expected[name])
            done.append(Kill(name, index, share, verdict))
            record.write_text(json.dumps([asdict(kill) for kill in done], indent=1))
            if verdict not in (SAME, ENDED):
                click.echo(f"{name} {index}, {share:.0%} of the way: {verdict}", err=True)
    rows = table(done, seconds)
    shown = Table("command", *HEADINGS)
    for row in rows:
        shown.add_row(*row)
    Console().print(shown)
    if docs:
        path = ROOT / "docs" / "fuzzing.md"
        path.write_text(document(rows, path.read_text()))
    sys.exit(any(kill.verdict not in (SAME, ENDED) for kill in done))


def fresh(folder: Path) -> Path:
    """`folder`, empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


if __name__ == "__main__":
    main()
