"""Rewrites of a float graph into the forms that all that follows knows; each returns whether it changed it.

They compute the same but for float rounding, keep the names of the tensors that stay, and leave behind what
nobody reads any more.
"""

from __future__ import annotations

from copy import deepcopy
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, helper, numpy_helper

from qnas.onnx.graph import Graph, attributes
from qnas.onnx.names import Names

# One node at a time --------------------------------------------------------------------------------------


def batch_norms_as_convolutions(proto: GraphProto) -> bool:
    """A BatchNormalization that no convolution in front took in -> a depthwise 1x1 convolution."""
    graph, names = Graph(proto), Names.of(proto)
    changed = False
    for node in graph.nodes:
        if node.op_type != "BatchNormalization" or not graph.constants.keys() >= set(node.input[1:]):
            continue
        gain, shift, mean, variance = (graph.array(name).astype(np.float64) for name in node.input[1:5])
        slope = gain / np.sqrt(variance + attributes(node).get("epsilon", 1e-5))
        weight = store(proto, names, f"{node.output[0]}.weight", slope.reshape(-1, 1, 1, 1))
        bias = store(proto, names, f"{node.output[0]}.bias", shift - slope * mean)
        inputs = [node.input[0], weight, bias]
        node.CopyFrom(helper.make_node("Conv", inputs, node.output[:1], node.name, group=len(slope)))
        changed = True
    return changed


def explicit_paddings(proto: GraphProto) -> bool:
    """auto_pad SAME of an odd kernel and stride 1, or VALID -> pads."""
    graph = Graph(proto)
    changed = False
    for node in graph.nodes:
        a = attributes(node)
        mode = a.get("auto_pad", "NOTSET")
        if node.op_type != "Conv" or mode == "NOTSET" or node.input[1] not in graph.constants:
            continue
        kernel = graph.constants[node.input[1]].dims[2:]
        spread = [(k - 1) * d for k, d in zip(kernel, a.get("dilations", [1] * len(kernel)), strict=True)]
        if mode != "VALID" and (any(s % 2 for s in spread) or any(s != 1 for s in a.get("strides", []))):
            continue
        pads = [0 if mode == "VALID" else s // 2 for s in spread] * 2
        kept = [each for each in node.attribute if each.name not in ("auto_pad", "pads")]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute("pads", pads)])
        changed = True
    return changed


def means_as_pools(proto: GraphProto) -> bool:
    """A ReduceMean over height and width that keeps its dimensions -> GlobalAveragePool."""
    graph = Graph(proto)
    changed = False
    for node in graph.nodes:
        a = attributes(node)
        if node.op_type != "ReduceMean" or not a.get("keepdims", 1):
            continue
        given = graph.array(node.input[1]) if len(node.input) > 1 and node.input[1] in graph.constants else ()
        if sorted(int(axis) for axis in a.get("axes", given)) in ([2, 3], [-2, -1]):
            node.CopyFrom(helper.make_node("GlobalAveragePool", node.input[:1], node.output, node.name))
            changed = True
    return changed


def single_concatenations_removed(proto: GraphProto) -> bool:
    """A Concat of one tensor is that tensor: an Identity, which onnxruntime takes out."""
    found = [node for node in proto.node if node.op_type == "Concat" and len(node.input) == 1]
    for node in found:
        node.CopyFrom(helper.make_node("Identity", node.input, node.output, node.name))
    return bool(found)


def unread_nodes_removed(proto: GraphProto) -> bool:
    """Take out nodes and initializers that the output does not depend on."""
    graph = Graph(proto)
    read = graph.outputs.union(*(node.input for node in graph.needed))
    stored = [tensor for tensor in proto.initializer if tensor.name in read]
    changed = (len(graph.needed), len(stored)) != (len(proto.node), len(proto.initializer))
    del proto.node[:], proto.initializer[:]
    proto.node.extend(graph.needed)
    proto.initializer.extend(stored)
    return changed


# Scalar factors ------------------------------------------------------------------------------------------


def factors_moved_forward(proto: GraphProto) -> bool:
    """x * c and x / c behind a DepthToSpace, or with c > 0 behind a clamp, go before it.

    A convolution there takes them in, and Clip(0, 1) * 255 becomes Clip(0, 255). Many factors behind many
    clamps could take quadratic time: those left when there were 4 moves a node stay where they are.
    """
    graph, names = Graph(proto), Names.of(proto)
    left = most = 4 * len(graph.nodes)
    for node in graph.nodes:
        factor = node
        while left and (before := _moved_forward(graph, names, factor)) is not None:
            factor, left = before, left - 1
    return left < most


def _moved_forward(graph: Graph, names: Names, node: NodeProto) -> NodeProto | None:
    """The node in front of `node`, which is now the factor that `node` was, and `node` is what that was."""
    found = graph.scalar_operand(node) if node.op_type in ("Mul", "Div") else None
    before = graph.producers.get(found[0]) if found is not None else None
    if found is None or before is None or graph.uses[before.output[0]] != 1:
        return None
    factor = found[1] if node.op_type == "Mul" else 1 / found[1] if found[1] else 0.0
    clamp = graph.clamp(before)
    if before.op_type != "DepthToSpace" and (clamp is None or factor <= 0):
        return None
    target = node.output[0]
    factored, moved = deepcopy(node), deepcopy(before)
    source = before.input[0] if clamp is None else clamp.source
    if clamp is not None and before.op_type != "Relu":
        ends = {"low": clamp.low * factor, "high": clamp.high * factor}
        limits = [
            store(graph.proto, names, f"{target}.{name}", end) if abs(end) < inf else ""
            for name, end in ends.items()
        ]
        graph.constants.update((tensor.name, tensor) for tensor in graph.proto.initializer[-2:])
        moved = helper.make_node("Clip", ["", *limits], [target], before.name)
    factored.input[:] = [source if name == found[0] else name for name in node.input]
    between = names.tensor(f"{target}.unmoved")
    factored.output[0] = moved.input[0] = between
    moved.output[0] = target
    before.CopyFrom(factored)
    node.CopyFrom(moved)
    graph.producers[between], graph.uses[between] = before, 1
    return before


def scaled_inputs_folded(proto: GraphProto) -> bool:
    """x * c or x / c that only convolutions read goes into their weights; zero padding stays zero."""
    graph, names = Graph(proto), Names.of(proto)
    changed = False
    for node in graph.nodes:
        found = graph.scalar_operand(node) if node.op_type in ("Mul", "Div") else None
        scaled, readers = node.output[0], graph.readers.get(node.output[0], [])
        if found is None or found[1] == 0 or not readers or scaled in graph.outputs:
            continue
        if any(r.op_type != "Conv" or r.input[0] != scaled for r in readers):
            continue
        if any(reader.input[1] not in graph.constants for reader in readers):
            continue
        data, number = found
        factor = number if node.op_type == "Mul" else 1 / number
        for reader in readers:
            weight = graph.array(reader.input[1]).astype(np.float64) * factor
            reader.input[1] = store(proto, names, f"{reader.output[0]}.scaled_weight", weight)
            reader.input[0] = data
        proto.node.remove(node)
        changed = True
    return changed


def store(proto: GraphProto, names: Names, wanted: str, value: NDArray[Any] | float) -> str:
    """Add a float32 initializer; its name is `wanted`, or numbered where that is taken."""
    name = names.tensor(wanted)
    proto.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
    return name
