"""Rectifiers that are written in several operations, as `relu(x) + a * (x - |x|) / 2` is -> one.

Such a part of a network computes a multiple of x, one where x is positive and another where it is negative,
of each channel. So does each of its operations, and what they make together is known from what each makes of
1 and of -1. Where positive values stay as they are, that is a PRelu, a LeakyRelu or a Relu.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto

from qnas.onnx.builder import GraphNodes
from qnas.onnx.graph import STANDARD, Graph, attributes
from qnas.onnx.names import Names

Slopes = NDArray[np.float64]  # [C], or [1] for all channels
ONE = np.ones(1)
NEAR = 1e-6  # to 1: the last bits of a float32
JOINING: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {  # of positive, of negative values
    "Add": (np.add, np.add),
    "Max": (np.maximum, np.minimum),
    "Min": (np.minimum, np.maximum),
    "Sub": (np.subtract, np.subtract),
}


@dataclass(frozen=True)
class _Bent:
    """`positive` times tensor `source` where that is positive, `negative` times it elsewhere."""

    source: str
    positive: Slopes
    negative: Slopes


def rectifiers_as_one(proto: GraphProto) -> bool:
    """Rewrite each last operation of such a part; whether there was one."""
    graph, made, changed = Graph(proto), GraphNodes(Names.of(proto)), False
    known: dict[str, _Bent] = {}
    for node in graph.nodes:
        bent = _bent(graph, node, known) if node.domain in STANDARD else None
        if bent is not None:
            known[node.output[0]] = bent
        if bent is None or node.op_type not in JOINING or np.abs(bent.positive - 1).max() > NEAR:
            made.nodes.append(node)
            continue
        changed = True
        _put(made, node, bent)
    made.rewrite(proto)
    return changed


def _bent(graph: Graph, node: NodeProto, known: dict[str, _Bent]) -> _Bent | None:
    """What `node` makes of the tensor behind it; None where that is something else."""
    if node.op_type in JOINING:
        if len(node.input) != 2 or not graph.constants.keys().isdisjoint(node.input):
            return None
        first, second = (known.get(name, _Bent(name, ONE, ONE)) for name in node.input)
        if first.source != second.source:
            return None
        above, below = JOINING[node.op_type]
        return _Bent(
            first.source, above(first.positive, second.positive), below(first.negative, second.negative)
        )
    if node.op_type in ("Mul", "Div"):
        return _times(graph, node, known)
    if node.op_type not in ("Abs", "LeakyRelu", "Neg", "Relu"):
        return None
    x = known.get(node.input[0], _Bent(node.input[0], ONE, ONE))
    slope_above, slope_below = {  # what becomes of a positive value, and of a negative one
        "Abs": (1, -1),
        "LeakyRelu": (1, attributes(node).get("alpha", 0.01)),
        "Neg": (-1, -1),
        "Relu": (1, 0),
    }[node.op_type]
    positive = x.positive * np.where(x.positive > 0, slope_above, slope_below)
    return _Bent(x.source, positive, x.negative * np.where(x.negative < 0, slope_above, slope_below))


def _times(graph: Graph, node: NodeProto, known: dict[str, _Bent]) -> _Bent | None:
    """A product with a constant of each channel, or of all."""
    for data, other in ((0, 1), (1, 0)):
        if node.input[other] not in graph.constants or (other == 0 and node.op_type == "Div"):
            continue
        array = graph.array(node.input[other]).astype(np.float64)
        shape = (1,) * (4 - array.ndim) + array.shape
        if len(shape) != 4 or shape[0] * shape[2] * shape[3] != 1 or not array.all():
            return None
        factor = array.reshape(-1) if node.op_type == "Mul" else 1 / array.reshape(-1)
        x = known.get(node.input[data], _Bent(node.input[data], ONE, ONE))
        return _Bent(x.source, x.positive * factor, x.negative * factor)
    return None


def _put(made: GraphNodes, node: NodeProto, bent: _Bent) -> None:
    target, slopes = node.output[0], bent.negative.astype(np.float32)
    if not slopes.any():
        made.put("Relu", [bent.source], target, node.name)
    elif (slopes == slopes[0]).all():
        made.put("LeakyRelu", [bent.source], target, node.name, alpha=float(slopes[0]))
    else:
        slope = made.constant(f"{target}.slope", slopes.reshape(-1, 1, 1))
        made.put("PRelu", [bent.source, slope], target, node.name)
