"""The exact choice of one option for each item, so that the least is lost within a budget.

This is the multiple-choice knapsack problem. Partial choices are kept as a Pareto front: one that costs no
less and loses no less than another cannot become the better of the two, whatever the rest is. Fronts stay
short, as layers of a network often cost alike (docs/decisions/0030-exact-choice-of-bits.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Option:
    """What an item costs, in whole units, and what it loses, where this is chosen."""

    cost: int
    loss: float


@dataclass(frozen=True)
class Chosen:
    """The position of the option of each item, and the sums of their costs and losses."""

    options: tuple[int, ...]
    cost: int
    loss: float


@dataclass(frozen=True, eq=False)
class _Stage:
    """The front after an item: each entry's sums, the entry before it that it extends, and its option."""

    cost: NDArray[np.int64]
    loss: NDArray[np.float64]
    before: NDArray[np.int64]
    option: NDArray[np.int64]


class Front:
    """All choices of one option for each of `items` that no other choice beats in both cost and loss."""

    def __init__(self, items: Sequence[Sequence[Option]]) -> None:
        """Sums of costs stay below 2**63, and no item lacks options."""
        nothing = np.zeros(1, np.int64)
        self._stages = [_Stage(nothing, np.zeros(1), nothing, nothing)]
        for options in items:
            self._stages.append(_extended(self._stages[-1], options))

    @property
    def least_cost(self) -> int:
        """The smallest budget that any choice keeps."""
        return int(self._stages[-1].cost[0])

    def within(self, budget: float) -> Chosen | None:
        """The choice that loses least of those that cost at most `budget`, the cheapest of equals.

        None where all cost more.
        """
        last = self._stages[-1]
        entry = int(np.searchsorted(last.cost, budget, side="right")) - 1
        if entry < 0:
            return None
        cost, loss = int(last.cost[entry]), float(last.loss[entry])
        options = []
        for stage in self._stages[:0:-1]:
            options.append(int(stage.option[entry]))
            entry = int(stage.before[entry])
        return Chosen(tuple(reversed(options)), cost, loss)


def _extended(front: _Stage, options: Sequence[Option]) -> _Stage:
    """The front with one item more: costs rise and losses fall along it."""
    count = len(front.cost)
    cost = np.concatenate([front.cost + option.cost for option in options])
    loss = np.concatenate([front.loss + option.loss for option in options])
    before = np.tile(np.arange(count), len(options))
    which = np.repeat(np.arange(len(options)), count)
    order = np.lexsort((which, loss, cost))
    least = np.minimum.accumulate(loss[order])
    better = np.append(True, loss[order][1:] < least[:-1])
    kept = order[better]
    return _Stage(cost[kept], loss[kept], before[kept], which[kept])
