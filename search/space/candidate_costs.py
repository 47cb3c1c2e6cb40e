"""What each candidate of a search space costs: MACs, BitOps, or measured milliseconds.

MACs and BitOps are those of `qnas.cost` for the network with that candidate in place, so the cost that a
search weighs is the cost that its architecture has.
"""

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from qnas.cost.network_cost import LayerCost, network_cost
from qnas.network.architecture import Choice
from qnas.network.lowering import lower
from qnas.quantization.quantizers import FLOAT_BITS
from qnas.search.space.search_space import SearchSpace

Cost = Literal["bitops", "macs", "latency"]


@dataclass(frozen=True)
class CandidateCosts:
    """`searched` maps a variable to the cost of each of its candidates, all its layers together, in the order
    of `SearchSpace.choices`.

    `fixed` is what the rest of the network costs: fusions and attention, which no choice changes. The unit is
    one multiply-add, one bit operation or one millisecond, for one image. `unquantized` has the costs of
    networks whose choices are all 32 bits, where those differ: nothing else of them is quantized either.
    """

    searched: Mapping[str, Mapping[Choice, float]]
    fixed: float
    unquantized: "CandidateCosts | None" = None

    def of(self, choices: Mapping[str, Choice]) -> float:
        """The cost of the whole network with these choices."""
        if self.unquantized and all(choice.bits == FLOAT_BITS for choice in choices.values()):
            return self.unquantized.of(choices)
        return self.fixed + sum(self.searched[name][choice] for name, choice in choices.items())

    @property
    def mean_searched(self) -> float:
        """The cost of the searched layers where all candidates are equally likely."""
        return sum(sum(costs.values()) / len(costs) for costs in self.searched.values())

    @property
    def smallest(self) -> float:
        """The cost of the cheapest network of the space."""
        return self.fixed + sum(min(costs.values()) for costs in self.searched.values())

    @property
    def largest(self) -> float:
        """The cost of the dearest network of the space."""
        if self.unquantized:
            return self.unquantized.largest
        return self.fixed + sum(max(costs.values()) for costs in self.searched.values())


def counted_costs(
    space: SearchSpace, cost: Literal["bitops", "macs"], height: int, width: int
) -> CandidateCosts:
    """MACs or BitOps of every candidate for an image of `height` x `width` pixels.

    Half of the layers of a network show their candidates of one rank and bit width, beside others at the
    smallest: a layer of 32 bits in a quantized network may read 8.
    """
    costs = _counted(space, space.widths, cost, height, width)
    if FLOAT_BITS in space.bits[1:]:
        costs = replace(costs, unquantized=_counted(space, space.widths[-1:], cost, height, width))
    return costs


def _counted(
    space: SearchSpace,
    widths: Sequence[tuple[int, int | None]],
    cost: Literal["bitops", "macs"],
    height: int,
    width: int,
) -> CandidateCosts:
    slots = list(space.slots)
    by_slot: dict[str, dict[Choice, float]] = {slot: {} for slot in slots}
    fixed = 0.0
    for width_pair in widths:
        for rank in range(max(map(len, space.slots.values()))):
            for half in (slots[::2], slots[1::2]):
                choices = {
                    slot: Choice(ops[rank % len(ops)], *(width_pair if slot in half else widths[0]))
                    for slot, ops in space.slots.items()
                }
                rows = network_cost(lower(space.frame(choices)), height, width).layers
                amounts: Counter[str | None] = Counter()
                for row in rows:
                    amounts[_owner(row.name, by_slot)] += _amount(row, cost)
                for slot in half:
                    by_slot[slot][choices[slot]] = amounts[slot]
                fixed = amounts[None]
    return CandidateCosts(
        {
            name: {
                choice: sum(by_slot[slot][choice] for slot in tied)
                for choice in space.choices(name)
                if choice in by_slot[tied[0]]
            }
            for name, tied in space.variables.items()
        },
        fixed,
    )


def _owner(layer: str, slots: Container[str]) -> str | None:
    """The slot that `owns` the layer: no slot is a part of another."""
    while layer and layer not in slots:
        layer = layer.rpartition(".")[0]
    return layer or None


def owns(slot: str, layer: str) -> bool:
    """Whether the layer of a lowered network belongs to the choice of `slot`."""
    return layer == slot or layer.startswith(f"{slot}.")


def _amount(row: LayerCost, cost: Literal["bitops", "macs"]) -> int:
    return row.bitops if cost == "bitops" else row.macs
