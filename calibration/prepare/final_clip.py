"""What a model's last nodes do to the range of its output: clamp(a v + b, low, high) of a tensor v.

1. Walked back from the output are: what moves values (DepthToSpace, Transpose, Reshape), products and sums
   with one number, roundings, and clamps (Clip, Relu, Min and Max with one number). The first other node ends
   the walk.
2. A clamp whose output something else reads as well ends it too: that reader needs the clamped values.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from onnx import ModelProto, NodeProto

from qnas.onnx.graph import STANDARD, Graph, node_name
from qnas.onnx.operations import BENDING, PERMUTING, ROUNDING
from qnas.onnx.shapes import op_name

AFFINE = frozenset({"Add", "Div", "Mul", "Sub"})


@dataclass(frozen=True)
class FinalClip:
    """`clamps`: names in the order of the graph, of nodes that bound the output to [low, high].

    `roundings`: names of nodes that round, and what a difference of 1 between whole numbers there is in the
    output. `obstacle`: why the walk ended where it did, a phrase.
    """

    clamps: tuple[str, ...]
    roundings: dict[str, float]
    low: float
    high: float
    described: str
    obstacle: str


def find_final_clip(model: ModelProto) -> FinalClip:
    """What bounds the output of `model`, by the cases of the module's docstring."""
    graph = Graph(model.graph)
    chain, obstacle = _chain(graph, model.graph.output[0].name)
    low, high = -inf, inf
    clamps, words, roundings = [], [], dict[str, float]()
    for node in chain:  # towards the output
        match node.op_type:
            case op if op in PERMUTING:
                words.append(op)
            case op if op in AFFINE:
                operand = graph.scalar_operand(node)
                number = 0.0 if operand is None else operand[1]
                low, high = sorted((_apply(op, low, number), _apply(op, high, number)))
                words.append(f"{op} {number:g}")
                if op in ("Div", "Mul"):
                    roundings = {name: abs(_apply(op, unit, number)) for name, unit in roundings.items()}
            case op if op in ROUNDING:
                words.append(op)
                roundings[node.name] = 1.0
            case op:
                clamp = graph.clamp(node)
                bottom, top = (-inf, inf) if clamp is None else (clamp.low, clamp.high)
                low, high = min(max(low, bottom), top), min(max(high, bottom), top)
                clamps.append(node.name)
                words.append(op if op == "Relu" else f"{op} {_shown(bottom, top)}")
    return FinalClip(tuple(clamps), roundings, low, high, ", ".join(words), obstacle)


def without_final_rounding(model: ModelProto, white: float) -> bool:
    """Take a Round to grey levels out of the end of `model`; whether there was one.

    The quantizer of the output does the same: both take the even one of two neighbours (ONNX, Round and
    QuantizeLinear).
    """
    level = white / 255
    units = find_final_clip(model).roundings
    found = [
        node
        for node in model.graph.node
        if node.op_type == "Round" and abs(units.get(node.name, 0) - level) <= 1e-6 * level
    ]
    for node in found:
        node.op_type = "Identity"
    return bool(found)


def _chain(graph: Graph, name: str) -> tuple[list[NodeProto], str]:
    """(nodes that the walk back from tensor `name` passed, towards the output; why it ended)."""
    passed: list[NodeProto] = []
    waiting: list[NodeProto] = []  # passed if a clamp or a rounding follows behind them
    for _ in graph.nodes:
        node = graph.producers.get(name)
        if node is None:
            break
        source = _source(graph, node)
        if source is None:
            return passed, _why_not(node)
        if graph.uses[name] > 1:
            others = [node_name(n) for n in graph.readers[name] if n not in [*passed, *waiting]]
            return passed, f"{op_name(node)} (node {node_name(node)}) is read by {', '.join(others)} as well"
        waiting.insert(0, node)
        if node.op_type not in PERMUTING | AFFINE:
            passed, waiting = [*waiting, *passed], []
        name = source
    return passed, f"{name!r} is the input itself"


def _source(graph: Graph, node: NodeProto) -> str | None:
    """The tensor that `node` moves, scales or clamps; None where it does something else."""
    if node.domain not in STANDARD:
        return None
    if node.op_type in PERMUTING | ROUNDING:
        return str(node.input[0])
    if node.op_type in AFFINE:
        operand = graph.scalar_operand(node)
        if operand is None or (operand[1] == 0 and node.op_type in ("Mul", "Div")):
            return None
        return operand[0]
    clamp = graph.clamp(node)
    return None if clamp is None else clamp.source


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
    if node.op_type in BENDING:
        return f"{shown} bends all values, not only those outside a range"
    if node.op_type in ("Clip", "Max", "Min"):
        return f"{shown} has bounds that are computed, or one for each channel"
    return f"{shown} writes it"


def _shown(low: float, high: float) -> str:
    return f"{low:g}..{high:g}" if low > -inf and high < inf else f"{low:g}" if low > -inf else f"{high:g}"
