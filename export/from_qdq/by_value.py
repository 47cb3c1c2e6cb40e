"""Operations value by value: functions of one tensor become tables, sums and products of two stay."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from qnas.export.from_qdq.graph import QdqGraph, refused, written_name
from qnas.export.from_qdq.per_channel import per_channel
from qnas.export.from_qdq.values import Constant, Levels, Pending, Value, once
from qnas.integer.nodes import Add, ChannelGate, Multiply
from qnas.integer.tables import sigmoid
from qnas.onnx.graph import attributes
from qnas.quantization.quantizers import QuantParams

Floats = NDArray[np.float32]
Function = Callable[..., Any]  # attributes and float32 arrays -> array


def _alpha(a: dict[str, Any], default: float) -> float:
    return float(a.get("alpha", default))


def _selu(x: Floats, alpha: float, gamma: float) -> Any:
    return gamma * np.where(x > 0, x, alpha * np.expm1(x))


def _gelu(x: Floats, approximate: str) -> Any:
    if approximate == "tanh":
        return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return x / 2 * (1 + _erf(x / math.sqrt(2)))


_erf = np.vectorize(math.erf, otypes=[np.float64])

FUNCTIONS: dict[str, Function] = {
    "Abs": lambda a, x: np.abs(x),
    "Add": lambda a, x, y: x + y,
    "Ceil": lambda a, x: np.ceil(x),
    "Celu": lambda a, x: np.maximum(x, 0) + np.minimum(0, _alpha(a, 1.0) * np.expm1(x / _alpha(a, 1.0))),
    "Cos": lambda a, x: np.cos(x),
    "Div": lambda a, x, y: x / y,
    "Elu": lambda a, x: np.where(x < 0, _alpha(a, 1.0) * np.expm1(x), x),
    "Erf": lambda a, x: _erf(x),
    "Exp": lambda a, x: np.exp(x),
    "Floor": lambda a, x: np.floor(x),
    "Gelu": lambda a, x: _gelu(x, a.get("approximate", "none")),
    "HardSigmoid": lambda a, x: np.clip(_alpha(a, 0.2) * x + a.get("beta", 0.5), 0, 1),
    "HardSwish": lambda a, x: x * np.clip(x / 6 + 0.5, 0, 1),
    "LeakyRelu": lambda a, x: np.where(x < 0, np.float32(_alpha(a, 0.01)) * x, x),
    "Log": lambda a, x: np.log(x),
    "Max": lambda a, *x: np.maximum.reduce(np.broadcast_arrays(*x)),
    "Mean": lambda a, *x: np.mean(np.broadcast_arrays(*x), axis=0),
    "Min": lambda a, *x: np.minimum.reduce(np.broadcast_arrays(*x)),
    "Mish": lambda a, x: x * np.tanh(np.logaddexp(x, 0)),
    "Mul": lambda a, x, y: x * y,
    "Neg": lambda a, x: -x,
    "PRelu": lambda a, x, slope: np.where(x < 0, slope * x, x),
    "Pow": lambda a, x, y: np.power(x, y),
    "Reciprocal": lambda a, x: 1 / x,
    "Relu": lambda a, x: np.maximum(x, 0),
    "Round": lambda a, x: np.rint(x),
    "Selu": lambda a, x: _selu(x, _alpha(a, 1.6732632423543772), a.get("gamma", 1.0507009873554805)),
    "Sigmoid": lambda a, x: sigmoid(x),
    "Sign": lambda a, x: np.sign(x),
    "Sin": lambda a, x: np.sin(x),
    "Softplus": lambda a, x: np.logaddexp(x, 0),
    "Softsign": lambda a, x: x / (1 + np.abs(x)),
    "Sqrt": lambda a, x: np.sqrt(x),
    "Sub": lambda a, x, y: x - y,
    "Sum": lambda a, *x: np.sum(np.broadcast_arrays(*x), axis=0),
    "Swish": lambda a, x: x * sigmoid(np.float32(_alpha(a, 1.0)) * x),
    "Tanh": lambda a, x: np.tanh(x),
    "ThresholdedRelu": lambda a, x: np.where(x > _alpha(a, 1.0), x, 0),
}


def by_value(graph: QdqGraph, node: NodeProto) -> Value:
    """Functions of one tensor, and sums and products of two."""
    reads = [graph.value(node, index) for index in range(len(node.input))]
    if node.op_type == "Relu":
        if isinstance(reads[0], Pending):
            return reads[0].bounded(0, np.inf)
        if isinstance(reads[0], Levels) and graph.draft.nodes[reads[0].node].output.is_wide:
            return replace(map_values(graph, node, FUNCTIONS["Relu"], reads), low=0)
    tensors = {x.node for x in reads if isinstance(x, Levels)}
    if len(tensors) == 2 == len(reads) and node.op_type in ("Add", "Mul"):
        return _sum(graph, node) if node.op_type == "Add" else _product(graph, node, (0, 1))
    if _is_square(node, reads):
        return _product(graph, node, (0, 0))
    found = per_channel(graph, node, reads)
    return found if found is not None else map_values(graph, node, FUNCTIONS[node.op_type], reads)


def map_values(graph: QdqGraph, node: NodeProto, function: Function, reads: Sequence[Value]) -> Levels:
    """`function` of every value of one integer tensor. Constants beside it have to be the same everywhere."""
    arrays: list[Floats] = []
    names = {x.node for x in reads if isinstance(x, Levels)}
    for index, x in enumerate(reads):
        if isinstance(x, Pending):
            graph.unquantized(node, index)
        if isinstance(x, Constant):
            if not x.array.size or x.array.ndim > 4 or (x.array != x.array.flat[0]).any():
                raise refused(
                    node, "computes with several constants: a single number or, in [C, 1, 1], one per channel"
                )
            arrays.append(np.asarray(x.array.flat[0], np.float32))
        elif isinstance(x, Levels):
            arrays.append(x.values)
        else:
            raise refused(node, f"reads {node.input[index]!r}, which is no float tensor: dequantize it")
    if len(names) != 1:
        raise refused(
            node, f"of {len(names)} tensors is not an operation of the integer network: use Add or Mul"
        )
    (name,) = names
    values = np.asarray(function(attributes(node), *arrays), np.float32)
    values = np.broadcast_to(values, graph.draft.nodes[name].output.every.shape)
    if not np.isfinite(values[graph.draft.reach(name)]).all():
        raise refused(node, "makes values that are not finite: export the model again")
    return Levels(name, np.nan_to_num(values, posinf=0, neginf=0))


def _sum(graph: QdqGraph, node: NodeProto) -> Pending:
    names = (graph.on_grid(node, 0), graph.on_grid(node, 1))
    channels = _same_channels(graph, node, names)
    if graph.draft.sizes[names[0]] != graph.draft.sizes[names[1]]:
        raise refused(node, "adds a value per channel or image: the integer network multiplies by such alone")
    return Pending(once(lambda grid: graph.draft.put(Add(written_name(node), names, channels, grid))))


def _is_square(node: NodeProto, reads: Sequence[Value]) -> bool:
    """Whether it multiplies what a quantizer wrote with itself: faster than a table, and exact as well."""
    match node.op_type, reads:
        case "Mul", [Levels(_, _, QuantParams()) as x, Levels(_, _, QuantParams()) as y]:
            return x.node == y.node and np.array_equal(x.values, y.values)
        case "Pow", [Levels(_, _, QuantParams()), Constant(power)]:
            return bool(power.size and (power == 2).all())
    return False


def _product(graph: QdqGraph, node: NodeProto, places: tuple[int, int]) -> Pending:
    """The product of the inputs at two `places`.

    A tensor read at another scale than its own is one times a constant.
    One value per channel [N, C, 1, 1] multiplies that channel; one channel [N, 1, H, W] is copied to all.
    """
    gains = [_gain(graph, node, index) for index in places]
    sizes = [{*graph.draft.sizes[_levels(graph, node, index).node]} for index in places]
    small = next((index for index in (0, 1) if sizes[index] == {(1, 1)} != sizes[1 - index]), None)
    second = small if small is not None else 0 if gains[0] != 1 == gains[1] else 1
    gain = gains[second]
    x = graph.on_grid(node, places[1 - second])
    gate = _levels(graph, node, places[second]).node if gain != 1 else graph.on_grid(node, places[second])
    x, gate = _copied(graph, node, x, gate), _copied(graph, node, gate, x)
    channels, kind = _same_channels(graph, node, (x, gate)), Multiply if small is None else ChannelGate
    return Pending(
        once(lambda grid: graph.draft.put(kind(written_name(node), (x, gate), channels, grid, gain=gain)))
    )


def _levels(graph: QdqGraph, node: NodeProto, index: int) -> Levels:
    value = graph.value(node, index)
    assert isinstance(value, Levels)
    return value


def _copied(graph: QdqGraph, node: NodeProto, name: str, like: str) -> str:
    """Node `name` with as many channels as `like` has, if it has one."""
    channels = graph.draft.nodes[like].channels
    if graph.draft.nodes[name].channels > 1 or channels == 1:
        return name
    return graph.pick(f"{written_name(node)}.copies", name, np.zeros(channels, np.int64))


def _gain(graph: QdqGraph, node: NodeProto, index: int) -> np.float32:
    """What input `index` is, times its integer tensor's value; 1 when that is not one number."""
    value = _levels(graph, node, index)
    own = graph.draft.nodes[value.node].output
    if value.grid is None or value.grid.zero_point != own.zero_point:
        return np.float32(1)
    gain = np.float32(value.grid.scale / own.scale)
    return gain if own.scale * gain == value.grid.scale else np.float32(1)


def _same_channels(graph: QdqGraph, node: NodeProto, names: tuple[str, str]) -> int:
    a, b = (graph.draft.nodes[name].channels for name in names)
    if a != b:
        raise refused(node, f"combines tensors of {a} and {b} channels: the integer network repeats none")
    return a
