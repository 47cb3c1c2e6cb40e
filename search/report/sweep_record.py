"""The folder of a sweep as it is now: its members, those that failed and those under way among them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qnas.errors import QnasError, UsageError
from qnas.json_fields import Fields, printable
from qnas.search.report.files import LONGEST, read_record, record
from qnas.search.report.run_record import RunRecord, is_run, read_run
from qnas.search.runs.pareto import FORMAT, VERSION
from qnas.search.sweep.member import PLAIN
from qnas.search.sweep.stages import FAILED, TRAINED

ASKED = "sweep.json"
FRONT = "pareto.json"
MEMBERS = "members"
ASKED_FORMAT = "qnas-sweep"


@dataclass(frozen=True)
class MemberRecord:
    """What is known of a member, None where that is nothing yet; `problem`: why its files cannot be read.

    PSNR on Y in dB; costs for one image.
    """

    name: str
    method: str = ""
    space: str = ""
    bits: str = ""
    penalty: float | None = None
    seed: int | None = None
    macs: float | None = None
    bitops: float | None = None
    psnr_y: float | None = None
    ssim: float | None = None
    failed: str | None = None
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
    """What the folder holds. Raises UsageError when sweep.json or pareto.json are wrong."""
    planned = _planned(folder / ASKED)
    known = {name: _described(name, entry) for name, entry in planned.items()}
    known |= {member.name: member for member in _listed(folder / FRONT)}
    members = tuple(_seen(folder / MEMBERS / name, member) for name, member in known.items())
    return SweepRecord(printable(folder.resolve().name), _shared(list(planned.values())), members)


def _planned(path: Path) -> dict[str, Fields]:
    """The members that sweep.json asks for."""
    if not path.is_file():
        return {}
    members = read_record(path).check(ASKED_FORMAT, VERSION).inner("members")
    return {printable(name): members.inner(name) for name in members.values}


def _shared(members: Sequence[Fields]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in ("search", "train"):
        options = [each.values[part] for each in members if isinstance(each.values.get(part), dict)]
        same = options[0] if options else {}
        for key, value in same.items():
            if all(key in each and each[key] == value for each in options):
                found[printable(f"{part} {key}")] = value
    return found


def _described(name: str, member: Fields) -> MemberRecord:
    space = member.text("space")
    return MemberRecord(
        name=name,
        method=member.text("method"),
        space=Path(space).stem if space.endswith((".json", ".toml")) else space,
        bits=_bits(member.values.get("bits")),
        penalty=member.known("penalty"),
        seed=member.whole("seed") if member.given("seed") else None,
    )


def _listed(path: Path) -> Iterator[MemberRecord]:
    if not path.is_file():
        return
    entry = read_record(path).check(FORMAT, VERSION)
    members = entry.value("members")
    if not isinstance(members, list):
        raise UsageError(f"{path}: members is no list: let qnas-search write it again")
    for index, values in enumerate(members):
        member = record(values, f"{path}: members[{index}]")
        yield replace(
            _described(member.text("name"), member),
            macs=member.known("macs"),
            bitops=member.known("bitops"),
            psnr_y=member.known("psnr_y"),
            ssim=member.known("ssim"),
            failed=member.text("failed") if member.given("failed") else None,
        )


def _bits(value: Any) -> str:
    widths = value if isinstance(value, list) else [] if value is None else [value]
    return printable(", ".join(map(str, widths)))


def _seen(folder: Path, known: MemberRecord) -> MemberRecord:
    """`known` with what its own folder says, as far as that can be read."""
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
        trained = read_record(folder / TRAINED)
        found |= {"psnr_y": trained.number("psnr_y"), "ssim": trained.known("ssim")}
        found |= {key: trained.number(key) for key in ("macs", "bitops") if trained.given(key)}
    elif (folder / FAILED).is_file():
        text = (folder / FAILED).read_text(encoding="utf-8", errors="replace")
        found["failed"] = printable(text.strip(), LONGEST)
    unknown = {key: value for key, value in found.items() if getattr(known, key) is None}
    return replace(known, **unknown)
