"""Functions of one tensor that differ from channel to channel: depthwise convolutions of one weight each.

1. `slope[c] x + offset[c]`: sums with, products with and batch norms of constants per channel;
2. PReLU: both halves of the line on the output's grid, where one of them is zero, and their sum.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from qnas.export.from_qdq.graph import QdqGraph, refused, written_name
from qnas.export.from_qdq.values import Constant, Levels, Pending, Value, once
from qnas.integer.convolution import UNIT, scaled
from qnas.integer.network import INT32_MAX
from qnas.integer.nodes import Add
from qnas.onnx.graph import attributes
from qnas.quantization.quantizers import QuantParams, dequantize, quantize

Floats = NDArray[np.float32]

# Constants [C] -> (slope [C], offset [C]), by operation and by where the tensor stands.
LINES: dict[tuple[str, int], Callable[[Floats], tuple[Any, Any]]] = {
    ("Add", 0): lambda c: (np.ones_like(c), c),
    ("Add", 1): lambda c: (np.ones_like(c), c),
    ("Div", 0): lambda c: (1 / c, np.zeros_like(c)),
    ("Mul", 0): lambda c: (c, np.zeros_like(c)),
    ("Mul", 1): lambda c: (c, np.zeros_like(c)),
    ("Sub", 0): lambda c: (np.ones_like(c), -c),
    ("Sub", 1): lambda c: (-np.ones_like(c), c),
}


def per_channel(graph: QdqGraph, node: NodeProto, reads: Sequence[Value]) -> Value | None:
    """What `node` makes of one tensor and one constant per channel; None where that is not what it reads."""
    if len(reads) != 2 or node.input[0] in graph.channels_last or node.input[1] in graph.channels_last:
        return None
    index = 0 if isinstance(reads[1], Constant) else 1
    tensor, constant = reads[index], reads[1 - index]
    if not isinstance(tensor, Levels) or not isinstance(constant, Constant):
        return None
    channels = graph.draft.nodes[tensor.node].channels
    if constant.array.shape not in ((channels, 1, 1), (1, channels, 1, 1)):
        return None
    values = constant.array.reshape(-1).astype(np.float32)
    if (values == values[0]).all():
        return None  # a single number, in as many places
    if node.op_type == "PRelu" and index == 0:
        return _leaky(graph, node, values)
    line = LINES.get((node.op_type, index))
    return None if line is None else _line(graph, node, index, *line(values))


def batch_norm(graph: QdqGraph, node: NodeProto) -> Value:
    """Read a batch norm of constant statistics."""
    gain, shift, mean, variance = (
        graph.constant(node, index, what).array.astype(np.float32)
        for index, what in enumerate(("scale", "shift", "mean", "variance"), 1)
    )
    channels = graph.draft.nodes[graph.on_grid(node, 0)].channels
    if {x.shape for x in (gain, shift, mean, variance)} != {(channels,)} or len(node.output) != 1:
        raise refused(node, f"has other statistics than one of each of {channels} channels: export it again")
    slope = gain / np.sqrt(variance + np.float32(attributes(node).get("epsilon", 1e-5)))
    return _line(graph, node, 0, slope, shift - mean * slope)


def _line(graph: QdqGraph, node: NodeProto, index: int, slope: Floats, offset: Floats) -> Pending:
    """Case 1."""
    read = graph.on_grid(node, index)
    step = graph.draft.nodes[read].output.scale * np.where(slope == 0, 1, np.abs(slope)) / UNIT
    bias = np.rint(offset.astype(np.float64) / step)
    if not (np.abs(bias) <= INT32_MAX).all():
        raise refused(node, "has constants out of all proportion to what it reads: calibrate it again")
    name, whole = written_name(node), bias.astype(np.int32)
    return Pending(once(lambda grid: graph.draft.put(scaled(name, read, slope, whole, grid))))


def _leaky(graph: QdqGraph, node: NodeProto, slopes: Floats) -> Pending:
    """Case 2: what is below zero saturates where it leaves the range of its half."""
    read, name = graph.on_grid(node, 0), written_name(node)
    draft, c = graph.draft, graph.draft.nodes[read].channels
    source, zero = draft.nodes[read].output, np.zeros(len(slopes), np.int32)

    def write(grid: QuantParams) -> str:
        above = replace(grid, zero_point=0, low=0, high=grid.top)
        below = replace(above, zero_point=grid.zero_point)
        negative = read
        if (slopes >= 0).all():
            below = replace(above, zero_point=grid.top)
        else:  # both signs may come out: what is above zero is cut off before
            cut = replace(source, high=source.zero_point)
            bytes_ = quantize(dequantize(source.every, source), cut)
            negative = draft.table(read, bytes_, cut, f"{name}.negative")
        ones = np.ones(c, np.float32)
        halves = (
            draft.put(scaled(f"{name}.above", read, ones, zero, above)),
            draft.put(scaled(f"{name}.below", negative, slopes, zero, below)),
        )
        return draft.put(Add(name, halves, c, grid))

    return Pending(once(write))
