"""A QDQ graph while it is read: what each tensor is, and how an operation asks for what it reads."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, numpy_helper

from qnas.errors import ModelError, printable
from qnas.export.from_qdq.values import (
    LARGEST,
    SMALLEST,
    Constant,
    Draft,
    Integers,
    Levels,
    Pending,
    Value,
)
from qnas.integer.convolution import picked
from qnas.onnx.graph import attributes, node_name
from qnas.onnx.measured import TYPE_BITS, TYPE_NAMES
from qnas.onnx.operations import PICKING
from qnas.onnx.shapes import op_name
from qnas.quantization.quantizers import Container, QuantParams

BYTE = 255
# The integers that an activation or a weight may be, and their range.
RANGES = {
    TensorProto.DataType.Value(name): ends
    for name, ends in {
        "UINT16": (0, 65535), "INT16": (-32768, 32767), "UINT8": (0, 255), "INT8": (-128, 127),
        "UINT4": (0, 15), "INT4": (-8, 7), "UINT2": (0, 3), "INT2": (-2, 1),
    }.items()
    if name in dict(TensorProto.DataType.items())
}  # fmt: skip


def label(node: NodeProto) -> str:
    """ "Conv (node c1)"."""
    return f"{op_name(node)} (node {node_name(node)[:80]})"


def refused(node: NodeProto, why: str) -> ModelError:
    """The error that `node` causes."""
    return ModelError(printable(f"{label(node)} {why}"))


def written_name(node: NodeProto) -> str:
    """The name of the integer node that `node` becomes: its own, without what `onnx_writer` adds to it."""
    return printable(node_name(node)).removesuffix(".float").removesuffix(".unclamped")


def one_size(node: NodeProto, sizes: list[int], what: str) -> int:
    """A size that is the same along both axes."""
    if len(sizes) != 2 or sizes[0] != sizes[1] or not 1 <= sizes[0] <= 1024:
        raise refused(node, f"has the {what} {sizes}: it has to be the same along both axes")
    return int(sizes[0])


def constant(tensor: TensorProto) -> Constant:
    """A stored tensor; integers of up to 16 bits become int32. Raises ModelError when it is damaged."""
    try:
        array = np.asarray(numpy_helper.to_array(tensor))
    except Exception as error:  # onnx and numpy raise what they like for sizes and types that do not fit
        raise ModelError(f"the constant {tensor.name!r} is damaged: export the model again") from error
    if tensor.data_type not in RANGES and array.dtype.kind not in "biuf":
        raise ModelError(
            f"the constant {tensor.name!r} is {TYPE_NAMES[tensor.data_type]}: float32 or integers can be read"
        )
    if tensor.data_type in RANGES:
        array = array.astype(np.int32)
    return Constant(array, tensor.data_type, TYPE_BITS.get(tensor.data_type, 32))


@dataclass(frozen=True)
class Quantizer:
    """scale float32 and zero point int32, [] or [C] along `axis`; `kind` is the ONNX type of the integers."""

    scale: NDArray[np.float32]
    zero: NDArray[np.int32]
    axis: int
    kind: int

    def along(self, parameter: NDArray[Any], array: NDArray[Any]) -> NDArray[Any]:
        """`parameter` in the shape that multiplies `array`. Raises ValueError when they do not fit."""
        if parameter.ndim == 0:
            return parameter
        axis = self.axis if array.ndim > 1 else 0
        if not -array.ndim <= axis < array.ndim or array.shape[axis] != len(parameter):
            raise ValueError
        shape = [1] * array.ndim
        shape[axis] = -1
        return parameter.reshape(shape)


@dataclass
class QdqGraph:
    """A graph while it is read. Of every tensor `values` says what it is, `uses` how often nodes read it."""

    opset: int
    nodes: list[NodeProto]
    draft: Draft
    derived: Mapping[str, tuple[NDArray[Any], ...]]  # what sizes alone decide, for each that is tried
    values: dict[str, Value] = field(default_factory=dict)
    channels_last: set[str] = field(default_factory=set)  # tensors [N, H, W, C]
    picks: list[str] = field(default_factory=list)  # convolutions that only pick channels
    producers: dict[str, NodeProto] = field(init=False)
    uses: Counter[str] = field(init=False)

    def __post_init__(self) -> None:
        self.producers = {name: node for node in self.nodes for name in node.output}
        self.uses = Counter(name for node in self.nodes for name in node.input)

    def value(self, node: NodeProto, index: int) -> Value:
        """Input `index` of `node`."""
        found = self.optional(node, index)
        if found is None:
            raise refused(node, f"lacks input {index}: export the model again")
        return found

    def optional(self, node: NodeProto, index: int) -> Value | None:
        """What an input is, or None when that input is left out."""
        if index >= len(node.input) or not node.input[index]:
            return None
        if node.input[index] not in self.values:
            raise refused(
                node, f"reads {node.input[index]!r}, which no node before it writes: sort the nodes"
            )
        return self.values[node.input[index]]

    def constant(self, node: NodeProto, index: int, what: str) -> Constant:
        """Input `index`, which is `what`; refused when it is computed."""
        found = self.value(node, index)
        if not isinstance(found, Constant):
            raise refused(node, f"computes its {what} when it runs: quantize statically, with constants")
        return found

    def number(self, node: NodeProto, index: int, what: str) -> float:
        """A constant input of one element."""
        array = self.constant(node, index, what).array
        if array.size != 1 or np.isnan(array).any():
            raise refused(node, f"has {array.size} values as its {what}: one number is needed")
        return float(array.astype(np.float32).reshape(()))

    def whole(self, node: NodeProto, index: int, what: str) -> list[int]:
        """A constant input of whole numbers."""
        array = self.constant(node, index, what).array
        if array.dtype.kind not in "iu":
            raise refused(node, f"has {array.dtype} numbers as its {what}: whole ones are needed")
        return [int(v) for v in array.reshape(-1)]

    def tensor(self, node: NodeProto, index: int = 0) -> Levels | Pending | Integers:
        """Input `index`, which an image must determine."""
        found = self.value(node, index)
        if not isinstance(found, Levels | Pending | Integers):
            raise refused(
                node, f"reads {node.input[index]!r}, which no image determines: fold it into constants"
            )
        return found

    def on_grid(self, node: NodeProto, index: int) -> str:
        """The integer node whose grid gives input `index`, a float tensor."""
        found = self.tensor(node, index)
        name = node.input[index]
        settled = self.draft.affine(found, printable(name)) if isinstance(found, Levels) else None
        if settled is None:
            self.unquantized(node, index)
        return settled

    def unquantized(self, node: NodeProto, index: int) -> NoReturn:
        """Refuse a float tensor that no quantizer put on a grid."""
        name = node.input[index]
        source = f"the output of {label(self.producers[name])}" if name in self.producers else "it"
        raise refused(node, f"reads {name!r}, which is on no grid: quantize {source}")

    def pick(self, name: str, read: str, rows: NDArray[np.int64]) -> str:
        """Write the convolution whose output channel o is channel rows[o] of node `read`; its name."""
        written = self.draft.put(picked(name, self.draft.nodes[read], rows))
        self.picks.append(written)
        return written

    def of_length(self, node: NodeProto, axis: int, lengths: Sequence[float]) -> str | None:
        """An integer node with so many rows (axis 2) or columns (3) in the images of the sizes tried: first
        one whose size the inputs of `node` ask for, then any; None without one."""
        asked, waiting = dict[str, None](), [*node.input]
        for name in waiting:  # grows
            found = self.producers.get(name)
            if found is not None and found.op_type == "Shape":
                asked[found.input[0]] = None
            elif found is not None and name in self.derived:
                waiting += [each for each in found.input if each not in waiting]
        values = [self.values[name] for name in asked]
        first = [
            x.node if isinstance(x, Levels) else x.write(x.grid)
            for x in values
            if isinstance(x, Levels | Integers)
        ]
        sizes = self.draft.sizes
        return next(
            (n for n in (*first, *sizes) if [size[axis - 2] for size in sizes[n]] == [*lengths]), None
        )

    # Quantizers ------------------------------------------------------------------------------------------

    def quantizer(self, node: NodeProto, kind: int | None = None) -> Quantizer:
        """The parameters of a QuantizeLinear, or of a DequantizeLinear that reads integers of type `kind`."""
        a = attributes(node)
        if a.get("block_size"):
            raise refused(node, "has scales per block: quantize per tensor or per channel")
        scale = self.constant(node, 1, "scale")
        s = scale.array.reshape(()) if scale.array.size == 1 else scale.array
        if scale.kind != TensorProto.FLOAT or s.ndim > 1 or not ((s > 0) & (s < LARGEST)).all():
            raise refused(
                node, f"has a {TYPE_NAMES[scale.kind]} scale {scale.array.shape}: positive float32, [] or [C]"
            )
        zero = None if self.optional(node, 2) is None else self.constant(node, 2, "zero point")
        if kind is None:
            kind = zero.kind if zero is not None else a.get("output_dtype") or TensorProto.UINT8
        if kind not in RANGES and not (kind == TensorProto.INT32 and node.op_type == "DequantizeLinear"):
            shown = TYPE_NAMES.get(kind, kind)
            raise refused(node, f"is of type {shown}: integers of at most 16 bits can be read")
        if zero is not None and zero.kind != kind:
            raise refused(node, "has a zero point of another type than its integers: export the model again")
        z = np.zeros((), np.int32) if zero is None else zero.array.astype(np.int32)
        z = z.reshape(()) if z.size == 1 else z
        if z.ndim and z.shape != s.shape:
            raise refused(node, "has another number of zero points than of scales: export the model again")
        return Quantizer(s.astype(np.float32), z, int(a.get("axis", 1)), kind)

    def grid(self, node: NodeProto, quantizer: Quantizer) -> tuple[QuantParams, int]:
        """(grid in a uint8 or uint16 container, what that adds to the integers) of a tensor."""
        s, (low, high) = quantizer.scale, RANGES[quantizer.kind]
        if s.ndim or quantizer.zero.ndim:
            raise refused(node, "has a scale per channel: tensors that images determine need a single one")
        container: Container = 16 if high - low > BYTE else 8
        if not SMALLEST / 2 ** (container - 8) < s < LARGEST:
            raise refused(node, f"has a scale of {float(s)}: calibrate it with real images")
        return QuantParams(s, int(quantizer.zero) - low, 0, high - low, container), -low

    def first_reader(self, tensor: str, op: str) -> NodeProto | None:
        """The first `op` of `tensor`, or of it moved, whose other inputs are known constants."""
        names = {tensor}
        for node in self.nodes:
            if node.op_type == op and node.input[0] in names:
                fixed = all(isinstance(self.values.get(name), Constant) for name in node.input[1:] if name)
                return node if fixed else None
            data = node.input[:1] if node.op_type == "Gather" else node.input  # not what a table is read by
            if node.op_type in PICKING and not names.isdisjoint(data):
                names.update(node.output)
        return None

    def next_grid(self, tensor: str, fallback: QuantParams) -> QuantParams:
        """`fallback` with the scale and zero point that the first DequantizeLinear gives `tensor`."""
        node = self.first_reader(tensor, "DequantizeLinear")
        if node is None:
            return fallback
        kind = TensorProto.UINT16 if fallback.is_wide else TensorProto.UINT8
        found, _ = self.grid(node, self.quantizer(node, kind))
        return replace(fallback, scale=found.scale, zero_point=found.zero_point)
