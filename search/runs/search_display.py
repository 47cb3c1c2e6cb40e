"""The progress of a search: a live table on a terminal, a line every 30 seconds elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from qnas.cost.network_cost import DECIMAL_G
from qnas.quantization.quantizers import PIXELS_PER_UNIT
from qnas.search.space.candidate_costs import CandidateCosts, Cost
from qnas.search.supernet.recipe import SearchRecipe
from qnas.search.supernet.supernet_search import StepNews
from qnas.search.supernet.target import Target
from qnas.terminal import Terminal

LINE_SECONDS = 30
SMOOTHING = 0.05  # share of the newest loss in the one that is shown
UNITS: dict[Cost, tuple[float, str]] = {
    "bitops": (DECIMAL_G, "GBitOps"),
    "macs": (DECIMAL_G, "GMACs"),
    "latency": (1.0, "ms in searched layers"),
}


def shown_cost(value: float, cost: Cost) -> str:
    """With its unit; G is 10^9."""
    size, unit = UNITS[cost]
    return f"{value / size:.4g} {unit}"


def shown_excess(share: float) -> str:
    """How far a cost is from the target: "1.2 % below the target"."""
    return f"{abs(share):.2%}".replace("%", " %") + f" {'above' if share > 0 else 'below'} the target"


@contextmanager
def display(
    console: Terminal,
    recipe: SearchRecipe,
    costs: CandidateCosts,
    target: Target | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Callable[[StepNews], None]]:
    """Yield what shows the news of a step."""
    if console.quiet:
        yield lambda news: None
        return
    facts = Facts(recipe, costs, target)
    if console.is_terminal:
        with Live(console=console, refresh_per_second=4) as live:
            yield lambda news: live.update(_table(facts.of(news), news, recipe))
        return
    last = clock()

    def line(news: StepNews) -> None:
        nonlocal last
        told, now = facts.of(news), clock()
        if now - last > LINE_SECONDS or news.step == recipe.steps:
            last = now
            parts = [f"step {news.step}/{recipe.steps}", *(f"{name} {text}" for name, text in told.items())]
            console.print("  ".join(parts), soft_wrap=True)

    yield line


class Facts:
    """The news of a step as texts; the parts of the alphas' loss are all in grey levels."""

    def __init__(
        self, recipe: SearchRecipe, costs: CandidateCosts, target: Target | None = None
    ) -> None:  # fmt: skip
        self.recipe, self.costs, self.target = recipe, costs, target
        self._smooth: dict[str, float] = {}
        self._alphas = f"- (from epoch {recipe.warm_up + 1} on)"  # as they learned last

    def of(self, news: StepNews) -> dict[str, str]:
        """Name -> text."""
        recipe, grey = self.recipe, PIXELS_PER_UNIT["short"]
        loss = f"{self._smoothed('weights', news.loss):.3f}"
        if news.alpha_loss is not None:
            share = (news.expected_cost - self.costs.fixed) / self.costs.mean_searched
            cost, disorder = news.penalty * share * grey, news.entropy_weight * news.entropy * grey
            l1 = self._smoothed("alphas", news.alpha_loss)
            self._alphas = f"{l1:.3f} + {cost:.3g} cost + {disorder:.3g} entropy"
        goal = {}
        if self.target:
            goal["penalty"] = f"{news.penalty:.3g}"
            goal["target"] = shown_excess(news.best_cost / self.target.cost - 1)
        return {
            "epoch": f"{news.epoch + 1}/{recipe.epochs}",
            "loss": loss,
            "alphas": self._alphas,
            "entropy": f"{news.entropy:.2f} nats x {news.entropy_weight:.2g}",
            "expected": shown_cost(news.expected_cost, recipe.cost),
            "best": shown_cost(news.best_cost, recipe.cost),
            **goal,
            "speed": f"{news.images_per_second:.1f} images/s",
            "left": str(timedelta(seconds=round(news.seconds_left))),
        }

    def _smoothed(self, name: str, value: float) -> float:
        before = self._smooth.get(name, value)
        self._smooth[name] = before + SMOOTHING * (value - before)
        return self._smooth[name]


def _table(told: dict[str, str], news: StepNews, recipe: SearchRecipe) -> Group:
    grid = Table.grid(padding=(0, 2))
    grid.add_row("step", f"{news.step}/{recipe.steps}")
    for name, text in told.items():
        grid.add_row(name, text)
    return Group(ProgressBar(recipe.steps, news.step, width=60), grid)
