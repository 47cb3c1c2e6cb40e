"""What each layer of an architecture costs in 4 and in 8 bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from qnas.cost.allocation import EIGHT, PARTS, Bits, Unit, units_of
from qnas.cost.network_cost import network_cost
from qnas.errors import UsageError
from qnas.network.architecture import FIXED_SPACES, Architecture, Choice
from qnas.network.lowering import lower
from qnas.search.space.candidate_costs import owns
from qnas.search.space.latency_costs import latency_costs
from qnas.search.space.search_space import SearchSpace

BITS = (8, 4)
FOUR: Bits = "4"
Costs = Mapping[Bits, int]  # bits -> units


@dataclass(frozen=True)
class SlotCosts:
    """Units of each layer, of `Choices.unit`, and `fixed` ones of what has no choice."""

    layers: Mapping[str, Costs]
    fixed: int


def slot_costs(
    architecture: Architecture, unit: Unit, size: tuple[int, int], table: Path | None
) -> SlotCosts:
    """The costs of an image of `size`, height and width; milliseconds are those of the latency `table`.

    Raises UsageError where the table is missing, lacks a layer, or is not needed.
    """
    if (unit == "ms") != (table is not None):
        raise UsageError("--unit ms and --latency-table belong together: give both or neither")
    if table is not None:
        return _measured(architecture, size, table)
    eight = architecture.with_bits(8)
    rows = network_cost(lower(eight), *size).layers
    total, layers = sum(units_of(row, unit) for row in rows), {}
    for slot, choice in eight.layers.items():
        four = replace(eight, layers={**eight.layers, slot: replace(choice, bits=4)})
        own = sum(units_of(row, unit) for row in rows if owns(slot, row.name))
        saved = total - sum(units_of(row, unit) for row in network_cost(lower(four), *size).layers)
        layers[slot] = {EIGHT: own, FOUR: own - saved}
    return SlotCosts(layers, total - sum(costs[EIGHT] for costs in layers.values()))


def _measured(architecture: Architecture, size: tuple[int, int], table: Path) -> SlotCosts:
    """The table has no times of what no choice changes: there are no fixed ones."""
    a = architecture
    operations = {} if a.space in FIXED_SPACES else {slot: (c.op,) for slot, c in a.layers.items()}
    space = SearchSpace(
        a.space, a.space, a.channels, a.blocks, a.scale, BITS, operations, a.normalization,
        pattern=a.pattern, first_input=a.first_input, version=a.version,
    )  # fmt: skip
    times = latency_costs(space, table, *size).searched
    layers = {
        slot: {str(bits): round(PARTS["ms"] * times[slot][Choice(c.op, bits)]) for bits in BITS}
        for slot, c in a.layers.items()
    }
    return SlotCosts(layers, 0)
