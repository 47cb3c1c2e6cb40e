"""The integer network: what every runtime computes. Built once, walked by every writer, defined by
`qnas.integer.interpreter`.

Every node writes one uint8 tensor [N, C, H, W] on the grid `output`: real value `scale * (q - zero_point)`,
`low <= q <= high`. Sums are exact integers; what is not on the grid of its reader passes through a
requantization `clamp(round_half_even(float32(acc) * multiplier) + zero_point, low, high)`, the arithmetic of
onnxruntime and XNNPACK alike.

    Image         pixels as they are
    Conv          acc = sum(weight * (q - zero_point)) + bias; multiplier float32(s_x * s_w[o] gain) / s_y
    Add           scale_a (q_a - z_a) + scale_b (q_b - z_b) in float32, requantized
    Multiply      (q_a - z_a) (q_b - z_b), multiplier s_a s_b gain / s_y
    Table         output[q]: 256 bytes, whatever function they hold
    Concat        channels of tensors on one grid, one behind the other
    DepthToSpace  ONNX mode CRD
    MaxPool       no padding
    Interpolate   bilinear along one axis to the length of `inputs[1]`, in 64ths, requantized
    Pad           channels of the value 0 behind the last, or rows and columns that repeat the edge

A Conv or Multiply with an `image_gain` (ADQ per image) has one input more, its last: the tensor whose
variance decides the gain of each image. `operands` leaves it out.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qnas.errors import ModelError
from qnas.quantization.image_gain import ImageGain
from qnas.quantization.quantizers import QuantParams

INT32_MAX = 2**31 - 1
INT16_MAX = 2**15 - 1
ONE = np.float32(1)


@dataclass(frozen=True, eq=False)  # arrays do not compare
class Node:
    """What all nodes have. `output.scale` is float32 []; `channels` are those of the tensor it writes."""

    name: str
    inputs: tuple[str, ...]
    channels: int
    output: QuantParams


@dataclass(frozen=True, eq=False)
class Image(Node):
    """The input: uint8 pixels, RGB."""


@dataclass(frozen=True, eq=False)
class Conv(Node):
    """weight int8 [O, I / groups, kh, kw], weight_scale float32 [O], bias int32 [O].

    `padding` (top = bottom, left = right) holds the value zero; `bits` of the weights, stored in as many.
    A 1x1 depthwise one is a batch norm.
    """

    weight: NDArray[np.int8]
    weight_scale: NDArray[np.float32]
    bias: NDArray[np.int32]
    bits: int
    stride: int = 1
    padding: tuple[int, int] = (0, 0)
    groups: int = 1
    image_gain: ImageGain | None = None


@dataclass(frozen=True, eq=False)
class Add(Node):
    """The sum of two tensors of one shape."""


@dataclass(frozen=True, eq=False)
class Multiply(Node):
    """The product of two tensors of one shape, times a constant."""

    gain: np.float32 = ONE
    image_gain: ImageGain | None = None


@dataclass(frozen=True, eq=False)
class Table(Node):
    """`table` uint8 [256]: q of the input -> q of the output. `function` says what it holds:

    requantize: the input's value, on the output's grid; sigmoid: of the input's value; leaky_relu: the same,
    times `slope` below zero; levels: anything.
    """

    table: NDArray[np.uint8]
    function: Literal["requantize", "sigmoid", "leaky_relu", "levels"]
    slope: float = 1.0


@dataclass(frozen=True, eq=False)
class Concat(Node):
    """Inputs on the grid of the output; the same one may stand there several times."""


@dataclass(frozen=True, eq=False)
class DepthToSpace(Node):
    """[N, C f^2, H, W] -> [N, C, f H, f W], channel c f^2 + i f + j to pixel (i, j) of channel c."""

    factor: int


@dataclass(frozen=True, eq=False)
class MaxPool(Node):
    """No padding; rounds the size down."""

    kernel: tuple[int, int]
    stride: int


@dataclass(frozen=True, eq=False)
class Interpolate(Node):
    """Bilinear along `axis` (2 rows, 3 columns) of inputs[0] to the length of inputs[1].

    The weights are those of `qnas.integer.interpolation.steps`: 64ths that sum to 64.
    """

    axis: Literal[2, 3]


@dataclass(frozen=True, eq=False)
class Pad(Node):
    """`edge` rows and columns on each side that repeat the border, then zeros up to `channels`."""

    edge: int = 0


IntegerNode = Image | Conv | Add | Multiply | Table | Concat | DepthToSpace | MaxPool | Interpolate | Pad


@dataclass(frozen=True)
class IntegerNetwork:
    """Nodes in topological order, the first an Image, the last the upscaled pixels."""

    name: str
    scale: int
    nodes: tuple[IntegerNode, ...]

    def by_name(self) -> dict[str, IntegerNode]:
        """Name -> node."""
        return {node.name: node for node in self.nodes}

    def readers(self) -> dict[str, list[IntegerNode]]:
        """Name -> the nodes that read it, in order."""
        found: dict[str, list[IntegerNode]] = {node.name: [] for node in self.nodes}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                found[name].append(node)
        return found

    def convolutions(self) -> Iterator[tuple[Conv, IntegerNode]]:
        """(convolution, what it reads) pairs."""
        named = self.by_name()
        return ((node, named[node.inputs[0]]) for node in self.nodes if isinstance(node, Conv))


def operands(node: IntegerNode) -> tuple[str, ...]:
    """The inputs whose values `node` computes with, without the source of a gain."""
    return node.inputs[:-1] if image_gain(node) else node.inputs


def image_gain(node: IntegerNode) -> ImageGain | None:
    """What decides the gain of each image, where `node` has one."""
    return node.image_gain if isinstance(node, Conv | Multiply) else None


def refuse_image_gains(network: IntegerNetwork, reader: str) -> None:
    """Raises ModelError where `reader`, a target or a format, would meet a gain that each image decides."""
    if any(image_gain(node) for node in network.nodes):
        raise ModelError(
            f"--adq per-image needs --target onnxruntime: {reader} has constant scales alone, "
            "use --adq frozen there"
        )


def multiplier(
    input_scale: NDArray[np.float32], node: Conv, gain: NDArray[np.float32] | np.float32 = ONE
) -> NDArray[np.float32]:
    """float32 [O], or [N, O] for gains [N, 1]: from steps of the accumulator to steps of the output, in the
    runtimes' order."""
    scale = node.weight_scale * gain
    return (np.float32(input_scale) * scale / node.output.scale).astype(np.float32)


def accumulator_bounds(node: Conv, read: QuantParams) -> NDArray[np.int64]:
    """int64 [O]: the largest magnitude that a sum of `node` can have on any image, bias included."""
    w = node.weight.astype(np.int64).reshape(len(node.weight), -1)
    low, high = read.low - read.zero_point, read.high - read.zero_point
    # Padding holds 0, which lies between low and high or makes a smaller sum.
    most = np.maximum(w * low, w * high).clip(min=0).sum(axis=1) + node.bias
    least = np.minimum(w * low, w * high).clip(max=0).sum(axis=1) + node.bias
    bounds: NDArray[np.int64] = np.maximum(np.abs(most), np.abs(least))
    return bounds


def saturating_pairs(node: Conv, read: QuantParams) -> bool:
    """Whether two products of an output channel can sum beyond 16 bits.

    x86 machines without VNNI multiply with vpmaddubsw, which adds pairs of uint8 x int8 products in int16 and
    saturates. Which weights make a pair depends on the kernel, so any two of one output channel count.
    """
    w = np.sort(node.weight.astype(np.int64).reshape(len(node.weight), -1), axis=1)
    if w.shape[1] < 2:
        return False
    largest = np.maximum(w[:, -2:].clip(min=0).sum(axis=1), -(w[:, :2].clip(max=0).sum(axis=1)))
    return bool((largest * read.high > INT16_MAX).any())


def check_accumulators(network: IntegerNetwork) -> None:
    """Raises ModelError naming the convolution whose sums may leave 32 bits."""
    for node, read in network.convolutions():
        bounds = accumulator_bounds(node, read.output)
        if int(bounds.max(initial=0)) > INT32_MAX:
            raise ModelError(
                f"the sums of {node.name} may reach {int(bounds.max())}, beyond 32 bits: its bias or its "
                "weights are out of proportion, retrain it"
            )


def saturating_layers(network: IntegerNetwork) -> tuple[str, ...]:
    """The names of the convolutions that may saturate on machines without VNNI."""
    return tuple(node.name for node, read in network.convolutions() if saturating_pairs(node, read.output))


def rewritten(
    network: IntegerNetwork, edit: Callable[[IntegerNode], tuple[IntegerNode, ...]]
) -> IntegerNetwork:
    """The network with each node replaced by those that `edit` returns for it."""
    return replace(network, nodes=tuple(new for node in network.nodes for new in edit(node)))


def pruned(network: IntegerNetwork) -> IntegerNetwork:
    """The network without nodes that nothing reads; the image stays."""
    needed = {network.nodes[0].name, network.nodes[-1].name}
    for node in reversed(network.nodes):
        if node.name in needed:
            needed.update(node.inputs)
    return replace(network, nodes=tuple(node for node in network.nodes if node.name in needed))
