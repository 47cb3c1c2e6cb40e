"""Clamps of a tensor that nothing else reads, as the bounds of what writes it: one operation, not two.

Compilers for NPUs get a Clip between two quantizers of one scale (`Target.clamp`), which is read as a table.
"""

from dataclasses import replace

import numpy as np

from qnas.integer.convolution import Conv
from qnas.integer.network import IntegerNetwork
from qnas.integer.nodes import Add, ChannelGate, IntegerNode, Interpolate, Multiply, Table

ENDS = (Add, ChannelGate, Conv, Interpolate, Multiply, Table)  # classes that end at their grid's bounds


def joined_clamps(network: IntegerNetwork) -> IntegerNetwork:
    """The network without such tables; what they read has their names and grids."""
    readers = network.readers()
    nodes: dict[str, IntegerNode] = {}
    for node in network.nodes:
        source = nodes.get(node.inputs[0]) if node.inputs else None
        if source is not None and _clamps(node, source) and len(readers[source.name]) == 1:
            del nodes[source.name]
            node = _within(source, node)
        nodes[node.name] = node
    return replace(network, nodes=tuple(nodes.values()))


def _clamps(node: IntegerNode, source: IntegerNode) -> bool:
    """Whether `node` does nothing but cut off what lies beyond its grid, which is a part of the source's."""
    x, y = source.output, node.output
    if not isinstance(node, Table) or not isinstance(source, ENDS) or x.container != y.container:
        return False
    if (x.scale, x.zero_point) != (y.scale, y.zero_point) or y.low < x.low or y.high > x.high:
        return False
    return bool(np.array_equal(node.table[x.every], x.every.clip(y.low, y.high)))


def _within(source: IntegerNode, clamp: IntegerNode) -> IntegerNode:
    """`source` with the name and the bounds of `clamp`."""
    joined = replace(source, name=clamp.name, output=clamp.output)
    if isinstance(joined, Table):
        return replace(joined, table=joined.table.clip(clamp.output.low, clamp.output.high))
    return joined
