"""What a model's last nodes do to the range of its output: clamp(a v + b, low, high) of a tensor v.

1. Walked back from the output are: what moves values (DepthToSpace, Transpose, Reshape), products and sums
   with one number, and clamps (Clip, Relu, Min and Max with one number). The first other node ends the walk.
2. A clamp whose output something else reads as well ends it too: that reader needs the clamped values.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any

from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto

from qnas.calibration.prepare.standard_forms import (
    bounds,
    constants,
    data_input,
    producers,
    reader_counts,
    scalar_operand,
)
from qnas.onnx.graph import node_name
from qnas.onnx.shapes import op_name

MOVING = frozenset({"DepthToSpace", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
AFFINE = frozenset({"Add", "Div", "Mul", "Sub"})
SOFT = frozenset({"HardSigmoid", "HardSwish", "Sigmoid", "Softsign", "Tanh"})

Constants = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class FinalClip:
    """`clamps`: names in the order of the graph, of nodes that bound the output to [low, high].

    `obstacle`: why the walk ended where it did, a phrase.
    """

    clamps: tuple[str, ...]
    low: float
    high: float
    described: str
    obstacle: str


def find_final_clip(model: ModelProto) -> FinalClip:
    """What bounds the output of `model`, by the cases of the module's docstring."""
    graph = model.graph
    known = constants(graph)
    chain, obstacle = _chain(graph, known)
    low, high = -inf, inf
    clamps, words = [], []
    for node in chain:  # towards the output
        match node.op_type:
            case op if op in MOVING:
                words.append(op)
            case op if op in AFFINE:
                operand = scalar_operand(node, known)
                number = 0.0 if operand is None else operand[1]
                low, high = sorted((_apply(op, low, number), _apply(op, high, number)))
                words.append(f"{op} {number:g}")
            case op:
                bottom, top = bounds(node, known) or (-inf, inf)
                low, high = min(max(low, bottom), top), min(max(high, bottom), top)
                clamps.append(node.name)
                words.append(op if op == "Relu" else f"{op} {_shown(bottom, top)}")
    return FinalClip(tuple(clamps), low, high, ", ".join(words), obstacle)


def _chain(graph: GraphProto, known: Constants) -> tuple[list[NodeProto], str]:
    """(nodes that the walk passed, towards the output; why it ended)."""
    writers, read = producers(graph), reader_counts(graph)
    name = graph.output[0].name
    passed: list[NodeProto] = []
    waiting: list[NodeProto] = []  # passed if a clamp follows behind them
    for _ in graph.node:
        node = writers.get(name)
        if node is None:
            break
        source = _source(node, known)
        if source is None:
            return passed, _why_not(node)
        if read[name] > 1:
            others = [node_name(n) for n in graph.node if name in n.input and n not in [*passed, *waiting]]
            return passed, f"{op_name(node)} (node {node_name(node)}) is read by {', '.join(others)} as well"
        waiting.insert(0, node)
        if node.op_type not in MOVING | AFFINE:
            passed, waiting = [*waiting, *passed], []
        name = source
    return passed, f"{name!r} is the input itself"


def _source(node: NodeProto, known: Constants) -> str | None:
    """The tensor that `node` moves, scales or clamps; None where it does something else."""
    if node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type in MOVING:
        return str(node.input[0])
    if node.op_type in AFFINE:
        operand = scalar_operand(node, known)
        if operand is None or (operand[1] == 0 and node.op_type in ("Mul", "Div")):
            return None
        return operand[0]
    if bounds(node, known) is None:
        return None
    return data_input(node, known)


def _apply(op: str, x: float, number: float) -> float:
    match op:
        case "Add":
            return x + number
        case "Sub":
            return x - number
        case "Mul":
            return x * number
        case _:
            return x / number


def _why_not(node: NodeProto) -> str:
    shown = f"{op_name(node)} (node {node_name(node)})"
    if node.op_type in SOFT:
        return f"{shown} bends all values, not only those outside a range"
    if node.op_type in ("Clip", "Max", "Min"):
        return f"{shown} has bounds that are computed, or one for each channel"
    return f"{shown} writes it"


def _shown(low: float, high: float) -> str:
    return f"{low:g}..{high:g}" if low > -inf and high < inf else f"{low:g}" if low > -inf else f"{high:g}"
