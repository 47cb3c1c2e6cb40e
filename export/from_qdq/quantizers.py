"""QuantizeLinear, DequantizeLinear and what belongs to them: integer clips, casts, tables of bytes."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from qnas.export.from_qdq.by_value import map_values
from qnas.export.from_qdq.graph import RANGES, QdqGraph, Quantizer, refused, written_name
from qnas.export.from_qdq.values import (
    Constant,
    Indices,
    Integers,
    Levels,
    Pending,
    Steps,
    Value,
    bounded_grid,
    lowered,
    same_grid,
)
from qnas.integer.nodes import Mean
from qnas.onnx.graph import attributes
from qnas.onnx.measured import TYPE_BITS, TYPE_NAMES, metadata_bits
from qnas.quantization.quantizers import FLOAT_BITS, Container, QuantParams, dequantize

TABLES: dict[int, Container] = {
    TensorProto.UINT8: 8,
    TensorProto.UINT16: 16,
}  # what their values are stored in


def quantize_linear(graph: QdqGraph, node: NodeProto) -> Value:
    """A constant is quantized at once, a tensor gets its grid."""
    x, q = graph.value(node, 0), graph.quantizer(node)
    if isinstance(x, Constant):
        if not np.isfinite(x.array).all():
            raise refused(node, f"quantizes {node.input[0]!r}, which is not finite: train it again")
        low, high = RANGES[q.kind]
        steps = np.rint(x.array / _along(node, q, q.scale, x.array)) + _along(node, q, q.zero, x.array)
        integers = np.clip(steps, low, high).astype(np.int32)
        return Constant(integers, q.kind, TYPE_BITS[q.kind])
    if not isinstance(x, Levels | Pending):
        raise refused(node, f"quantizes {node.input[0]!r}, which is no float tensor: export the model again")
    grid, offset = graph.grid(node, q)
    match x:  # as this package writes a mean: the bytes are those of the node, whatever they are called
        case Levels(name, _, QuantParams() as own) if isinstance(graph.draft.nodes[name], Mean):
            if same_grid(own, grid):
                return Integers(lambda _: name, own, offset, q.kind)
    write = partial(graph.draft.on_grid, x, name=written_name(node))
    return lowered(Integers(write, bounded_grid(x, grid), offset, q.kind))


def dequantize_linear(graph: QdqGraph, node: NodeProto) -> Value:
    """A constant keeps its integers, a tensor becomes the values of all its integers."""
    x = graph.value(node, 0)
    if isinstance(x, Constant):
        q = graph.quantizer(node, x.kind)
        steps = x.array.astype(np.int64) - _along(node, q, q.zero, x.array)
        values = steps.astype(np.float32) * _along(node, q, q.scale, x.array)
        bits = metadata_bits(node) or x.bits
        return Constant(values, TensorProto.FLOAT, FLOAT_BITS, Steps(steps, q.scale, q.axis, bits))
    if not isinstance(x, Integers):
        raise refused(
            node, f"dequantizes {node.input[0]!r}, which is no integer tensor: export the model again"
        )
    grid, offset = graph.grid(node, graph.quantizer(node, x.kind))
    name = x.write(x.grid)
    written = graph.draft.nodes[name].output
    grid = replace(written, scale=grid.scale, zero_point=grid.zero_point - offset + x.offset)
    if not 0 <= grid.zero_point <= grid.top:
        raise refused(node, "has a zero point that its integers never reach: use that of their quantizer")
    return Levels(name, dequantize(grid.every, grid), grid)


def _along(node: NodeProto, q: Quantizer, parameter: NDArray[Any], array: NDArray[Any]) -> NDArray[Any]:
    try:
        return q.along(parameter, array)
    except ValueError as error:
        raise refused(
            node, f"has {parameter.size} scales for a tensor {array.shape}: export it again"
        ) from error


def clip(graph: QdqGraph, node: NodeProto) -> Value:
    """Behind a quantizer it is a part of it, elsewhere a bound of values."""
    x, a = graph.value(node, 0), attributes(node)
    low, high = (
        a.get(name, end) if graph.optional(node, index) is None else graph.number(node, index, "bound")
        for index, name, end in ((1, "min", -np.inf), (2, "max", np.inf))
    )
    match x:
        case Integers():
            return _clipped_integers(graph, node, x, low, high)
        case Constant() if x.kind in RANGES:
            least, most = _ends(x.kind, low, high)
            bits = max(1, min(x.bits, (most - least).bit_length()))
            return replace(x, array=x.array.clip(least, most), bits=bits)
        case Pending():
            return x.bounded(low, high)
        case _:
            clipped = map_values(graph, node, lambda _, x: np.minimum(np.maximum(x, low), high), [x])
            return replace(clipped, low=min(low, high), high=high)


def _clipped_integers(graph: QdqGraph, node: NodeProto, x: Integers, low: float, high: float) -> Integers:
    """Case 1: nothing but this reads what a quantizer wrote, so it may write less. Case 2: a table."""
    least, most = (min(max(end + x.offset, x.grid.low), x.grid.high) for end in _ends(x.kind, low, high))
    quantizer = graph.producers.get(node.input[0])
    if (
        quantizer is not None and quantizer.op_type == "QuantizeLinear" and graph.uses[node.input[0]] == 1
    ):  # Case 1
        return lowered(replace(x, grid=replace(x.grid, low=least, high=most)))
    source = x.write(x.grid)
    grid = replace(graph.draft.nodes[source].output, low=least, high=most)
    name = graph.draft.table(source, np.clip(grid.every, least, most), grid, written_name(node))
    return graph.draft.integers(name, x.offset, x.kind)


def _ends(kind: int, low: float, high: float) -> tuple[int, int]:
    """The range of ONNX type `kind` clipped to low .. high."""
    first, last = RANGES[kind]
    least, most = (int(min(max(min(max(end, low), high), first), last)) for end in (first, last))
    return least, most


def cast(graph: QdqGraph, node: NodeProto) -> Value:
    """Between integer types, and from bytes to what looks values up or computes with them."""
    x, to = graph.value(node, 0), int(attributes(node).get("to", 0))
    match x:
        case Constant() if x.kind in RANGES and to in RANGES:
            if (x.array == x.array.clip(*RANGES[to])).all():
                return replace(x, kind=to)
        case Integers() if to in (TensorProto.INT32, TensorProto.INT64) and x.offset == 0:
            return Indices(x.write(x.grid))
        case Integers() if to == TensorProto.FLOAT:
            name = x.write(x.grid)
            output = graph.draft.nodes[name].output
            grid = replace(output, scale=np.asarray(1, np.float32), zero_point=x.offset)
            return Levels(name, dequantize(grid.every, grid), grid)
        case Levels() | Pending() if to == TensorProto.FLOAT:
            return x
    raise refused(
        node, f"to {TYPE_NAMES.get(to, to)} is not an operation of the integer network: quantize instead"
    )


def gather(graph: QdqGraph, node: NodeProto) -> Value:
    """A table of bytes."""
    levels, index = graph.constant(node, 0, "table"), graph.value(node, 1)
    if not isinstance(index, Indices) or levels.kind not in TABLES or levels.array.ndim != 1:
        raise refused(
            node, "is no table: a uint8 or uint16 constant [256] and the bytes of a tensor are needed"
        )
    source, container = graph.draft.nodes[index.node], TABLES[levels.kind]
    values = source.output.top + 1
    if len(levels.array) <= source.output.high or len(levels.array) > values:
        raise refused(node, f"has {len(levels.array)} values in its table: {values} are needed")
    table = np.pad(levels.array, (0, values - len(levels.array)), mode="edge").astype(np.int32)
    grid = replace(source.output, low=0, high=(1 << container) - 1, container=container)
    name = graph.draft.table(index.node, table, graph.next_grid(node.output[0], grid), written_name(node))
    return graph.draft.integers(name, 0, levels.kind)
