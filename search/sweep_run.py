"""A sweep from its plan, or its folder, to the Pareto front."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.live import Live

from qnas.errors import UsageError
from qnas.images.inputs import check_unchanged, digests
from qnas.one_writer import one_writer
from qnas.search.runs.pareto import Entry, ordered, write_pareto
from qnas.search.runs.random_search import giga
from qnas.search.runs.result import make_folder, write_json
from qnas.search.stopping import stop_requests
from qnas.search.sweep.lines import check, inputs_of
from qnas.search.sweep.member import Member, SweepRecord, read_record
from qnas.search.sweep.members import members
from qnas.search.sweep.plan import SweepPlan
from qnas.search.sweep.pools import connected, cores, local_outcomes, ray_outcomes
from qnas.search.sweep.progress import Status, news, status, table
from qnas.search.sweep.stages import STOP, TRAINED, TRAINED_FILE, Job, Outcome, entry_of
from qnas.terminal import Terminal, stderr, stdout

RECORD = "sweep.json"


@dataclass(frozen=True)
class Resources:
    """`threads` 0: the cores divided among the workers; `ray`: the address of a cluster, or "local"."""

    workers: int = 1
    threads: int = 0
    ray: str | None = None


def run_sweep(plan: SweepPlan | None, folder: Path, resources: Resources, *, resume: bool) -> bool:
    """Do what is missing of the sweep in `folder`, and write its front and page; False when members failed.

    `plan` None: the members that `folder` was begun with; else those and what is new. Ctrl-C lets the members
    save their states and raises KeyboardInterrupt. Raises QnasError before anything has run.
    """
    with ExitStack() as alone:
        if folder.is_dir():
            alone.enter_context(one_writer(folder))
        asked = _asked(plan, folder, resume)
        jobs = [Job(member, folder.absolute(), resources.threads) for member in asked.members.values()]
        missing = [job.member for job in jobs if not (job.folder / TRAINED).exists()]
        for member in missing:
            check(member)
        inputs = digests(sorted({path for member in missing for path in inputs_of(member)}))
        check_unchanged(asked.inputs, inputs, "begin in another folder")
        threads, outcomes = _outcomes(missing, folder, resources, _threads(asked, folder, resources))
        if not folder.is_dir():
            make_folder(folder)
            alone.enter_context(one_writer(folder))
        (folder / STOP).unlink(missing_ok=True)
        record = SweepRecord(asked.members, threads, {**asked.inputs, **inputs})
        write_json(folder / RECORD, record.to_document())
        return _run(jobs, outcomes, folder)


def _run(jobs: list[Job], outcomes: Iterator[list[Outcome]], folder: Path) -> bool:
    """Follow the members to their ends, and write the front and the page; False when some failed."""
    console = stderr()
    with _display(console, jobs) as show:
        ended = _follow(outcomes, folder / STOP, show, console)
    failed = {outcome.name: outcome.text for outcome in ended if outcome.state == "failed"}
    entries = [_entry(job, failed.get(job.member.name)) for job in jobs]
    write_pareto(folder, entries)
    if any(outcome.state == "stopped" for outcome in ended):
        _tell(console, f"stopped; continue with: qnas-search sweep -o {folder} --resume")
        raise KeyboardInterrupt
    _print_front(entries)
    _write_report(folder)
    for name, text in failed.items():
        _tell(console, f"failed: {name}: {text}")
    return not failed


def _asked(plan: SweepPlan | None, folder: Path, resume: bool) -> SweepRecord:
    """The record with the members of the plan. Raises QnasError where these disagree."""
    wanted = {} if plan is None else members(plan)
    path = folder / RECORD
    if not resume:
        if path.exists():
            raise UsageError(f"{folder} holds a sweep: continue it with --resume, or name another folder")
        return SweepRecord(wanted)
    if not path.is_file():
        raise UsageError(f"{folder} holds no sweep (no {RECORD}): leave --resume out to begin one")
    recorded = read_record(path)
    for name, member in wanted.items():
        if name in recorded.members:
            then = recorded.members[name].to_document()
            _check_same(then, member.to_document(), f"{folder}: member {name}")
    return replace(recorded, members={**recorded.members, **wanted})


def _check_same(then: Mapping[str, Any], now: Mapping[str, Any], where: str) -> None:
    """Raise UsageError, naming the first setting that differs."""
    for key in then:
        old, new = then[key], now[key]
        if isinstance(old, dict) and old != new:
            key = next(each for each in {**old, **new} if old.get(each) != new.get(each))
            old, new = old.get(key), new.get(key)
        if old != new:
            raise UsageError(
                f"{where} was begun with {key} {json.dumps(old)}, not {json.dumps(new)}: repeat the settings "
                "of that sweep, leave them out, or name another folder"
            )


def _threads(asked: SweepRecord, folder: Path, resources: Resources) -> int:
    """Those of each member, 0 where nobody has said. Raises UsageError where the sweep began with others."""
    given, begun = resources.threads, asked.threads or 0
    if given and begun and given != begun:
        raise UsageError(
            f"{folder} was begun with --threads {begun}, and {given} give other bits: leave --threads out, "
            "or begin in another folder"
        )
    return begun or given


def _outcomes(
    missing: list[Member], folder: Path, resources: Resources, threads: int
) -> tuple[int, Iterator[list[Outcome]]]:
    """(threads of each member, how they end as it comes). `threads` 0: the cores divided by the workers."""
    place, workers = folder.absolute(), resources.workers
    if resources.ray is None:
        share = threads or max(1, cores() // workers)
        return share, local_outcomes(missing, place, workers, share)
    ray = connected(resources.ray)
    share = threads or max(1, int(ray.cluster_resources().get("CPU", 1)) // workers)
    return share, ray_outcomes(ray, missing, place, workers, share)


def _follow(
    outcomes: Iterator[list[Outcome]], stop: Path, show: Callable[[], None], console: Terminal
) -> list[Outcome]:
    """All outcomes, shown as they come. A first Ctrl-C asks all members to save and end."""
    ended: list[Outcome] = []
    with stop_requests() as stop_requested:
        for some in outcomes:
            ended += some
            if stop_requested() and not stop.exists():
                stop.touch()
                _tell(console, "stopping: members save their states")
            show()
    stop.unlink(missing_ok=True)
    return ended


@contextmanager
def _display(console: Terminal, jobs: list[Job]) -> Iterator[Callable[[], None]]:
    """A live table on a terminal, else a line whenever a member's state changes."""
    begun = time.time()

    def statuses() -> list[Status]:
        return [status(job, begun) for job in jobs]

    seen = {each.name: each for each in statuses()}
    if console.is_terminal:
        with Live(table(list(seen.values())), console=console, auto_refresh=False) as live:
            yield lambda: live.update(table(statuses()), refresh=True)
        return

    def lines() -> None:
        now = statuses()
        for text in news(seen, now):
            _tell(console, text)
        seen.update({each.name: each for each in now})

    yield lines


def _entry(job: Job, failed: str | None) -> Entry:
    trained = TRAINED_FILE.read_sound(job.folder / TRAINED)
    return replace(entry_of(job.member), failed=failed, **(asdict(trained) if trained else {}))


def _print_front(entries: list[Entry]) -> None:
    console = stdout()
    for entry, on_front in ordered(entries):
        if entry.bitops is not None:
            mark = "*" if on_front else " "
            _tell(console, f"{mark} {entry.psnr_y:7.3f} dB {giga(entry.bitops):>8} BitOps  {entry.name}")


def _tell(console: Terminal, text: str) -> None:
    console.print(text, soft_wrap=True)


def _write_report(folder: Path) -> None:
    from qnas.search.report.page import write_report

    write_report(folder, folder / "report.html", force=True)
