"""Tensors on a grid in an ONNX graph: read, rounded, bounded and moved in the forms of a target."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from qnas.export.targets import Target
from qnas.integer import nodes
from qnas.integer.requantization import FIXED_POINT
from qnas.onnx.builder import GraphNodes
from qnas.onnx.measured import BITS_KEY
from qnas.quantization.quantizers import QuantParams

WIDE_MOVES = frozenset({"Concat", "Gather", "Identity", "Slice", "Transpose"})  # of uint16, in onnxruntime


@dataclass
class GridTensors(GraphNodes):
    """`tensors`: node -> its integer tensor. `floats`: node -> the same dequantized, once it is needed."""

    target: Target = field(kw_only=True)
    tensors: dict[str, str] = field(kw_only=True)
    grids: dict[str, QuantParams] = field(default_factory=dict)
    floats: dict[str, str] = field(default_factory=dict)
    zeros: dict[str, str] = field(default_factory=dict)

    def grid_inputs(self, grid: QuantParams) -> list[str]:
        """Scale and zero point; equal ones are stored once."""
        return [
            self.constant(f"scale_{float(grid.scale):.9g}", np.float32(grid.scale)),
            self.constant(f"zero_point_{grid.zero_point}", grid.dtype(grid.zero_point)),
        ]

    def reads(self, name: str, gain: np.float32 | None = None) -> str:
        """The float tensor of node `name`, dequantized once; one times a gain is a tensor of its own."""
        grid, tensor = self.grids[name], self.tensors[name]
        if gain is not None:
            scaled = replace(grid, scale=grid.scale * gain)
            return self.node("DequantizeLinear", [tensor, *self.grid_inputs(scaled)], f"{tensor}.times_gain")
        if name not in self.floats:
            inputs = [tensor, *self.grid_inputs(grid)]
            self.floats[name] = self.node("DequantizeLinear", inputs, f"{tensor}.dequantized")
        return self.floats[name]

    def zero(self, grid: QuantParams) -> str:
        """The float 0 as a quantized tensor of one value, in steps so small that onnxruntime adds it in float
        on ARM too: its fixed point there does not round ties to even.

        A constant of its own for each grid that is written: of two sums that add the same to one tensor
        onnxruntime would make one, which no integer kernel rounds twice. Of four axes: onnxruntime gives it
        these, and would compute every other use of the constant at run time, which costs convolutions their
        fast kernel.
        """
        scale, zero_point = self.grid_inputs(replace(grid, scale=grid.scale * np.float32(FIXED_POINT[0] / 2)))
        name = f"zero_on_{scale}_{zero_point}"
        if name not in self.zeros:
            value = np.full((1, 1, 1, 1), grid.zero_point, grid.dtype)
            inputs = [self.constant(f"{name}.{value.dtype}", value), scale, zero_point]
            self.zeros[name] = self.node("DequantizeLinear", inputs, name)
        return self.zeros[name]

    def rounded(self, node: nodes.IntegerNode, op: str, inputs: Sequence[str], **attributes: Any) -> None:
        """A float operation, and the quantizer that makes it one of integers."""
        tensor = self.tensors[node.name]
        self.quantize(node, self.node(op, inputs, f"{tensor}.float", **attributes))

    def quantize(self, node: nodes.IntegerNode, source: str) -> None:
        """QuantizeLinear, and the clamp of a grid that does not fill its container; no Clip takes uint16."""
        grid, tensor = node.output, self.tensors[node.name]
        clamped = not grid.is_full
        bits = (grid.high - grid.low).bit_length()
        if clamped and grid.is_wide:
            source = self.node("Clip", [source, *self.float_ends(grid)], f"{tensor}.clamped")
            clamped = False
        output = self.names.tensor(f"{tensor}.unclamped") if clamped else tensor
        self.put("QuantizeLinear", [source, *self.grid_inputs(grid)], output)
        if not clamped and bits < 8:
            self.say_bits(bits)
        if clamped:  # uint8 saturates at 0 and 255 only
            self.clamp(output, node)

    def clamp(self, source: str, node: nodes.IntegerNode) -> None:
        """A uint8 tensor within the bounds of its grid."""
        if self.target.clamp == "values":
            self.move(node, "Clip", [source, *self.float_ends(node.output)], self.tensors[node.name])
            self.say_bits((node.output.high - node.output.low).bit_length())
            return
        ends = (node.output.low, node.output.high)
        limits = [self.constant(f"uint8_{end}", np.uint8(end)) for end in ends]
        self.put("Clip", [source, *limits], self.tensors[node.name])

    def float_ends(self, grid: QuantParams) -> list[str]:
        """The least and the largest value of a grid."""
        ends = [np.float32((q - grid.zero_point) * grid.scale) for q in (grid.low, grid.high)]
        return [self.constant(f"float_{float(end):.9g}", end) for end in ends]

    def moved(self, node: nodes.IntegerNode, op: str, **attributes: Any) -> None:
        """An operation that moves values, on the tensors as they are."""
        inputs = [self.tensors[name] for name in node.inputs]
        self.move(node, op, inputs, self.tensors[node.name], count=len(inputs), **attributes)

    def moves_values(self, node: nodes.IntegerNode, op: str) -> bool:
        """Whether `op` takes dequantized values: of a target, or of 16 bits that no runtime moves."""
        return self.target.moved == "values" or (node.output.is_wide and op not in WIDE_MOVES)

    def move(
        self, node: nodes.IntegerNode, op: str, inputs: Sequence[str], output: str, count: int = 1,
        **attributes: Any,
    ) -> str:  # fmt: skip
        """`op` of integers on the grid of `node`, the first `count` of `inputs`."""
        if not self.moves_values(node, op):
            return self.put(op, inputs, output, **attributes)
        ends = self.grid_inputs(node.output)
        values = [self.node("DequantizeLinear", [name, *ends], f"{output}.values") for name in inputs[:count]]
        moved = self.node(op, [*values, *inputs[count:]], f"{output}.moved", **attributes)
        return self.put("QuantizeLinear", [moved, *ends], output)

    def say_bits(self, bits: int) -> None:
        """Where the container is wider than the values of the last node, its metadata says so."""
        self.nodes[-1].metadata_props.add(key=BITS_KEY, value=str(bits))
