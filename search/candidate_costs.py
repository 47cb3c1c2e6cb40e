"""What each candidate of a search space costs: MACs, BitOps, or measured milliseconds.

MACs and BitOps are those of `qnas.cost` for the network with that candidate in place, so the cost that a
search weighs is the cost that its architecture has.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from qnas.architecture import Choice
from qnas.cost import LayerCost, network_cost
from qnas.lowering import lower
from qnas.search.space import SearchSpace

Cost = Literal["bitops", "macs", "latency"]
Candidate = tuple[str, int]  # operation, bits


@dataclass(frozen=True)
class CandidateCosts:
    """`searched` maps a variable to the cost of each of its candidates, all its layers together.

    `fixed` is what the rest of the network costs: fusions and attention, which no choice changes. The unit is
    one multiply-add, one bit operation or one millisecond, for one image.
    """

    searched: Mapping[str, Mapping[Candidate, float]]
    fixed: float

    def of(self, choices: Mapping[str, Choice]) -> float:
        """The cost of the whole network with these choices."""
        return self.fixed + sum(self.searched[name][c.op, c.bits] for name, c in choices.items())

    @property
    def mean_searched(self) -> float:
        """Of the searched layers where all candidates are equally likely."""
        return sum(sum(costs.values()) / len(costs) for costs in self.searched.values())

    @property
    def smallest(self) -> float:
        """Of the cheapest network of the space."""
        return self.fixed + sum(min(costs.values()) for costs in self.searched.values())

    @property
    def largest(self) -> float:
        """Of the dearest network of the space."""
        return self.fixed + sum(max(costs.values()) for costs in self.searched.values())


def counted_costs(
    space: SearchSpace, cost: Literal["bitops", "macs"], height: int, width: int
) -> CandidateCosts:
    """MACs or BitOps of every candidate for an image of `height` x `width` pixels.

    One network of each bit width and rank shows the candidates of that rank of all layers at once.
    """
    by_slot: dict[str, dict[Candidate, float]] = {slot: {} for slot in space.slots}
    fixed = 0.0
    for bits in space.bits:
        for rank in range(max(map(len, space.slots.values()))):
            choices = {slot: Choice(ops[rank % len(ops)], bits) for slot, ops in space.slots.items()}
            rows = network_cost(lower(space.frame(choices)), height, width).layers
            owned = {slot: [row for row in rows if owns(slot, row.name)] for slot in space.slots}
            for slot, choice in choices.items():
                by_slot[slot][choice.op, choice.bits] = sum(_amount(row, cost) for row in owned[slot])
            if bits == space.bits[0]:
                searched = {row.name for rows_of in owned.values() for row in rows_of}
                fixed = sum(_amount(row, cost) for row in rows if row.name not in searched)
    return CandidateCosts(
        {
            name: {key: sum(by_slot[slot][key] for slot in slots) for key in by_slot[slots[0]]}
            for name, slots in space.variables.items()
        },
        fixed,
    )


def owns(slot: str, layer: str) -> bool:
    """Whether the layer of a lowered network belongs to the choice of `slot`."""
    return layer == slot or layer.startswith(f"{slot}.")


def _amount(row: LayerCost, cost: Literal["bitops", "macs"]) -> int:
    return row.bitops if cost == "bitops" else row.macs
