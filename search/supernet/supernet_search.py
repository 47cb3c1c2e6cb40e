"""The search: weights and alphas of a supernet trained in turns, on two disjoint halves of the images.

QuantNAS (Shvetsov et al., IEEE Access 2024). The weights minimise L1 alone; from the end of the warm-up the
alphas minimise `L1 + penalty * cost / cost(uniform alphas) + mu(epoch) * sum_l H(alpha_l)`, where the penalty
moves when there is a target (`target.py`).

A search is a function of its `SearchRecipe`: batches and noise depend on (seed, step) alone, and the whole
state is written after every epoch, so a killed and resumed search ends with the same bits (on the CPU, at one
thread count).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from qnas.search.space.candidate_costs import CandidateCosts
from qnas.search.stopping import stop_requests
from qnas.search.supernet.alphas import cost_tensors
from qnas.search.supernet.state import Search
from qnas.search.supernet.target import Target
from qnas.search.supernet.turns import AlphaTerms, Turns
from qnas.search.training.data import load_crops


@dataclass(frozen=True)
class StepNews:
    """One step: losses in grey levels, that of alphas that do not learn None; costs in their own unit."""

    epoch: int
    step: int
    loss: float
    alpha_loss: float | None
    expected_cost: float  # of the probabilities, in the unit of the cost, the fixed part included
    best_cost: float  # of the likeliest architecture now
    entropy: float
    entropy_weight: float
    images_per_second: float
    seconds_left: float
    penalty: float  # of the cost, in this step


def search_on(
    search: Search,
    costs: CandidateCosts,
    state_path: Path,
    on_step: Callable[[StepNews], None],
    on_epoch: Callable[[Search], None],
    target: Target | None = None,
) -> None:
    """Run to the last step; after every epoch `on_epoch` is called, and the state saved to `state_path`.

    What `on_step` and `on_epoch` write is thus never behind the state, and a resumed search can cut it there.
    Ctrl-C, SIGTERM or a closed terminal saves it after the step at hand and raises KeyboardInterrupt. All
    processes of the search's world call this and get the news, and stop together when one of them does.
    Raises TrainingError when a loss, a weight or an alpha is no longer finite; the last saved state is from
    before.
    """
    recipe, device = search.recipe, search.supernet.alphas[0].device
    folders = [Path(folder) for folder in recipe.data]
    world = search.world
    with world.agreed():
        crops = load_crops(folders, search.space.scale, recipe.patch, recipe.cache_mib)
        halves = crops.halves(recipe.seed)
    turns = Turns(search, halves, cost_tensors(search.space, costs, device))
    before, first, begun = search.seconds, search.step, time.monotonic()
    with stop_requests() as stop_requested:
        while search.step < recipe.steps:
            if search.step % recipe.epoch_steps == 0 or search.step.bit_count() == 1:
                turns.calibrate()  # weights move most at the start: at steps 1, 2, 4, 8, ... as well
            begins, penalty = search.epoch, search.penalty
            loss, terms = turns.step()
            choices = search.choices()
            if target and begins >= recipe.warm_up:
                search.penalty = target.next_penalty(penalty, choices, recipe.epoch_steps)
            elapsed = time.monotonic() - begun
            search.seconds = before + elapsed
            stop, epoch_ends = world.any(stop_requested()), search.step % recipe.epoch_steps == 0
            speed = (search.step - first) / max(elapsed, 1e-9)
            with world.agreed():
                on_step(_news(search, costs, loss, terms, penalty, costs.of(choices), speed))
                if epoch_ends:
                    on_epoch(search)
            if stop or epoch_ends:
                search.save(state_path)
            if stop:
                raise KeyboardInterrupt


def _news(
    search: Search, costs: CandidateCosts, loss: float, terms: AlphaTerms, penalty: float, best: float,
    speed: float,
) -> StepNews:  # fmt: skip
    return StepNews(
        epoch=(search.step - 1) // search.recipe.epoch_steps,
        step=search.step,
        loss=loss,
        alpha_loss=terms.loss,
        expected_cost=costs.fixed + costs.mean_searched * terms.cost,
        best_cost=best,
        penalty=penalty,
        entropy=terms.entropy,
        entropy_weight=terms.weight,
        images_per_second=speed * search.recipe.batch,
        seconds_left=(search.recipe.steps - search.step) / speed,
    )
