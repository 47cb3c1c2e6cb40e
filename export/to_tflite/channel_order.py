"""The channel order that TFLite's pixel shuffle wants, made in front of it at no cost where possible.

Pixel (i, j) of channel c comes from channel `c f^2 + i f + j` in ONNX (CRD), from `(i f + j) C + c` in TFLite
(DCR). Channel-wise operations do not mind an order that all their inputs share: such tensors form a
component. A dense convolution takes an order on either side into its weights.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from qnas.integer.convolution import Conv, picked
from qnas.integer.network import IntegerNetwork, rewritten
from qnas.integer.nodes import DepthToSpace, IntegerNode, Pad

Order = NDArray[np.intp]  # [C]: the channel of the old order at each place of the new one


def dcr_order(channels: int, factor: int) -> Order:
    """For a shuffle that writes `channels`: place `(i f + j) C + c` takes channel `c f^2 + i f + j`."""
    return np.arange(channels * factor**2).reshape(channels, factor**2).T.reshape(-1)


def in_runtime_order(network: IntegerNetwork) -> IntegerNetwork:
    """The network whose shuffles read their channels in DCR order: then it computes the same.

    Case 1: the component in front of a shuffle begins and ends in dense convolutions: they are permuted.
    Case 2: it holds what cannot be (the image, parts of a concatenation, a grouped convolution), or two
            shuffles want two orders of it: a 1x1 convolution permutes right in front of the shuffle.
    """
    named = network.by_name()
    component = _components(network)
    fixed = _fixed(network, component)
    orders: dict[str, Order] = {}
    nodes: list[IntegerNode] = []
    for node in network.nodes:
        if not isinstance(node, DepthToSpace):
            continue
        root, order = component[node.inputs[0]], dcr_order(node.channels, node.factor)
        if root not in fixed and np.array_equal(orders.setdefault(root, order), order):
            continue
        name, source = f"{node.name}.ordered", named[node.inputs[0]]
        now = orders.get(root, np.arange(source.channels))
        named[node.name] = replace(node, inputs=(name,))
        named[name] = picked(name, source, np.argsort(now)[order])
    for old in network.nodes:
        node_now = named[old.name]
        if node_now.inputs != old.inputs:
            nodes.append(named[node_now.inputs[0]])
        nodes.append(_reordered(node_now, component, orders))
    return replace(network, nodes=tuple(nodes))


def _components(network: IntegerNetwork) -> dict[str, str]:
    """Name of a node -> name of the first node of its component."""
    root: dict[str, str] = {}

    def find(name: str) -> str:
        while root[name] != name:
            name = root[name]
        return name

    for node in network.nodes:
        root[node.name] = node.name
        for source in _shared(node):
            root[find(node.name)] = find(source)
    return {node.name: find(node.name) for node in network.nodes}


def _shared(node: IntegerNode) -> tuple[str, ...]:
    """The inputs whose channel order is that of the output."""
    depthwise = isinstance(node, Conv) and node.depthwise
    return node.operands if node.scope != "tensor" or depthwise or isinstance(node, Pad) else ()


def _fixed(network: IntegerNetwork, component: Mapping[str, str]) -> set[str]:
    """The components that must keep their order."""
    named = network.by_name()
    held = {network.nodes[-1].name}
    for node in network.nodes:
        match node:
            case Conv() if node.groups == 1 or node.depthwise:
                pass
            case Pad() if named[node.inputs[0]].channels == node.channels:
                pass
            case DepthToSpace():
                held.add(node.name)
            case _ if node.scope == "tensor":
                # The image, concatenations, grouped convolutions, added channels: they and all they read.
                held.update((node.name, *node.inputs))
    return {component[name] for name in held}


def _reordered(node: IntegerNode, component: Mapping[str, str], orders: Mapping[str, Order]) -> IntegerNode:
    """`node` for the new orders of its output and, where it is a dense convolution, of its input."""
    if not isinstance(node, Conv):
        return node
    rows, columns = orders.get(component[node.name]), orders.get(component[node.inputs[0]])
    if rows is not None:
        node = replace(
            node, weight=node.weight[rows], weight_scale=node.weight_scale[rows], bias=node.bias[rows]
        )
    if columns is not None and not node.depthwise:
        node = replace(node, weight=node.weight[:, columns])
    return node


def shuffled_back(network: IntegerNetwork) -> IntegerNetwork:
    """A network in DCR order as the interpreter takes it: permuted back in front of every shuffle."""
    named = network.by_name()

    def edit(node: IntegerNode) -> tuple[IntegerNode, ...]:
        if not isinstance(node, DepthToSpace):
            return (node,)
        order = np.argsort(dcr_order(node.channels, node.factor))
        back = picked(f"{node.name}.back", named[node.inputs[0]], order)
        return back, replace(node, inputs=(back.name,))

    return rewritten(network, edit)
