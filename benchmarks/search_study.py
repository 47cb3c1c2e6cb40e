"""Does the search find good networks? Small searches and trainings; writes docs/search-study.md.

python benchmarks/search_study.py --work FOLDER --data ../shared/data [--jobs 2] [--part random] [--scale 0.1]

Every job is one command line of qnas, on one thread, and leaves its files in FOLDER; a second call does what
is missing, so it can be stopped at any time. The page shows what is there.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import click

from qnas.cost.network_cost import network_cost
from qnas.network.architecture import Architecture, Choice, Normalization, from_json
from qnas.network.lowering import lower
from qnas.search.space.search_space import SearchSpace, find_space
from qnas.torch.checkpoint import load_found

PAGE = Path(__file__).resolve().parent.parent / "docs" / "search-study.md"
MARKS = ("<!-- study: begin -->", "<!-- study: end -->")
SEEDS = (0, 1, 2)
MIXING_SEEDS = tuple(range(6))  # three did not decide it
SPACE, CHANNELS, BLOCKS, IMAGE = "basic-small", 18, 3, 32
FRAME = f"--space {SPACE} --channels {CHANNELS} --blocks {BLOCKS}"
PARTS = ("entropy", "normalization", "random", "mixing", "bits")
FOUND = ("4,8", "1e-2")  # the bits and the penalty of the search that others are compared with
BITS = (FOUND, ("4", "1e-2"), ("8", "1e-2"))
MIXINGS = ("exact", "merged")
RANDOM = 8


@dataclass(frozen=True)
class Job:
    """One command line: it leaves `made` and reads `reads`, another job's."""

    made: Path
    arguments: Callable[[], Sequence[str]]
    reads: Path | None = None


@dataclass(frozen=True)
class Study:
    """Where jobs work, and which share of the full steps they take."""

    work: Path
    data: Path
    scale: float

    def _steps(self, full: int) -> str:
        return str(max(2, round(full * self.scale)))

    def folder(self, name: str, seed: int) -> Path:
        """Of one search, or of random networks."""
        return self.work / f"{name}-s{seed}"

    def _command(self, words: str, *others: object) -> tuple[str, ...]:
        """The words, then whatever may hold spaces, and what all commands have."""
        images = (part for name in ("T91", "BSDS200") for part in ("--data", self.data / name))
        common = ("--batch", "8", "--patch", "24", "--threads", "1", "--force")
        return (*words.split(), *common, *map(str, images), *map(str, others))

    def search(self, name: str, seed: int, *options: str, bits: str = FOUND[0]) -> Job:
        """A search in the folder `name`."""
        folder = self.folder(name, seed)
        words = (
            f"qnas-search run {FRAME} --bits {bits} --seed {seed} --epochs 20 --warm-up 4 "
            f"--epoch-steps {self._steps(40)} --optimizer adam --entropy 1e-2"
        )
        return Job(folder / "arch.json", lambda: self._command(words, *options, "-o", folder))

    def training(self, architecture: Path, seed: int) -> Job:
        """An architecture trained from scratch, beside its file."""
        found = architecture.with_name(f"{architecture.stem}-s{seed}.pt")
        words = f"qnas-train --lr 2e-3 --steps {self._steps(3000)} --seed {seed}"
        validation = self.data / "Set14"
        return Job(
            found,
            lambda: self._command(words, "--validate", validation, "-o", found, architecture),
            reads=architecture,
        )

    def searched(self, bits: str, penalty: str, seed: int, mixing: str = "exact") -> Iterator[Job]:
        """A search and the training of what it found."""
        name = name_of(bits, penalty, mixing)
        job = self.search(name, seed, "--penalty", penalty, "--mixing", mixing, bits=bits)
        yield job
        yield self.training(job.made, seed)

    def drawn(self, name: str, seed: int, found: Path) -> Iterator[Job]:
        """Random architectures of at most the BitOps of `found` and at least 90 % of them, all trained."""
        folder = self.folder(name, seed)

        def arguments() -> tuple[str, ...]:
            most = bitops(found)
            words = (
                f"qnas-search random {FRAME} --bits 4,8 --samples {RANDOM} --max-bitops {most} "
                f"--min-bitops {most * 9 // 10} --seed {seed} --force -o"
            )
            return (*words.split(), str(folder))

        paths = [folder / str(index) / "arch.json" for index in range(RANDOM)]
        yield Job(paths[-1], arguments, reads=found)
        yield from (self.training(path, seed) for path in paths)


def name_of(bits: str, penalty: str, mixing: str = "exact") -> str:
    """The folder of a search, without its seed."""
    return f"found-{bits}-{penalty}" + ("" if mixing == "exact" else f"-{mixing}")


def space() -> SearchSpace:
    """That of all parts."""
    return replace(find_space(SPACE), channels=CHANNELS, blocks=BLOCKS)


def bitops(architecture: Path) -> int:
    """Of the architecture in a file."""
    found = from_json(architecture.read_text(encoding="utf-8"), str(architecture))
    return network_cost(lower(found), IMAGE, IMAGE).bitops


def fixed_architecture(normalization: Normalization) -> Architecture:
    """3x3 everywhere, 4 bits in the body, 8 outside: what normalizations are compared on."""
    layers = {slot: Choice("simple_3x3", 4 if slot.startswith("body") else 8) for slot in space().slots}
    return replace(space().frame(layers), normalization=normalization)


def jobs(study: Study, part: str) -> Iterator[Job]:
    """All jobs of a part, each after those whose files it reads."""
    if part == "entropy":
        weights = {"on": "5e-2", "off": "0"}
        yield from (
            study.search(f"entropy-{name}", 0, "--alpha-lr", "0.1", "--entropy", weight)
            for name, weight in weights.items()
        )
        return
    for seed in MIXING_SEEDS if part == "mixing" else SEEDS:
        if part == "normalization":
            for kind in get_args(Normalization):
                path = study.work / f"norm-{kind}.json"
                path.write_text(fixed_architecture(kind).to_json(), encoding="utf-8")
                yield study.training(path, seed)
        elif part == "random":
            yield from study.searched(*FOUND, seed)
            yield from study.drawn("random", seed, study.folder(name_of(*FOUND), seed) / "arch.json")
        elif part == "mixing":
            for mixing in MIXINGS:
                yield from study.searched(*FOUND, seed, mixing)
        elif part == "bits":
            for bits, penalty in BITS:
                yield from study.searched(bits, penalty, seed)


def run_jobs(work: Path, wanted: Sequence[Job], workers: int) -> None:
    """Run what is missing, `workers` at a time; a job waits for the file that it reads."""
    left = list({job.made: job for job in wanted if not job.made.exists()}.values())
    running: dict[Future[int], Job] = {}
    with ThreadPoolExecutor(workers) as pool:
        while left or running:
            ready = [job for job in left if job.reads is None or job.reads.exists()]
            for job in ready[: workers - len(running)]:
                left.remove(job)
                running[pool.submit(run_job, work, job)] = job
            if not running:
                raise SystemExit(f"nothing makes {left[0].reads}, which {left[0].made} needs")
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                job = running.pop(future)
                if future.result():
                    raise SystemExit(f"{job.made} was not made: see {log_of(work, job)}")
                click.echo(
                    f"{time.strftime('%H:%M:%S')} {job.made}, {len(left) + len(running)} left", err=True
                )


def log_of(work: Path, job: Job) -> Path:
    """Where a job's own output goes."""
    return work / "logs" / f"{'-'.join(job.made.relative_to(work).parts)}.txt"


def run_job(work: Path, job: Job) -> int:
    """Its exit code."""
    log = log_of(work, job)
    log.parent.mkdir(exist_ok=True)
    command = [str(Path(sys.executable).with_name(job.arguments()[0])), *job.arguments()[1:]]
    with log.open("w", encoding="utf-8") as stream:
        stream.write(json.dumps(command) + "\n")
        stream.flush()
        return subprocess.run(command, stdout=stream, stderr=stream, check=False).returncode


def psnr(found: Path) -> float | None:
    """PSNR-Y on Set14 of a trained network, None before it is there."""
    return load_found(found).training["validation"]["psnr_y"] if found.exists() else None


def spread(values: Sequence[float | None]) -> str:
    """Mean over seeds, and each."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    return f"{statistics.mean(known):.3f} ({', '.join(f'{value:.3f}' for value in known)})"


def normalizations(study: Study) -> Iterator[str]:
    """PSNR-Y of one architecture with each."""
    yield from ("| normalization | PSNR-Y, mean (seeds) |", "|---|---|")
    for kind in get_args(Normalization):
        found = [psnr(study.work / f"norm-{kind}-s{seed}.pt") for seed in SEEDS]
        if any(found):
            yield f"| {kind} | {spread(found)} |"


def certainties(study: Study) -> Iterator[str]:
    """The largest alpha of each layer with and without the entropy."""
    yield from ("| entropy | smallest over layers | mean | over 0.9 |", "|---|---|---|---|")
    for name in ("entropy-on", "entropy-off"):
        path = study.work / f"{name}-s0" / "result.json"
        if path.exists():
            own = list(json.loads(path.read_text(encoding="utf-8"))["certainty"].values())
            over = f"{sum(value > 0.9 for value in own)} of {len(own)}"
            yield f"| {name[8:]} | {min(own):.3f} | {statistics.mean(own):.3f} | {over} |"


def against_random(study: Study) -> Iterator[str]:
    """The found network and the random ones of each seed."""
    yield from (
        "| seed | MBitOps of the found | its PSNR-Y | best of 8 random | their mean | better than |",
        "|---|---|---|---|---|---|",
    )
    for seed in SEEDS:
        folder = study.folder("random", seed)
        found = study.folder(name_of(*FOUND), seed)
        own = psnr(found / f"arch-s{seed}.pt")
        values = [psnr(folder / str(index) / f"arch-s{seed}.pt") for index in range(RANDOM)]
        known = [value for value in values if value is not None]
        if own is not None and known:
            cost = bitops(found / "arch.json") / 1e6
            yield (
                f"| {seed} | {cost:.0f} | {own:.3f} | {max(known):.3f} | {statistics.mean(known):.3f} | "
                f"{sum(own >= value for value in known)} of {len(known)} |"
            )


def searches(study: Study, names: Sequence[tuple[str, str]], seeds: Sequence[int] = SEEDS) -> Iterator[str]:
    """Rows (label, folder) of found networks."""
    yield from ("| search | MBitOps, mean (seeds) | PSNR-Y, mean (seeds) |", "|---|---|---|")
    for label, name in names:
        folders = [study.folder(name, seed) for seed in seeds]
        costs = [bitops(f / "arch.json") / 1e6 for f in folders if (f / "arch.json").exists()]
        found = [psnr(folder / f"arch-s{seed}.pt") for folder, seed in zip(folders, seeds, strict=True)]
        if costs:
            shown = ", ".join(f"{cost:.0f}" for cost in costs)
            yield f"| {label} | {statistics.mean(costs):.0f} ({shown}) | {spread(found)} |"


def page(study: Study) -> str:
    """The whole of docs/search-study.md between its marks."""
    bits = [(f"{bits} bits, penalty {penalty}", name_of(bits, penalty)) for bits, penalty in BITS]
    mixings = [(mixing, name_of(*FOUND, mixing)) for mixing in MIXINGS]
    parts = (
        ("With and without entropy", certainties(study)),
        ("Normalization", normalizations(study)),
        ("Found against random", against_random(study)),
        ("Mixing", searches(study, mixings, MIXING_SEEDS)),
        ("4 and 8 bits together and alone", searches(study, bits)),
    )
    tables = [(title, list(rows)) for title, rows in parts]
    known = [(title, rows) for title, rows in tables if len(rows) > 2]  # more than the heading
    return "\n".join(line for title, rows in known for line in ("", f"### {title}", "", *rows)) + "\n"


@click.command()
@click.option("--work", type=click.Path(path_type=Path), required=True)
@click.option("--data", type=click.Path(path_type=Path), required=True)
@click.option("--jobs", "workers", default=2, show_default=True)
@click.option("--part", "parts", multiple=True, type=click.Choice(PARTS), help="All if none is named.")
@click.option("--scale", default=1.0, show_default=True, help="Share of the steps of the full study.")
def main(work: Path, data: Path, workers: int, parts: tuple[str, ...], scale: float) -> None:
    """Run what is missing of the study."""
    work.mkdir(parents=True, exist_ok=True)
    study = Study(work.resolve(), data.resolve(), scale)
    run_jobs(study.work, [job for part in parts or PARTS for job in jobs(study, part)], workers)
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    PAGE.write_text(f"{before}{MARKS[0]}\n{page(study)}{MARKS[1]}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
