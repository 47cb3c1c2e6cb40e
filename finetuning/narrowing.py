"""Activations of fewer than 8 bits: what convolutions read, on grids of 2^bits levels in a byte.

1. A tensor on a grid that convolutions alone write and read gets it as it is.
2. Any other is requantized in front of them, by a depthwise convolution of one weight, which every runtime
   rounds alike; sums, products and tables keep their 8 bits.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from qnas.finetuning.grids import MOVING, Groups
from qnas.integer.convolution import scaled
from qnas.integer.interpreter import trace
from qnas.integer.network import IntegerNetwork
from qnas.integer.nodes import ImageInput, IntegerNode
from qnas.integer.requantization import Bytes
from qnas.quantization.quantizers import QuantParams, dequantize, quantize

LEVELS = 16
SHARES = np.linspace(1.0, 0.2, 33)  # of the range that holds all values


def narrowed(
    network: IntegerNetwork, layers: Collection[str], bits: int, images: Sequence[Bytes]
) -> IntegerNetwork:
    """The network whose convolutions `layers` read `bits` bits.

    Grids have the least squared error on `images` [1, C, H, W]. The image itself keeps its 8 bits.
    """
    groups, named = Groups.of(network), network.by_name()
    readers: dict[str, set[str]] = {}  # group -> what computes with it
    for node in network.nodes:
        for name in node.operands if not isinstance(node, MOVING) else ():
            readers.setdefault(groups.first[name], set()).add(node.name)
    read = {named[name].inputs[0] for name in layers}
    read = {name for name in read if not isinstance(named[groups.first[name]], ImageInput)}
    free = {group for group in groups.free(network) if readers.get(group, set()) <= {*layers}}
    whole = {groups.first[name] for name in read} & free  # Case 1
    alone = {name for name in read if groups.first[name] not in free}  # Case 2
    grid_of = {name: group for name, group in groups.first.items() if group in whole}
    grids = {
        name: best_grid(values, bits)
        for name, values in _seen(network, grid_of | {name: name for name in alone}, images).items()
    }
    nodes: list[IntegerNode] = []
    for node in network.nodes:
        if node.name in layers and node.inputs[0] in alone:
            node = replace(node, inputs=(f"{node.inputs[0]}.narrow", *node.inputs[1:]))
        if (group := groups.first[node.name]) in whole:
            node = replace(node, output=grids[group])
        nodes.append(node)
        if node.name in alone:
            ones, zeros = np.ones(node.channels, np.float32), np.zeros(node.channels, np.int32)
            nodes.append(scaled(f"{node.name}.narrow", node.name, ones, zeros, grids[node.name]))
    return replace(network, nodes=tuple(nodes))


def narrow_grids(network: IntegerNetwork) -> frozenset[str]:
    """The grids of at most 16 levels that nothing but convolutions hangs on: their scale can be trained."""
    named, free = network.by_name(), Groups.of(network).free(network)
    return frozenset(name for name in free if named[name].output.high - named[name].output.low < LEVELS)


def best_grid(values: NDArray[np.float32], bits: int) -> QuantParams:
    """The grid of 2^bits levels from 0 on with the least squared error of `values` (any shape)."""
    top = (1 << bits) - 1
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    found = []
    for share in SHARES if high > low else ():
        step = np.float32((high - low) * share / top)
        zero_point = int(np.clip(np.rint(-low * share / step), 0, top))
        grid = QuantParams(np.asarray(step, np.float32), zero_point, 0, top)
        error = float(np.square(dequantize(quantize(values, grid), grid) - values).mean())
        found.append((error, grid))
    return (
        min(found, key=lambda each: each[0])[1]
        if found
        else QuantParams(np.asarray(1, np.float32), 0, 0, top)
    )


def _seen(
    network: IntegerNetwork, tensors: Mapping[str, str], images: Sequence[Bytes]
) -> dict[str, NDArray[np.float32]]:
    """What of each of `tensors` is its grid's -> the values of all of the same one."""
    found: dict[str, list[NDArray[np.float32]]] = {}
    for image in images:
        for node, q in trace(network, image):
            if node.name in tensors:
                values = dequantize(q.astype(np.int32), node.output).reshape(-1)
                found.setdefault(tensors[node.name], []).append(values)
    return {name: np.concatenate(parts) for name, parts in found.items()}
