"""An ONNX graph while it is made of a TFLite one: what stands for each of its tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from qnas.errors import ModelError, printable
from qnas.onnx.builder import GraphNodes
from qnas.onnx.channels_first import TO_FIRST, TO_LAST
from qnas.tflite.levels import MOVES
from qnas.tflite.reader import TfliteModel, TfliteOperator, TfliteTensor

QUANTIZED = {  # type of integers on a grid -> of ONNX
    "INT4": TensorProto.INT4, "INT8": TensorProto.INT8, "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32, "UINT8": TensorProto.UINT8,
}  # fmt: skip
ACTIVATIONS: dict[int, tuple[str, tuple[float, ...]]] = {  # fused one -> operation, bounds
    1: ("Relu", ()), 2: ("Clip", (-1, 1)), 3: ("Clip", (0, 6)), 4: ("Tanh", ()),
}  # fmt: skip


@dataclass(frozen=True)
class Stored:
    """A constant: `values` as numbers, or as integers with the `scale` and `zero` of their grid.

    `scale` is [0] of numbers, [1], or [C] along `axis`. `kind`: the ONNX type of the integers.
    """

    values: NDArray[Any]
    kind: int
    scale: NDArray[np.float32]
    zero: NDArray[np.int64]
    axis: int

    def real(self) -> NDArray[Any]:
        """The numbers that the integers stand for, float32; int64 of sizes."""
        if not self.scale.size:
            return self.values
        shape = [1] * self.values.ndim
        if self.scale.size > 1:
            shape[self.axis] = -1
        scale, zero = (each.reshape(shape) for each in (self.scale, self.zero))
        return (self.values.astype(np.int64) - zero).astype(np.float32) * scale.astype(np.float32)

    def permuted(self, perm: Sequence[int]) -> Stored:
        """Return this constant with its axes in another order."""
        axis = perm.index(self.axis) if self.scale.size > 1 else 0
        return replace(self, values=np.ascontiguousarray(self.values.transpose(perm)), axis=axis)


def refused(operator: TfliteOperator, tensors: Sequence[TfliteTensor], why: str) -> ModelError:
    """The error that `operator` causes."""
    name = tensors[operator.outputs[0]].name
    return ModelError(printable(f"{operator.name} (tensor {name[:80]}) {why}"))


@dataclass
class Draft:
    """`values`: ONNX tensor of the real numbers (or int64, of sizes) that a TFLite tensor stands for.

    `stored`: those TFLite tensors that are constants, until an operation reads them. `margins`: those that
    are another tensor with zeros around its images, and how many: above, left, below, right.
    """

    model: TfliteModel
    made: GraphNodes = field(default_factory=GraphNodes)
    values: dict[int, str] = field(default_factory=dict)
    stored: dict[int, Stored] = field(default_factory=dict)
    margins: dict[int, tuple[int, list[int]]] = field(default_factory=dict)
    turned: dict[tuple[str, tuple[int, ...]], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for index, tensor in enumerate(self.model.tensors):
            if tensor.data is not None:
                self.stored[index] = _stored(tensor)

    def name(self, index: int) -> str:
        """What a new ONNX tensor for TFLite tensor `index` is called."""
        return printable(self.model.tensors[index].name) or f"tensor_{index}"

    def shape(self, index: int) -> tuple[int, ...]:
        """The shape that the file gives a tensor."""
        return self.model.tensors[index].shape

    def value(self, index: int) -> str:
        """The ONNX tensor of TFLite tensor `index`."""
        if index not in self.values:
            if index not in self.stored:
                raise ModelError(f"tensor {self.name(index)!r} is read before it is written: export it again")
            self.values[index] = self.made.constant(self.name(index), self.stored[index].real())
        return self.values[index]

    def constant(self, name: str, stored: Stored) -> str:
        """A constant that is multiplied with or added to that, behind a DequantizeLinear if it has a grid."""
        if not stored.scale.size:
            return self.made.constant(name, stored.values)
        integers = self.made.constant(f"{name}.integers", stored.values, stored.kind)
        along = {"axis": stored.axis} if stored.scale.size > 1 else {}
        scale = stored.scale if along else stored.scale[0]
        inputs = [integers, self.made.constant(f"{name}.scale", scale)]
        if stored.zero.any():
            zero = stored.zero if along else stored.zero[0]
            inputs.append(self.made.constant(f"{name}.zero", zero, stored.kind))
        return self.made.node("DequantizeLinear", inputs, name, **along)

    def bias(self, index: int) -> str:
        """TFLite tensor `index`, which a convolution adds."""
        return self.weight(index, (0,))

    def weight(self, index: int, perm: Sequence[int]) -> str:
        """TFLite tensor `index` with its axes in another order, as a constant where it is one."""
        if index in self.stored:
            return self.constant(f"{self.name(index)}.turned", self.stored[index].permuted(perm))
        return self.transposed(self.value(index), perm)

    def transposed(self, name: str, perm: Sequence[int]) -> str:
        """ONNX tensor `name` with its axes in another order."""
        key = (name, tuple(perm))
        if key not in self.turned:
            self.turned[key] = self.made.node("Transpose", [name], f"{name}.turned", perm=list(perm))
        return self.turned[key]

    def first(self, index: int) -> str:
        """TFLite tensor [N, H, W, C] as [N, C, H, W]."""
        return self.transposed(self.value(index), TO_FIRST)

    def last(self, name: str) -> str:
        """ONNX tensor [N, C, H, W] as [N, H, W, C]."""
        return self.transposed(name, TO_LAST)

    def integers(self, operator: TfliteOperator, position: int) -> list[int]:
        """The whole numbers of a constant input. Raises ModelError when it is computed."""
        index = operator.inputs[position] if position < len(operator.inputs) else -1
        if index not in self.stored or self.stored[index].values.dtype.kind not in "iu":
            raise refused(operator, self.model.tensors, f"computes input {position}: a constant is needed")
        return [int(v) for v in self.stored[index].values.reshape(-1)]

    def vector(self, values: Sequence[int]) -> str:
        """A constant int64 vector."""
        return self.made.constant("vector_" + "_".join(map(str, values)), np.array(values, np.int64))

    def number(self, value: float) -> str:
        """A constant float32 number."""
        return self.made.constant(f"number_{value:g}", np.float32(value))

    def write(self, operator: TfliteOperator, value: str, output: int = 0) -> None:
        """Let ONNX tensor `value`, after the fused activation, be what `operator` writes."""
        index = operator.outputs[output]
        tensor, name = self.model.tensors[index], self.name(index)
        fused = operator.options.get("FusedActivationFunction", 0)
        if fused:
            if fused not in ACTIVATIONS:
                raise refused(
                    operator, self.model.tensors, f"has the fused activation {fused}: export it without"
                )
            kind, bounds = ACTIVATIONS[fused]
            value = self.made.node(kind, [value, *map(self.number, bounds)], f"{name}.active")
        if not (operator.name in MOVES and not fused and self._moves_bytes(operator, tensor)):
            value = self.on_grid(tensor, name, value)
        self.values[index] = value

    def _moves_bytes(self, operator: TfliteOperator, written: TfliteTensor) -> bool:
        """Whether all that `operator` moves lies on the grid of what it writes already."""
        grids = {
            (read.kind, read.scale.tobytes(), read.zero_point.tobytes())
            for read in (written, *(self.model.tensors[i] for i in operator.inputs))
            if read.scale.size
        }
        return len(grids) == 1

    def on_grid(self, tensor: TfliteTensor, name: str, value: str) -> str:
        """`value` rounded to the grid of `tensor`, where it has one; called `name`."""
        if not tensor.scale.size:
            return value
        if tensor.scale.size > 1 or tensor.kind not in QUANTIZED:
            raise ModelError(
                f"tensor {name!r} is computed in {tensor.kind} with {tensor.scale.size} scales: "
                "quantize it per tensor"
            )
        grid = [
            self.made.constant(f"{name}.scale", tensor.scale[0]),
            self.made.constant(f"{name}.zero", tensor.zero_point[0], QUANTIZED[tensor.kind]),
        ]
        integers = self.made.node("QuantizeLinear", [value, *grid], f"{name}.integers")
        return self.made.node("DequantizeLinear", [integers, *grid], name)


def _stored(tensor: TfliteTensor) -> Stored:
    """A constant of the file. float16 become float32, and integers without a grid int64."""
    values = tensor.values()
    if values is None:
        raise ModelError(f"the constant {tensor.name!r} is {tensor.kind.lower()}: it cannot be read")
    nothing = np.zeros(0, np.float32), np.zeros(0, np.int64)
    if values.dtype.kind == "f":
        return Stored(values.astype(np.float32), TensorProto.FLOAT, *nothing, 0)
    if not tensor.scale.size or tensor.kind not in QUANTIZED:
        return Stored(values.astype(np.int64), TensorProto.INT64, *nothing, 0)
    return Stored(values, QUANTIZED[tensor.kind], tensor.scale, tensor.zero_point, tensor.axis)
