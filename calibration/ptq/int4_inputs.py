"""Convolutions that read 4 bits: 16 levels of what has 256 for others.

1. Where such convolutions alone read a tensor, and all with the same levels, it is written on these at once.
2. Else it is rounded once more in front of each of them: sums, products and tables keep their 8 bits.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from qnas.calibration.ptq.float_graph import FloatGraph
from qnas.calibration.ptq.grids import Grids
from qnas.calibration.ranges.ranges import Range
from qnas.quantization.quantizers import QuantParams


@dataclass(frozen=True)
class Int4Input:
    """A convolution that reads 16 levels from `low` to `high`, in the units of the network."""

    layer: str
    low: float
    high: float

    def __post_init__(self) -> None:
        """Raises ModelError where the ends are not in order."""
        Range(self.low, self.high)


def on_int4_grids(
    graph: FloatGraph, integer: Collection[str], grids: Grids, inputs: Sequence[Int4Input]
) -> tuple[Grids, Mapping[str, QuantParams]]:
    """`grids` with those of case 1, and the grids in front of the layers of case 2.

    Of `inputs` those count whose layers are `integer`.
    """
    ranges = {each.layer: Range(each.low, each.high) for each in inputs if each.layer in integer}
    readers: dict[str, set[str]] = {}  # group -> the convolutions that read it
    mixed = set(grids.tied)  # groups that others compute with too
    for node in graph.nodes:
        groups = {grids.groups.of(name) for name in graph.data(node)}
        if node.name in ranges:
            readers.setdefault(grids.groups.of(node.input[0]), set()).add(node.name)
        elif not graph.moves(node) or {grids.groups.of(name) for name in graph.touched(node)} != groups:
            mixed |= groups
    whole = {
        group: ranges[min(layers)].params(4)
        for group, layers in readers.items()
        if group not in mixed and len({ranges[layer] for layer in layers}) == 1
    }
    own = ranges.keys() - {layer for group in whole for layer in readers[group]}
    read = {layer: ranges[layer].params(4) for layer in sorted(own)}
    return replace(grids, params={**grids.params, **whole}), read
