"""Damaged files of every kind that qnas reads; with `--docs` the counts go into docs/fuzzing.md.

python benchmarks/fuzz.py --files 20000 --docs
python benchmarks/fuzz.py --reader onnx --seed 3
python benchmarks/fuzz.py --reader onnx --show 17     (reads one file again, in this process)
"""

import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import click
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from qnas.testing import fuzzing
from qnas.testing.fuzz_readers import READERS

ROOT = Path(__file__).resolve().parent.parent
KILLS = "\n## Kills"
HEADINGS = ("files", "read", "refused", "failed", "slowest (CPU)")

HEAD = """# Fuzzing

Damaged files of every kind that qnas reads: never a crash, a hang, an allocation bomb or an execution,
always an error of ours or a file that is read. Made by

    python benchmarks/fuzz.py --files {files} --seed {seed} --docs

| reader | {headings} |
|---|{rule}
"""
TAIL = """
A file counts as read when what was read was used too: the integer network of a `found.pt`, of an ONNX file
and of a calibration computes an image, a TFLite model runs in LiteRT, a training and a search make another
step, the members of a sweep are checked, the results of a bench become a page. It counts as failed when

- the process ends (every reader works in a process of its own, which is replaced);
- it takes more than {cpu:g} s of CPU time, in native code too, or {wall} s of any; images and float networks,
  which may be large, have {most:g} s;
- it asks for more than {memory} GiB of address space, or holds more than 1 GiB; float networks, which run on
  images of the size that they are for, hold less than 3 GiB;
- a model reads a file that lies above it, or behind a link;
- something else comes out than an error of ours (one printable line of at most {longest} characters), such as
  a warning;
- a planted command is run: pickles that call `os.system`, `exec`, `eval` and others in six ways, Python in
  `.gen` files.

Valid files are small networks of both search spaces (deviations, Lloyd levels, float), their exports for
three targets, a model of onnxruntime's `quantize_static`, checkpoints of the paper's released code, float
networks as PyTorch exports them, models whose weights lie in other files, states and documents of small
runs, and images as Pillow writes them. Documents with a digest are damaged with it and without. Seven in
ten files have only damage that their format survives: fields of protobuf messages and flatbuffer tables
changed through their schema, lengths and offsets that point elsewhere, places of weights, chunks, segments
and tags of images, archives whose sums are right around changed pickles, tensors of other kinds, other
numbers in documents. The rest has flipped bits, overwritten, removed, inserted, exchanged and spliced
pieces as well. Reader, seed and number give a file again:

    python benchmarks/fuzz.py --reader onnx --seed {seed} --show 17

Files that fail are kept in a folder that the command names. A short run of the same is part of the tests
(`tests/house/test_fuzz.py`), with a test for each fault that was found, also in `test_fuzz_states.py`.
"""


@dataclass
class Tally:
    """What came of the files of one reader."""

    reader: str
    verdicts: Counter[str] = field(default_factory=Counter)
    slowest: fuzzing.Outcome | None = None
    failures: list[fuzzing.Outcome] = field(default_factory=list)

    def add(self, outcome: fuzzing.Outcome) -> None:
        self.verdicts[outcome.verdict] += 1
        if self.slowest is None or outcome.seconds > self.slowest.seconds:
            self.slowest = outcome
        if outcome.failed:
            self.failures.append(outcome)

    def cells(self) -> tuple[str, ...]:
        """As in `HEADINGS`."""
        read, refused = self.verdicts["read"], self.verdicts["refused"]
        slowest = "" if self.slowest is None else f"{self.slowest.seconds * 1e3:.0f} ms"
        counts = (self.verdicts.total(), read, refused, len(self.failures))
        return (*(f"{count:,}".replace(",", " ") for count in counts), slowest)


def run_reader(tally: Tally, seed: int, files: int, progress: Progress, keep: Path) -> None:
    """Fill `tally`; files that fail go to `keep`."""
    task = progress.add_task(tally.reader, total=files)
    for outcome in fuzzing.fuzz(tally.reader, seed, files):
        tally.add(outcome)
        progress.advance(task)
        if outcome.failed:
            keep.mkdir(parents=True, exist_ok=True)
            path = keep / f"{tally.reader}-{seed}-{outcome.index}{READERS[tally.reader].suffix}"
            path.write_bytes(fuzzing.damaged_file(tally.reader, seed, outcome.index))
            last = (outcome.said.strip().splitlines() or [""])[-1]
            progress.console.print(f"{outcome.verdict}: {path} {last}", markup=False)


def document(tallies: Iterable[Tally], seed: int, files: int, old: str) -> str:
    """docs/fuzzing.md; readers that had no turn keep their rows of an `old` one that this command made."""
    rule = "---:|" * len(HEADINGS)
    head = HEAD.format(files=files, seed=seed, headings=" | ".join(HEADINGS), rule=rule)
    rows = {line.split(" | ")[0]: f"{line}\n" for line in old.splitlines()} if old.startswith(head) else {}
    rows |= {first(t.reader): f"{first(t.reader)} | {' | '.join(t.cells())} |\n" for t in tallies}
    limits = {reader.seconds for reader in READERS.values()}
    tail = TAIL.format(
        seed=seed, cpu=min(limits), most=max(limits), wall=fuzzing.WALL_SECONDS, memory=fuzzing.MEMORY >> 30,
        longest=fuzzing.LONGEST,
    )  # fmt: skip
    kills = old[old.find(KILLS) :] if KILLS in old else ""  # of benchmarks/kill.py
    return head + "".join(rows.get(first(reader), "") for reader in READERS) + tail + kills


def first(reader: str) -> str:
    """The first cell of its row."""
    return f"| {READERS[reader].title}"


def show(reader: str, seed: int, index: int, keep: Path) -> None:
    """Write file `index` and read it here, where a debugger can look."""
    keep.mkdir(parents=True, exist_ok=True)
    path = keep / f"{reader}-{seed}-{index}{READERS[reader].suffix}"
    path.write_bytes(fuzzing.damaged_file(reader, seed, index))
    click.echo(f"{path}: {path.stat().st_size} bytes")
    outcome = fuzzing.read_one(reader, index, path)
    click.echo(f"{outcome.verdict} in {outcome.seconds:.3f} s\n{outcome.said}")


@click.command()
@click.option("--files", default=20_000, show_default=True, help="Files for each reader.")
@click.option("--reader", "readers", multiple=True, type=click.Choice(list(READERS)), help="Only these.")
@click.option("--seed", default=0, show_default=True)
@click.option("--show", "index", type=int, help="Read only this file, in this process.")
@click.option("--docs", is_flag=True, help="Write docs/fuzzing.md.")
@click.option("--keep", type=click.Path(path_type=Path), help="Folder for files that fail.")
def main(
    files: int, readers: tuple[str, ...], seed: int, index: int | None, docs: bool, keep: Path | None
) -> None:
    """Exit 1 when any file fails."""
    torch.set_num_threads(1)
    keep = keep or Path(tempfile.gettempdir()) / "qnas-fuzz"
    if index is not None:
        for reader in readers:
            show(reader, seed, index, keep)
        return
    columns = (TextColumn("{task.description:12}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    tallies = [Tally(reader) for reader in readers or READERS]
    interrupted = False
    try:
        with Progress(*columns, console=Console(stderr=True)) as progress:
            for tally in tallies:
                run_reader(tally, seed, files, progress, keep)
    except KeyboardInterrupt:
        interrupted = True
    table = Table("reader", *HEADINGS)
    for tally in tallies:
        table.add_row(tally.reader, *tally.cells())
    Console().print(table)
    if docs and not interrupted:
        path = ROOT / "docs" / "fuzzing.md"
        path.write_text(document(tallies, seed, files, path.read_text() if path.exists() else ""))
    sys.exit(130 if interrupted else any(tally.failures for tally in tallies))


if __name__ == "__main__":
    main()
