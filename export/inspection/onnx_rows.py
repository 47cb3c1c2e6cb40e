"""Rows of `qnas-inspect` for any ONNX model: what its graph alone says of shapes, bits and costs."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from qnas.cost.file_cost import NodeCost
from qnas.cost.macs import Shape
from qnas.errors import ModelError
from qnas.export.inspection.layer_rows import LayerRow
from qnas.onnx.cost import FORMULAS, graph_cost, stored_bytes
from qnas.onnx.files import damage_refused, read_model
from qnas.onnx.graph import Graph, attributes, node_name
from qnas.onnx.measured import MeasuredGraph
from qnas.onnx.operations import UNPACKING
from qnas.onnx.shapes import declared_sizes, op_name

_CONVERSIONS = UNPACKING - {"Clip"} | {"Constant"}
_SIGNED = {TensorProto.INT8, TensorProto.INT4}


def onnx_rows(path: Path, height: int, width: int) -> tuple[tuple[LayerRow, ...], tuple[str, ...]]:
    """(a row for every node that computes, the operations whose cost is not known).

    Sizes that the model leaves open are one image of `height` x `width`. Raises ModelError.
    """
    model = read_model(path)
    with damage_refused(path):
        return _model_rows(model, _input_shapes(model, height, width))


def _model_rows(
    model: ModelProto, shapes: Mapping[str, Shape]
) -> tuple[tuple[LayerRow, ...], tuple[str, ...]]:
    graph = MeasuredGraph(model, shapes)
    cost = graph_cost(graph)
    costs = {layer.name: layer for layer in cost.layers}
    rows = (
        _row(graph, node, costs.get(node_name(node)))
        for node in graph.nodes
        if node.op_type not in _CONVERSIONS and not graph.is_derived(node.output[0])
    )
    return tuple(rows), cost.uncovered


def _input_shapes(model: ModelProto, height: int, width: int) -> dict[str, Shape]:
    """A shape for every input; open dimensions are 1 for the batch, then height, width, and 1 again."""
    shapes = {}
    for value in Graph(model.graph).inputs:
        sides = iter((height, width))
        dims = enumerate(declared_sizes(value))
        shapes[value.name] = tuple(d or (next(sides, 1) if axis else 1) for axis, d in dims)
    return shapes


def _row(graph: MeasuredGraph, node: NodeProto, cost: NodeCost | None) -> LayerRow:
    shape = _shape(graph, node)
    if cost is None:
        return LayerRow(node_name(node), _operation(node), shape)
    formula = FORMULAS[cost.op]
    weight, bias = (
        next((graph.constants[found] for name in names if name and (found := graph.stored(name))), None)
        for names in ((node.input[formula.weight], node.input[formula.data]), _bias(node, formula.bias))
    )
    low, counts = (0, ()) if weight is None else _levels(weight, cost.weight_bits)
    return LayerRow(
        name=cost.name,
        operation=_operation(node, weight),
        shape=shape,
        weight_bits=cost.weight_bits,
        activation_bits=cost.activation_bits,
        weight_scale=_weight_scale(graph, node.input[formula.weight]),
        macs=cost.macs,
        weight_bytes=cost.weight_bytes,
        bias_bytes=0 if bias is None else stored_bytes(bias),
        weight_low=low,
        weight_counts=counts,
    )


def _bias(node: NodeProto, position: int) -> tuple[str, ...]:
    return tuple(node.input[position : position + 1]) if position else ()


def _shape(graph: MeasuredGraph, node: NodeProto) -> Shape | None:
    """[C, H, W] of one image, another shape as it is, None when it is unknown."""
    try:
        shape = graph.shape(node.output[0], node)
    except ModelError:
        return None
    return shape[1:] if len(shape) == 4 and shape[0] == 1 else shape


def _operation(node: NodeProto, weight: TensorProto | None = None) -> str:
    """The operation's ONNX name, a convolution's with its kernel and groups."""
    kernel = "" if weight is None else "x".join(map(str, weight.dims[2:]))
    groups = attributes(node).get("group", 1)
    return " ".join(part for part in (op_name(node), kernel, f"/{groups} groups" * (groups > 1)) if part)


def _levels(weight: TensorProto, bits: int) -> tuple[int, tuple[int, ...]]:
    """(lowest level, how many weights lie on each level) of signed integers, nothing of others."""
    if weight.data_type not in _SIGNED:
        return 0, ()
    values = numpy_helper.to_array(weight).astype(np.int64).ravel()
    low = -(2 ** (bits - 1))
    if bits > 8 or (values.size and (values.min() < low or values.max() >= -low)):
        return 0, ()
    return low, tuple(np.bincount(values - low, minlength=-2 * low).tolist())


def _weight_scale(graph: MeasuredGraph, name: str) -> tuple[float, float] | None:
    """The least and the largest scale of weights that a DequantizeLinear unpacks."""
    node = graph.producers.get(name)
    if node is None or node.op_type != "DequantizeLinear" or node.input[1] not in graph.constants:
        return None
    scale = numpy_helper.to_array(graph.constants[node.input[1]]).astype(np.float64)
    return (float(scale.min()), float(scale.max())) if scale.size and np.isfinite(scale).all() else None
