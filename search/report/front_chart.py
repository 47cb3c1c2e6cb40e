"""The members of a sweep by quality and cost, and the front of those that no other one dominates."""

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from qnas.html_page import Markup, element
from qnas.search.report.colours import INK, LIGHT, PAPER
from qnas.search.report.numbers import si
from qnas.search.report.plots import plot
from qnas.search.report.sweep_record import MemberRecord
from qnas.search.runs.pareto import front

SIZE = 660, 410  # pixels
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
WIDE = 8.0  # times: costs that spread more are drawn on a logarithmic axis
LETTERS = 26  # of a label
Measure = Callable[[MemberRecord], float | None]
COSTS: dict[str, Measure] = {"BitOps": lambda member: member.bitops, "MACs": lambda member: member.macs}


def leaders(members: Sequence[MemberRecord], cost: Measure) -> list[MemberRecord]:
    """Those on the front of PSNR-Y against a cost, the cheapest first."""
    points = [_point(each, cost) for each in members]
    kept = [each for each, best in zip(members, front(points), strict=True) if best]
    return sorted(kept, key=lambda each: cost(each) or 0.0)


def _point(member: MemberRecord, cost: Measure) -> tuple[float, float] | None:
    spent = cost(member)
    return None if spent is None or member.psnr_y is None else (spent, member.psnr_y)


def front_cards(members: Sequence[MemberRecord]) -> Markup:
    """Two pictures, of BitOps and of MACs. Some members have a quality."""
    cards = []
    for name, cost in COSTS.items():
        shown = [each for each in members if _point(each, cost)]
        if shown:
            cards.append(_card(shown, cost, name))
    return element("div", *cards, class_="fronts")


def _card(members: Sequence[MemberRecord], cost: Measure, name: str) -> Markup:
    titles = {_gid(index): _title(each) for index, each in enumerate(members)}
    picture = plot(
        f"pareto {name}", f"PSNR-Y against {name}", SIZE,
        lambda figure: _draw(figure, members, cost, name), titles,
    )  # fmt: skip
    return element("div", element("h3", f"PSNR-Y, dB, against {name}"), picture, class_="card")


def _gid(index: int) -> str:
    return f"member-{index}"


def _title(member: MemberRecord) -> str:
    costs = (si(value, name) for name, cost in COSTS.items() if (value := cost(member)) is not None)
    return ", ".join((f"{member.name}: {member.psnr_y:.2f} dB", *costs))


def _draw(figure: Figure, members: Sequence[MemberRecord], cost: Measure, name: str) -> None:
    axes = figure.add_axes((0.09, 0.12, 0.86, 0.74))
    axes.grid(visible=True)
    axes.set_xlabel(name)
    best = leaders(members, cost)
    at = {each.name: point for each in members if (point := _point(each, cost))}
    costs = [x for x, _ in at.values()]
    if min(costs) > 0 and max(costs) > WIDE * min(costs):
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(FuncFormatter(_log_number))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: si(value)))
    axes.tick_params(which="both", length=0)
    axes.margins(0.08)
    _stairs(axes, [at[each.name] for each in best])
    _seeds(axes, members, at)
    for index, each in enumerate(members):
        _mark(axes, [at[each.name]], _kind(each, members), leads=each in best).set_gid(_gid(index))
    for kind, method in enumerate(_methods(members)):
        _mark(axes, [], kind).set_label(method)
    _labels(axes, best, at)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=4, columnspacing=1.2, handlelength=1.4)


def _mark(axes: Axes, points: Sequence[tuple[float, float]], kind: int, leads: bool = False) -> Line2D:
    (line,) = axes.plot(
        [x for x, _ in points], [y for _, y in points], MARKERS[kind % len(MARKERS)],
        color=LIGHT[kind % len(LIGHT)], markeredgecolor=INK if leads else PAPER,
        markeredgewidth=1.3 if leads else 0.7, markersize=8.5 if leads else 6.5, zorder=3,
    )  # fmt: skip
    return line


def _log_number(value: float, position: int | None) -> str:
    """2 and 5 between the decades."""
    return si(value) if f"{value:.0e}"[0] in "25" else ""


def _stairs(axes: Axes, corners: Sequence[tuple[float, float]]) -> None:
    """What the front reaches at each cost."""
    x, y = [cost for cost, _ in corners], [quality for _, quality in corners]
    axes.step(x, y, where="post", color=INK, linewidth=1, alpha=0.55, zorder=1, label="front")


def _seeds(axes: Axes, members: Sequence[MemberRecord], at: dict[str, tuple[float, float]]) -> None:
    """A thin line through members that differ in their seeds alone."""
    groups: dict[tuple[object, ...], list[MemberRecord]] = {}
    for each in members:
        groups.setdefault(each.group, []).append(each)
    for same in groups.values():
        places = sorted(at[each.name] for each in same)
        x, y = [cost for cost, _ in places], [quality for _, quality in places]
        colour = LIGHT[_kind(same[0], members) % len(LIGHT)]
        axes.plot(x, y, color=colour, alpha=0.4, linewidth=2.5, zorder=2)


def _kind(member: MemberRecord, members: Sequence[MemberRecord]) -> int:
    return _methods(members).index(member.method)


def _methods(members: Sequence[MemberRecord]) -> list[str]:
    return list(dict.fromkeys(each.method for each in members))


def _labels(axes: Axes, best: Sequence[MemberRecord], at: dict[str, tuple[float, float]]) -> None:
    """Names of the front, left of and above their points, where there is room."""
    placed: list[tuple[float, float]] = []
    axes.autoscale_view()
    for each in reversed(best):
        x, y = axes.transAxes.inverted().transform(axes.transData.transform(at[each.name]))
        if any(abs(x - a) < 0.25 and abs(y - b) < 0.05 for a, b in placed):
            continue
        placed.append((x, y))
        whole = len(each.name) <= LETTERS
        name = each.name if whole else f"{each.name[: LETTERS - 1]}\N{HORIZONTAL ELLIPSIS}"
        right = x < 0.3
        axes.annotate(
            name, at[each.name], (8 if right else -7, -12 if right else 6), textcoords="offset points",
            ha="left" if right else "right", fontsize=9, zorder=4,
        )  # fmt: skip
