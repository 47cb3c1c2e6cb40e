"""How a search decided: the probabilities of the candidates of each variable through the epochs."""

from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from qnas.html_page import Markup, element
from qnas.search.report.colours import INK, PAPER, bits_chip, bits_colour
from qnas.search.report.numbers import percent
from qnas.search.report.plots import plot
from qnas.search.report.run_record import RunRecord, winner
from qnas.search.space.search_space import SearchSpace

SIZE = 350, 170  # pixels
PLOT = 0.07, 0.12, 0.53, 0.84  # left, bottom, width, height as shares: labels at the right
LABELLED = 0.06  # probability from which a candidate has a label
APART = 0.085  # of the height, between labels
SURE = 0.9
DARKEST, PALEST = 1.0, 0.35
Band = tuple[str, int, list[float]]  # operation, bits, probabilities


def alpha_cards(run: RunRecord) -> Markup:
    """A small picture for each variable. `run` has a plan and epochs."""
    assert run.plan
    last = run.epochs[-1].probabilities
    return element("div", *(_card(run, run.plan.space, name) for name in last), class_="alphas")


def certainties(run: RunRecord) -> list[float]:
    """The largest probability of each variable at the end."""
    return [float(p.max()) for p in run.epochs[-1].probabilities.values()] if run.epochs else []


def _card(run: RunRecord, space: SearchSpace, variable: str) -> Markup:
    choice, probability = winner(space, variable, run.epochs[-1].probabilities[variable])
    times, bands = _bands(run, space, variable)
    picture = plot(
        f"alpha {variable}", f"probabilities of {variable} by epoch", SIZE,
        lambda figure: _stack(figure, times, bands),
    )  # fmt: skip
    sure = element("span", percent(probability), class_="good" if probability >= SURE else "soft")
    inputs = f"reads {choice.reads} bit " if choice.input_bits else ""
    decided = element("p", bits_chip(choice.bits), f"{choice.op} {inputs}", sure)
    return element("div", element("h3", variable), decided, picture, class_="card")


def _bands(run: RunRecord, space: SearchSpace, variable: str) -> tuple[list[float], list[Band]]:
    """Epochs passed, and the candidates from below: by bits, then by operation.

    All candidates are equally likely before the first step.
    """
    assert run.plan
    length = run.plan.recipe.epoch_steps
    times = [epoch.step / length for epoch in run.epochs]
    tables = [epoch.probabilities[variable].tolist() for epoch in run.epochs]
    if times[0] > 0:
        even = 1 / run.epochs[0].probabilities[variable].numel()
        times.insert(0, 0.0)
        tables.insert(0, [[even] * len(space.widths) for _ in space.candidates(variable)])
    bands = [
        (op if inputs is None else f"{op} reads {inputs},", bits, [table[row][column] for table in tables])
        for column, (bits, inputs) in enumerate(space.widths)
        for row, op in enumerate(space.candidates(variable))
    ]
    return times, bands


def _stack(figure: Figure, times: list[float], bands: list[Band]) -> None:
    axes = figure.add_axes(PLOT)
    operations = list(dict.fromkeys(op for op, _, _ in bands))
    step = (DARKEST - PALEST) / max(len(operations) - 1, 1)
    colours = [to_rgba(bits_colour(bits), DARKEST - step * operations.index(op)) for op, bits, _ in bands]
    axes.stackplot(
        times, [values for _, _, values in bands], colors=colours, edgecolor=PAPER, linewidth=0.4
    )  # fmt: skip
    axes.set_xlim(times[0], max(times[-1], times[0] + 1e-9))
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.5, 1], ["0", ".5", "1"])
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.tick_params(length=2, labelsize=9)
    _label(axes, bands)


def _label(axes: Axes, bands: list[Band]) -> None:
    """The likeliest candidates, each beside its band, as far as they do not lie on each other."""
    below, middles = 0.0, []
    for op, bits, values in bands:
        middles.append((values[-1], below + values[-1] / 2, op, bits))
        below += values[-1]
    placed: list[float] = []
    for rank, (share, middle, op, bits) in enumerate(sorted(middles, key=lambda each: -each[0])):
        if share < LABELLED and rank:
            break
        if all(abs(middle - other) >= APART for other in placed):
            placed.append(middle)
            axes.annotate(
                f"{op} {bits}", (1, middle), (4, 0), "axes fraction", "offset points", va="center",
                fontsize=9, color=bits_colour(bits) if rank else INK,
                fontweight="normal" if rank else "bold",
            )  # fmt: skip
