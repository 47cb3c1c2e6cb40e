"""Layers + trained network -> ONNX graph, in the forms that onnxruntime runs fast (DESIGN section 6).

A value on a grid is a uint8 tensor; it is dequantized once for all readers that compute. Operations that only
move values (shuffle, pool, concatenation) work on the uint8 tensors themselves. A quantizer is

    QuantizeLinear -> uint8 Clip, when it has fewer than 8 bits

and weights of up to 4 bits are stored as `INT4 initializer -> Cast(INT8) -> DequantizeLinear`.
The float32 graph of a full-precision network comes from the same walk: no value is on a grid there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from qnas.export.parameters import (
    IntegerConvolution,
    float_convolution,
    grid_params,
    integer_convolution,
    multiply_gain,
)
from qnas.export.phases import between_phases, delay_shuffles
from qnas.layers import Layer
from qnas.network import Network
from qnas.quantization import QuantParams

OPSET = 21  # the first with INT4; onnxruntime accepts up to 26
IR_VERSION = 10
INPUT, OUTPUT = "image", "upscaled"


@dataclass
class _Value:
    """A layer's output: `tensor` is uint8 on `grid`, or float32 when that is None."""

    tensor: str
    grid: QuantParams | None = None
    dequantized: str | None = None


@dataclass
class GraphWriter:
    """Walks the layers of `network` once; `build` returns the model."""

    network: Network
    layers: Sequence[Layer] = field(init=False)
    phases: dict[str, int] = field(default_factory=dict)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: dict[str, onnx.TensorProto] = field(default_factory=dict)
    values: dict[str, _Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.layers = self.network.layers
        if any(layer.op == "quantize" for layer in self.layers):
            self.layers, self.phases = delay_shuffles(self.layers)

    def build(self, name: str, scale: int) -> onnx.ModelProto:
        """The checked model; its image is uint8 when the network is quantized, else float32."""
        for layer in self.layers:
            self.values[layer.name] = _WRITERS[layer.op](self, layer)
        result = self.values[self.layers[-1].name]
        for node in self.nodes:  # the last tensor gets the output's name
            for index, output in enumerate(node.output):
                if output == result.tensor:
                    node.output[index] = OUTPUT
        kind = TensorProto.FLOAT if result.grid is None else TensorProto.UINT8
        small: list[str | int | None] = ["batch", 3, "height", "width"]
        large: list[str | int | None] = ["batch", 3, f"{scale}*height", f"{scale}*width"]
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info(INPUT, kind, small)],
            [helper.make_tensor_value_info(OUTPUT, kind, large)],
            list(self.initializers.values()),
        )
        opset = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="qnas")

    # Building blocks -------------------------------------------------------------------------------------

    def node(self, op: str, inputs: Sequence[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, list(inputs), [output], output, **attributes))  # type: ignore[arg-type]
        return output

    def constant(self, name: str, value: NDArray[np.generic] | np.generic) -> str:
        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def int4(self, name: str, value: NDArray[np.int8]) -> str:
        self.initializers[name] = helper.make_tensor(
            name, TensorProto.INT4, value.shape, value.flatten().tolist()
        )
        return name

    def tensor_name(self, layer: Layer) -> str:
        return f"{layer.name}.value" if layer.name in (INPUT, OUTPUT) else layer.name

    def reads(self, name: str) -> str:
        """The float tensor of layer `name`, dequantized once."""
        value = self.values[name]
        if value.grid is None:
            return value.tensor
        if value.dequantized is None:
            value.dequantized = self.dequantize(value.tensor, value.grid, f"{value.tensor}.dequantized")
        return value.dequantized

    def dequantize(self, tensor: str, grid: QuantParams, output: str) -> str:
        return self.node("DequantizeLinear", [tensor, *self.grid_inputs(grid)], output)

    def requantization(self, tensor: str, grid: QuantParams, output: str) -> str:
        """From one grid to another: a LeakyRelu that is a ReLU (unsigned grid) or the identity (signed).

        onnxruntime runs `DequantizeLinear -> LeakyRelu -> QuantizeLinear` as one table of 256 bytes. With
        nothing in between it merges the two quantizers into one, which rounds once instead of twice.
        """
        return self.node("LeakyRelu", [tensor], output, alpha=float(grid.zero_point > 0))

    def grid_inputs(self, grid: QuantParams) -> list[str]:
        """Scale and zero point; equal ones are stored once."""
        return [
            self.constant(f"scale_{float(grid.scale):.6g}", np.float32(grid.scale)),
            self.constant(f"zero_point_{grid.zero_point}", np.uint8(grid.zero_point)),
        ]

    def weights(self, layer: Layer, integers: IntegerConvolution, bits: int) -> list[str]:
        """Dequantized weight and bias of an integer convolution."""
        name, channels = layer.name, layer.channels
        scale = self.constant(f"{name}.weight_scale", integers.weight_scale)
        zero = self.constant(f"{name}.weight_zero_point", np.zeros(channels, np.int8))
        if bits <= 4:
            stored = self.node(
                "Cast",
                [self.int4(f"{name}.weight", integers.weight)],
                f"{name}.weight_int8",
                to=TensorProto.INT8,
            )
        else:
            stored = self.constant(f"{name}.weight", integers.weight)
        weight = self.node("DequantizeLinear", [stored, scale, zero], f"{name}.weight_dequantized", axis=0)
        grid = grid_params(self.network, layer.inputs[0])
        assert grid is not None
        bias_scale = self.constant(f"{name}.bias_scale", integers.weight_scale * grid.scale)
        bias = self.constant(f"{name}.bias", integers.bias)
        return [weight, self.node("DequantizeLinear", [bias, bias_scale], f"{name}.bias_dequantized", axis=0)]

    def interpolation(self, prefix: str, size_in: str, size_out: str) -> str:
        """`qnas.network.interpolation_matrix` of sizes known at run time, int64 [1]: float32 [out, in]."""
        zero, one, c64 = (self.constant(f"int_{v}", np.int64(v)) for v in (0, 1, 64))
        two, c32 = (self.constant(f"int_{v}", np.int64(v)) for v in (2, 32))
        axes = self.constant("first_axis", np.array([0], np.int64))

        def n(op: str, inputs: Sequence[str], suffix: str, **attributes: object) -> str:
            return self.node(op, inputs, f"{prefix}.{suffix}", **attributes)

        count_in, count_out = n("Squeeze", [size_in, axes], "in"), n("Squeeze", [size_out, axes], "out")
        odd = n("Add", [n("Mul", [n("Range", [zero, count_out, one], "o"), two], "2o"), one], "2o+1")
        numerator = n("Mul", [n("Mul", [odd, count_in], "odd_in"), c64], "numerator")
        centre = n(
            "Sub", [n("Div", [numerator, n("Mul", [count_out, two], "2out")], "centre64"), c32], "centre_raw"
        )
        last = n("Mul", [n("Sub", [count_in, one], "in-1"), c64], "last")
        centre = n("Min", [n("Max", [centre, zero], "centre_low"), last], "centre")
        column = n("Unsqueeze", [centre, self.constant("second_axis", np.array([1], np.int64))], "column")
        source = n("Mul", [n("Range", [zero, count_in, one], "i"), c64], "source")
        distance = n("Abs", [n("Sub", [column, source], "difference")], "distance")
        steps = n("Max", [n("Sub", [c64, distance], "hat"), zero], "steps")
        return n(
            "Mul",
            [n("Cast", [steps], "float", to=TensorProto.FLOAT), self.constant("1/64", np.float32(1 / 64))],
            "matrix",
        )

    def size(self, tensor: str, axis: int, name: str) -> str:
        return self.node("Shape", [tensor], name, start=axis, end=axis + 1)


# One function per operation: adds its nodes, returns the layer's value ------------------------------------


def _image(w: GraphWriter, layer: Layer) -> _Value:
    return _Value(INPUT)


def _conv(w: GraphWriter, layer: Layer) -> _Value:
    groups = layer.channels if layer.op == "affine" else layer.groups
    if w.values[layer.inputs[0]].grid is not None:
        integers = integer_convolution(w.network, layer)
        if layer.name in w.phases:
            layer, integers = between_phases(layer, integers, w.phases[layer.name])
            groups = layer.groups
        parameters = w.weights(layer, integers, layer.bits if layer.op == "conv" else 8)
    else:
        arrays = float_convolution(w.network, layer)
        parameters = [
            w.constant(f"{layer.name}.{part}", a) for part, a in zip(("weight", "bias"), arrays, strict=True)
        ]
    output = w.node(
        "Conv", [w.reads(layer.inputs[0]), *parameters], w.tensor_name(layer), kernel_shape=layer.kernel,
        strides=[layer.stride] * 2, pads=layer.padding * 2, group=groups,
    )  # fmt: skip
    return _Value(output)


def _quantize(w: GraphWriter, layer: Layer) -> _Value:
    grid = grid_params(w.network, layer.name)
    assert grid is not None
    source = w.values[layer.inputs[0]]
    if source.tensor == INPUT:
        return _Value(INPUT, grid)  # the image is on its grid already
    name = w.tensor_name(layer)
    clipped = grid.high < 255
    reads = w.reads(layer.inputs[0])
    if source.grid is not None:
        reads = w.requantization(reads, grid, f"{name}.requantized")
    full = w.node("QuantizeLinear", [reads, *w.grid_inputs(grid)], f"{name}.uint8" if clipped else name)
    if clipped:  # uint8 saturates at 255
        limits = [w.constant(f"uint8_{v}", np.uint8(v)) for v in (grid.low, grid.high)]
        full = w.node("Clip", [full, *limits], name)
    return _Value(full, grid)


def _arithmetic(op: str) -> Callable[[GraphWriter, Layer], _Value]:
    def write(w: GraphWriter, layer: Layer) -> _Value:
        return _Value(w.node(op, [w.reads(name) for name in layer.inputs], w.tensor_name(layer)))

    return write


def _multiply(w: GraphWriter, layer: Layer) -> _Value:
    x, gate = layer.inputs[:2]
    gain, value = multiply_gain(w.network, layer), w.values[gate]
    if gain == 1.0:
        reads = w.reads(gate)
    elif value.grid is None:
        factor = w.constant(f"{layer.name}.gain", np.float32(gain))
        reads = w.node("Mul", [value.tensor, factor], f"{layer.name}.gated")
    else:  # the constant factor is folded into the scale with which the gate is read
        scaled = replace(value.grid, scale=value.grid.scale * np.float32(gain))
        reads = w.dequantize(value.tensor, scaled, f"{layer.name}.gate_dequantized")
    return _Value(w.node("Mul", [w.reads(x), reads], w.tensor_name(layer)))


def _moved(w: GraphWriter, layer: Layer, op: str, inputs: Sequence[str], **attributes: object) -> _Value:
    """An operation that moves values, on the tensors as they are."""
    values = [w.values[name] for name in inputs]
    output = w.node(op, [value.tensor for value in values], w.tensor_name(layer), **attributes)
    return _Value(output, values[0].grid)


def _upscale(w: GraphWriter, layer: Layer) -> _Value:
    scales = w.constant(f"{layer.name}.scales", np.array([1, 1, layer.factor, layer.factor], np.float32))
    inputs = [w.reads(layer.inputs[0]), "", scales]
    name = w.tensor_name(layer)
    return _Value(w.node("Resize", inputs, name, mode="linear", coordinate_transformation_mode="half_pixel"))


def _resize_like(w: GraphWriter, layer: Layer) -> _Value:
    x, like = w.reads(layer.inputs[0]), w.values[layer.inputs[1]].tensor
    name = w.tensor_name(layer)
    sizes = [
        [w.size(t, axis, f"{name}.{word}_{axis}") for t, word in ((x, "from"), (like, "to"))]
        for axis in (2, 3)
    ]
    rows = w.interpolation(f"{name}.rows", *sizes[0])
    columns = w.node(
        "Transpose", [w.interpolation(f"{name}.columns", *sizes[1])], f"{name}.columns_t", perm=[1, 0]
    )
    return _Value(w.node("MatMul", [w.node("MatMul", [rows, x], f"{name}.tall"), columns], name))


def _folded(w: GraphWriter, layer: Layer) -> _Value:
    return _Value("")  # a deviation is a constant: its readers fold it


_WRITERS: dict[str, Callable[[GraphWriter, Layer], _Value]] = {
    "image": _image,
    "conv": _conv,
    "affine": _conv,
    "deviation": _folded,
    "quantize": _quantize,
    "relu": _arithmetic("Relu"),
    "add": _arithmetic("Add"),
    "multiply": _multiply,
    "sigmoid": _arithmetic("Sigmoid"),
    "concat": lambda w, layer: _moved(w, layer, "Concat", layer.inputs, axis=1),
    "repeat": lambda w, layer: _moved(w, layer, "Concat", layer.inputs * layer.factor, axis=1),
    "pixel_shuffle": lambda w, layer: _moved(
        w, layer, "DepthToSpace", layer.inputs, blocksize=layer.factor, mode="CRD"
    ),
    "max_pool": lambda w, layer: _moved(
        w, layer, "MaxPool", layer.inputs, kernel_shape=layer.kernel, strides=[layer.stride] * 2
    ),
    "upscale": _upscale,
    "resize_like": _resize_like,
}
