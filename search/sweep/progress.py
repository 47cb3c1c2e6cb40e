"""How far the members are, read from their folders: wherever they run, what they write tells."""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.table import Table
from rich.text import Text

from qnas.documents.reading import Count, Document
from qnas.errors import UsageError
from qnas.search.runs.random_search import giga
from qnas.search.runs.result import RESULT_FILE, WRITE_AGAIN
from qnas.search.runs.run_folder import LOG, RESULT
from qnas.search.sweep.stages import FAILED, FULL_PRECISION, TRAINED, TRAINED_FILE, Job

State = Literal["waiting", "searching", "training", "trained", "failed"]
COLOURS: dict[State, str] = {
    "waiting": "dim", "searching": "cyan", "training": "blue", "trained": "green", "failed": "red",
}  # fmt: skip
SHOWN: tuple[State, ...] = ("searching", "training", "failed", "trained")  # the order of the table
TAIL = 1 << 14  # bytes
CLOCKS_DIFFER = 1.0  # seconds, of a file system and this machine
STEP = re.compile(r"step (\d+)/(\d+)")


@dataclass(frozen=True)
class Status:
    """`detail`: epoch, step, quality or error."""

    name: str
    state: State
    detail: str = ""
    bitops: float | None = None
    psnr: float | None = None


@dataclass(frozen=True)
class _Moment:
    epoch: Count
    step: Count


_MOMENT = Document(_Moment, "record of a search", WRITE_AGAIN)


def status(job: Job, since: float) -> Status:
    """The state of one member, in a sweep that was called at the time `since`."""
    folder, name = job.folder, job.member.name
    if trained := TRAINED_FILE.read_sound(folder / TRAINED):
        return Status(name, "trained", "", trained.bitops, trained.psnr_y)
    if (folder / FAILED).exists():
        return Status(name, "failed", tail(folder / FAILED).strip())
    result = RESULT_FILE.read_sound(folder / RESULT)
    bitops = None if result is None else result.bitops
    if not job.log.exists() or job.log.stat().st_mtime < since - CLOCKS_DIFFER:
        return Status(name, "waiting", "found" if bitops else "", bitops)
    if bitops:
        steps = STEP.findall(tail(job.log))
        return Status(name, "training", "step {}/{}".format(*steps[-1]) if steps else "", bitops)
    first = _epoch(folder / FULL_PRECISION / LOG)
    return Status(name, "searching", _epoch(folder / LOG) or (first and f"full precision, {first}"))


def table(statuses: Sequence[Status]) -> Table:
    """Those that run first; of those that wait, their number."""
    counts = Counter(each.state for each in statuses)
    caption = ", ".join(f"{counts[state]} {state}" for state in COLOURS if counts[state])
    shown = Table(caption=caption, caption_justify="left", box=None, pad_edge=False)
    for heading, right in (("member", 0), ("", 0), ("PSNR-Y", 1), ("BitOps", 1), ("", 0)):
        shown.add_column(heading, justify="right" if right else "left", no_wrap=True)
    for each in sorted((s for s in statuses if s.state in SHOWN), key=lambda s: SHOWN.index(s.state)):
        psnr = "" if each.psnr is None else f"{each.psnr:.3f}"
        bitops = "" if each.bitops is None else giga(each.bitops)
        words = (each.name, Text(each.state, COLOURS[each.state]), psnr, bitops, each.detail)
        shown.add_row(*words)
    return shown


def news(before: Mapping[str, Status], after: Sequence[Status]) -> list[str]:
    """A line for every member whose state has changed."""
    changed = [each for each in after if each.state != before[each.name].state]
    return [f"{each.name}: {line(each)}" for each in changed]


def line(each: Status) -> str:
    """The state in words."""
    if each.state == "trained" and each.psnr is not None and each.bitops is not None:
        return f"trained, PSNR-Y {each.psnr:.3f} dB, {giga(each.bitops)} BitOps"
    return f"{each.state}{f': {each.detail}' if each.state == 'failed' else ''}"


def tail(path: Path) -> str:
    """The end of a text file, empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _epoch(log: Path) -> str:
    """The share done by the last record of a search's log."""
    for text in reversed(tail(log).splitlines()):
        with suppress(UsageError):  # half a line, or none of ours
            record = _MOMENT.parse(text, str(log))
            return f"epoch {record.epoch + 1}, step {record.step}"
    return ""
