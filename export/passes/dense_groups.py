"""Grouped convolutions as dense ones with zeros between the groups: the same integers.

onnxruntime's integer kernel runs group by group and pays more for that than for the zeros:
docs/graph-forms.md has what it is worth. A depthwise convolution, where every channel is a group, stays, and
so does one of 16 bits, which runs in float.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from qnas.integer.convolution import Conv
from qnas.integer.network import IntegerNetwork, is_wide, rewritten
from qnas.integer.nodes import IntegerNode


def dense_groups(network: IntegerNetwork) -> IntegerNetwork:
    """`network` without groups of more than one channel."""
    named = network.by_name()
    return rewritten(network, lambda node: (node if is_wide(node, named) else _dense(node),))


def _dense(node: IntegerNode) -> IntegerNode:
    if not isinstance(node, Conv) or node.groups == 1 or node.depthwise:
        return node
    return replace(node, weight=ungrouped(node.weight, node.groups), groups=1)


def ungrouped(weight: NDArray[np.int8], groups: int) -> NDArray[np.int8]:
    """[O, I / groups, kh, kw] -> [O, I, kh, kw] with zeros between groups."""
    out, part, *kernel = weight.shape
    dense = np.zeros((groups, out // groups, groups, part, *kernel), np.int8)
    for g in range(groups):
        dense[g, :, g] = weight.reshape(groups, out // groups, part, *kernel)[g]
    return dense.reshape(out, groups * part, *kernel)
