"""Channels of zeros, where a runtime's kernels want a multiple of four. The function stays the same.

Case 1: tensors that convolutions write get rows of zero weights, and their readers columns of zero weights.
Case 2: other narrow tensors, such as the image, get a Pad node in front of the convolutions of bytes that
read them.

Tensors that an operation takes channel by channel are a group, padded together or not at all. What another
operation reads or writes keeps its channels, unless it is a convolution or a concatenation.

A tensor that decides gains of images keeps its channels behind what makes another value of 0, as a sigmoid
does: there, added ones would count.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from qnas.integer.convolution import Conv
from qnas.integer.network import IntegerNetwork, image_gain, is_wide
from qnas.integer.nodes import Concat, IntegerNode, Interpolate, MaxPool, Pad

Places = tuple[int, ...]  # per channel of a padded tensor the channel it held before, -1 for a zero
NARROW = 16  # a Pad node costs more than it saves on wider tensors


def pad_channels(network: IntegerNetwork, multiple: int) -> IntegerNetwork:
    """`network` with what convolutions read padded to multiples of `multiple` channels."""
    paddable = _paddable(network)
    nodes: dict[str, IntegerNode] = {}
    places: dict[str, Places] = {}
    for node in network.nodes:
        mine = _places(node, places, multiple if node.name in paddable else 1)
        if isinstance(node, Conv):
            read = node.inputs[0]
            node = _widened(node, places[read], mine)
            width = nodes[read].channels
            narrow = width < NARROW and width % multiple
            if node.groups == 1 and narrow and not is_wide(node, nodes):  # Case 2
                name, more = f"{read}.padded", (-1,) * (-width % multiple)
                nodes[name] = Pad(name, (read,), width + len(more), nodes[read].output)
                node = replace(
                    _widened(node, (*range(width), *more), tuple(range(len(mine)))),
                    inputs=(name, *node.inputs[1:]),
                )
        places[node.name] = mine
        nodes[node.name] = replace(node, channels=len(mine))
    return replace(network, nodes=tuple(nodes.values()))


def _places(node: IntegerNode, places: dict[str, Places], multiple: int) -> Places:
    if isinstance(node, Concat):
        found: list[int] = []
        for name in node.inputs:
            start = sum(place >= 0 for place in found)
            found += [place + start if place >= 0 else -1 for place in places[name]]
        return tuple(found)
    if _by_channel(node):
        return places[node.inputs[0]]
    return (*range(node.channels), *[-1] * (-node.channels % multiple))


def _widened(node: Conv, columns: Places, rows: Places) -> Conv:
    """`node` reading channels `columns` and writing `rows`; -1 is a channel of zeros. Others stay."""
    if node.groups > 1 and not node.depthwise:
        return node
    inputs = [0] if node.depthwise else list(columns)
    zero_column = np.pad(node.weight, ((0, 1), (0, 1), (0, 0), (0, 0)))  # a last row and column for -1
    return replace(
        node,
        weight=zero_column[list(rows)][:, inputs],
        groups=len(rows) if node.depthwise else 1,
        weight_scale=np.append(node.weight_scale, node.weight_scale[:1])[list(rows)],
        bias=np.append(node.bias, np.int32(0))[list(rows)],
    )


def _paddable(network: IntegerNetwork) -> frozenset[str]:
    """The tensors of Case 1, and concatenations of them."""
    group: dict[str, frozenset[str]] = {node.name: frozenset({node.name}) for node in network.nodes}
    for node in network.nodes:
        if _by_channel(node):
            joined = frozenset().union(group[node.name], *(group[name] for name in node.operands))
            group |= dict.fromkeys(joined, joined)
    named = network.by_name()
    concats = {node.name for node in network.nodes if isinstance(node, Concat)}
    fixed = set(group[network.nodes[-1].name])
    for node in network.nodes:
        dense = isinstance(node, Conv) and node.groups == 1
        if not _by_channel(node) and not dense and node.name not in concats:
            fixed.update(*(group[name] for name in (node.name, *node.operands)))
        if node.scope != "tensor" and len(node.operands) > 1 and concats & group[node.name]:
            fixed |= group[node.name]  # zeros of a concatenation stand elsewhere than those of a convolution
        if image_gain(node) and not all(_keeps_zero(named[name], named) for name in group[node.inputs[-1]]):
            fixed |= group[node.inputs[-1]]
    for node in reversed(network.nodes):
        if node.name in concats & fixed:
            fixed.update(*(group[name] for name in node.inputs))
    return frozenset(group) - fixed


def _by_channel(node: IntegerNode) -> bool:
    """Whether a channel that it writes hangs on that channel of its operands alone."""
    return node.scope != "tensor" or (isinstance(node, Conv) and node.depthwise)


def _keeps_zero(node: IntegerNode, named: Mapping[str, IntegerNode]) -> bool:
    """Whether channels of the value 0 stay that."""
    if node.scope != "value":
        return node.scope == "tensor" or isinstance(node, MaxPool | Interpolate)
    grids = [named[name].output for name in node.operands]
    zeros = [(np.full((1, 1, 1, 1), grid.zero_point, grid.dtype), grid) for grid in grids]
    return int(node.computed(zeros).item()) == node.output.zero_point
