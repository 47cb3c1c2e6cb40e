"""Networks that keep their channels last, [N, H, W, C] -> the same with channels first, [N, C, H, W].

Every tensor of a region of channels last gets a twin of channels first, and every operation of it one that
computes the twin, until only the image and the output are turned. A region begins where the network reads
[N, H, W, C] or turns a tensor to it.

1. A Transpose back to channels first is the twin itself.
2. Values are computed one by one: constants beside them are turned too.
3. What works along an axis, or has a number for each of them, gets the axes of the twin.
4. An operation that is none of these reads what the twin is turned back to.
5. A grey image has the same values in the same order in both: there a Reshape may be the turn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import GraphProto, NodeProto

from qnas.cost.macs import Shape
from qnas.onnx.builder import GraphNodes
from qnas.onnx.graph import STANDARD, Graph, attributes
from qnas.onnx.names import Names
from qnas.onnx.operations import ELEMENTWISE
from qnas.onnx.shapes import Shapes

TO_FIRST, TO_LAST = (0, 3, 1, 2), (0, 2, 3, 1)
ONE_BY_ONE = (ELEMENTWISE - {"Dropout", "LogSoftmax", "Softmax"}) | {"Cast", "Identity"}
ALONG_ONE = frozenset({"Concat", "LogSoftmax", "Softmax", "Split"})
REDUCING = frozenset({"ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
                      "ReduceSum", "ReduceSumSquare"})  # fmt: skip
RESHAPING = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
QUANTIZERS = frozenset({"DequantizeLinear", "QuantizeLinear"})

Twin = tuple[list[str], Mapping[str, Any]]  # inputs and changed attributes of the operation of the twin


def channels_first(proto: GraphProto, shapes: Shapes, image: str | None) -> bool:
    """Rewrite the graph by the cases of the module's docstring; whether it changed.

    `shapes`: at a size whose height and width are neither equal nor 1. `image`: the input, where it has its
    channels last. Tensors keep their names; twins that nobody reads are left behind.
    """
    changed = _grey_turns(proto, shapes)
    turning = _Turning(proto, shapes)
    if image is not None:
        turning.twins[image] = turning.turned(image, TO_FIRST)
    for node in turning.graph.nodes:
        turning.walk(node)
    turning.made.rewrite(proto)
    return changed or turning.changed


class _Turning:
    """`twins`: a tensor of channels last -> the same with channels first."""

    def __init__(self, proto: GraphProto, shapes: Shapes) -> None:
        self.graph, self.shapes = Graph(proto), shapes
        self.made = GraphNodes(Names.of(proto))
        self.twins: dict[str, str] = {}
        self.changed = False

    def walk(self, node: NodeProto) -> None:
        """Write `node`, or that of its twin."""
        perm = tuple(attributes(node).get("perm", ())) if node.op_type == "Transpose" else None
        if perm == TO_FIRST and node.input[0] in self.twins:  # Case 1
            self.made.put("Identity", [self.twins[node.input[0]]], node.output[0], node.name)
            self.changed = True
            return
        if node.op_type == "Shape" and node.input[0] in self.twins and not node.attribute:
            self._shape(node)
            return
        form = _form(node)
        read = [name for name in node.input if name in self.twins]
        twin = form(self, node) if form is not None and read else None
        if twin is None:  # Case 4
            self.made.nodes.append(node)
            if perm == TO_LAST:
                self.twins[node.output[0]] = node.input[0]
            return
        self._write(node, *twin)

    def _write(self, node: NodeProto, inputs: list[str], changes: Mapping[str, Any]) -> None:
        """The operation of the twin, and what turns it back for those who ask."""
        kept = {a.name: a for a in node.attribute if a.name not in changes}
        outputs = [self.made.names.tensor(f"{name}.channels_first") for name in node.output]
        self.made.put(node.op_type, inputs, outputs[0], node.name, **changes)
        written = self.made.nodes[-1]
        written.domain, written.output[:] = node.domain, outputs
        written.attribute.extend(kept.values())
        for name, twin in zip(node.output, outputs, strict=True):
            self.twins[name] = twin
            self.made.put("Transpose", [twin], name, self.made.names.node(f"{name}.back"), perm=TO_LAST)
        self.changed = True

    def turned(self, name: str, perm: Sequence[int]) -> str:
        """A new tensor: `name` with its axes in another order."""
        return self.made.node("Transpose", [name], f"{name}.channels_first", perm=perm)

    def twin(self, name: str) -> str | None:
        """What stands for input `name` beside tensors of channels first; None where nothing does."""
        if name in self.twins or not name:
            return self.twins.get(name, name)
        if name in self.graph.constants:
            array = self.graph.array(name)
            if array.size == 1:
                return name
            if array.ndim > 4:
                return None
            whole = array.reshape((1,) * (4 - array.ndim) + array.shape).transpose(TO_FIRST)
            return self.made.constant(f"{name}.channels_first", whole, self.graph.constants[name].data_type)
        size = self.shapes.of(name)
        if size is None or len(size) not in (0, 4):
            return None
        if size:
            self.twins[name] = self.turned(name, TO_FIRST)
        return self.twins.get(name, name)

    def numbers(self, name: str, order: Sequence[int]) -> str:
        """A vector with the numbers of vector `name` in another order, at once where it is constant."""
        if name in self.graph.constants:
            return self.made.constant(f"{name}.channels_first", self.graph.array(name)[list(order)])
        places = self.made.constant("channels_first", np.array(order, np.int64))
        return self.made.node("Gather", [name, places], f"{name}.channels_first", axis=0)

    def _shape(self, node: NodeProto) -> None:
        size = self.made.node("Shape", [self.twins[node.input[0]]], f"{node.output[0]}.channels_first")
        places = self.made.constant("channels_last", np.array(TO_LAST, np.int64))
        self.made.put("Gather", [size, places], node.output[0], node.name, axis=0)
        self.changed = True


# Operations ----------------------------------------------------------------------------------------------

Form = Callable[[_Turning, NodeProto], Twin | None]


def _form(node: NodeProto) -> Form | None:
    if node.domain not in STANDARD:
        return None
    if node.op_type in ONE_BY_ONE:
        return _one_by_one
    return _FORMS.get(node.op_type)


def _place(axis: int) -> int:
    """Where an axis of [N, H, W, C] stands in [N, C, H, W]."""
    return TO_FIRST.index(axis % 4)


def _one_by_one(turning: _Turning, node: NodeProto) -> Twin | None:
    inputs = [turning.twin(name) for name in node.input]
    found = [name for name in inputs if name is not None]
    return (found, {}) if len(found) == len(inputs) else None


def _along_one(turning: _Turning, node: NodeProto) -> Twin | None:
    a, data = attributes(node), node.input if node.op_type == "Concat" else node.input[:1]
    default = 0 if node.op_type == "Split" else -1
    inputs = [name for name in map(turning.twin, data) if name is not None]
    if len(inputs) != len(data):
        return None
    return [*inputs, *node.input[len(data) :]], {"axis": _place(a.get("axis", default))}


def _quantizer(turning: _Turning, node: NodeProto) -> Twin:
    a = attributes(node)
    changes = {"axis": _place(a["axis"])} if "axis" in a else {}
    return [turning.twins[node.input[0]], *node.input[1:]], changes


def _reduced(turning: _Turning, node: NodeProto) -> Twin | None:
    a, others = attributes(node), list(node.input[1:])
    if not a.get("keepdims", 1) or (others and others[0] not in turning.graph.constants):
        return None
    data = turning.twins[node.input[0]]
    if "axes" in a:
        return [data, *others], {"axes": [_place(axis) for axis in a["axes"]]}
    return [data, *_axes(turning, others)], {}


def _axes(turning: _Turning, names: Sequence[str]) -> list[str]:
    """The constants of axes `names`, with those of the twin."""
    return [
        turning.made.constant(
            f"{name}.channels_first", np.array([_place(x) for x in turning.graph.array(name).reshape(-1)])
        )
        for name in names
    ]


def _sliced(turning: _Turning, node: NodeProto) -> Twin | None:
    inputs = [*node.input, *[""] * (5 - len(node.input))]
    data, starts, ends, axes, steps = inputs
    if data not in turning.twins or not starts or (axes and axes not in turning.graph.constants):
        return None
    if not axes:
        size = turning.shapes.of(starts)
        if size is None:
            return None
        axes = turning.made.constant("axes", np.arange(size[0]))
        found = turning.made.constant("axes_first", np.array([_place(x) for x in range(size[0])]))
    else:
        (found,) = _axes(turning, [axes])
    return [turning.twins[data], starts, ends, found, *([steps] if steps else [])], {}


def _padded(turning: _Turning, node: NodeProto) -> Twin | None:
    if node.input[0] not in turning.twins or len(node.input) < 2 or len(node.input) > 3:
        return None
    pads = turning.numbers(node.input[1], (*TO_FIRST, *(4 + axis for axis in TO_FIRST)))
    return [turning.twins[node.input[0]], pads, *node.input[2:]], {}


def _resized(turning: _Turning, node: NodeProto) -> Twin | None:
    a = attributes(node)
    if node.input[0] not in turning.twins or (len(node.input) > 1 and node.input[1]) or "axes" in a:
        return None
    rest = [turning.numbers(name, TO_FIRST) if name else "" for name in node.input[1:]]
    return [turning.twins[node.input[0]], *rest], {}


def _repeated(turning: _Turning, node: NodeProto) -> Twin | None:
    """By four numbers, one for each axis."""
    if node.input[0] not in turning.twins or turning.shapes.of(node.input[1]) != (4,):
        return None
    return [turning.twins[node.input[0]], turning.numbers(node.input[1], TO_FIRST)], {}


def _gathered(turning: _Turning, node: NodeProto) -> Twin | None:
    indices = turning.shapes.of(node.input[1])
    if node.input[0] not in turning.twins or indices is None or len(indices) != 1:
        return None
    return [turning.twins[node.input[0]], node.input[1]], {"axis": _place(attributes(node).get("axis", 0))}


_FORMS: dict[str, Form] = {
    **dict.fromkeys(ALONG_ONE, _along_one),
    **dict.fromkeys(QUANTIZERS, _quantizer),
    **dict.fromkeys(REDUCING, _reduced),
    "Expand": _repeated,
    "Gather": _gathered,
    "Pad": _padded,
    "Resize": _resized,
    "Slice": _sliced,
    "Tile": _repeated,
}


# Case 5 --------------------------------------------------------------------------------------------------


def _grey_turns(proto: GraphProto, shapes: Shapes) -> bool:
    """Reshapes of a grey image between both layouts -> one Transpose; to the same shape, nothing."""
    graph, made, changed = Graph(proto), GraphNodes(Names.of(proto)), False
    for node in graph.nodes:
        source = _reshaped(graph, node)
        before, after = (shapes.of(name) for name in (source, node.output[0]))
        turn = _turn(before, after) if source != node.output[0] else None
        if turn is None:
            made.nodes.append(node)
            continue
        changed = True
        if turn == (0, 1, 2, 3):
            made.put("Identity", [source], node.output[0], node.name)
        else:
            made.put("Transpose", [source], node.output[0], node.name, perm=turn)
    made.rewrite(proto)
    return changed


def _reshaped(graph: Graph, node: NodeProto) -> str:
    """The tensor whose values, in their order, are those of `node`; its output where it does more."""
    name: str = node.output[0]
    for _ in graph.nodes:
        producer = graph.producers.get(name)
        if producer is None or producer.op_type not in RESHAPING or producer.domain not in STANDARD:
            break
        name = producer.input[0]
    return name


def _turn(before: Shape | None, after: Shape | None) -> tuple[int, ...] | None:
    """The order of axes that makes `after` of `before` and leaves all values in their order."""
    if before is None or after is None or len(before) != 4 or len(after) != 4 or min(before) < 1:
        return None
    if before == after:
        return (0, 1, 2, 3)
    for perm, channel in ((TO_FIRST, 3), (TO_LAST, 1)):
        if before[channel] == 1 and after == tuple(before[axis] for axis in perm):
            return perm
    return None
