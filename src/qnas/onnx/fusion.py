"""Fusion proof: which convolutions run in integers, read from the graph that onnxruntime really runs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from onnx import ModelProto, TensorProto

from qnas.onnx.files import read_model
from qnas.onnx.graph import attributes, node_name
from qnas.onnx.operations import MOVING
from qnas.onnx.session import open_session
from qnas.temporary import temporary_folder

# By type alone: onnxruntime has NHWC and blocked-NCHW twins of them in domains of its own.
INTEGER_CONVOLUTIONS = frozenset({"QLinearConv", "ConvInteger"})
FLOAT_CONVOLUTIONS = frozenset({"Conv", "FusedConv", "NhwcFusedConv", "ConvTranspose"})

_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}
_TO_FLOAT = frozenset({"DequantizeLinear", "DynamicQuantizeMatMul", "MatMulIntegerToFloat"})
_TO_INTEGER = frozenset({
    "ArgMax", "ArgMin", "ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "NonZero", "QLinearConcat",
    "QuantizeLinear", "Shape", "Size",
})  # fmt: skip
# Conversions, and what only moves values.
_NOT_COMPUTE = MOVING | {"Cast", "Constant", "DequantizeLinear", "ReorderInput", "ReorderOutput"}


@dataclass(frozen=True)
class FusionReport:
    """`integer` of `total` convolutions run in integers; `float_ops`: other float nodes, as "2 Resize".

    `float_names`: those and the float convolutions by name, as "Resize up".
    """

    total: int
    integer: int
    float_ops: tuple[str, ...]
    float_names: tuple[str, ...] = field(default=(), compare=False)


def count_integer_convolutions(model: Path | bytes, threads: int = 1) -> FusionReport:
    """Count in the graph that onnxruntime runs, fully optimized; ModelError when it cannot load `model`."""
    with temporary_folder() as folder:
        dump = folder / "optimized.onnx"
        open_session(model, threads, optimized_model_path=dump)
        return count_in_graph(read_model(dump))


def count_in_graph(model: ModelProto) -> FusionReport:
    """Count in a graph that is optimized already."""
    known = _float_tensors(model)
    types = [node.op_type for node in model.graph.node]
    integer = sum(op in INTEGER_CONVOLUTIONS for op in types)
    floating = [node for node in model.graph.node if node.op_type in FLOAT_CONVOLUTIONS]
    others = [
        node
        for node in model.graph.node
        if known[node.output[0]] and node.op_type not in FLOAT_CONVOLUTIONS | _NOT_COMPUTE
    ]
    counts = Counter(node.op_type for node in others)
    named = tuple(f"{count} {op}" for op, count in sorted(counts.items()))
    names = tuple(f"{node.op_type} {node_name(node)}" for node in [*floating, *others])
    return FusionReport(integer + len(floating), integer, named, names)


def _float_tensors(model: ModelProto) -> dict[str, bool]:
    """Whether a tensor is float: as the first input of its node, unless the type of the node says otherwise.

    onnx's own inference knows no type behind onnxruntime's internal nodes.
    """
    known = {tensor.name: tensor.data_type in _FLOATS for tensor in model.graph.initializer}
    known |= {value.name: value.type.tensor_type.elem_type in _FLOATS for value in model.graph.input}
    for node in model.graph.node:
        match node.op_type:
            case op if op in _TO_FLOAT:
                is_float = True
            case op if op in _TO_INTEGER:
                is_float = False
            case "Cast":
                is_float = attributes(node).get("to") in _FLOATS
            case "Constant":
                is_float = any(a.t.data_type in _FLOATS for a in node.attribute)
            case _:
                is_float = bool(node.input) and known.get(node.input[0], False)
        known |= dict.fromkeys(node.output, is_float)
    return known
