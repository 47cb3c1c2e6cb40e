"""Constants of each channel, added or multiplied behind a convolution, go into its weights and bias.

onnxruntime does so where they stand right behind it; here a pixel shuffle or another order of the channels
may stand between, as where a mean is added to the pixels of the output.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, helper

from qnas.calibration.prepare.standard_forms import store
from qnas.onnx.graph import Graph, attributes
from qnas.onnx.names import Names

Array = NDArray[np.float64]


def channel_terms_folded(proto: GraphProto) -> bool:
    """Fold them; whether there were any. What was folded is an Identity."""
    graph, names = Graph(proto), Names.of(proto)
    changed = False
    for node in graph.nodes:
        found = _term(graph, node)
        folded = None if found is None else _convolution(graph, *found)
        if found is None or folded is None:
            continue
        conv, values = folded
        weight = graph.array(conv.input[1]).astype(np.float64)
        has_bias = len(conv.input) > 2 and bool(conv.input[2])
        bias = graph.array(conv.input[2]).astype(np.float64) if has_bias else np.zeros(len(weight))
        if node.op_type in ("Mul", "Div"):
            weight, bias = weight * values.reshape(-1, *[1] * (weight.ndim - 1)), bias * values
        else:
            bias = bias + values
        conv.input[1:] = [
            store(proto, names, f"{conv.output[0]}.{what}", array)
            for what, array in (("weight", weight), ("bias", bias))
        ]
        graph.constants.update((tensor.name, tensor) for tensor in proto.initializer[-2:])
        node.CopyFrom(helper.make_node("Identity", [found[0]], node.output, node.name))
        changed = True
    return changed


def _term(graph: Graph, node: NodeProto) -> tuple[str, Array] | None:
    """What `node` reads, and the constants [C], or [1] for all, that it adds or multiplies it by."""
    if node.op_type not in ("Add", "Sub", "Mul", "Div"):
        return None
    first, second = node.input
    if first in graph.constants and node.op_type in ("Add", "Mul"):
        first, second = second, first
    if second not in graph.constants or first in graph.constants:
        return None
    shape = list(graph.constants[second].dims)
    if any(size != 1 for axis, size in enumerate(shape) if axis != len(shape) - 3):
        return None
    values = graph.array(second).astype(np.float64).reshape(-1)
    if node.op_type == "Sub":
        return first, -values
    if node.op_type == "Div":
        return (first, 1 / values) if values.all() else None
    return first, values


def _convolution(graph: Graph, tensor: str, values: Array) -> tuple[NodeProto, Array] | None:
    """The convolution that alone makes `tensor`, and `values` in the order of its channels."""
    node = graph.producers.get(tensor)
    if node is None or graph.uses[tensor] != 1:
        return None
    a = attributes(node)
    match node.op_type:
        case "Conv" if all(name in graph.constants for name in node.input[1:] if name):
            channels = graph.constants[node.input[1]].dims[0]
            return (node, np.broadcast_to(values, channels)) if len(values) in (1, channels) else None
        case "DepthToSpace" | "Gather" | "Identity" if len(values) == 1 or node.op_type == "Identity":
            return _convolution(graph, node.input[0], values)
        case "DepthToSpace":
            square = a["blocksize"] ** 2
            crd = a.get("mode", "DCR") == "CRD"
            return _convolution(
                graph, node.input[0], np.repeat(values, square) if crd else np.tile(values, square)
            )
        case "Gather" if a.get("axis", 0) in (1, -3) and node.input[1] in graph.constants:
            places = graph.array(node.input[1])
            if places.shape != values.shape or sorted(places) != list(range(len(values))):
                return None
            return _convolution(graph, node.input[0], values[np.argsort(places)])
    return None
