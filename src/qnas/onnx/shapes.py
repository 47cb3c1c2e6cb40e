"""The shape of every tensor of an ONNX model at given input shapes.

onnx's own inference follows shapes through the nodes, but not what a graph computes from them (a Range over
a height, an interpolation matrix). So what depends on shapes alone is evaluated, and inference runs again,
until nothing new is known.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    TypeProto,
    ValueInfoProto,
    numpy_helper,
    shape_inference,
)

from qnas.cost.macs import Shape
from qnas.errors import ModelError, QnasError, UsageError
from qnas.onnx.graph import STANDARD, Graph

Array = NDArray[Any]
LARGE = 1024  # a constant of more values is a weight, never a shape that inference must read
LONGEST = 1 << 21  # no image has more rows or columns; inference would count along them, one by one
COUNTING = frozenset({"ConstantOfShape", "Expand", "Pad", "Range", "Tile"})  # their inputs are sizes

# What infers the output shape of com.microsoft's operations in their stead: (type, which of the inputs).
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


@dataclass(frozen=True)
class Shapes:
    """`types`: what is known of each tensor's type and shape; `derived`: values that shapes determine."""

    types: Mapping[str, TypeProto.Tensor]
    derived: Mapping[str, Array]

    def of(self, name: str) -> Shape | None:
        """Dimensions of a tensor, None when they are unknown."""
        known = self.types.get(name)
        if known is None or not known.HasField("shape"):
            return None
        dims = [dim.dim_value if dim.HasField("dim_value") else None for dim in known.shape.dim]
        sizes = tuple(dim for dim in dims if dim is not None)
        return sizes if len(sizes) == len(dims) else None


def op_name(node: NodeProto) -> str:
    """The node's type, with its domain unless that is ONNX itself: "Conv", "com.microsoft.QGemm"."""
    op: str = node.op_type
    return op if node.domain in STANDARD else f"{node.domain}.{op}"


def read_model(path: Path, external_data: bool = True) -> ModelProto:
    """Read a model, with the weights that lie in files beside it; ModelError when that fails."""
    if not path.is_file():
        raise ModelError(f"{path} is not a file: name an .onnx model")
    try:
        model = onnx.load(path, load_external_data=external_data)
    except Exception as error:  # protobuf, onnx and the file system each raise their own
        kind = type(error).__name__
        raise ModelError(f"{path} is no readable ONNX model ({kind}): export it again") from error
    for node in model.graph.node:  # what is no UTF-8, protobuf hands out as bytes
        if not all(isinstance(text, str) for text in (node.op_type, node.domain, *node.input, *node.output)):
            raise ModelError(f"{path} is no readable ONNX model (names that are no text): export it again")
    return model


def declared_sizes(value: ValueInfoProto) -> list[int | None]:
    """Dimensions of an input or output, None where they are free."""
    dims = value.type.tensor_type.shape.dim
    return [d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in dims]


@contextmanager
def damage_refused(path: Path) -> Iterator[None]:
    """Around code that walks the graph of `path`: one tampered with breaks it anywhere. Raises ModelError."""
    try:
        yield
    except QnasError:
        raise
    except Exception as error:
        raise ModelError(f"{path} is damaged ({type(error).__name__}): export it again") from error


def infer_shapes(model: ModelProto, shapes: Mapping[str, Sequence[int]]) -> Shapes:
    """Infer from the inputs' shapes; UsageError when they do not fit, ModelError when inference fails."""
    bare = _bare_copy(model)
    _fix_inputs(bare.graph, shapes)
    small = _small_constants(model.graph)
    derived: dict[str, Array] = {}
    _infer(bare, values=False)  # finds what is too long before values are followed along it
    while True:
        found = Shapes(_infer(bare), derived)
        fresh = _evaluate(bare.graph, found, small, derived)
        if not fresh:
            return found
        derived |= fresh
        rest = [node for node in bare.graph.node if not derived.keys() & set(node.output)]
        del bare.graph.node[:]
        bare.graph.node.extend(rest)
        bare.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in fresh.items())


def _bare_copy(model: ModelProto) -> ModelProto:
    """A copy without stale shapes and the data of weights, with stand-ins for com.microsoft's operations."""
    copy = deepcopy(model)
    del copy.graph.value_info[:]
    for value in copy.graph.output:
        value.type.tensor_type.ClearField("shape")
    for tensor in copy.graph.initializer:
        if prod(tensor.dims) > LARGE:  # keeps the copy small: inference refuses more than 2 GiB
            tensor.CopyFrom(TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims))
    for node in copy.graph.node:
        if op_name(node) in STAND_INS:
            op, pick = STAND_INS[op_name(node)]
            reads = list(node.input)[pick]
            node.op_type, node.domain = op, ""
            del node.input[:]
            node.input.extend(reads)
    return copy


def _fix_inputs(graph: GraphProto, shapes: Mapping[str, Sequence[int]]) -> None:
    inputs = {value.name: value for value in Graph(graph).inputs}
    if unknown := [name for name in shapes if name not in inputs]:
        raise UsageError(f"the model has no input {unknown[0]!r}: its inputs are {', '.join(inputs)}")
    for name, value in inputs.items():
        dims = declared_sizes(value)
        given = shapes.get(name, dims)
        shown = "x".join("?" if d is None else str(d) for d in dims)
        if None in given:
            raise UsageError(f"input {name!r} is {shown}: give the shape to count the cost for")
        if len(given) != len(dims) or any(d not in (None, g) for d, g in zip(dims, given, strict=True)):
            raise UsageError(f"input {name!r} is {shown}: {'x'.join(map(str, given))} does not fit it")
        for dim, size in zip(value.type.tensor_type.shape.dim, given, strict=True):
            dim.dim_value = size or 0


def _infer(model: ModelProto, values: bool = True) -> dict[str, TypeProto.Tensor]:
    try:
        graph = shape_inference.infer_shapes(model, data_prop=values).graph
    except Exception as error:  # RuntimeError, ValueError and onnx's own have no common base
        message = (str(error).strip().splitlines() or [""])[0][:200]
        raise ModelError(f"cannot infer the model's shapes: {message}; export it again") from error
    types = {t.name: TypeProto.Tensor(elem_type=t.data_type) for t in graph.initializer}
    for tensor in graph.initializer:
        types[tensor.name].shape.dim.extend(onnx.TensorShapeProto.Dimension(dim_value=d) for d in tensor.dims)
    types |= {v.name: v.type.tensor_type for v in (*graph.input, *graph.value_info, *graph.output)}
    for name, known in types.items():
        longest = max((dim.dim_value for dim in known.shape.dim), default=0)
        if longest > LONGEST and len(known.shape.dim) != 2:  # rows of a matrix may be that long
            raise ModelError(
                f"tensor {name!r} is {longest} long: export the model again, or use a smaller input"
            )
    return types


def _small_constants(graph: GraphProto) -> dict[str, Array]:
    small = {t.name: numpy_helper.to_array(t) for t in graph.initializer if prod(t.dims) <= LARGE}
    for node in graph.node:
        if node.op_type == "Constant" and all(prod(a.t.dims) <= LARGE for a in node.attribute):
            small |= _outputs(node, {})
    return small


def _evaluate(
    graph: GraphProto, shapes: Shapes, small: dict[str, Array], derived: dict[str, Array]
) -> dict[str, Array]:
    """Values of the tensors that shapes known by now, `derived` and small constants give."""
    fresh: dict[str, Array] = {}
    known = ChainMap(fresh, derived, small)
    for node in graph.node:
        inputs = {name for name in node.input if name}
        feed: dict[str, Array] = {}
        if node.op_type in ("Shape", "Size"):
            size = shapes.of(node.input[0])
            feed = {} if size is None else {node.input[0]: np.broadcast_to(np.float32(0), size)}
        elif any(name in fresh or name in derived for name in inputs):
            feed = {name: known[name] for name in inputs if name in known}
        too_long = node.op_type in COUNTING and any(_largest(value) > LONGEST for value in feed.values())
        if feed and len(feed) == len(inputs) and not too_long:
            fresh |= _outputs(node, feed)
    return fresh


def _largest(value: Array) -> float:
    return float(np.abs(value.astype(np.float64)).max(initial=0)) if value.dtype.kind in "iuf" else 0


def _outputs(node: NodeProto, feed: dict[str, Array]) -> dict[str, Array]:
    try:
        with np.errstate(all="ignore"):
            from onnx.reference import ReferenceEvaluator  # slow to import, and rarely needed

            values = ReferenceEvaluator(node).run(None, feed)
    except Exception:  # whatever an exotic node raises: what it writes stays unknown, and its readers say so
        return {}
    return {name: np.asarray(value) for name, value in zip(node.output, values, strict=False)}
