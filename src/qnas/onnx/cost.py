"""What any ONNX model costs at given input shapes, from its graph alone.

One MAC is one multiply-add. `BitOps = MACs * b_w * b_a`, the bits read as `qnas.onnx.measured` says. Bias,
activation, elementwise arithmetic, pooling, quantization and resizing are not counted (`FREE` lists them),
nor is a product with what the graph computes from shapes alone: that is a resize by an interpolation matrix.
A batch norm is one MAC per value. An operation that is neither in `FORMULAS` nor in `FREE` is reported in
`uncovered`, never skipped in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from onnx import ModelProto, NodeProto, TensorProto

from qnas.cost.file_cost import FileCost, NodeCost, executed_bits
from qnas.cost.macs import convolution, per_value, product, transposed
from qnas.errors import ModelError
from qnas.onnx.activations import Activations
from qnas.onnx.files import damage_refused, read_model
from qnas.onnx.graph import attributes, node_name
from qnas.onnx.measured import TYPE_BITS, MeasuredGraph
from qnas.onnx.operations import ELEMENTWISE, KEEPING, POOLING, RESIZING, SHAPES_AND_TYPES, UNPACKING
from qnas.onnx.shapes import STAND_INS, op_name


def model_cost(model: ModelProto | Path, shapes: Mapping[str, Sequence[int]] | None = None) -> FileCost:
    """Cost of one run of `model` on inputs of `shapes` (input name -> dimensions).

    Inputs whose dimensions are all fixed may be left out. Raises ModelError when the file is no ONNX model or
    the shape of a node that multiplies cannot be inferred, UsageError when `shapes` do not fit the inputs.
    """
    if isinstance(model, Path):
        with damage_refused(model):
            return model_cost(read_model(model), shapes)
    return graph_cost(MeasuredGraph(model, shapes or {}))


def graph_cost(graph: MeasuredGraph) -> FileCost:
    """`model_cost` of a graph whose shapes are inferred already."""
    activations = Activations(graph)
    rows: list[NodeCost] = []
    counted: set[str] = set()
    uncovered: set[str] = set()
    for node in graph.nodes:
        op = op_name(node)
        if op in FORMULAS and not any(map(graph.is_derived, node.input)):
            rows.append(_node_cost(graph, activations, node, counted))
        elif op not in FREE and op not in FORMULAS:
            uncovered.add(op)
    return FileCost(tuple(rows), tuple(sorted(uncovered)), activations.peak())


def _node_cost(
    graph: MeasuredGraph, activations: Activations, node: NodeProto, counted: set[str]
) -> NodeCost:
    formula = FORMULAS[op_name(node)]
    data, weight = node.input[formula.data], node.input[formula.weight]
    bias = node.input[formula.bias] if formula.bias and len(node.input) > formula.bias else ""
    if graph.stored(data) and not graph.stored(weight):
        data, weight = weight, data  # a product may have its weights on the left
    macs = formula.macs(graph, node, formula)
    weights = _fresh(graph, (weight,), counted)
    biases = _fresh(graph, (bias,), counted)
    executed = executed_bits(graph.container(weight, node), graph.container(data, node))
    read = sum(activations.read_bytes(name, node) for name in {data, weight})
    return NodeCost(
        name=node_name(node),
        macs=macs,
        weight_bits=graph.bits(weight, node),
        activation_bits=graph.bits(data, node),
        parameters=sum(prod(tensor.dims) for tensor in (*weights, *biases)),
        weight_bytes=sum(stored_bytes(tensor) for tensor in weights),
        op=op_name(node),
        output_shape=graph.shape(node.output[0], node),
        executed_weight_bits=executed[0],
        executed_activation_bits=executed[1],
        activation_bytes=read + activations.written_bytes(node),
    )


def _fresh(graph: MeasuredGraph, names: Sequence[str], counted: set[str]) -> list[TensorProto]:
    """The constants that tensors `names` unpack and no node before has counted; marks them as counted."""
    stored = {found for name in names if name and (found := graph.stored(name))} - counted
    counted |= stored
    return [graph.constants[name] for name in stored]


def stored_bytes(tensor: TensorProto) -> int:
    """Bytes that the values of a constant take in the file: two 4-bit values share one."""
    return -(-int(prod(tensor.dims)) * TYPE_BITS.get(tensor.data_type, 8) // 8)


@dataclass(frozen=True)
class Formula:
    """How an operation is counted; `data`, `weight` and `bias` are positions of inputs, bias 0: none."""

    macs: Callable[[MeasuredGraph, NodeProto, Formula], int]
    data: int = 0
    weight: int = 1
    bias: int = 2


def _convolution(graph: MeasuredGraph, node: NodeProto, formula: Formula) -> int:
    """Outputs [N, M, ...] times the weights [M, C/groups, k...] that make one of them."""
    data, weight = (graph.shape(node.input[i], node) for i in (formula.data, formula.weight))
    channels = weight[1] * attributes(node).get("group", 1)
    if data[1] != channels:  # onnx's inference does not look
        raise ModelError(
            f"node {node_name(node)}: {data[1]} channels come in, its weights take {channels}; "
            "give the input another shape"
        )
    return convolution(graph.shape(node.output[0], node), weight)


def _transposed(graph: MeasuredGraph, node: NodeProto, formula: Formula) -> int:
    """Inputs [N, C, ...] times the weights [C, M/groups, k...] that read one of them."""
    data, weight = (graph.shape(node.input[i], node) for i in (formula.data, formula.weight))
    return transposed(data, weight)


def _product(graph: MeasuredGraph, node: NodeProto, formula: Formula) -> int:
    """Outputs [..., M, N] times the inner dimension K of [..., M, K], or of [K, M] with transA."""
    data = graph.shape(node.input[formula.data], node)
    inner = data[-2 if attributes(node).get("transA") else -1]
    return product(graph.shape(node.output[0], node), inner)


def _per_value(graph: MeasuredGraph, node: NodeProto, formula: Formula) -> int:
    """One for every value that comes in."""
    return per_value(graph.shape(node.input[formula.data], node))


FORMULAS: dict[str, Formula] = {
    "Conv": Formula(_convolution),
    "ConvInteger": Formula(_convolution, bias=0),
    "QLinearConv": Formula(_convolution, weight=3, bias=8),
    "ConvTranspose": Formula(_transposed),
    "MatMul": Formula(_product, bias=0),
    "MatMulInteger": Formula(_product, bias=0),
    "QLinearMatMul": Formula(_product, weight=3, bias=0),
    "Gemm": Formula(_product),
    "BatchNormalization": Formula(_per_value),
    "com.microsoft.FusedConv": Formula(_convolution),
    "com.microsoft.FusedGemm": Formula(_product),
    "com.microsoft.MatMulIntegerToFloat": Formula(_product, bias=6),
    "com.microsoft.QGemm": Formula(_product, weight=3, bias=6),
}

FREE = (
    KEEPING | UNPACKING | ELEMENTWISE | SHAPES_AND_TYPES | POOLING | RESIZING | STAND_INS.keys()
) - FORMULAS.keys()
