"""What one member does, on this machine or another: find an architecture, train it, tell its quality.

A stage is a process of its own with a command line that a person could type. What a stage has finished lies
in the member's folder and is not done again; what it began it resumes from its own checkpoint.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, assert_never

from qnas.documents.reading import Count, Document, Number
from qnas.errors import QnasError, UsageError
from qnas.files import write_file
from qnas.network.architecture import Architecture, find_architecture
from qnas.one_writer import locked, remove_leftovers
from qnas.quantization.quantizers import FLOAT_BITS
from qnas.search.runs.pareto import Entry
from qnas.search.runs.result import WRITE_AGAIN, image_cost, make_folder, write_json, write_result
from qnas.search.runs.run_folder import ARCHITECTURE, PLAN, RESULT
from qnas.search.sweep.lines import random_architecture, search_line, train_line, uniform_architecture
from qnas.search.sweep.member import Member
from qnas.search.sweep.options import Command, module

FOUND, TRAINED, FAILED = "found.pt", "trained.json", "failed.txt"
FULL_PRECISION = "full-precision"  # the folder of the first search of a two-fold one
WARM = "warm.pt"
STOP = "stop"  # in the sweep's folder: members save and end
LOGS = "logs"
POLL_SECONDS = 0.5
GRACE_SECONDS = 120.0  # for a process to save its state


@dataclass(frozen=True)
class Trained:
    """trained.json, as far as it is read: PSNR-Y in dB on the validation images, costs for one image."""

    psnr_y: Number
    ssim: Number | None = None
    macs: Count | None = None
    bitops: Count | None = None


TRAINED_FILE = Document(Trained, "record of a search", WRITE_AGAIN)


@dataclass(frozen=True)
class Job:
    """A member to work on in the sweep's folder, with so many threads."""

    member: Member
    sweep: Path
    threads: int

    @property
    def folder(self) -> Path:
        """The member's own."""
        return self.sweep / "members" / self.member.name

    @property
    def log(self) -> Path:
        """What its processes print."""
        return self.sweep / LOGS / f"{self.member.name}.txt"


@dataclass(frozen=True)
class Outcome:
    """How a job ended; `text` says why it failed."""

    name: str
    state: Literal["trained", "failed", "stopped"]
    text: str = ""


def entry_of(member: Member) -> Entry:
    """Its row of the front before it has run."""
    return Entry(
        member.name, member.method, Path(member.space).stem, member.bits, member.penalty, member.seed
    )


class Stopped(Exception):
    """The sweep is to stop."""


class StageError(Exception):
    """A process ended badly; its last words."""


def run_member(job: Job) -> Outcome:
    """All that is missing of the member. Never raises for what goes wrong in it."""
    name = job.member.name
    try:
        if (job.sweep / STOP).exists():
            return Outcome(name, "stopped")
        make_folder(job.folder)
        make_folder(job.log.parent)
        with _alone(job) as output:
            remove_leftovers(job.folder)
            (job.folder / FAILED).unlink(missing_ok=True)
            _run(job, output)
    except Stopped:
        return Outcome(name, "stopped")
    except (QnasError, StageError, OSError) as error:
        text = " ".join(str(error).split())
        with suppress(QnasError):  # a full disk, maybe: it is told all the same
            write_file(job.folder / FAILED, text + "\n", force=True)
        return Outcome(name, "failed", text)
    return Outcome(name, "trained")


def _run(job: Job, output: BinaryIO) -> None:
    if (job.folder / TRAINED).exists():
        return
    if not (job.folder / RESULT).exists():
        _find(job, output)
    architecture = find_architecture(str(job.folder / ARCHITECTURE))
    if not (job.folder / FOUND).exists():
        _train(job, architecture, output)
    for state in job.folder.glob("*.pt.run"):  # of a process that was killed when its output was complete
        state.unlink()
    _tell(job, architecture)


def _find(job: Job, output: BinaryIO) -> None:
    """Write arch.json and result.json."""
    member, folder = job.member, job.folder
    match member.method:
        case "search" | "edmips" | "full-precision":
            _search(job, folder, output, bits=member.bits)
        case "two-fold":
            first = folder / FULL_PRECISION
            if not (first / RESULT).exists():
                _search(job, first, output, bits=(FLOAT_BITS,))
            _search(job, folder, output, bits=member.bits, operations=str(first / ARCHITECTURE))
        case "random":
            _write(member, random_architecture(member), folder)
        case "uniform-lsq" | "uniform-hwgq":
            _write(member, uniform_architecture(member), folder)
        case _:
            assert_never(member.method)


def _write(member: Member, architecture: Architecture, folder: Path) -> None:
    space = Path(member.space).stem
    write_result(folder, architecture, space_name=space, method=member.method, image=member.image)


def _search(job: Job, folder: Path, output: BinaryIO, *, bits: tuple[int, ...], **more: str) -> None:
    line = search_line(job.member, folder, bits=bits, **more)
    _process(job, "run", [*line, *(["--resume"] if (folder / PLAN).exists() else [])], output)


def _train(job: Job, architecture: Architecture, output: BinaryIO) -> None:
    source, warm = job.folder / ARCHITECTURE, job.folder / WARM
    more: dict[str, str | int] = {}
    if job.member.warm_start and architecture.quantized:
        if not warm.exists():
            _trained(job, train_line(job.member, source, warm, bits=FLOAT_BITS), warm, output)
        more["warm-start"] = str(warm)
    found = job.folder / FOUND
    _trained(job, train_line(job.member, source, found, **more), found, output)


def _trained(job: Job, line: list[str], found: Path, output: BinaryIO) -> None:
    begun = found.with_name(found.name + ".run").exists()
    _process(job, "train", [*line, *(["--resume"] if begun else [])], output)


def _tell(job: Job, architecture: Architecture) -> None:
    """Write trained.json. Raises CheckpointError."""
    from qnas.torch.checkpoint import load_found

    record = load_found(job.folder / FOUND).training
    quality, cost = record["validation"], image_cost(architecture, job.member.image)
    write_json(
        job.folder / TRAINED,
        {
            "psnr_y": quality["psnr_y"],
            "ssim": quality["ssim"],
            "validation": quality["folder"],
            "macs": cost.macs,
            "bitops": cost.bitops,
            "seconds": record["seconds"],
            "seed": job.member.seed,
        },
    )


# Processes --------------------------------------------------------------------------------------------------


@contextmanager
def _alone(job: Job) -> Iterator[BinaryIO]:
    """The member's log, locked: processes that write to it keep the lock even when the sweep is killed."""
    with job.log.open("ab") as output:
        if locked(output) is False:
            raise UsageError(
                f"another process works on {job.member.name}, of another sweep or left over by a killed one: "
                "wait for it or stop it, then --resume"
            )
        os.utime(job.log)  # begun in this call, even where nothing is printed
        yield output


def _process(job: Job, command: Command, line: list[str], output: BinaryIO) -> None:
    """Run one command to its end. Raises Stopped, StageError."""
    if (job.sweep / STOP).exists():
        raise Stopped
    begin = output.seek(0, os.SEEK_END)
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", module(command), *line, f"--threads={job.threads}"],
        stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        env={**os.environ, "OMP_NUM_THREADS": str(job.threads)},
        start_new_session=True,  # Ctrl-C is for the sweep, which passes it on once
    )  # fmt: skip
    try:
        code, stopping = _ended(process, job.sweep / STOP)
    finally:
        _end(process)
    if code and stopping:
        raise Stopped
    if code:
        raise StageError(_last_words(job.log, begin, code))


def _ended(process: subprocess.Popen[bytes], stop: Path) -> tuple[int, bool]:
    """(exit code, whether it was asked to stop)."""
    stopping = False
    while True:
        try:
            return process.wait(POLL_SECONDS), stopping
        except subprocess.TimeoutExpired:
            if stop.exists():
                stopping = True
                _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let it save its state; kill it when that takes too long."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _last_words(log: Path, begin: int, code: int) -> str:
    """The last error line of a process, or how it ended."""
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        return f"killed by {name}: see {log}" + (" (out of memory?)" if name == "SIGKILL" else "")
    with log.open("rb") as file:
        file.seek(begin)
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors or lines or [f"exit code {code} without a word"])[-1]
