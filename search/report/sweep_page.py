"""What the page of a sweep shows."""

from collections.abc import Sequence

from qnas.errors import ArchitectureError
from qnas.html_page import Markup, element, facts, table
from qnas.search.report.alphas import certainties
from qnas.search.report.drawing import architecture_section, architecture_text
from qnas.search.report.front_chart import COSTS, front_cards, leaders
from qnas.search.report.numbers import percent, short, si
from qnas.search.report.run_page import asked, shown
from qnas.search.report.sweep_record import MemberRecord, SweepRecord

UNKNOWN = "\N{EN DASH}"
HEADINGS = (
    "member", "method", "space", "bits", "penalty", "seed", "MACs", "BitOps", "PSNR-Y, dB", "SSIM",
    "least sure", "front",
)  # fmt: skip


def sweep_parts(sweep: SweepRecord, crops: Sequence[Markup]) -> list[Markup]:
    """All of it, with `crops` in their place."""
    parts = [facts(_facts(sweep))]
    if any(member.psnr_y is not None for member in sweep.members):
        parts += [element("h2", "Quality and cost"), element("p", FRONTS, class_="soft")]
        parts.append(front_cards(sweep.members))
    parts += [element("h2", "Members"), _table(sweep)]
    troubled = [member for member in sweep.members if member.failed or member.problem]
    if troubled:
        parts += [element("h2", "Failed"), _failures(troubled)]
    parts += crops
    drawn = [_details(member) for member in _ordered(sweep) if member.run and member.run.architecture]
    if drawn:
        parts += [element("h2", "Architectures"), *drawn]
    if sweep.asked:
        settings = {key: shown(value) for key, value in sweep.asked.items()}
        parts += [element("h2", "What was asked"), asked("Options of all members", settings)]
    return parts


FRONTS = (
    "A point for each trained member, of the colour and form of its method; lines join seeds. Points with a "
    "border are on the front: nothing cheaper is as good. Names show under the pointer."
)


def best(sweep: SweepRecord) -> list[MemberRecord]:
    """The front by BitOps, the cheapest first."""
    return leaders(sweep.members, COSTS["BitOps"])


def _facts(sweep: SweepRecord) -> dict[str, object]:
    failed = sum(member.failed is not None for member in sweep.members)
    trained = sum(member.psnr_y is not None for member in sweep.members)
    return {
        "members": len(sweep.members),
        "trained": trained,
        "failed": failed,
        "to come": len(sweep.members) - trained - failed,
        "on the front": len(best(sweep)),
    }


def _ordered(sweep: SweepRecord) -> list[MemberRecord]:
    """The front first, then the cheaper before the dearer, those without a cost last."""
    first = best(sweep)
    rest = [member for member in sweep.members if member not in first]
    return [*first, *sorted(rest, key=lambda each: (each.bitops is None, each.bitops or 0, each.name))]


def _table(sweep: SweepRecord) -> Markup:
    fronts = {name: leaders(sweep.members, cost) for name, cost in COSTS.items()}
    rows = (_row(member, [name for name in fronts if member in fronts[name]]) for member in _ordered(sweep))
    return table(HEADINGS, rows, texts=4)


def _row(member: MemberRecord, fronts: Sequence[str]) -> Sequence[object]:
    certain = certainties(member.run) if member.run else []
    return (
        element("span", member.name, class_="warn" if member.failed or member.problem else None),
        member.method,
        member.space,
        ", ".join(map(str, member.bits)),
        UNKNOWN if member.penalty is None else short(member.penalty),
        member.seed,
        UNKNOWN if member.macs is None else si(member.macs),
        UNKNOWN if member.bitops is None else si(member.bitops),
        _number(member.psnr_y, ".2f"),
        _number(member.ssim, ".4f"),
        percent(min(certain)) if certain else UNKNOWN,
        ", ".join(fronts),
    )


def _number(value: float | None, form: str) -> str:
    return UNKNOWN if value is None else f"{value:{form}}"


def _failures(members: Sequence[MemberRecord]) -> Markup:
    rows = ((member.name, member.failed or member.problem) for member in members)
    return element("div", table(("member", "what happened"), rows, texts=2), class_="reasons")


def _details(member: MemberRecord) -> Markup:
    assert member.run
    assert member.run.architecture
    quality = "" if member.psnr_y is None else f", {member.psnr_y:.2f} dB"
    text = f"{member.name}{quality}: {architecture_text(member.run.architecture)}"
    try:
        drawn = architecture_section(member.run.architecture, member.run.image)
    except ArchitectureError as error:
        drawn = element("p", error, class_="warn")
    return element("details", element("summary", text), drawn)


STYLE = """
.reasons td { white-space: normal; overflow-wrap: anywhere; } .reasons td:first-child { min-width: 12rem; }
"""
