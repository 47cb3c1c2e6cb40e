"""The sections of the page that look inside: cost of every node, and the time that it took."""

from __future__ import annotations

from collections.abc import Sequence

from qnas.html_page import Markup, element, table
from qnas.runtime_bench.page.axes import si
from qnas.runtime_bench.page.charts import bar, two_bars
from qnas.runtime_bench.page.sections import Shown
from qnas.runtime_bench.page.series import DIGEST
from qnas.runtime_bench.profile.table import Profile, ProfileRow, peak_line
from qnas.runtime_bench.result_files import Counts, NodeCounts

MOST = 100  # rows of a table
LONGEST = 60  # characters of a name
OPEN = 1  # tables that are open from the start


def layer_section(rows: Sequence[Shown]) -> tuple[Markup, ...]:
    """MACs and BitOps of every node, once for each model and shape."""
    known: dict[object, tuple[Shown, Counts]] = {}
    for each in rows:
        if each.candidate.cost and each.candidate.cost.nodes:
            key = (each.number, each.candidate.sha256, each.candidate.shapes)
            known.setdefault(key, (each, each.candidate.cost))
    folded = [
        element(
            "details",
            element(
                "summary", f"{each.title}, {each.candidate.shapes}, sha256 {each.candidate.sha256[:DIGEST]}"
            ),
            *_nodes(counts),
            open="" if index < OPEN else None,
        )
        for index, (each, counts) in enumerate(known.values())
    ]
    if not folded:
        return ()
    words = "BitOps: the full bar is those of the values, the pale one those that are executed."
    return element("h2", "Cost of every layer"), element("p", words, class_="soft"), *folded


def profile_section(rows: Sequence[Shown]) -> tuple[Markup, ...]:
    """Measured time of every node that ran, of the measurements that have it."""
    profiled = [(each, each.candidate.profile) for each in rows if each.candidate.profile]
    if not profiled:
        return ()
    folded = [
        element(
            "details",
            element("summary", f"{each.title} on {each.label}"),
            *_times(found),
            open="" if index < OPEN else None,
        )
        for index, (each, found) in enumerate(profiled)
    ]
    words = (
        "As the runtime's own profiler tells, the longest first; medians over the profiled runs, which are "
        "slower than others. One MAC is two operations (GOPS)."
    )
    return element("h2", "Time of every layer"), element("p", words, class_="soft"), *folded


def _nodes(counts: Counts) -> tuple[Markup, ...]:
    chosen = sorted(counts.nodes, key=lambda node: -node.executed_bitops)[:MOST]
    kept = {id(node) for node in chosen}
    nodes = [node for node in counts.nodes if id(node) in kept]
    macs = max(node.macs for node in nodes) or 1
    bitops = max(max(node.bitops, node.executed_bitops) for node in nodes) or 1
    grid = table(
        ("node", "operation", "MACs", "", "BitOps", "executed", ""),
        (_node(node, macs, bitops) for node in nodes),
        texts=2,
        footer=("all nodes", "", si(counts.macs), "", si(counts.bitops), si(counts.executed_bitops), ""),
    )
    return grid, *_left_out(len(counts.nodes))


def _node(node: NodeCounts, macs: int, bitops: int) -> tuple[object, ...]:
    return (
        name(node.name),
        node.op,
        si(node.macs),
        bar(node.macs / macs),
        si(node.bitops),
        si(node.executed_bitops),
        two_bars(node.executed_bitops / bitops, node.bitops / bitops),
    )


def _times(found: Profile) -> tuple[Markup, ...]:
    longest = max((row.share or 0 for row in found.rows), default=0) or 1
    titles = ("node", "operation", "ran on", "time", "share", "", "MACs", "GOPS", "of peak")
    grid = table(
        titles,
        (_time(row, longest) for row in found.rows[:MOST]),
        texts=3,
        footer=_time(found.total, None),
    )
    peak = (element("p", peak_line(found.peak), class_="soft"),) if found.peak else ()
    return grid, *_left_out(len(found.rows)), *peak


def _time(row: ProfileRow, longest: float | None) -> tuple[object, ...]:
    known = row.microseconds is not None
    return (
        name(row.name),
        row.op,
        row.provider,
        si((row.microseconds or 0) * 1e-6, "s") if known else "",
        f"{row.share:.1%}" if row.share is not None else "",
        bar((row.share or 0) / longest) if longest else "",
        si(row.macs) if row.macs else "",
        f"{row.gops:,.1f}" if row.gops is not None else "",
        f"{row.peak_share:.1%}" if row.peak_share is not None else "",
    )


def name(text: str) -> Markup:
    """A node's name, cut where it is longer than anyone reads; the whole is under the pointer."""
    short = text if len(text) <= LONGEST else f"{text[: LONGEST // 2]}…{text[-LONGEST // 2 :]}"
    return element("span", short, title=text if short != text else None)


def _left_out(count: int) -> tuple[Markup, ...]:
    text = f"{count - MOST} smaller nodes of {count} are left out."
    return (element("p", text, class_="soft"),) if count > MOST else ()
