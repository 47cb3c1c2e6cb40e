"""Dense layers between channels -> 1x1 convolutions, for which integer runtimes have kernels.

A network written for channels last, or with linear layers on what a mean over the image leaves, turns its
tensors around a MatMul or a Gemm. Here such a tensor is known by its twin [N, C, H, W]:

1. NHWC: the twin turned by a Transpose. 2. [N, C]: the twin has 1x1 pixels.

What computes with turned tensors alone becomes the same computation of their twins, and whoever else reads
one gets it turned again.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from qnas.calibration.prepare.sr_shape import SrShape
from qnas.onnx.builder import GraphNodes
from qnas.onnx.channels_first import TO_FIRST, TO_LAST
from qnas.onnx.graph import Graph, attributes
from qnas.onnx.names import Names
from qnas.onnx.operations import ELEMENTWISE
from qnas.onnx.shapes import Shapes, infer_shapes

BY_AXIS = frozenset({"Dropout", "LogSoftmax", "Softmax"})  # of ELEMENTWISE: other values have a part in each
Form = Literal["nhwc", "nc"]
CHANNELS: dict[Form, tuple[int, int]] = {"nhwc": (3, -1), "nc": (1, -1)}  # the axis of channels, both ways


def dense_layers_as_convolutions(model: ModelProto, shape: SrShape) -> bool:
    """Rewrite all of `model`; whether there were any. Leaves behind what nobody reads any more."""
    proto, graph = model.graph, Graph(model.graph)
    if not any(node.op_type in ("Gemm", "MatMul", "ReduceMean", "Expand") for node in graph.nodes):
        return False
    shapes = infer_shapes(model, {proto.input[0].name: shape.input_shape()})
    made = _ChannelsFirst(Names.of(proto), graph=graph, shapes=shapes)
    for node in graph.nodes:
        if not made.twinned(node):
            made.copied(node)
    for name in graph.outputs:
        made.turned(name)
    if made.changed:
        made.rewrite(proto)
    return made.changed


@dataclass
class _ChannelsFirst(GraphNodes):
    """`twins`: turned tensor -> (its twin, what it is). `written`: those that stand in the graph as well."""

    graph: Graph = field(kw_only=True)
    shapes: Shapes = field(kw_only=True)
    twins: dict[str, tuple[str, Form]] = field(default_factory=dict)
    written: set[str] = field(default_factory=set)
    changed: bool = False

    def turned(self, name: str) -> None:
        """Write a tensor that is only known by its twin."""
        if name not in self.twins or name in self.written:
            return
        twin, form = self.twins[name]
        self.written.add(name)
        if form == "nhwc":
            self.put("Transpose", [twin], name, self.names.node(f"{name}.turned"), perm=TO_LAST)
        else:
            shape = self.constant(f"{name}.shape", np.array([0, -1]))
            self.put("Reshape", [twin, shape], name, self.names.node(f"{name}.turned"))

    def copied(self, node: NodeProto) -> None:
        """A node as it is."""
        for name in node.input:
            self.turned(name)
        self.nodes.append(node)

    def twinned(self, node: NodeProto) -> bool:
        """Write what makes the twin of what `node` writes, or find that it is one; whether there is one."""
        forms = {self.twins[name][1] for name in node.input if name in self.twins}
        form = forms.pop() if len(forms) == 1 else None
        op, a = node.op_type, attributes(node)
        match op:
            case "Transpose":
                return self._transposed(node, a.get("perm", []), form)
            case "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze" | "Expand":
                return self._reshaped(node)
            case "ReduceMean":
                return self._mean(node, a, form)
            case "MatMul" | "Gemm" if form and node.input[0] in self.twins:
                return self._dense(node, a, form)
            case "Concat" if form and a.get("axis") in CHANNELS[form] and self.twins.keys() >= {*node.input}:
                return self._same(node, form, [self.twins[name][0] for name in node.input], axis=1)
            case _ if form and op in ELEMENTWISE - BY_AXIS:
                inputs = [self._operand(name, form) for name in node.input]
                known = [name for name in inputs if name is not None]
                if op == "Add" and node.input[0] in self.graph.constants:
                    known.reverse()  # onnxruntime folds a bias that stands behind
                return len(known) == len(inputs) and self._same(node, form, known, **a)
        return False

    def _same(self, node: NodeProto, form: Form, inputs: list[str], op: str = "", **a: Any) -> bool:
        """Write the twin by `op`, or that of `node`."""
        name = self.names.tensor(f"{node.output[0]}.nchw")
        self.put(op or node.op_type, inputs, name, self.names.node(node.name or name), **a)
        self.twins[node.output[0]] = name, form
        return True

    def _is(self, node: NodeProto, twin: str) -> bool:
        """Say that the twin is what `node` writes."""
        self.put("Identity", [twin], node.output[0], self.names.node(f"{node.output[0]}.twin"))
        return True

    def _operand(self, name: str, form: Form) -> str | None:
        """An input of an elementwise operation: a twin, or a constant turned as twins are."""
        if name in self.twins or not name:
            return self.twins[name][0] if name else ""
        if name not in self.graph.constants:
            return None
        array = self.graph.array(name)
        if array.ndim > (4 if form == "nhwc" else 2):
            return None
        wide = array.reshape(*[1] * ((4 if form == "nhwc" else 2) - array.ndim), *array.shape)
        turned = wide.transpose(TO_FIRST) if form == "nhwc" else wide[..., None, None]
        return name if array.ndim == 0 else self.constant(f"{name}.nchw", np.ascontiguousarray(turned))

    def _transposed(self, node: NodeProto, perm: list[int], form: Form | None) -> bool:
        if tuple(perm) == TO_FIRST and form == "nhwc":
            return self._is(node, self.twins[node.input[0]][0])
        if tuple(perm) == TO_LAST and form is None:
            self.twins[node.output[0]] = node.input[0], "nhwc"
            return True
        return False

    def _reshaped(self, node: NodeProto) -> bool:
        """Case 1: [N, C, 1, 1] to [N, C]. Case 2: back. Case 3: spread over the image, which operands do by
        themselves."""
        source, result = self.shapes.of(node.input[0]), self.shapes.of(node.output[0])
        twin, form = self.twins.get(node.input[0], ("", None))
        if source is None or result is None:
            return False
        if len(source) == 4 and source[2:] == (1, 1) and form is None:
            if result == source[:2]:  # Case 1
                self.twins[node.output[0]] = node.input[0], "nc"
                return True
            spread = self._spreads(node, source, result)  # Case 3
            self.changed |= spread
            return spread and self._is(node, node.input[0])
        return form == "nc" and result == (*source, 1, 1) and self._is(node, twin)  # Case 2

    def _spreads(self, node: NodeProto, source: tuple[int, ...], result: tuple[int, ...]) -> bool:
        if node.op_type != "Expand" or len(result) != 4 or result[:2] != source[:2]:
            return False
        readers = self.graph.readers.get(node.output[0], [])
        others = [name for each in readers for name in each.input if name != node.output[0]]
        by_value = all(each.op_type in ("Add", "Div", "Mul", "Sub") for each in readers)
        whole = all(self.shapes.of(name) == result for name in others)
        return by_value and whole and bool(others) and node.output[0] not in self.graph.outputs

    def _mean(self, node: NodeProto, a: dict[str, Any], form: Form | None) -> bool:
        """A mean over height and width -> GlobalAveragePool."""
        named = len(node.input) > 1 and node.input[1] in self.graph.constants
        axes = [int(x) % 4 for x in (self.graph.array(node.input[1]) if named else a.get("axes", ()))]
        source = self.shapes.of(node.input[0])
        wanted = [1, 2] if form == "nhwc" else [2, 3]
        if source is None or len(source) != 4 or form == "nc" or sorted(axes) != wanted:
            return False
        kept = a.get("keepdims", 1)
        if form is None and kept:  # `standard_forms` knows it
            return False
        read = self.twins[node.input[0]][0] if form == "nhwc" else node.input[0]
        self.changed = True
        return self._same(node, "nhwc" if kept else "nc", [read], op="GlobalAveragePool")

    def _dense(self, node: NodeProto, a: dict[str, Any], form: Form) -> bool:
        """A product with constant weights [I, O], and a bias [O]."""
        constants = self.graph.constants
        plain = a.get("alpha", 1.0) == a.get("beta", 1.0) == 1.0 and not a.get("transA")
        if not plain or not all(name in constants for name in node.input[1:] if name):
            return False
        weight = self.graph.array(node.input[1])
        weight = weight.T if a.get("transB") else weight
        if weight.ndim != 2 or weight.dtype != np.float32:
            return False
        inputs = [self.twins[node.input[0]][0]]
        inputs.append(self._stored(node, "weight", weight.T.reshape(*weight.T.shape, 1, 1)))
        if len(node.input) > 2 and node.input[2]:
            bias = np.broadcast_to(self.graph.array(node.input[2]), (1, weight.shape[1]))
            inputs.append(self._stored(node, "bias", bias.reshape(-1)))
        self.changed = True
        return self._same(node, form, inputs, op="Conv", kernel_shape=[1, 1])

    def _stored(self, node: NodeProto, what: str, values: NDArray[Any]) -> str:
        return self.constant(f"{node.output[0]}.{what}", np.ascontiguousarray(values, dtype=np.float32))
