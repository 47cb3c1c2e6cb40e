"""Convolutions behind a pixel shuffle, run in front of it: the same integers at a fraction of the time.

A k x k convolution of C channels at f times the size equals one of C f^2 channels at the small size, between
the phases of the shuffle, zero padding included. It multiplies f^2 times as much, mostly by zero, but integer
kernels are that much better at 48 channels than at 3: docs/graph-forms.md has what it is worth.

Requires: a pixel shuffle that is not the last node. Ensures: the same function; the shuffle comes last.
"""

from dataclasses import replace

import numpy as np

from qnas.export.passes.dense_groups import ungrouped
from qnas.integer.convolution import Conv
from qnas.integer.network import IntegerNetwork, image_gain, is_wide
from qnas.integer.nodes import DepthToSpace, IntegerNode

WIDEST = 64  # channels of a convolution between phases; wider ones gain nothing


def delay_shuffles(network: IntegerNetwork) -> IntegerNetwork:
    """The last pixel shuffle moved to the end where all behind it allow; the same network otherwise.

    Case 1: a table or a sum works value by value: it does not mind the order.
    Case 2: a narrow convolution of stride 1 that keeps the size: it gets f^2 times the channels.
    Anything else, or an input that does not come from the shuffle, leaves the network as it is.
    """
    nodes, named = network.nodes, network.by_name()
    shuffles = [index for index, node in enumerate(nodes) if isinstance(node, DepthToSpace)]
    if not shuffles or shuffles[-1] == len(nodes) - 1:
        return network
    at, shuffle = shuffles[-1], nodes[shuffles[-1]]
    assert isinstance(shuffle, DepthToSpace)
    behind, f = nodes[at + 1 :], shuffle.factor
    inside = {shuffle.name, *(node.name for node in behind)}
    for node in behind:
        widths = (node.channels, *(named[name].channels for name in node.inputs))
        small = max(widths) * f**2 <= WIDEST and not is_wide(node, named)  # float kernels gain nothing
        narrow = isinstance(node, Conv) and _movable(node) and small
        by_value = node.scope == "value" and image_gain(node) is None
        if not (by_value or narrow) or not inside.issuperset(node.inputs):
            return network
    source = shuffle.inputs[0]
    moved: list[IntegerNode] = []
    for node in behind:
        inputs = tuple(source if name == shuffle.name else name for name in node.inputs)
        wide = between_phases(node, f) if isinstance(node, Conv) else node
        moved.append(replace(wide, inputs=inputs, channels=node.channels * f**2))
    last = moved[-1]
    end = replace(shuffle, inputs=(last.name,), channels=behind[-1].channels, output=last.output)
    return replace(network, nodes=(*nodes[:at], *moved, end))


def _movable(node: Conv) -> bool:
    """Whether it keeps the size of the image and has no gain that hangs on another tensor."""
    return node.keeps_size and node.dilation == (1, 1) and node.image_gain is None


def between_phases(node: Conv, f: int) -> Conv:
    """`node` between the phases of a shuffle by f.

    Weight [O, I / groups, kh, kw] -> [O f^2, I f^2, kh', kw'], kh' = 2 ceil(ph / f) + 1.
    """
    ph, pw = node.padding[:2]
    dense = ungrouped(node.weight, node.groups)
    out, channels, kh, kw = dense.shape
    qh, qw = -(-ph // f), -(-pw // f)
    weight = np.zeros((out, f, f, channels, f, f, 2 * qh + 1, 2 * qw + 1), np.int8)
    for i in range(f):  # the row phase that is written, and the one read: f * y + a = i + dy - ph
        for dy in range(kh):
            y, a = divmod(i + dy - ph, f)
            for j in range(f):
                for dx in range(kw):
                    x, b = divmod(j + dx - pw, f)
                    weight[:, i, j, :, a, b, y + qh, x + qw] = dense[:, :, dy, dx]
    return replace(
        node,
        weight=weight.reshape(out * f * f, channels * f * f, 2 * qh + 1, 2 * qw + 1),
        weight_scale=np.repeat(node.weight_scale, f * f),
        bias=np.repeat(node.bias, f * f),
        padding=(qh, qw, qh, qw),
        groups=1,
    )
