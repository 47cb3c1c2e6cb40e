"""Rewrites of a float graph into the forms that all that follows knows; each returns whether it changed it.

They compute the same but for float rounding, keep the names of the tensors that stay, and leave behind what
nobody reads any more (onnxruntime takes that out).
"""

from __future__ import annotations

from collections import Counter
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, helper, numpy_helper

from qnas.onnx.shapes import Shapes

TO_NCHW, TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)
# Where the axes N, C, H, W and the factors of height and width stand in a Reshape to six, and the Transpose
# behind it -> the mode of DepthToSpace that it is, and whether channels are last. f: a factor.
SHUFFLES = {
    ("NCffHW", (0, 1, 4, 2, 5, 3)): ("CRD", False),
    ("NffCHW", (0, 3, 4, 1, 5, 2)): ("DCR", False),
    ("NHWffC", (0, 1, 3, 2, 4, 5)): ("DCR", True),
    ("NHWCff", (0, 1, 4, 2, 5, 3)): ("CRD", True),
}


def attributes(node: NodeProto) -> dict[str, Any]:
    """Name -> value, texts as str."""
    found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return {k: v.decode(errors="replace") if isinstance(v, bytes) else v for k, v in found.items()}


def constants(graph: GraphProto) -> dict[str, NDArray[Any]]:
    """Values of initializers and of Constant nodes that hold a tensor."""
    found = {tensor.name: tensor for tensor in graph.initializer}
    found |= {
        node.output[0]: a.t
        for node in graph.node
        if node.op_type == "Constant"
        for a in node.attribute
        if a.name == "value"
    }
    return {name: np.asarray(numpy_helper.to_array(tensor)) for name, tensor in found.items()}


def producers(graph: GraphProto) -> dict[str, NodeProto]:
    """Tensor -> the node that writes it."""
    return {name: node for node in graph.node for name in node.output if name}


def reader_counts(graph: GraphProto) -> Counter[str]:
    """Tensor -> how often it is read; being the graph's output counts as well."""
    read = Counter(name for node in graph.node for name in node.input if name)
    return read + Counter(value.name for value in graph.output)


# Pixel shuffles ------------------------------------------------------------------------------------------


def shuffles_as_depth_to_space(graph: GraphProto, shapes: Shapes) -> bool:
    """Reshape to six dimensions, Transpose, Reshape to four -> DepthToSpace.

    Requires shapes at a size whose height and width are neither equal nor a factor of the network.
    """
    writers, read = producers(graph), reader_counts(graph)
    changed = False
    for last in list(graph.node):
        middle = writers.get(last.input[0]) if last.op_type == "Reshape" else None
        first = writers.get(middle.input[0]) if middle is not None and middle.op_type == "Transpose" else None
        if first is None or middle is None or first.op_type != "Reshape":
            continue
        if any(read[node.output[0]] != 1 for node in (first, middle)):
            continue
        sizes = [shapes.of(name) for name in (first.input[0], first.output[0], last.output[0])]
        found = _shuffle(sizes, tuple(attributes(middle).get("perm", ())))
        if found is None:
            continue
        mode, nhwc, factor = found
        new = _shuffle_nodes(first.input[0], last, mode, nhwc, factor)
        at = list(graph.node).index(last)
        for node in (first, middle, last):
            graph.node.remove(node)
        for offset, node in enumerate(new):
            graph.node.insert(at - 2 + offset, node)
        changed = True
    return changed


def _shuffle(sizes: list[tuple[int, ...] | None], perm: tuple[int, ...]) -> tuple[str, bool, int] | None:
    """(mode, whether channels are last, factor) of what turns the first size to the second and the third."""
    before, six, after = sizes
    if before is None or six is None or after is None or (len(before), len(six), len(after)) != (4, 6, 4):
        return None
    for (form, order), (mode, nhwc) in SHUFFLES.items():
        n, *rest = before
        c, h, w = (rest[2], rest[0], rest[1]) if nhwc else rest
        f = six[form.index("f")]
        by_letter = {"N": n, "C": c // f**2, "H": h, "W": w, "f": f}
        wide = (n, h * f, w * f, c // f**2) if nhwc else (n, c // f**2, h * f, w * f)
        if perm == order and six == tuple(by_letter[letter] for letter in form) and after == wide:
            return mode, nhwc, f
    return None


def _shuffle_nodes(source: str, last: NodeProto, mode: str, nhwc: bool, factor: int) -> list[NodeProto]:
    name, target = last.name or last.output[0], last.output[0]
    read, written = (f"{target}.nchw", f"{target}.shuffled") if nhwc else (source, target)
    nodes = [
        helper.make_node("DepthToSpace", [read], [written], f"{name}.shuffle", blocksize=factor, mode=mode)
    ]
    if nhwc:
        before = helper.make_node("Transpose", [source], [read], f"{name}.to_nchw", perm=TO_NCHW)
        after = helper.make_node("Transpose", [written], [target], f"{name}.to_nhwc", perm=TO_NHWC)
        nodes = [before, *nodes, after]
    return nodes


# One node at a time --------------------------------------------------------------------------------------


def batch_norms_as_convolutions(graph: GraphProto) -> bool:
    """A BatchNormalization that no convolution in front took in -> a depthwise 1x1 convolution."""
    known = constants(graph)
    changed = False
    for node in graph.node:
        if node.op_type != "BatchNormalization" or any(name not in known for name in node.input[1:]):
            continue
        gain, shift, mean, variance = (known[name].astype(np.float64) for name in node.input[1:5])
        slope = gain / np.sqrt(variance + attributes(node).get("epsilon", 1e-5))
        arrays = {
            f"{node.output[0]}.weight": slope.reshape(-1, 1, 1, 1),
            f"{node.output[0]}.bias": shift - slope * mean,
        }
        _store(graph, arrays)
        new = helper.make_node("Conv", [node.input[0], *arrays], node.output[:1], node.name, group=len(slope))
        node.CopyFrom(new)
        changed = True
    return changed


def explicit_paddings(graph: GraphProto) -> bool:
    """auto_pad SAME of an odd kernel and stride 1, or VALID -> pads."""
    known = constants(graph)
    changed = False
    for node in graph.node:
        a = attributes(node)
        mode = a.get("auto_pad", "NOTSET")
        if node.op_type != "Conv" or mode == "NOTSET" or node.input[1] not in known:
            continue
        kernel = known[node.input[1]].shape[2:]
        spread = [(k - 1) * d for k, d in zip(kernel, a.get("dilations", [1] * len(kernel)), strict=True)]
        if mode != "VALID" and (any(s % 2 for s in spread) or any(s != 1 for s in a.get("strides", []))):
            continue
        pads = [0 if mode == "VALID" else s // 2 for s in spread] * 2
        kept = [each for each in node.attribute if each.name not in ("auto_pad", "pads")]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute("pads", pads)])
        changed = True
    return changed


def means_as_pools(graph: GraphProto) -> bool:
    """A ReduceMean over height and width that keeps its dimensions -> GlobalAveragePool."""
    known = constants(graph)
    changed = False
    for node in graph.node:
        a = attributes(node)
        if node.op_type != "ReduceMean" or not a.get("keepdims", 1):
            continue
        axes = a.get("axes", known.get(node.input[1], ()) if len(node.input) > 1 else ())
        if sorted(int(axis) for axis in axes) in ([2, 3], [-2, -1]):
            node.CopyFrom(helper.make_node("GlobalAveragePool", node.input[:1], node.output, node.name))
            changed = True
    return changed


def single_concatenations_removed(graph: GraphProto) -> bool:
    """A Concat of one tensor is that tensor: an Identity, which onnxruntime takes out."""
    found = [node for node in graph.node if node.op_type == "Concat" and len(node.input) == 1]
    for node in found:
        node.CopyFrom(helper.make_node("Identity", node.input, node.output, node.name))
    return bool(found)


def unread_nodes_removed(graph: GraphProto) -> bool:
    """Takes out nodes and initializers that nothing reads."""
    read = reader_counts(graph)
    nodes: list[NodeProto] = []
    for node in reversed(graph.node):  # readers stand behind what they read
        if any(read[name] for name in node.output):
            nodes.insert(0, node)
        else:
            read.subtract(name for name in node.input if name)
    stored = [tensor for tensor in graph.initializer if read[tensor.name]]
    changed = (len(nodes), len(stored)) != (len(graph.node), len(graph.initializer))
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(stored)
    return changed


# Clamps --------------------------------------------------------------------------------------------------


def bounds(node: NodeProto, known: dict[str, NDArray[Any]]) -> tuple[float, float] | None:
    """Between what numbers `node` holds each value; None where it is no clamp of constant bounds."""
    match node.op_type:
        case "Relu":
            return 0.0, inf
        case "Clip":
            ends = [attributes(node).get("min", -inf), attributes(node).get("max", inf)]
            for place, name in enumerate(node.input[1:3]):
                if name and (name not in known or known[name].size != 1):
                    return None
                ends[place] = known[name].reshape(-1)[0] if name else ends[place]
            return float(ends[0]), float(ends[1])
        case "Max" | "Min":
            operand = scalar_operand(node, known)
            if operand is None:
                return None
            return (operand[1], inf) if node.op_type == "Max" else (-inf, operand[1])
        case _:
            return None


def data_input(node: NodeProto, known: dict[str, NDArray[Any]]) -> str:
    """The tensor that a clamp reads, in whichever place."""
    return next(str(name) for name in node.input if name not in known)


# Scalar factors -----------------------------------------------------------------------------------


def scalar_operand(node: NodeProto, known: dict[str, NDArray[Any]]) -> tuple[str, float] | None:
    """(data input, number) of a node of a tensor and one constant float, in either order; else None.

    Not of number - x and number / x.
    """
    if len(node.input) != 2:
        return None
    for data, other in ((0, 1), (1, 0)):
        value = known.get(node.input[other])
        if value is None or value.size != 1 or value.dtype.kind != "f":
            continue
        if node.input[data] not in known:
            turned = data == 1 and node.op_type in ("Sub", "Div")
            return None if turned else (node.input[data], float(value.reshape(-1)[0]))
    return None


def factors_moved_forward(graph: GraphProto) -> bool:
    """x * c and x / c behind a DepthToSpace, or with c > 0 behind a clamp, go before it; one at a time.

    A convolution there takes them in, and Clip(0, 1) * 255 becomes Clip(0, 255).
    """
    known, writers, read = constants(graph), producers(graph), reader_counts(graph)
    for node in graph.node:
        found = scalar_operand(node, known) if node.op_type in ("Mul", "Div") else None
        before = writers.get(found[0]) if found is not None else None
        if found is None or before is None or read[before.output[0]] != 1:
            continue
        factor = found[1] if node.op_type == "Mul" else 1 / found[1] if found[1] else 0.0
        moved = _behind_factor(graph, before, factor, node.output[0], known)
        if moved is None:
            continue
        source = moved.input[0]
        moved.input[0] = f"{node.output[0]}.unmoved"
        factored = NodeProto()
        factored.CopyFrom(node)
        factored.input[:] = [source if name == found[0] else name for name in node.input]
        factored.output[:] = [moved.input[0]]
        before.CopyFrom(factored)
        node.CopyFrom(moved)
        return True
    return False


def _behind_factor(
    graph: GraphProto, node: NodeProto, factor: float, target: str, known: dict[str, NDArray[Any]]
) -> NodeProto | None:
    """What does to factor * x as `node` does to x and `factor` then; it writes `target`."""
    limits = bounds(node, known)
    if node.op_type != "DepthToSpace" and (limits is None or factor <= 0):
        return None
    new = NodeProto()
    new.CopyFrom(node)
    new.output[:] = [target]
    if limits is not None and node.op_type != "Relu":
        ends = {f"{target}.low": limits[0] * factor, f"{target}.high": limits[1] * factor}
        inputs = [data_input(node, known), *(name if abs(end) < inf else "" for name, end in ends.items())]
        _store(graph, {name: np.float64(end) for name, end in ends.items() if abs(end) < inf})
        new = helper.make_node("Clip", inputs, [target], node.name)
    return new


def scaled_inputs_folded(graph: GraphProto) -> bool:
    """x * c or x / c that only convolutions read goes into their weights; zero padding stays zero."""
    known = constants(graph)
    outputs = {value.name for value in graph.output}
    changed = False
    for node in list(graph.node):
        found = scalar_operand(node, known) if node.op_type in ("Mul", "Div") else None
        readers = [other for other in graph.node if node.output[0] in other.input]
        if found is None or found[1] == 0 or not readers or node.output[0] in outputs:
            continue
        scaled = node.output[0]
        if any(r.op_type != "Conv" or r.input[0] != scaled or r.input[1] not in known for r in readers):
            continue
        data, number = found
        factor = number if node.op_type == "Mul" else 1 / number
        for reader in readers:
            name = f"{reader.output[0]}.scaled_weight"
            _store(graph, {name: known[reader.input[1]].astype(np.float64) * factor})
            reader.input[0], reader.input[1] = data, name
        graph.node.remove(node)
        changed = True
    return changed


def _store(graph: GraphProto, arrays: dict[str, Any]) -> None:
    new = (numpy_helper.from_array(np.asarray(v, np.float32), name) for name, v in arrays.items())
    graph.initializer.extend(new)
