"""Integer network -> QDQ ONNX graph, in the forms of a target. It decides nothing: `targets.py` does.

Every tensor of the integer network is a uint8 tensor of the graph; it is dequantized once for all readers
that compute. Operations that only move values (shuffle, pool, concatenation, padding) work on the uint8
tensors themselves. One of 16 bits is a uint16 tensor, which runtimes pick and concatenate alone: shuffles,
pools and padding are between quantizers of one grid.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, assert_never

import numpy as np
import onnx
from onnx import TensorProto

from qnas.export.targets import Layout, Target
from qnas.export.to_onnx.grid_tensors import GridTensors
from qnas.export.to_onnx.image_gains import image_gain_nodes
from qnas.integer import nodes
from qnas.integer.convolution import Conv
from qnas.integer.crops import Crop, CropTo, Nearest
from qnas.integer.network import IntegerNetwork, form_of, image_gain
from qnas.integer.requantization import sums_agree
from qnas.integer.windows import NO_SIDES, Sides
from qnas.onnx.builder import INPUT, OUTPUT
from qnas.onnx.interpolation import interpolation_weights
from qnas.onnx.names import Names
from qnas.quantization.image_gain import ImageGain

LAST = 2**63 - 1  # of a Slice: to the end


def write_onnx(network: IntegerNetwork, target: Target, layout: Layout = "nchw") -> onnx.ModelProto:
    """The graph of `network` as it is; uint8 image in and out, one at a time where images have gains."""
    tensors = tensor_names(network, layout)
    writer = _Writer(Names([INPUT, OUTPUT, *tensors.values()]), target=target, tensors=tensors)
    if layout == "nhwc":
        writer.put("Transpose", [INPUT], writer.tensors[network.nodes[0].name], perm=[0, 3, 1, 2])
    for node in network.nodes:
        writer.grids[node.name], writer.widths[node.name] = node.output, node.channels
        form_of(node, _FORMS, "ONNX")(writer, node)
    if layout == "nhwc":
        writer.put("Transpose", [writer.tensors[network.nodes[-1].name]], OUTPUT, perm=[0, 2, 3, 1])
    return writer.model(
        network.name, TensorProto.UINT8, network.scale, target.opset, target.ir_version,
        nhwc=layout == "nhwc", batch=1 if any(map(image_gain, network.nodes)) else "batch",
        channels=network.nodes[0].channels,
    )  # fmt: skip


def tensor_names(network: IntegerNetwork, layout: Layout = "nchw") -> dict[str, str]:
    """The uint8 tensor of the graph that holds what each node writes."""
    ends = {network.nodes[0].name: INPUT, network.nodes[-1].name: OUTPUT} if layout == "nchw" else {}
    inner = [node.name for node in network.nodes if node.name not in ends]
    names = Names([INPUT, OUTPUT, *inner])
    return ends | {name: names.tensor(f"{name}.value") if name in (INPUT, OUTPUT) else name for name in inner}


@dataclass
class _Writer(GridTensors):
    """`widths`: node -> channels. `gains`: what gives a gain -> its tensor."""

    widths: dict[str, int] = field(default_factory=dict)
    gains: dict[tuple[str, ImageGain], str] = field(default_factory=dict)

    # Operations ------------------------------------------------------------------------------------------

    def convolution(self, node: Conv) -> None:
        """Weights and biases are dequantized in the graph; bias scales are exactly s_x * s_w.

        Scales that are all the same are stored as one, biases that are all zero not at all.
        """
        if node.image_gain is not None:
            return self.gained_convolution(node)
        name, scales, along = node.name, node.weight_scale, {"axis": 0}
        if (scales == scales[0]).all():
            scales, along = scales[0], {}
        scale = self.constant(f"{name}.weight_scale", scales)
        packed = node.bits <= 4 and self.target.four_bits != "int8"
        cast = packed and self.target.four_bits == "int4_cast"
        zeros = self.int4 if packed and not cast else self.constant
        zero = zeros(f"{name}.weight_zero_point", np.zeros(scales.shape, np.int8))
        stored = (self.int4 if packed else self.constant)(f"{name}.weight", node.weight)
        if cast:
            stored = self.node("Cast", [stored], f"{name}.weight_int8", to=TensorProto.INT8)
        weight = self.node("DequantizeLinear", [stored, scale, zero], f"{name}.weight_dequantized", **along)
        if node.bits not in (4, 8) or (node.bits == 4 and not packed):
            self.say_bits(node.bits)
        inputs = [self.reads(node.inputs[0]), weight]
        if node.bias.any():
            step = self.constant(f"{name}.bias_scale", scales * self.grids[node.inputs[0]].scale)
            bias = self.constant(f"{name}.bias", node.bias)
            inputs.append(self.node("DequantizeLinear", [bias, step], f"{name}.bias_dequantized", **along))
        self.rounded(node, "Conv", inputs, **_window(node))

    def image_gain(self, node: nodes.GainedNode) -> str:
        """The gain [] of the image, computed once for all that share it."""
        source, gain = node.inputs[-1], node.image_gain
        assert gain is not None
        if (source, gain) not in self.gains:
            name, tensor = f"{node.name}.gain", self.tensors[source]
            made = image_gain_nodes(self, name, tensor, self.widths[source], self.grids[source], gain)
            self.gains[source, gain] = made
        return self.gains[source, gain]

    def gained_convolution(self, node: Conv) -> None:
        """QLinearConv: onnxruntime fuses no quantizers around weights whose scale is computed.

        The gain multiplies the scales of the weights: their products stay short, and biases keep their steps.
        """
        name, x = node.name, node.inputs[0]
        stored = (self.int4 if node.bits <= 4 else self.constant)(f"{name}.weight", node.weight)
        if node.bits < 8:
            stored = self.node("Cast", [stored], f"{name}.weight_int8", to=TensorProto.INT8)
        if node.bits not in (4, 8):
            self.say_bits(node.bits)
        scale = self.constant(f"{name}.weight_scale", node.weight_scale)
        scale = self.node("Mul", [scale, self.image_gain(node)], f"{name}.weight_scale_of_image")
        zero = self.constant(f"{name}.weight_zero_point", np.zeros(node.channels, np.int8))
        tensor, grid = self.tensors[name], node.output
        clamped = not grid.is_full
        output = self.names.tensor(f"{tensor}.unclamped") if clamped else tensor
        self.put(
            "QLinearConv",
            [self.tensors[x], *self.grid_inputs(self.grids[x]), stored, scale, zero, *self.grid_inputs(grid),
             self.constant(f"{name}.bias", node.bias)],
            output, **_window(node),
        )  # fmt: skip
        if clamped:
            self.clamp(output, node)

    def add(self, node: nodes.Add) -> None:
        """Sum has no integer kernel: it stands where that of an Add would round otherwise on ARM."""
        a, b = (self.grids[name] for name in node.inputs)
        wide = any(grid.is_wide for grid in (a, b, node.output))  # that has no integer kernel either
        op = "Add" if wide or sums_agree(a, b, node.output) else "Sum"
        self.rounded(node, op, [self.reads(name) for name in node.inputs])

    def multiply(self, node: nodes.Multiply) -> None:
        """A factor is folded into the scale with which the second input is read."""
        x, gate = node.inputs[:2]
        if node.image_gain is None:
            read = self.reads(gate, None if node.gain == 1 else node.gain)
        else:
            tensor, grid = self.tensors[gate], self.grids[gate]
            scale, zero = self.grid_inputs(replace(grid, scale=grid.scale * node.gain))
            scale = self.node("Mul", [scale, self.image_gain(node)], f"{node.name}.scale_of_image")
            read = self.node("DequantizeLinear", [tensor, scale, zero], f"{node.name}.gate_times_gain")
        self.rounded(node, "Mul", [self.reads(x), read])

    def mean(self, node: nodes.Mean) -> None:
        """Average the bytes around 128, as defined: scale 1 leaves no other factor than 1 / pixels."""
        ends = self.grid_inputs(node.middle)
        tensor = self.tensors[node.name]
        x = self.node("DequantizeLinear", [self.tensors[node.inputs[0]], *ends], f"{tensor}.bytes")
        self.put("QuantizeLinear", [self.node("GlobalAveragePool", [x], f"{tensor}.float"), *ends], tensor)

    def table(self, node: nodes.Table) -> None:
        """With nothing between them onnxruntime merges two quantizers into one, which rounds once instead of
        twice. An added zero keeps them apart: a quarter of the time of a table of bytes.
        """
        tensor, read, grid = self.tensors[node.name], self.grids[node.inputs[0]], node.output
        alike, wide = read.container == grid.container, read.is_wide or grid.is_wide
        if alike and np.array_equal(
            node.table[read.low : read.high + 1], read.every[read.low : read.high + 1]
        ):
            self.moved(node, "Identity")  # the bytes as they are, on another grid
            return
        unsigned = grid.low == grid.zero_point
        same = (read.scale, read.zero_point) == (grid.scale, grid.zero_point)
        match node.function:
            case "requantize" if same and self.target.clamp == "uint8" and not wide:
                self.clamp(self.tensors[node.inputs[0]], node)
            case "sigmoid":
                self.rounded(node, "Sigmoid", [self.reads(node.inputs[0])])
            case "leaky_relu":
                self.rounded(node, "LeakyRelu", [self.reads(node.inputs[0])], alpha=node.slope)
            case "requantize" if self.target.between == "add_zero":
                self.rounded(node, "Add", [self.reads(node.inputs[0]), self.zero(grid)])
            case "requantize" if unsigned and read.low < read.zero_point:
                self.rounded(node, "Relu", [self.reads(node.inputs[0])])
            case "requantize":
                self.quantize(node, self.reads(node.inputs[0]))
            case "levels":
                index = self.node(
                    "Cast", [self.tensors[node.inputs[0]]], f"{tensor}.index", to=TensorProto.INT32
                )
                self.put("Gather", [self.constant(f"{tensor}.levels", node.table), index], tensor)
                self.say_bits(max(1, (len(np.unique(node.table)) - 1).bit_length()))
            case _:
                assert_never(node.function)

    def interpolate(self, node: nodes.Interpolate) -> None:
        """A matrix product of the tensor and weights of 64ths, both uint8."""
        x, like = node.inputs
        name = self.tensors[node.name]
        weights = interpolation_weights(self, name, self.tensors[x], self.tensors[like], node.axis)
        inputs = [weights, self.reads(x)] if node.axis == 2 else [self.reads(x), weights]
        self.rounded(node, "MatMul", inputs)

    def max_pool(self, node: nodes.MaxPool) -> None:
        """onnx's reference mixes up sides that differ: they repeat edges, which windows hold anyway."""
        source, pads = self.tensors[node.inputs[0]], node.padding
        if pads[:2] != pads[2:]:
            padded = f"{self.tensors[node.name]}.padded"
            source = self.move(
                node, "Pad", [source, self.sides(pads)], self.names.tensor(padded), mode="edge"
            )
            pads = NO_SIDES
        window: dict[str, Any] = {"kernel_shape": list(node.kernel), "strides": list(node.stride)}
        if pads != NO_SIDES:
            window["pads"] = list(pads)
        self.move(node, "MaxPool", [source], self.tensors[node.name], **window)

    def sides(self, sides: Sides) -> str:
        """`sides` of the image as Pad counts them."""
        top, left, bottom, right = sides
        amounts = np.array([0, 0, top, left, 0, 0, bottom, right], np.int64)
        return self.constant(f"around_{top}_{left}_{bottom}_{right}", amounts)

    def pad(self, node: nodes.Pad) -> None:
        """Rows and columns first, then channels of the value zero."""
        tensor, source = self.tensors[node.name], self.tensors[node.inputs[0]]
        more = node.channels - self.widths[node.inputs[0]]
        zero_point = node.output.zero_point
        zero: list[str] = []  # a Pad of floats takes 0 without being told
        if (more or node.mode == "zero") and not self.moves_values(node, "Pad"):
            zero = [self.constant(f"zero_point_{zero_point}", np.uint8(zero_point))]
        if node.sides != NO_SIDES or node.multiple != (1, 1) or not more:
            target = self.names.tensor(f"{tensor}.around") if more else tensor
            given, mode = (zero, "constant") if node.mode == "zero" else ([], node.mode)
            source = self.move(node, "Pad", [source, self.margins(node, source), *given], target, mode=mode)
        if more:
            sides = self.constant(f"channels_{more}", np.array([0, 0, 0, 0, 0, more, 0, 0], np.int64))
            self.move(node, "Pad", [source, sides, *zero], tensor)

    def margins(self, node: nodes.Pad, source: str) -> str:
        """What `node` puts around tensor `source`, as ONNX counts it."""
        (top, left, bottom, right), name = node.sides, self.tensors[node.name]
        if node.multiple == (1, 1):
            return self.sides(node.sides)
        size = self.node("Shape", [source], f"{name}.size", start=2, end=4)
        around = self.constant(f"{name}.sides", np.array([top + bottom, left + right], np.int64))
        less = self.node("Neg", [self.node("Add", [size, around], f"{name}.around")], f"{name}.less")
        multiple = self.constant(f"{name}.multiple", np.array(node.multiple, np.int64))
        missing = self.node("Mod", [less, multiple], f"{name}.missing")
        behind = self.node(
            "Add", [missing, self.constant(f"{name}.behind", np.array([bottom, right], np.int64))],
            f"{name}.all_behind",
        )  # fmt: skip
        before = self.constant(f"{name}.before", np.array([0, 0, top, left, 0, 0], np.int64))
        return self.node("Concat", [before, behind], f"{name}.margins", axis=0)

    def crop(self, node: Crop) -> None:
        """A Slice to places counted from the end."""
        top, left, bottom, right = node.sides
        ends = [-n if n else LAST for n in (bottom, right)]
        self.sliced(node, (2, 3), (top, left), self.constant(f"{node.name}.ends", np.array(ends, np.int64)))

    def crop_to(self, node: CropTo) -> None:
        """A Slice to a place that another tensor's size gives."""
        name, axis = self.tensors[node.name], node.axis
        end = self.node("Shape", [self.tensors[node.inputs[1]]], f"{name}.size", start=axis, end=axis + 1)
        if node.times > 1:
            times = self.constant(f"times_{node.times}", np.array([node.times], np.int64))
            end = self.node("Mul", [end, times], f"{name}.times_size")
        if node.start:
            start = self.constant(f"{name}.start", np.array([node.start], np.int64))
            end = self.node("Add", [end, start], f"{name}.end")
        self.sliced(node, (axis,), (node.start,), end)

    def nearest(self, node: Nearest) -> None:
        """A Gather of places in whole numbers: a Resize computes them in float."""
        name, axis = self.tensors[node.name], node.axis
        x, like = (self.tensors[read] for read in node.inputs)
        length, target = (
            self.node("Shape", [tensor], f"{name}.{what}", start=axis, end=axis + 1)
            for tensor, what in ((x, "length"), (like, "target"))
        )
        zero, one = (self.constant(f"int_{n}", np.int64(n)) for n in (0, 1))
        scalar = self.node("Squeeze", [target], f"{name}.target_number")
        places = self.node("Range", [zero, scalar, one], f"{name}.range")
        places = self.node("Mul", [places, length], f"{name}.times_length")
        places = self.node("Div", [places, target], f"{name}.places")
        self.move(node, "Gather", [x, places], name, axis=axis)

    def sliced(self, node: nodes.IntegerNode, axes: Sequence[int], start: Sequence[int], ends: str) -> None:
        name = self.tensors[node.name]
        places = [("start", start), ("axes", axes)]
        begin, along = (self.constant(f"{name}.{what}", np.array(at, np.int64)) for what, at in places)
        self.move(node, "Slice", [self.tensors[node.inputs[0]], begin, ends, along], name)


def _window(node: Conv) -> dict[str, Any]:
    """The attributes of a convolution that are not what ONNX takes them for anyway."""
    found: dict[str, Any] = {"kernel_shape": list(node.weight.shape[2:])}
    if node.stride != (1, 1):
        found["strides"] = list(node.stride)
    if node.padding != NO_SIDES:
        found["pads"] = list(node.padding)
    if node.groups != 1:
        found["group"] = node.groups
    if node.dilation != (1, 1):
        found["dilations"] = list(node.dilation)
    return found


# Class of a node -> what writes the nodes of the graph that make its tensor.
_FORMS: dict[type[nodes.IntegerNode], Callable[[_Writer, Any], object]] = {
    nodes.ImageInput: lambda w, node: None,
    Conv: _Writer.convolution,
    nodes.Add: _Writer.add,
    nodes.Multiply: _Writer.multiply,
    nodes.ChannelGate: _Writer.multiply,
    nodes.Mean: _Writer.mean,
    nodes.Table: _Writer.table,
    nodes.Concat: lambda w, node: w.moved(node, "Concat", axis=1),
    nodes.DepthToSpace: lambda w, node: w.moved(node, "DepthToSpace", blocksize=node.factor, mode="CRD"),
    nodes.MaxPool: _Writer.max_pool,
    nodes.Interpolate: _Writer.interpolate,
    nodes.Pad: _Writer.pad,
    Crop: _Writer.crop,
    CropTo: _Writer.crop_to,
    Nearest: _Writer.nearest,
}
