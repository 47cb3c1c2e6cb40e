"""Losses, entropy and costs of a search through its steps."""

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from qnas.html_page import Markup, element
from qnas.search.report.colours import LIGHT, LINE, SOFT
from qnas.search.report.numbers import short
from qnas.search.report.plots import plot
from qnas.search.report.run_record import RunRecord
from qnas.search.runs.log_records import StepRecord
from qnas.search.space.candidate_costs import Cost

SIZE = 430, 250  # pixels
MOST_POINTS = 300  # of a line: means of neighbours where there are more
WIDE = 8.0  # times: losses that fall more are drawn on a logarithmic axis
UNITS: dict[Cost, tuple[str, float]] = {
    "bitops": ("GBitOps", 1e9),
    "macs": ("MMACs", 1e6),
    "latency": ("ms", 1.0),
}
Line = tuple[str, list[tuple[float, float]], str, str]  # name, (epoch, value), colour, style


def curve_cards(run: RunRecord) -> Markup:
    """Three pictures, and one of the penalty where it moves. `run` has a plan and steps."""
    assert run.plan
    recipe, steps = run.plan.recipe, run.steps
    unit, size = UNITS[recipe.cost]

    def line(name: str, value: Callable[[StepRecord], float | None], colour: int, style: str = "-") -> Line:
        known = [(each.step / recipe.epoch_steps, value(each)) for each in steps]
        points = [(time, number) for time, number in known if number is not None]
        return name, thinned(points), LIGHT[colour], style

    losses = [line("weights", lambda s: s.loss, 0), line("alphas", lambda s: s.alpha_loss, 1)]
    costs = [
        line("expected", lambda s: s.expected_cost / size, 0),
        line("of the architecture", lambda s: s.best_cost / size if s.alpha_loss is not None else None, 1),
    ]
    entropy = line("entropy", lambda s: s.entropy, 0)
    weight = line("its weight", lambda s: s.entropy_weight, 3, "--")
    pictures = {
        "L1, grey levels": lambda figure: _lines(figure, losses, recipe.warm_up),
        "Entropy, nats, and its weight": lambda figure: _two_scales(figure, entropy, weight, recipe.warm_up),
        f"Cost, {unit}": lambda figure: _lines(figure, costs, recipe.warm_up),
    }
    if recipe.target:
        penalties = [line("of the cost", lambda s: s.penalty, 0)]
        pictures["Penalty"] = lambda figure: _lines(figure, penalties, recipe.warm_up)
    cards = (
        element("div", element("h3", heading), plot(f"curve {heading}", heading, SIZE, draw), class_="card")
        for heading, draw in pictures.items()
    )
    return element("div", *cards, class_="curves")


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `MOST_POINTS`, each the mean of as many neighbours."""
    size = -(-len(points) // MOST_POINTS) or 1
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in each) / len(each), sum(y for _, y in each) / len(each)) for each in groups]


def _lines(figure: Figure, lines: Sequence[Line], warm_up: int) -> None:
    axes = _axes(figure)
    _warm_up(axes, warm_up)
    for each in lines:
        _draw(axes, each)
    values = [value for _, points, _, _ in lines for _, value in points]
    if values and min(values) > 0 and max(values) > WIDE * min(values):
        axes.set_yscale("log")
        for axis_format in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            axis_format(FuncFormatter(_log_number))
    axes.legend(loc="best")


def _log_number(value: float, position: int | None) -> str:
    """1, 2 and 5 of each decade."""
    digit, exponent = f"{value:.0e}".split("e")
    return f"{value:.{max(0, -int(exponent))}f}" if digit in "125" else ""


def _two_scales(figure: Figure, left: Line, right: Line, warm_up: int) -> None:
    axes = _axes(figure)
    _warm_up(axes, warm_up)
    other = axes.twinx()
    _draw(axes, left)
    _draw(other, right)
    axes.set_ylim(bottom=0)
    other.set_ylim(bottom=0)
    other.spines["right"].set_visible(True)
    other.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    handles = [*axes.get_lines(), *other.get_lines()]
    axes.legend(handles, [str(handle.get_label()) for handle in handles], loc="lower left")


def _axes(figure: Figure) -> Axes:
    axes = figure.add_axes((0.12, 0.16, 0.76, 0.75))
    axes.grid(visible=True)
    axes.set_xlabel("epochs")
    axes.tick_params(which="both", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    return axes


def _draw(axes: Axes, line: Line) -> None:
    name, points, colour, style = line
    axes.plot(
        [x for x, _ in points], [y for _, y in points], style, color=colour, label=name, linewidth=1.6
    )  # fmt: skip


def _warm_up(axes: Axes, epochs: int) -> None:
    if epochs:
        axes.axvspan(0, epochs, color=LINE, alpha=0.45, linewidth=0)
        axes.annotate(
            "warm-up", (0, 1), (0, 4), ("data", "axes fraction"), "offset points", color=SOFT, fontsize=9
        )  # fmt: skip
