"""Layers and their numbers -> integer network: every layer folded exactly, or refused by name.

1. a quantizer joins the operation whose output it rounds; behind a tensor that is on a grid already it is a
   table of 256 bytes, and so is a sigmoid, and the levels of a non-uniform quantizer;
2. a ReLU is the lower bound of an unsigned grid;
3. LSQ steps are the scales of weights, a batch norm is a depthwise 1x1 convolution of weights 64 .. 127;
4. a frozen deviation (ADQ) goes into the scales of the weights that it multiplies, one per image stays a gain
   of the convolution or product, computed from a tensor on a grid; where it multiplies a tensor that is on a
   grid already, that is a depthwise 1x1 convolution of ones;
5. a table between grids of one scale is a clamp, on the zero point of what it reads;
6. readers of one tensor on one grid share a table;
7. repeated channels are a concatenation; bilinear upscaling by a whole factor is a 3x3 convolution of the
   image with repeated edges, and a pixel shuffle.

Where the numbers come from is left open (`Parameters`): from a trained network, or from a random generator.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from qnas.errors import ModelError
from qnas.integer import nodes
from qnas.integer.convolution import Conv, bilinear_convolution
from qnas.integer.network import IntegerNetwork, check_accumulators, pruned
from qnas.integer.nodes import IntegerNode
from qnas.integer.tables import sigmoid, uint8_table
from qnas.network.layers import Layer, by_name
from qnas.quantization.image_gain import ImageGain
from qnas.quantization.lloyd import lloyd_table
from qnas.quantization.quantizers import IMAGE, QuantParams

INPUT = "image"


@dataclass(frozen=True)
class IntegerConvolution:
    """`acc = sum(weight * (x - zero_point)) + bias`, of real value `acc * weight_scale[o] * input_scale`.

    weight int8 [O, I / groups, kh, kw], weight_scale float32 [O], bias int32 [O].
    """

    weight: NDArray[np.int8]
    weight_scale: NDArray[np.float32]
    bias: NDArray[np.int32]


class Parameters(Protocol):
    """The numbers of a network's layers. Each may raise ModelError naming a layer that has none that fit."""

    def grid(self, quantizer: Layer) -> QuantParams:
        """The grid that a quantizer puts out."""

    def convolution(self, layer: Layer) -> IntegerConvolution:
        """The integers of a `conv` or an `affine` whose input is on a grid, a frozen deviation folded in."""

    def gain(self, deviation: str) -> np.float32:
        """The factor of a frozen deviation."""

    def image_gain(self, deviation: str, channels: int) -> ImageGain | None:
        """What decides the factor of each image, by a tensor of so many `channels`; None for a frozen one."""


def build_network(name: str, scale: int, layers: Sequence[Layer], parameters: Parameters) -> IntegerNetwork:
    """The integer network `name` of `layers`, which upscales by `scale`.

    Raises ModelError naming the layer that is not on a grid, or whose sums may leave 32 bits.
    """
    builder = _Builder(by_name(layers), parameters)
    for layer in layers:
        builder.add(layer)
    network = pruned(IntegerNetwork(name, scale, tuple(builder.written.values())))
    check_accumulators(network)
    return network


@dataclass
class _Builder:
    """`at` maps a layer to the node that holds its output, if that is on a grid."""

    layers: dict[str, Layer]
    parameters: Parameters
    written: dict[str, IntegerNode] = field(default_factory=dict)
    at: dict[str, str] = field(default_factory=dict)

    def add(self, layer: Layer) -> None:
        """Case 1: float operations wait for the quantizer that reads them."""
        if layer.op == "image":
            grid = QuantParams.activation(IMAGE, IMAGE.scale or 1.0)
            self.put(layer, nodes.ImageInput(INPUT, (), layer.channels, grid))
        elif layer.op == "quantize":
            self.quantizer(layer)
        elif layer.op in _MOVERS:
            inputs = self.reads(layer)
            self.put(layer, _MOVERS[layer.op](layer, inputs, self.written[inputs[0]].output))

    def put(self, layer: Layer, node: IntegerNode) -> None:
        self.written[node.name] = node
        self.at[layer.name] = node.name

    def reads(self, layer: Layer, names: Sequence[str] | None = None) -> tuple[str, ...]:
        """The nodes that hold `names`, or all inputs of `layer`. Raises ModelError where one is float."""
        names = layer.inputs if names is None else names
        floats = [name for name in names if name not in self.at]
        if floats:
            raise ModelError(
                f"layer {layer.name} reads {floats[0]}, a float tensor: "
                "train with 8-bit residuals (residual_bits 8)"
            )
        return tuple(self.at[name] for name in names)

    def quantizer(self, layer: Layer) -> None:
        assert layer.quant is not None
        grid = self.parameters.grid(layer)
        source = self.at.get(layer.inputs[0])
        if layer.quant.levels == "lloyd":
            self.levels(layer, lloyd_table(layer.quant.bits), grid, source)
        elif source is not None:
            self.put(layer, self.requantized(layer, self.written[source], grid))
        else:
            self.put(layer, self.computed(layer, grid))

    def computed(self, layer: Layer, grid: QuantParams) -> IntegerNode:
        """The float operation that quantizer `layer` reads, rounded onto `grid`."""
        source = self.layers[layer.inputs[0]]
        if source.op not in _COMPUTED:
            raise ModelError(f"layer {source.name} ({source.op}) is float: train with residual_bits 8")
        node = _COMPUTED[source.op](self, source, grid)
        # The name is taken where this is a second quantizer of the same sums.
        return replace(node, name=layer.name) if node.name in self.written else node

    def levels(self, layer: Layer, table: NDArray[np.uint8], grid: QuantParams, source: str | None) -> None:
        """Non-uniform levels: a table behind a uniform byte, or of whatever byte is there already."""
        if source is None:
            node = self.computed(layer, grid)
            self.written[node.name] = node
            name = layer.name if node.name != layer.name else f"{layer.name}.levels"
        else:
            node, name = self.written[source], layer.name
            table = table[uint8_table(lambda values: values, node.output, grid)]
        self.put(layer, nodes.Table(name, (node.name,), layer.channels, grid, table, "levels"))

    def requantized(self, layer: Layer, source: IntegerNode, grid: QuantParams) -> IntegerNode:
        """Case 5 and 6."""
        read = source.output
        if grid.scale == read.scale:
            shift = read.zero_point - grid.zero_point
            low, high = max(grid.low + shift, read.low), min(grid.high + shift, read.high)
            grid = QuantParams(read.scale, read.zero_point, low, high)
        if grid == read:
            return source
        for node in self.written.values():
            known = isinstance(node, nodes.Table) and node.function == "requantize"
            if known and node.inputs == (source.name,) and node.output == grid:
                return node
        table = uint8_table(lambda values: values, read, grid)
        return nodes.Table(layer.name, (source.name,), layer.channels, grid, table, "requantize")

    def conv(self, layer: Layer, output: QuantParams) -> Conv:
        """Case 3 and 4."""
        read = self.reads(layer, layer.inputs[:1])
        source, gain = self.image_gain(layer, layer.inputs[1:])
        depthwise = layer.op != "conv"
        integers = self.ones(layer) if layer.op == "scale" else self.parameters.convolution(layer)
        return Conv(
            layer.name, read + source, layer.channels, output,
            integers.weight, integers.weight_scale, integers.bias,
            bits=8 if depthwise else layer.bits, stride=(layer.stride, layer.stride),
            padding=(*layer.padding, *layer.padding), groups=layer.channels if depthwise else layer.groups,
            image_gain=gain,
        )  # fmt: skip

    def ones(self, layer: Layer) -> IntegerConvolution:
        """Weights of 64 / 64 in each channel, times the factor where that is frozen."""
        _, gain = self.image_gain(layer, layer.inputs[1:])
        factor = self.parameters.gain(layer.inputs[1]) if gain is None else np.float32(1)
        return IntegerConvolution(
            np.full((layer.channels, 1, 1, 1), 64, np.int8),
            np.full(layer.channels, factor / 64, np.float32),
            np.zeros(layer.channels, np.int32),
        )

    def image_gain(self, layer: Layer, factor: Sequence[str]) -> tuple[tuple[str, ...], ImageGain | None]:
        """(the node that layer `factor` computes from, how), nothing where that is frozen or missing."""
        if not factor:
            return (), None
        (source,) = self.layers[factor[0]].inputs
        gain = self.parameters.image_gain(factor[0], self.layers[source].channels)
        return (() if gain is None else self.reads(layer, [source])), gain

    def multiply(self, layer: Layer, output: QuantParams) -> nodes.Multiply:
        inputs, factor = self.reads(layer, layer.inputs[:2]), layer.inputs[2:]
        source, image_gain = self.image_gain(layer, factor)
        frozen = factor and image_gain is None
        gain = self.parameters.gain(factor[0]) if frozen else np.float32(1)
        return nodes.Multiply(
            layer.name, inputs + source, layer.channels, output, gain, image_gain=image_gain
        )  # fmt: skip

    def upscale(self, layer: Layer, output: QuantParams) -> nodes.DepthToSpace:
        """Case 7."""
        (read,), name, c = self.reads(layer), layer.name, layer.channels
        edged = nodes.Pad(f"{name}.edged", (read,), c, self.written[read].output, (1, 1, 1, 1), "edge")
        phases = bilinear_convolution(f"{name}.phases", edged.name, c, layer.factor, output)
        self.written |= {edged.name: edged, phases.name: phases}
        return nodes.DepthToSpace(name, (phases.name,), c, output, layer.factor)

    def sum(self, layer: Layer, output: QuantParams) -> nodes.Add:
        return nodes.Add(layer.name, self.reads(layer), layer.channels, output)

    def sigmoid(self, layer: Layer, output: QuantParams) -> nodes.Table:
        (source,) = self.reads(layer)
        table = uint8_table(sigmoid, self.written[source].output, output)
        return nodes.Table(layer.name, (source,), layer.channels, output, table, "sigmoid")

    def interpolate(self, layer: Layer, output: QuantParams) -> nodes.Interpolate:
        axis: Literal[2, 3] = 2 if layer.op == "resize_rows" else 3
        return nodes.Interpolate(layer.name, self.reads(layer), layer.channels, output, axis)


_MOVERS: dict[str, Callable[[Layer, tuple[str, ...], QuantParams], IntegerNode]] = {
    "concat": lambda y, inputs, grid: nodes.Concat(y.name, inputs, y.channels, grid),
    "repeat": lambda y, inputs, grid: nodes.Concat(y.name, inputs * y.factor, y.channels, grid),
    "pixel_shuffle": lambda y, inputs, grid: nodes.DepthToSpace(y.name, inputs, y.channels, grid, y.factor),
    "max_pool": lambda y, inputs, grid: nodes.MaxPool(
        y.name, inputs, y.channels, grid, y.kernel, (y.stride,) * 2
    ),
}
_COMPUTED: dict[str, Callable[[_Builder, Layer, QuantParams], IntegerNode]] = {
    "conv": _Builder.conv,
    "affine": _Builder.conv,
    "scale": _Builder.conv,
    "add": _Builder.sum,
    "multiply": _Builder.multiply,
    "sigmoid": _Builder.sigmoid,
    "upscale": _Builder.upscale,
    "resize_rows": _Builder.interpolate,
    "resize_columns": _Builder.interpolate,
}
