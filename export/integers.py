"""found.pt -> integer network: every layer folded exactly, or refused by name.

1. a quantizer joins the operation whose output it rounds; behind a tensor that is on a grid already it is a
   table of 256 bytes, and so is a sigmoid, and the levels of a non-uniform quantizer;
2. a ReLU is the lower bound of an unsigned grid;
3. LSQ steps are the scales of weights, a batch norm is a depthwise 1x1 convolution of weights 64 .. 127;
4. a frozen deviation (ADQ) goes into the scales of the weights that it multiplies, one per image stays a gain
   of the convolution or product, computed from a tensor on a grid;
5. a table between grids of one scale is a clamp, on the zero point of what it reads;
6. readers of one tensor on one grid share a table;
7. repeated channels are a concatenation; bilinear upscaling by a whole factor is a 3x3 convolution of the
   image with repeated edges, and a pixel shuffle.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from qnas.errors import ModelError
from qnas.export.parameters import grid_params, integer_convolution, multiply_gain
from qnas.integer.network import (
    Add,
    Concat,
    Conv,
    DepthToSpace,
    Image,
    IntegerNetwork,
    IntegerNode,
    Interpolate,
    MaxPool,
    Multiply,
    Pad,
    Table,
    check_accumulators,
    pruned,
)
from qnas.network.architecture import Architecture
from qnas.network.layers import Layer, by_name
from qnas.quantization.image_gain import ImageGain
from qnas.quantization.lloyd import lloyd_table
from qnas.quantization.quantizers import IMAGE, QuantParams, dequantize, quantize
from qnas.torch.checkpoint import Found
from qnas.torch.network import Network, sigmoid

INPUT = "image"
Adq = Literal["frozen", "per-image"]  # ADQ's factor: its mean, or one that each image decides


def refuse_paper(architecture: Architecture) -> None:
    """Raise ModelError for a network that computes as the paper's released code does."""
    if architecture.arithmetic == "paper":
        raise ModelError(
            "an imported network computes in float between its convolutions: train the architecture that "
            "`qnas-import --deployable` writes, with --warm-start from this file, and export that"
        )


def integer_network(found: Found, adq: Adq = "frozen") -> IntegerNetwork:
    """The integers of a trained network. Raises ModelError naming the layer that is not on a grid, or whose
    sums may leave 32 bits, and when a network without ADQ is to have it per image."""
    refuse_paper(found.architecture)
    if adq == "per-image" and not found.network.deviations():
        raise ModelError(
            "--adq per-image needs a network with ADQ: this one has normalization "
            f"{found.architecture.normalization!r}, leave the option out"
        )
    builder = _Builder(found.network, adq)
    for layer in found.network.layers:
        builder.add(layer)
    network = pruned(
        IntegerNetwork(found.architecture.space, found.architecture.scale, tuple(builder.nodes.values()))
    )
    check_accumulators(network)
    return network


def uint8_table(function: Callable[[NDArray[np.float32]], NDArray[np.float32]], read: QuantParams,
                output: QuantParams) -> NDArray[np.uint8]:  # fmt: skip
    """uint8 [256]: `function` of the real value of every q on `read`, on the grid `output`."""
    values = dequantize(np.arange(256, dtype=np.int32), read)
    return quantize(function(values), output).astype(np.uint8)


@dataclass
class _Builder:
    """`nodes` in order; `at` maps a layer to the node that holds its output, if that is on a grid."""

    network: Network
    adq: Adq
    nodes: dict[str, IntegerNode] = field(default_factory=dict)
    at: dict[str, str] = field(default_factory=dict)
    layers: dict[str, Layer] = field(init=False)

    def __post_init__(self) -> None:
        self.layers = by_name(self.network.layers)

    def add(self, layer: Layer) -> None:
        """Case 1: float operations wait for the quantizer that reads them."""
        if layer.op == "image":
            grid = QuantParams.activation(IMAGE, IMAGE.scale or 1.0)
            self.put(layer, Image(INPUT, (), layer.channels, grid))
        elif layer.op == "quantize":
            self.quantizer(layer)
        elif layer.op in _MOVERS:
            inputs = tuple(self.reads(name, layer) for name in layer.inputs)
            self.put(layer, _MOVERS[layer.op](layer, inputs, self.nodes[inputs[0]].output))

    def put(self, layer: Layer, node: IntegerNode) -> None:
        self.nodes[node.name] = node
        self.at[layer.name] = node.name

    def reads(self, name: str, reader: Layer) -> str:
        """The node that holds layer `name`. Raises ModelError when that is float."""
        if name not in self.at:
            raise ModelError(
                f"layer {reader.name} reads {name}, a float tensor: "
                "train with 8-bit residuals (residual_bits 8)"
            )
        return self.at[name]

    def quantizer(self, layer: Layer) -> None:
        grid = grid_params(self.network, layer.name)
        assert grid is not None
        assert layer.quant is not None
        source = self.at.get(layer.inputs[0])
        if layer.quant.levels == "lloyd":
            self.levels(layer, lloyd_table(layer.quant.bits), grid, source)
        elif source is not None:
            self.put(layer, self.requantized(layer, self.nodes[source], grid))
        else:
            self.put(layer, self.computed(layer, grid))

    def computed(self, layer: Layer, grid: QuantParams) -> IntegerNode:
        """The float operation that quantizer `layer` reads, rounded onto `grid`."""
        source = self.layers[layer.inputs[0]]
        if source.op not in _COMPUTED:
            raise ModelError(f"layer {source.name} ({source.op}) is float: train with residual_bits 8")
        node = _COMPUTED[source.op](self, source, grid)
        # The name is taken where this is a second quantizer of the same sums.
        return replace(node, name=layer.name) if node.name in self.nodes else node

    def levels(self, layer: Layer, table: NDArray[np.uint8], grid: QuantParams, source: str | None) -> None:
        """Non-uniform levels: a table behind a uniform byte, or of whatever byte is there already."""
        if source is None:
            node = self.computed(layer, grid)
            self.nodes[node.name] = node
            name = layer.name if node.name != layer.name else f"{layer.name}.levels"
        else:
            node, name = self.nodes[source], layer.name
            table = table[uint8_table(lambda values: values, node.output, grid)]
        self.put(layer, Table(name, (node.name,), layer.channels, grid, table, "levels"))

    def requantized(self, layer: Layer, source: IntegerNode, grid: QuantParams) -> IntegerNode:
        """Case 5 and 6."""
        read = source.output
        if grid.scale == read.scale:
            shift = read.zero_point - grid.zero_point
            low, high = max(grid.low + shift, read.low), min(grid.high + shift, read.high)
            grid = QuantParams(read.scale, read.zero_point, low, high)
        if grid == read:
            return source
        for node in self.nodes.values():
            known = isinstance(node, Table) and node.function == "requantize"
            if known and node.inputs == (source.name,) and node.output == grid:
                return node
        table = uint8_table(lambda values: values, read, grid)
        return Table(layer.name, (source.name,), layer.channels, grid, table, "requantize")

    # Case 3 and 4 ----------------------------------------------------------------------------------------

    def conv(self, layer: Layer, output: QuantParams) -> Conv:
        read = self.reads(layer.inputs[0], layer)
        source, gain = self.image_gain(layer, layer.inputs[1:])
        integers = integer_convolution(self.network, layer, frozen=gain is None)
        norm = layer.op == "affine"
        return Conv(
            layer.name, (read, *source), layer.channels, output,
            integers.weight, integers.weight_scale, integers.bias,
            bits=8 if norm else layer.bits, stride=layer.stride, padding=layer.padding,
            groups=layer.channels if norm else layer.groups, image_gain=gain,
        )  # fmt: skip

    def image_gain(self, layer: Layer, factor: tuple[str, ...]) -> tuple[tuple[str, ...], ImageGain | None]:
        """(the node that layer `factor` computes from, how), nothing where that is frozen or missing."""
        if self.adq == "frozen" or not factor:
            return (), None
        (source,) = self.layers[factor[0]].inputs
        gain = self.network.module(factor[0]).gain(self.layers[source].channels)
        return (self.reads(source, layer),), gain

    # Case 7 ----------------------------------------------------------------------------------------------

    def upscale(self, layer: Layer, output: QuantParams) -> DepthToSpace:
        source = self.nodes[self.reads(layer.inputs[0], layer)]
        f, c = layer.factor, layer.channels
        edged = Pad(f"{layer.name}.edged", (source.name,), c, source.output, edge=1)
        weight = bilinear_weights(f, c)
        scale = np.full(c * f**2, 1 / (2 * f) ** 2, np.float32)
        bias = np.zeros(c * f**2, np.int32)
        phases = Conv(
            f"{layer.name}.phases", (edged.name,), c * f**2, output, weight, scale, bias, bits=8
        )  # fmt: skip
        self.nodes |= {edged.name: edged, phases.name: phases}
        return DepthToSpace(layer.name, (phases.name,), c, output, f)

    def sum(self, layer: Layer, output: QuantParams) -> Add:
        return Add(
            layer.name, tuple(self.reads(name, layer) for name in layer.inputs), layer.channels, output
        )

    def multiply(self, layer: Layer, output: QuantParams) -> Multiply:
        inputs = tuple(self.reads(name, layer) for name in layer.inputs[:2])
        source, image_gain = self.image_gain(layer, layer.inputs[2:])
        gain = np.float32(1 if image_gain else multiply_gain(self.network, layer))
        return Multiply(layer.name, (*inputs, *source), layer.channels, output, gain, image_gain)

    def sigmoid(self, layer: Layer, output: QuantParams) -> Table:
        source = self.nodes[self.reads(layer.inputs[0], layer)]
        table = uint8_table(lambda v: sigmoid(torch.from_numpy(v)).numpy(), source.output, output)
        return Table(layer.name, (source.name,), layer.channels, output, table, "sigmoid")

    def interpolate(self, layer: Layer, output: QuantParams) -> Interpolate:
        inputs = tuple(self.reads(name, layer) for name in layer.inputs)
        axis: Literal[2, 3] = 2 if layer.op == "resize_rows" else 3
        return Interpolate(layer.name, inputs, layer.channels, output, axis)


def bilinear_weights(factor: int, channels: int) -> NDArray[np.int8]:
    """int8 [C f^2, C, 3, 3] in steps of 1 / (2 f)^2: half-pixel bilinear upscaling before the shuffle."""
    f = factor
    taps = np.zeros((f, 3), np.int64)
    for phase in range(f):
        offset = 2 * phase + 1 - f  # from the centre of the pixel, in 2f-ths
        taps[phase, 1] = 2 * f - abs(offset)
        taps[phase, 1 + int(np.sign(offset))] += abs(offset) if offset else 0
    both = taps[:, None, :, None] * taps[None, :, None, :]  # [f, f, 3, 3]
    weight = np.zeros((channels, f, f, channels, 3, 3), np.int8)
    for c in range(channels):
        weight[c, :, :, c] = both
    return weight.reshape(channels * f**2, channels, 3, 3)


_MOVERS: dict[str, Callable[[Layer, tuple[str, ...], QuantParams], IntegerNode]] = {
    "concat": lambda y, inputs, grid: Concat(y.name, inputs, y.channels, grid),
    "repeat": lambda y, inputs, grid: Concat(y.name, inputs * y.factor, y.channels, grid),
    "pixel_shuffle": lambda y, inputs, grid: DepthToSpace(y.name, inputs, y.channels, grid, y.factor),
    "max_pool": lambda y, inputs, grid: MaxPool(y.name, inputs, y.channels, grid, y.kernel, y.stride),
}
_COMPUTED: dict[str, Callable[[_Builder, Layer, QuantParams], IntegerNode]] = {
    "conv": _Builder.conv,
    "affine": _Builder.conv,
    "add": _Builder.sum,
    "multiply": _Builder.multiply,
    "sigmoid": _Builder.sigmoid,
    "upscale": _Builder.upscale,
    "resize_rows": _Builder.interpolate,
    "resize_columns": _Builder.interpolate,
}
