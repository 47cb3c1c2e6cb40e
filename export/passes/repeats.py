"""Repeated channels, folded into the weights of the convolutions that read them.

A convolution of n copies of x is a convolution of x whose weights are sums over the copies. A sum of n int8
weights may need more than 8 bits: then as few copies as hold it remain, and the sum is shared out to them.

Ensures: the same function; a table, or what else works value by value on one tensor, stands in front of the
repetition, convolutions read at most as many copies as before, and what else reads the copies gets them from
a 1x1 convolution of ones: its output has the memory layout of its neighbours, where a concatenation would be
transposed by every reader.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from qnas.integer.convolution import Conv, picked
from qnas.integer.network import IntegerNetwork, pruned, rewritten
from qnas.integer.nodes import Concat, IntegerNode


def fold_repeats(network: IntegerNetwork) -> IntegerNetwork:
    """Case 1: a table of a repetition becomes a repetition of a table. Case 2: a convolution of a repetition
    reads fewer copies. Case 3: what is left of the repetition becomes a convolution."""
    nodes: dict[str, IntegerNode] = {}
    for node in network.nodes:
        repeated = nodes.get(node.inputs[0]) if node.inputs else None
        if repeated is not None and _repeats(repeated):
            once = nodes[repeated.inputs[0]]
            if node.scope == "value" and len(node.inputs) == 1:  # Case 1
                single = replace(node, name=f"{node.name}.once", inputs=(once.name,), channels=once.channels)
                nodes[single.name] = single
                copies = (single.name,) * len(repeated.inputs)
                node = Concat(node.name, copies, node.channels, node.output)
            elif isinstance(node, Conv) and node.groups == 1:  # Case 2
                weight = fewer_copies(node.weight, len(repeated.inputs))
                count = weight.shape[1] // once.channels
                name = once.name
                if count > 1:
                    name = f"{once.name}.{count}_times"
                    nodes[name] = Concat(name, (once.name,) * count, weight.shape[1], once.output)
                bits = node.bits if weight.min() >= -8 and weight.max() <= 7 else 8
                node = replace(node, inputs=(name, *node.inputs[1:]), weight=weight, bits=bits)
        nodes[node.name] = node
    folded = pruned(replace(network, nodes=tuple(nodes.values())))
    others = {name for node in folded.nodes if not isinstance(node, Conv) for name in node.inputs}
    named = folded.by_name()

    def edit(node: IntegerNode) -> tuple[IntegerNode, ...]:
        if node.name not in others or not _repeats(node):
            return (node,)
        source = named[node.inputs[0]]  # Case 3
        rows = np.tile(np.arange(source.channels), len(node.inputs))
        return (replace(picked(node.name, source, rows), output=node.output),)

    return rewritten(folded, edit)


def _repeats(node: IntegerNode) -> bool:
    return isinstance(node, Concat) and len(set(node.inputs)) == 1 < len(node.inputs)


def fewer_copies(weight: NDArray[np.int8], copies: int) -> NDArray[np.int8]:
    """int8 [O, copies * C, kh, kw] -> [O, m * C, kh, kw] with the same sums and the least m."""
    out, width, *kernel = weight.shape
    total = weight.astype(np.int64).reshape(out, copies, width // copies, *kernel).sum(axis=1)
    m = max(1, int(np.ceil(np.abs(total).max() / 127)))
    shares = [(total + k) // m for k in range(m)]  # sum to the total, and differ by at most one
    return np.concatenate(shares, axis=1).astype(np.int8)
