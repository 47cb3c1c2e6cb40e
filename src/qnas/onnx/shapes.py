"""The shape of every tensor of an ONNX model at given input shapes.

onnx's own inference follows shapes through a node, but not what a graph computes from them (a Range over a
height, an interpolation matrix). So the nodes are walked once, in their order: each is inferred from what is
known of its inputs, and where shapes or constants determine its values, and it is one of few harmless
operations, these are computed. How much there is to compute is known before, and has an end.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TypeProto, ValueInfoProto, numpy_helper
from onnx.shape_inference import infer_node_outputs

from qnas.cost.macs import Shape
from qnas.errors import ModelError, UsageError
from qnas.onnx.files import parts
from qnas.onnx.graph import STANDARD, Graph, node_name
from qnas.onnx.operations import ELEMENTWISE, MOVING, SHAPES_AND_TYPES, UNPACKING

Array = NDArray[Any]
LARGE = 1024  # a constant of more values is a weight, never a shape that inference must read
LONGEST = 1 << 21  # no image has more rows or columns
MOST_ELEMENTS = 1 << 26  # of all tensors together that no image determines: 512 MiB of int64
# Computed where their inputs are known: nothing that repeats, calls, or looks at windows, pixel by pixel.
EVALUATED = ELEMENTWISE | MOVING | SHAPES_AND_TYPES | UNPACKING | {
    "CumSum", "EyeLike", "MatMul", "NonZero", "OneHot", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum",
}  # fmt: skip

# What infers the output shape of operations for which onnx does not: (type, which of the inputs).
STAND_INS: dict[str, tuple[str, slice]] = {
    "com.microsoft.FusedConv": ("Conv", slice(0, 3)),
    "com.microsoft.FusedGemm": ("Gemm", slice(0, 3)),
    "com.microsoft.MatMulIntegerToFloat": ("MatMul", slice(0, 2)),
    "com.microsoft.QGemm": ("Gemm", slice(0, 4, 3)),
    "com.microsoft.QLinearAdd": ("Add", slice(0, 4, 3)),
    "com.microsoft.QLinearConcat": ("Concat", slice(2, None, 3)),
    "com.microsoft.QLinearGlobalAveragePool": ("GlobalAveragePool", slice(0, 1)),
    "com.microsoft.QLinearLeakyRelu": ("Identity", slice(0, 1)),
    "com.microsoft.QLinearMul": ("Mul", slice(0, 4, 3)),
    "com.microsoft.QLinearSigmoid": ("Identity", slice(0, 1)),
}
KEEPING_SHAPES = frozenset({"GroupNormalization", "MeanVarianceNormalization"})  # likewise, of ONNX itself


@dataclass(frozen=True)
class Shapes:
    """`types`: what is known of each tensor's type and shape; `derived`: values that shapes determine."""

    types: Mapping[str, TypeProto.Tensor]
    derived: Mapping[str, Array]

    def of(self, name: str) -> Shape | None:
        """Dimensions of a tensor, None when they are unknown."""
        known = self.types.get(name)
        return None if known is None else _sizes(known)


def op_name(node: NodeProto) -> str:
    """The node's type, with its domain unless that is ONNX itself: "Conv", "com.microsoft.QGemm"."""
    op: str = node.op_type
    return op if node.domain in STANDARD else f"{node.domain}.{op}"


def declared_sizes(value: ValueInfoProto) -> list[int | None]:
    """Dimensions of an input or output, None where they are free."""
    dims = value.type.tensor_type.shape.dim
    return [d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in dims]


def infer_shapes(model: ModelProto, shapes: Mapping[str, Sequence[int]]) -> Shapes:
    """Infer from the inputs' shapes.

    Raises UsageError when they do not fit, ModelError when a tensor is too long or there is too much to
    compute.
    """
    return _Walk(model, _input_types(model.graph, shapes)).shapes()


def check_constants(model: ModelProto) -> None:
    """Raise ModelError where more than MOST_ELEMENTS values follow from constants alone.

    A runtime computes them as soon as it opens the model, however long that takes.
    """
    _Walk(model, {value.name: value.type for value in Graph(model.graph).inputs}).shapes()


def _input_types(graph: GraphProto, shapes: Mapping[str, Sequence[int]]) -> dict[str, TypeProto]:
    inputs = {value.name: value for value in Graph(graph).inputs}
    if unknown := [name for name in shapes if name not in inputs]:
        raise UsageError(f"the model has no input {unknown[0]!r}: its inputs are {', '.join(inputs)}")
    types = {}
    for name, value in inputs.items():
        dims = declared_sizes(value)
        given = shapes.get(name, dims)
        shown = "x".join("?" if d is None else str(d) for d in dims)
        if None in given:
            raise UsageError(f"input {name!r} is {shown}: give the shape to count the cost for")
        if len(given) != len(dims) or any(d not in (None, g) for d, g in zip(dims, given, strict=True)):
            raise UsageError(f"input {name!r} is {shown}: {'x'.join(map(str, given))} does not fit it")
        types[name] = _tensor_type(value.type.tensor_type.elem_type, [size or 0 for size in given])
    return types


class _Walk:
    """What is known of each tensor while the nodes of a graph are walked.

    `types` of all; `values` of small constants, and of what follows from them or from shapes. A tensor is
    `fixed` when no input determines it: what such tensors take is subtracted from `left`.
    """

    def __init__(self, model: ModelProto, inputs: Mapping[str, TypeProto]) -> None:
        self.graph, self.opsets = Graph(model.graph), list(model.opset_import)
        sparse = model.graph.sparse_initializer
        stored = {t.name: (t.data_type, t.dims) for t in model.graph.initializer}
        stored |= {t.values.name: (t.values.data_type, t.dims) for t in sparse}
        self.types = {name: _tensor_type(*each) for name, each in stored.items()}
        self.types |= {v.name: _tensor_type(v.type.tensor_type.elem_type) for v in model.graph.output}
        self.types |= inputs
        self.fixed = set(stored)
        self.left = MOST_ELEMENTS + 2 * int(model.ByteSize())  # dequantized weights, and moved ones
        self.values: dict[str, Array] = {}
        self.derived: dict[str, Array] = {}
        self.known = ChainMap(self.derived, self.values)
        for name in self.types:
            self._check_length(name)
        self._spend(sum(prod(tensor.dims) for tensor in sparse), "sparse constants")
        for tensor in model.graph.initializer:
            if prod(tensor.dims) <= LARGE:
                self.values[tensor.name] = numpy_helper.to_array(tensor)

    def shapes(self) -> Shapes:
        """What is known after all nodes."""
        for node in self.graph.nodes:
            self.types |= {name: kind for name, kind in self._inferred(node).items() if name}
            for name in node.output:
                self._check_length(name)
            if self._is_fixed(node):
                self.fixed.update(node.output)
                elements = sum(prod(self._sizes(name) or ()) for name in node.output)
                self._spend(elements, f"node {node_name(node)} ({op_name(node)})")
                self._evaluate(node)
        return Shapes({name: kind.tensor_type for name, kind in self.types.items()}, self.derived)

    def _inferred(self, node: NodeProto) -> Mapping[str, TypeProto]:
        """What onnx knows of a node's outputs; nothing of one that it does not know, or that does not fit."""
        op, reads = op_name(node), list(node.input)
        if op in KEEPING_SHAPES:
            return {node.output[0]: self.types.get(reads[0], TypeProto())}
        if op in STAND_INS:
            kind, pick = STAND_INS[op]
            reads = reads[pick]
            node = NodeProto(op_type=kind, input=reads, output=node.output, attribute=node.attribute)
        elif node.domain in STANDARD:
            kind = op
        else:
            return {}
        names = {*reads, *_read_inside(node)} - {""}
        types = {name: self.types.get(name, TypeProto()) for name in names}
        data = {n: numpy_helper.from_array(v, n) for n in names if (v := self._small(n)) is not None}
        try:
            schema = _schema(kind, self._version())
            found: dict[str, TypeProto] = infer_node_outputs(
                schema, node, types, data, opset_imports=self.opsets
            )
        except Exception:  # what onnx raises has no common base; who needs the shape says that it is unknown
            return {}
        return found

    def _version(self) -> int:
        return max((entry.version for entry in self.opsets if entry.domain in STANDARD), default=1)

    def _small(self, name: str) -> Array | None:
        found = self.known.get(name)
        return found if found is not None and found.size <= LARGE else None

    def _sizes(self, name: str) -> Shape | None:
        return _sizes(self.types[name].tensor_type) if name in self.types else None

    def _measures(self, node: NodeProto) -> bool:
        """Whether `node` asks for the shape of a tensor, and that is known."""
        return op_name(node) in ("Shape", "Size") and self._sizes(node.input[0]) is not None

    def _is_fixed(self, node: NodeProto) -> bool:
        inner = any(True for _ in _read_inside(node))  # what a branch reads, an image may determine
        return self._measures(node) or (not inner and self.fixed.issuperset(filter(None, node.input)))

    def _evaluate(self, node: NodeProto) -> None:
        """Compute what `node` writes where its inputs are known: all of shapes, little of constants."""
        names = [name for name in node.input if name]
        sizes = [self._sizes(name) for name in node.output if name]
        derived = self._measures(node) or not self.derived.keys().isdisjoint(names)
        bounded = None not in sizes or node.op_type == "NonZero"  # of that, the input's rank times its values
        little = derived or all(size is not None and prod(size) <= LARGE for size in sizes)
        if op_name(node) not in EVALUATED or not (bounded and little):
            return
        if self._measures(node):
            feed = {names[0]: np.broadcast_to(np.float32(0), self._sizes(names[0]) or ())}
        else:
            feed = {name: self.known[name] for name in names if name in self.known}
        if len(feed) == len(set(names)):
            (self.derived if derived else self.values).update(_outputs(node, feed))

    def _check_length(self, name: str) -> None:
        sizes = self._sizes(name) or ()
        if max(sizes, default=0) > LONGEST and len(sizes) != 2:  # rows of a matrix may be that long
            raise ModelError(
                f"tensor {name!r} is {max(sizes)} long: export the model again, or use a smaller input"
            )

    def _spend(self, elements: int, what: str) -> None:
        self.left -= elements
        if self.left < 0:
            raise ModelError(
                f"{what}: more than {MOST_ELEMENTS} values follow from constants and shapes alone: export "
                "the model again, or use a smaller input"
            )


def _tensor_type(kind: int, dims: Sequence[int] | None = None) -> TypeProto:
    return onnx.helper.make_tensor_type_proto(kind, dims)


def _sizes(kind: TypeProto.Tensor) -> Shape | None:
    if not kind.HasField("shape"):
        return None
    dims = [dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim]
    sizes = tuple(dim for dim in dims if dim is not None)
    return sizes if len(sizes) == len(dims) else None


@cache
def _schema(op: str, version: int) -> onnx.defs.OpSchema:
    return onnx.defs.get_schema(op, version, "")


def _read_inside(node: NodeProto) -> Iterator[str]:
    """The names that the nodes of graphs inside `node` read."""
    for attribute in node.attribute:
        if attribute.HasField("g") or attribute.graphs:
            yield from (name for inner in parts(attribute)[0] for name in inner.input)


def _outputs(node: NodeProto, feed: Mapping[str, Array]) -> dict[str, Array]:
    reads = {str(place): feed[name] for place, name in enumerate(node.input) if name}
    form = NodeProto(op_type=node.op_type, domain=node.domain, attribute=node.attribute)
    form.input.extend(str(place) if name else "" for place, name in enumerate(node.input))
    form.output.extend(f"o{place}" for place in range(len(node.output)))
    try:
        with np.errstate(all="ignore"):
            values = _evaluator(form.SerializeToString()).run(None, reads)
    except Exception:  # whatever an exotic node raises: what it writes stays unknown, and its readers say so
        return {}
    return {name: np.asarray(value) for name, value in zip(node.output, values, strict=False)}


@lru_cache(1000)
def _evaluator(node: bytes) -> Any:
    """What runs a node; to make it takes longer than to run it, and a graph has few different ones."""
    from onnx.reference import ReferenceEvaluator  # slow to import, and rarely needed

    return ReferenceEvaluator(NodeProto.FromString(node))
