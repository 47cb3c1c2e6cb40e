"""An ONNX graph with the shape of every tensor and the bits of its values.

The bits are those of the values, which a container may exceed:

1. a tensor has the bits of its type: float32 32, int8 8, int4 4, int2 2;
2. QuantizeLinear gives the bits of its output type; DequantizeLinear and Cast keep those of their input;
3. an integer Clip(lo, hi) gives those of hi - lo: Clip(0, 15) behind a uint8 QuantizeLinear makes 4 bits; 8
   are taken for 7, which a ReLU leaves of a signed grid;
4. data movement and Relu keep the bits, and so does a QuantizeLinear back onto the very same grid;
5. metadata `qnas.bits` on a node says the bits of what it writes: that of the DequantizeLinear behind an int8
   weight may say 4.

The container of a tensor is its type; of floats that a DequantizeLinear wrote, or that data movement kept,
it is that of the integers they came from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import onnx.inliner
from onnx import ModelProto, NodeProto, TensorProto

from qnas.cost.file_cost import Container, level_bits
from qnas.cost.macs import Shape
from qnas.errors import ModelError
from qnas.onnx.graph import Graph, node_name
from qnas.onnx.operations import KEEPING, UNPACKING
from qnas.onnx.shapes import infer_shapes, op_name

BITS_KEY = "qnas.bits"

_WIDTHS = {
    "BOOL": 1, "INT2": 2, "UINT2": 2, "INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT8": 8, "UINT8": 8,
    "FLOAT8E4M3FN": 8, "FLOAT8E4M3FNUZ": 8, "FLOAT8E5M2": 8, "FLOAT8E5M2FNUZ": 8, "FLOAT8E8M0": 8,
    "INT16": 16, "UINT16": 16, "FLOAT16": 16, "BFLOAT16": 16, "INT32": 32, "UINT32": 32, "FLOAT": 32,
    "INT64": 64, "UINT64": 64, "DOUBLE": 64,
}  # fmt: skip
TYPE_NAMES = {number: name.lower() for name, number in TensorProto.DataType.items()}
TYPE_BITS = {number: _WIDTHS[name] for name, number in TensorProto.DataType.items() if name in _WIDTHS}
_INTEGERS = {number for name, number in TensorProto.DataType.items() if "INT" in name}


def metadata_bits(node: NodeProto) -> int | None:
    """What the node's metadata says of its bits, or None; ModelError when that is no number."""
    for entry in node.metadata_props:
        if entry.key == BITS_KEY:
            if not re.fullmatch("[1-9][0-9]?", entry.value):  # Python itself refuses to read long numbers
                raise ModelError(
                    f"node {node_name(node)}: metadata {BITS_KEY} is {entry.value[:80]!r}, not a number of "
                    "bits: export the model again"
                )
            return int(entry.value)
    return None


@dataclass(frozen=True)
class _Values:
    """The bits of a tensor's values, and (scale, zero point) when these lie on one quantizer's grid."""

    bits: int | None  # None: not even the type is known
    grid: object = None
    container: int = TensorProto.UNDEFINED


class MeasuredGraph(Graph):
    """A model's nodes with every shape that can be inferred and the bits of every tensor."""

    def __init__(self, model: ModelProto, shapes: Mapping[str, Sequence[int]]) -> None:
        """Infer from input shapes; UsageError when they do not fit, ModelError when inference fails."""
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
        super().__init__(model.graph)
        self._shapes = infer_shapes(model, shapes)
        given = (*self.constants, *(value.name for value in self.inputs))
        self._values = {name: self._typed(name) for name in given}
        for node in self.nodes:
            self._values |= dict.fromkeys(node.output, self._written(node))

    def shape(self, name: str, node: NodeProto) -> Shape:
        """Dimensions of a tensor that `node` needs; ModelError when they are unknown."""
        shape = self._shapes.of(name)
        if shape is None:
            raise self._unknown("shape", name, node)
        return shape

    def bits(self, name: str, node: NodeProto) -> int:
        """Bits of the values of a tensor that `node` reads; ModelError when they are unknown."""
        bits = self._values[name].bits if name in self._values else None
        if bits is None:
            raise self._unknown("type", name, node)
        return bits

    def container(self, name: str, node: NodeProto) -> Container:
        """How the values of a tensor of `node` are stored; ModelError when its type is unknown."""
        kind = self._values[name].container if name in self._values else TensorProto.UNDEFINED
        if kind not in TYPE_BITS:
            raise self._unknown("type", name, node)
        return Container(TYPE_BITS[kind], kind in _INTEGERS)

    def stored(self, name: str) -> str | None:
        """The constant that tensor `name` unpacks, or None when it is computed from an input."""
        while name not in self.constants:
            node = self.producers.get(name)
            if node is None or node.op_type not in UNPACKING:
                return None
            name = node.input[0]
        return name

    def _unknown(self, what: str, name: str, node: NodeProto) -> ModelError:
        return ModelError(
            f"node {node_name(node)} ({op_name(node)}): the {what} of its tensor {name!r} is unknown, so its "
            "cost cannot be counted; export the model with fixed shapes"
        )

    def is_derived(self, name: str) -> bool:
        """Whether the graph computes tensor `name` from shapes alone, as it does an interpolation matrix."""
        return name in self._shapes.derived

    def has_integers(self, name: str) -> bool:
        """Whether the container of tensor `name` is known to be an integer."""
        return name in self._values and self._values[name].container in _INTEGERS

    def is_integer(self, name: str) -> bool:
        """Whether the type of tensor `name` is known to be an integer."""
        return self._type(name) in _INTEGERS

    def _type(self, name: str) -> int:
        known = self._shapes.types.get(name)
        return TensorProto.UNDEFINED if known is None else int(known.elem_type)

    def _typed(self, name: str) -> _Values:
        kind = self._type(name)
        return _Values(TYPE_BITS.get(kind), None, kind)

    def _written(self, node: NodeProto) -> _Values:
        """The values that `node` writes, by the cases of the module's docstring."""
        reads = [self._values.get(name, _Values(None)) for name in node.input if name]
        first = reads[0] if reads else _Values(None)
        result = self._typed(node.output[0])  # Case 1
        match node.op_type:
            case "DequantizeLinear":  # Case 2
                result = _Values(first.bits, self._grid(node), first.container)
            case "Cast":  # Case 2
                result = replace(result, bits=_least(result.bits, first.bits))
            case "QuantizeLinear" if first.grid is not None and first.grid == self._grid(node):  # Case 4
                result = replace(result, bits=_least(result.bits, first.bits))
            case "Clip" if result.container in _INTEGERS:  # Case 3
                result = replace(result, bits=_least(first.bits, self._clip_bits(node)))
            case op if op in KEEPING:  # Case 4
                result = _joined(reads if op == "Concat" else [first], result.container)
        override = metadata_bits(node)
        return result if override is None else replace(result, bits=override)  # Case 5

    def _grid(self, node: NodeProto) -> object:
        """A hashable (scale, zero point) of a quantizer with one scale, None of one with several."""
        scale, zero = node.input[1], node.input[2] if len(node.input) > 2 else ""
        if scale in self.constants and prod(self.constants[scale].dims) != 1:
            return None
        known = [self.number(name) for name in (scale, zero)]
        return scale if known[0] is None else known[0], zero if known[1] is None and zero else known[1] or 0.0

    def _clip_bits(self, node: NodeProto) -> int | None:
        ends = [number for name in node.input[1:3] if (number := self.number(name)) is not None]
        return level_bits(*map(int, ends)) if len(ends) == 2 else None


def _joined(values: Sequence[_Values], own: int) -> _Values:
    """Join what is known of several tensors; `own` is the type of the whole, unless they share another."""
    bits = [value.bits for value in values if value.bits is not None]
    grids = {value.grid for value in values}
    containers = {value.container for value in values}
    return _Values(
        bits=max(bits) if len(bits) == len(values) else None,
        grid=grids.pop() if len(grids) == 1 else None,
        container=containers.pop() if len(containers) == 1 else own,
    )


def _least(*bits: int | None) -> int | None:
    return min((b for b in bits if b is not None), default=None)
