"""A cost at which a search is to end, so that searches can be compared: dual ascent on the penalty.

After every step the penalty of the cost moves by how far the likeliest architecture is from the target, the
subgradient of the Lagrangian in its multiplier. What is then left is closed at the end: of all architectures
within 3 % of the target the likeliest is taken, which is the likeliest of all where that one is within.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from qnas.network.architecture import Choice
from qnas.quantization.quantizers import FLOAT_BITS
from qnas.search.space.candidate_costs import CandidateCosts
from qnas.search.space.search_space import SearchSpace

WITHIN = 0.03  # of the target
BINS = 1000  # of a target, for each variable: sums of rounded costs are off by 0.05 % at most
SMALL_PENALTY = 1e-5  # penalties move in proportion to themselves above it, and through zero below
EPOCH_RATE = 4.0  # how many times e the penalty grows in an epoch at twice the target
LARGEST = 16.0  # e to it times SMALL_PENALTY: no loss is as large


@dataclass(frozen=True)
class Target:
    """`cost` in the unit of `costs`, the fixed part included."""

    cost: float
    costs: CandidateCosts

    def excess(self, choices: Mapping[str, Choice]) -> float:
        """How much more than the target these choices cost, as a share of it."""
        return self.costs.of(choices) / self.cost - 1

    def within(self, choices: Mapping[str, Choice]) -> bool:
        """Whether they cost the target, within 3 %."""
        return abs(self.excess(choices)) <= WITHIN

    def next_penalty(self, penalty: float, choices: Mapping[str, Choice], epoch_steps: int) -> float:
        """The penalty after a step in which the alphas preferred `choices`; below zero it rewards cost."""
        place = math.asinh(penalty / SMALL_PENALTY)
        place += EPOCH_RATE / epoch_steps * max(-1.0, min(1.0, self.excess(choices)))
        return SMALL_PENALTY * math.sinh(max(-LARGEST, min(LARGEST, place)))

    def choices(self, space: SearchSpace, alphas: Sequence[Tensor]) -> dict[str, Choice]:
        """The likeliest architecture within 3 % of the target; where there is none, one as near as any."""
        scores = [F.log_softmax(alpha.detach().double().cpu().flatten(), 0).numpy() for alpha in alphas]
        found = _near(self.costs, self.cost, space, scores)
        if self.costs.unquantized:  # networks that are all in full precision have other costs
            exact = any(all(each.bits == FLOAT_BITS for each in choices.values()) for choices in found)
            found += _near(self.costs.unquantized, self.cost, space, scores)
            for index, name in enumerate(space.variables) if exact else ():
                some = [*scores[:index], _quantized(scores[index], space.choices(name)), *scores[index + 1 :]]
                found += _near(self.costs, self.cost, space, some)

        def worth(choices: Mapping[str, Choice]) -> tuple[float, float]:
            return max(abs(self.excess(choices)), WITHIN), -_score(space, scores, choices)

        return min(found, key=worth)


def _near(
    table: CandidateCosts, target: float, space: SearchSpace, scores: Sequence[NDArray[np.float64]]
) -> list[dict[str, Choice]]:
    """The likeliest choices within 3 % of the target, and those of the nearest cost, by `table`."""
    target = min(target, 2 * table.largest)
    width = target / BINS / len(scores)
    costs, kept_scores, kept = [], [], []
    for name, score in zip(space.variables, scores, strict=True):
        own, choices = table.searched[name], space.choices(name)
        known = [index for index, choice in enumerate(choices) if choice in own]
        costs.append(np.array([round(own[choices[index]] / width) for index in known]))
        kept_scores.append(score[known])
        kept.append([choices[index] for index in known])
    wanted = round((target - table.fixed) / width)
    found = []
    for slack in (round(WITHIN * target / width) - len(scores), 0):
        indices = likeliest(costs, kept_scores, wanted, slack)
        rows = zip(space.variables, kept, indices, strict=True)
        found.append({name: own[index] for name, own, index in rows})
    return found


def _quantized(score: NDArray[np.float64], choices: Sequence[Choice]) -> NDArray[np.float64]:
    """The scores of the choices of a variable without those of 32 bits."""
    return np.where([choice.bits < FLOAT_BITS for choice in choices], score, -np.inf)


def _score(space: SearchSpace, scores: Sequence[NDArray[np.float64]], choices: Mapping[str, Choice]) -> float:
    """The logarithm of their probability."""
    total = 0.0
    for name, score in zip(space.variables, scores, strict=True):
        total += score[space.choices(name).index(choices[name])]
    return total


def likeliest(
    costs: Sequence[NDArray[np.int64]], scores: Sequence[NDArray[np.float64]], wanted: int, slack: int
) -> list[int]:
    """A candidate of each variable: the largest sum of scores whose sum of costs is nearest to `wanted`.

    All sums of costs within `slack` are as near as each other. `costs[v][i]` and `scores[v][i]` belong to
    candidate i of variable v; costs are not negative. A knapsack by dynamic programming, exact.
    """
    if sum(int(cost.min()) for cost in costs) >= wanted + slack:
        return [int(np.lexsort((-score, cost))[0]) for cost, score in zip(costs, scores, strict=True)]
    dearest = sum(int(cost.max()) for cost in costs)
    size = min(dearest, max(2 * wanted, wanted + slack)) + 1  # more is farther away than the cheapest
    best = np.full(size, -np.inf)
    best[0] = 0.0
    taken = []
    for cost, score in zip(costs, scores, strict=True):
        after, choice = np.full(size, -np.inf), np.full(size, -1, np.int32)
        for index in np.flatnonzero(cost < size):
            moved = best[: size - cost[index]] + score[index]
            better = moved > after[cost[index] :]
            after[cost[index] :][better] = moved[better]
            choice[cost[index] :][better] = index
        best = after
        taken.append(choice)
    away = np.maximum(np.abs(np.arange(size) - wanted), slack)
    away[best == -np.inf] = np.iinfo(np.int64).max
    near = np.flatnonzero(away == away.min())
    at = int(near[best[near].argmax()])
    indices: list[int] = []
    for cost, choice in zip(reversed(costs), reversed(taken), strict=True):
        taken_here = int(choice[at])
        indices.append(taken_here)
        at -= int(cost[taken_here])
    return indices[::-1]
