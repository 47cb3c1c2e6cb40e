"""Float graph and grids -> QDQ graph, in the forms that onnxruntime runs as integers.

A tensor on a grid is a uint8 tensor of the graph, under its own name; it is dequantized once for all that
computes with it, and what only moves values works on the bytes. Weights are int8, or INT4 and a Cast, which
folds when the session loads; biases int32. A bound at the end of its grid vanishes: the grid saturates there.

One of 16 bits is a uint16 tensor. Few operations take these: what moves or bounds values works on floats, and
is rounded once, behind the last such operation.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from qnas.calibration.prepare.preparation import opset_of
from qnas.calibration.ptq.float_graph import FloatGraph
from qnas.calibration.ptq.grids import Grids, bound_on
from qnas.calibration.ptq.rounding import assumed, rounded
from qnas.calibration.ptq.weights import (
    ENDS,
    IntegerWeights,
    WeightBits,
    WeightRange,
    largest_scale,
    nearest,
    quantize_bias,
    rows_of,
    with_room,
)
from qnas.errors import ModelError
from qnas.onnx.builder import GraphNodes
from qnas.onnx.graph import attributes
from qnas.onnx.names import Names
from qnas.quantization.quantizers import QuantParams, quantize

WEIGHTED = frozenset({"Conv", "ConvTranspose"})
# onnxruntime quantizes float weights between a DequantizeLinear and a QuantizeLinear by itself, per tensor,
# unless something stands between: a LeakyRelu of slope 1 changes nothing.
KEPT_FLOAT = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
NEW_TYPES_OPSET = 21  # INT4 tensors, and uint16 ones of QuantizeLinear


@dataclass(kw_only=True, eq=False)
class QdqWriter(GraphNodes):
    """One model. `placed`: groups that are bytes. `integer`: nodes with integer weights, those of
    `weights` where it has them; `bits_of` them by node. `read`: nodes with a grid of their own in front.
    `io`: ONNX type of input and output.
    """

    graph: FloatGraph
    grids: Grids
    placed: frozenset[str]
    integer: frozenset[str]
    bits_of: Callable[[str], WeightBits]
    weight_range: WeightRange
    weights: Mapping[str, IntegerWeights]
    read: Mapping[str, QuantParams]
    io: int
    stored: dict[tuple[object, ...], str] = field(default_factory=dict)
    bytes_of: dict[str, str] = field(default_factory=dict)
    dequantized: dict[str, str] = field(default_factory=dict)
    unrounded: dict[str, str] = field(default_factory=dict)  # what float layers wrote, for float layers
    vanished: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Tensors of bytes have their own names, but for a float input and output."""
        self.names = Names.of(self.graph.proto)
        outside = (
            {self.graph.network.input, self.graph.network.output} if self.io == TensorProto.FLOAT else ()
        )
        placed = [
            name
            for name in self.graph.floats
            if self.grids.groups.of(name) in self.placed and not self._waits(name)
        ]
        self.bytes_of = {
            name: self.names.tensor(f"{name}.uint8") if name in outside else name for name in placed
        }

    def written(self) -> ModelProto:
        """The whole model."""
        network = self.graph.network
        if self.on_grid(network.input) and self.io == TensorProto.FLOAT:
            self.quantize(network.input, network.input)
        for node in self.graph.nodes:
            self.write(node)
        if self.on_grid(network.output) and self.io == TensorProto.FLOAT:
            inputs = [self.bytes_of[network.output], *self.grid_inputs(network.output)]
            self.put("DequantizeLinear", inputs, network.output)
        return self._model()

    # Tensors --------------------------------------------------------------------------------------------

    def on_grid(self, tensor: str) -> bool:
        """Whether a tensor of the float network is one of bytes here."""
        return tensor in self.bytes_of

    def _waits(self, tensor: str) -> bool:
        """Whether values of 16 bits are rounded where they have been moved: nothing but that reads them. Pad
        adds zeros, which only quantized values are sure to have."""
        if not self.grids.of(tensor).is_wide or not self.graph.alone(tensor):
            return False
        (reader,) = self.graph.value_readers[tensor]
        groups = {self.grids.groups.of(name) for name in self.graph.touched(reader)}
        return reader.op_type != "Pad" and self.graph.moves(reader) and len(groups) == 1

    def moved(self, tensor: str) -> str:
        """The tensor that a node which moves values, or asks for a shape, reads."""
        return self.bytes_of.get(tensor, tensor)

    def computed(self, tensor: str) -> str:
        """The float tensor that a node computes with."""
        if not self.on_grid(tensor):
            return tensor
        if tensor not in self.dequantized:
            inputs = [self.bytes_of[tensor], *self.grid_inputs(tensor)]
            self.dequantized[tensor] = self.node("DequantizeLinear", inputs, f"{tensor}.dequantized")
        return self.dequantized[tensor]

    def quantize(self, source: str, tensor: str) -> None:
        """Put the float tensor `source` on the grid of `tensor`."""
        grid, steps, name = self.grids.of(tensor), self.grid_inputs(tensor), self.bytes_of[tensor]
        if grid.is_full:
            self.put("QuantizeLinear", [source, *steps], name)
        else:
            q = self.node("QuantizeLinear", [source, *steps], f"{tensor}.unclipped")
            self.put("Clip", [q, *self._ends(tensor, grid)], name)

    def _ends(self, name: str, grid: QuantParams) -> list[str]:
        """The first and the last level of a grid that is a part of a byte."""
        return [self.constant(f"{name}.{end}", np.uint8(end)) for end in (grid.low, grid.high)]

    def grid_inputs(self, tensor: str) -> list[str]:
        """Scale and zero point."""
        grid = self.grids.of(tensor)
        return [
            self.constant(f"{tensor}.scale", np.float32(grid.scale)),
            self.constant(f"{tensor}.zero_point", grid.dtype(grid.zero_point)),
        ]

    def put(self, op: str, inputs: Sequence[str], output: str, name: str = "", **attributes: Any) -> str:
        """Write tensor `output`; the node is named after it and the operation."""
        name = name or self.names.node(f"{output}.{op}")
        return super().put(op, inputs, output, name, **attributes)

    def constant(self, name: str, value: NDArray[Any] | np.generic, kind: int | None = None) -> str:
        """An initializer, of ONNX type `kind` or that of its array; equal ones are stored once."""
        array = np.asarray(value)
        key = (array.tobytes(), array.shape, array.dtype.str, kind)
        if key not in self.stored:
            self.stored[key] = super().constant(name, array, kind)
        return self.stored[key]

    # Nodes ----------------------------------------------------------------------------------------------

    def write(self, node: NodeProto) -> None:
        """What `node` is here.

        1. It computes no values of the image (shapes, constants): as it is.
        2. It moves or bounds bytes. 3. It computes in float, between the quantizers of its tensors.
        """
        if not self.graph.data(node):  # Case 1
            self._copied(node, [self.moved(name) for name in node.input], list(node.output))
        elif self._moves_bytes(node):  # Case 2
            self._moved(node)
        else:  # Case 3
            self._computed(node)

    def _computed(self, node: NodeProto) -> None:
        is_integer = node.op_type in WEIGHTED and node.name in self.integer
        named = self._integer_weights(node) if is_integer else list(node.input)
        inputs = [self._operand(node, name) for name in named]
        if is_integer and node.name in self.read and self.on_grid(node.input[0]):
            inputs[0] = self._requantized(node, inputs[0])
        outputs = [self.names.tensor(f"{name}.float") if self.on_grid(name) else name for name in node.output]
        self._copied(node, inputs, outputs)
        stays_float = node.op_type in KEPT_FLOAT and node.input[1] in self.graph.constants and not is_integer
        for name, source in zip(node.output, outputs, strict=True):
            if self.on_grid(name):
                if node.name not in self.integer:
                    self.unrounded[name] = source
                if stays_float:
                    source = self.node("LeakyRelu", [source], f"{name}.same", alpha=1.0)
                self.quantize(source, name)

    def _requantized(self, node: NodeProto, source: str) -> str:
        """The float tensor `source` on the node's own grid, whose levels are a part of a byte."""
        grid, name = self.read[node.name], f"{node.name}.read"
        scale = self.constant(f"{name}.scale", np.float32(grid.scale))
        steps = [scale, self.constant(f"{name}.zero_point", np.uint8(grid.zero_point))]
        q = self.node("QuantizeLinear", [source, *steps], f"{name}.quantized")
        clipped = self.node("Clip", [q, *self._ends(name, grid)], f"{name}.clipped")
        return self.node("DequantizeLinear", [clipped, *steps], f"{name}.dequantized")

    def _copied(self, node: NodeProto, inputs: list[str], outputs: list[str]) -> None:
        copy = deepcopy(node)
        copy.input[:], copy.output[:] = inputs, outputs
        self.nodes.append(copy)

    def _moves_bytes(self, node: NodeProto) -> bool:
        """Parts of a concatenation may be on other grids than its own."""
        groups = {self.grids.groups.of(name) for name in self.graph.touched(node)}
        alike = self.graph.moves(node) and len(groups) == 1 and groups <= self.placed
        return alike and not self.grids.of(node.output[0]).is_wide

    def _moved(self, node: NodeProto) -> None:
        grid, bound = self.grids.of(node.output[0]), self.graph.bound(node)
        inputs, outputs = ([self.moved(name) for name in names] for names in (node.input, node.output))
        if bound is not None:
            ends = bound_on(grid, bound.low, bound.high)
            if ends == (grid.low, grid.high):
                self.vanished.add(self.put("Identity", [self.moved(bound.source)], outputs[0]))
            else:
                limits = [self.constant(f"{node.name}.{end}", np.uint8(end)) for end in ends]
                self.put("Clip", [self.moved(bound.source), *limits], outputs[0])
            return
        if node.op_type == "Pad" and attributes(node).get("mode", "constant") == "constant":
            value = self.graph.number(inputs[2]) if len(inputs) > 2 and inputs[2] else 0.0
            q = quantize(np.asarray(value, np.float32), grid)
            inputs[2:3] = [self.constant(f"{node.name}.value", np.uint8(q))]
        self._copied(node, inputs, outputs)

    def _operand(self, node: NodeProto, name: str) -> str:
        """A tensor as float, not rounded between two float layers. The one number of a sum or product is an
        integer, or it would run in float."""
        if node.name not in self.integer and name in self.unrounded:
            return self.unrounded[name]
        number = self.graph.number(name)
        if name in self.graph.floats or number is None or node.name not in self.integer:
            return self.computed(name)
        if node.op_type not in ("Add", "Mul"):
            return name
        # |number| is the step: 1 - 0 of them, or 0 - 1, and 0 - 0 for zero.
        shape = tuple(self.graph.constants[name].dims)
        q, zero = np.full(shape, number > 0, np.uint8), np.uint8(number < 0)
        stored = self.constant(f"{name}.uint8", q)
        scale = self.constant(f"{name}.scale", np.float32(abs(number) or 1))
        return self.node(
            "DequantizeLinear", [stored, scale, self.constant(f"{name}.zero_point", zero)],
            f"{node.name}.{name}.dequantized",
        )  # fmt: skip

    def _integer_weights(self, node: NodeProto) -> list[str]:
        """Inputs of a convolution, its weights and bias dequantized in the graph."""
        inputs, graph = list(node.input), self.graph
        if not all(name in graph.constants for name in inputs[1:] if name):
            return inputs
        weight, found = graph.array(inputs[1]), self._rounded(node)
        bias = graph.array(inputs[2]) if len(inputs) > 2 and inputs[2] else None
        bias = bias if found.bias is None else found.bias
        if bias is not None and self.on_grid(inputs[0]):
            read = self.read.get(node.name, self.grids.of(inputs[0]))
            per_scale = _per_scale(bias, len(found.scale))
            largest = np.abs(per_scale).max(axis=0)
            found = with_room(weight, found, largest, read, self.bits_of(node.name))
            q, step = quantize_bias(per_scale, found.scale, np.float32(read.scale))
            stored = self.constant(f"{node.name}.bias", q.reshape(-1))
            steps = self.constant(f"{node.name}.bias_scale", np.tile(step, len(per_scale)))
            name = self.node("DequantizeLinear", [stored, steps], f"{node.name}.bias_dequantized", axis=0)
            inputs[2:] = [name]
        elif bias is not None:
            inputs[2:] = [self.constant(f"{node.name}.bias", bias)]
        inputs[1] = self._stored_weights(node.name, found)
        return inputs

    def _rounded(self, node: NodeProto) -> IntegerWeights:
        """The weights of `node`, given or rounded here."""
        weight, bits = self.graph.array(node.input[1]), self.bits_of(node.name)
        if node.name in self.weights:
            found = self.weights[node.name]
            low, high = ENDS[bits]
            if found.q.shape != weight.shape or found.q.min() < low or found.q.max() > high:
                raise ModelError(
                    f"the calibration's weights of {node.name!r} are of another network: calibrate again"
                )
            return found
        if node.op_type == "Conv":
            moments = assumed(weight, attributes(node).get("group", 1))
            return rounded(weight, None, moments, bits, self.weight_range)
        scale = largest_scale(rows_of(weight, 1), bits)
        return IntegerWeights(nearest(weight, scale, bits, 1), scale, 1)

    def _stored_weights(self, name: str, found: IntegerWeights) -> str:
        if self.bits_of(name) == 4:
            stored = self.int4(f"{name}.weight", found.q)
            stored = self.node("Cast", [stored], f"{name}.weight_int8", to=TensorProto.INT8)
        else:
            stored = self.constant(f"{name}.weight", found.q)
        scale = self.constant(f"{name}.weight_scale", found.scale)
        zero = self.constant(f"{name}.weight_zero_point", np.zeros(len(found.scale), np.int8))
        return self.node(
            "DequantizeLinear", [stored, scale, zero], f"{name}.weight_dequantized", axis=found.axis
        )

    # The model ------------------------------------------------------------------------------------------

    def _model(self) -> ModelProto:
        network = self.graph.network
        model, opset = deepcopy(network.model), opset_of(network.model, network.name)
        wide = any(self.grids.of(name).is_wide for name in self.bytes_of)
        narrow = any(self.bits_of(node.name) == 4 for node in self.graph.nodes if node.name in self.integer)
        if (narrow or wide) and opset < NEW_TYPES_OPSET:
            what = "activations of 16 bits" if wide else "weights of 4 bits"
            raise ModelError(
                f"{network.name} is of opset {opset}: {what} need {NEW_TYPES_OPSET}, export it so"
            )
        model.ir_version = helper.find_min_ir_version_for(list(model.opset_import), ignore_unknown=True)
        model.producer_name, model.producer_version = "qnas", ""
        graph = model.graph
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(_without_identities(self.nodes, self.vanished, {network.input, network.output}))
        used = {name for node in graph.node for name in node.input}
        stored = [*self.graph.proto.initializer, *self.initializers.values()]
        graph.initializer.extend(tensor for tensor in stored if tensor.name in used)
        for value in (*graph.input, *graph.output):
            value.type.tensor_type.elem_type = self.io
        return model


def _without_identities(nodes: list[NodeProto], vanished: set[str], outside: set[str]) -> list[NodeProto]:
    """Where a bound vanished (what it wrote), what it read has its name. The names `outside` stay."""
    names: dict[str, str] = {}

    def last(name: str) -> str:
        while name in names:
            name = names[name]
        return name

    kept = []
    for node in nodes:
        ends = (last(node.input[0]), node.output[0]) if node.output[0] in vanished else ("", "")
        if ends[0] and ends[0] not in outside:
            names[ends[0]] = ends[1]
        elif ends[1] and ends[1] not in outside:
            names[ends[1]] = ends[0]
        else:
            kept.append(node)
    for node in kept:
        node.input[:], node.output[:] = map(last, node.input), map(last, node.output)
    return kept


def _per_scale(bias: NDArray[np.float32], scales: int) -> NDArray[np.float32]:
    """[O] -> [groups, scales]: a transposed convolution has one scale for all its groups."""
    return bias.reshape(-1, scales)
