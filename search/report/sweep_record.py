"""The folder of a sweep as it is now: its members, those that failed and those under way among them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from qnas.errors import QnasError, printable
from qnas.search.report.run_record import RunRecord, is_run, read_run
from qnas.search.runs.pareto import PARETO_FILE, Entry
from qnas.search.sweep.member import PLAIN, Member, read_record
from qnas.search.sweep.stages import FAILED, TRAINED, TRAINED_FILE, entry_of

ASKED = "sweep.json"
FRONT = "pareto.json"
MEMBERS = "members"
LONGEST = 300  # characters of a text on a page


@dataclass(frozen=True)
class MemberRecord(Entry):
    """A member and its folder, as far as there is one; `problem`: why its files cannot be read."""

    problem: str | None = None
    run: RunRecord | None = None

    @property
    def group(self) -> tuple[object, ...]:
        """What members that differ in their seeds alone share."""
        return self.method, self.space, self.bits, self.penalty, self.name.rpartition("-s")[0]


@dataclass(frozen=True)
class SweepRecord:
    """`asked`: options of searches and trainings that all members share."""

    name: str
    asked: dict[str, Any]
    members: tuple[MemberRecord, ...]


def is_sweep(folder: Path) -> bool:
    """Whether a sweep has written there."""
    return (folder / ASKED).is_file() or (folder / FRONT).is_file()


def read_sweep(folder: Path) -> SweepRecord:
    """What the folder holds. Raises UsageError, CheckpointError when pareto.json or sweep.json are wrong."""
    asked, front = folder / ASKED, folder / FRONT
    planned = read_record(asked).members if asked.is_file() else {}
    known = {name: entry_of(each) for name, each in planned.items()}
    known |= {each.name: each for each in PARETO_FILE.read(front).members} if front.is_file() else {}
    members = tuple(_seen(folder / MEMBERS, entry) for entry in known.values())
    return SweepRecord(folder.resolve().name, _shared(list(planned.values())), members)


def _shared(members: Sequence[Member]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in ("search", "train"):
        options: list[Mapping[str, Any]] = [getattr(each, part) for each in members]
        for key, value in options[0].items() if options else ():
            if all(key in each and each[key] == value for each in options):
                found[f"{part} {key}"] = value
    return found


def _seen(members: Path, entry: Entry) -> MemberRecord:
    """`entry` with what its own folder says, as far as that can be read."""
    known = MemberRecord(**vars(entry) | {"name": printable(entry.name)})  # matplotlib draws it, into XML
    folder = members / known.name
    if not PLAIN.fullmatch(known.name) or not folder.is_dir():
        return known
    try:
        run = read_run(folder) if is_run(folder) else None
        return replace(_filled(folder, known, run), run=run)
    except (QnasError, OSError) as error:
        return replace(known, problem=str(error))


def _filled(folder: Path, known: MemberRecord, run: RunRecord | None) -> MemberRecord:
    """What pareto.json does not say yet."""
    found: dict[str, Any] = {}
    if run and run.result:
        found |= {"macs": run.result.macs, "bitops": run.result.bitops}
    if (folder / TRAINED).is_file():
        trained = asdict(TRAINED_FILE.read(folder / TRAINED))
        found |= {key: value for key, value in trained.items() if value is not None}
    elif (folder / FAILED).is_file():
        text = (folder / FAILED).read_text(encoding="utf-8", errors="replace")
        found["failed"] = printable(text.strip(), LONGEST)
    unknown = {key: value for key, value in found.items() if getattr(known, key) is None}
    return replace(known, **unknown)
