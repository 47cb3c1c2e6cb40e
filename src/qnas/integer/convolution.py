"""Convolution of an integer network: its definition, and the bounds of its sums.

Sums run through BLAS in the smallest float type that holds every partial sum exactly, so that they are the
sums of integers whatever their order.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qnas.integer.interpolation import bilinear_weights
from qnas.integer.nodes import GainedNode, IntegerNode
from qnas.integer.requantization import Bytes, Read, Steps, Watch, requantized
from qnas.integer.windows import NO_SIDES, Sides, Size, padded, span, window_words, windows_along
from qnas.quantization.quantizers import QuantParams

INT16_MAX = 2**15 - 1
UNIT = 64  # the weight of a slope: scales stay short (decision 0003), offsets are whole 64ths of a step
LARGEST_MULTIPLIER = 1e27  # times an int32 it is still a float32
EXACT_FLOAT32 = 2**24  # every integer up to here is a float32
ONE = np.float32(1)


@dataclass(frozen=True, eq=False)
class Conv(GainedNode, scope="tensor"):
    """weight int8 [O, I / groups, kh, kw], weight_scale float32 [O], bias int32 [O].

    `padding` holds the value zero; the taps of the kernel lie `dilation` pixels apart. `bits` of the weights,
    stored in as many. A 1x1 depthwise one is a batch norm.
    """

    weight: NDArray[np.int8]
    weight_scale: NDArray[np.float32]
    bias: NDArray[np.int32]
    bits: int
    stride: Size = (1, 1)
    padding: Sides = NO_SIDES
    groups: int = 1
    dilation: Size = (1, 1)

    @property
    def depthwise(self) -> bool:
        """Whether every channel is a group."""
        return self.groups > 1 and self.weight.shape[:2] == (self.groups, 1)

    @property
    def words(self) -> str:
        words = convolution_words(self.weight.shape, self.groups, self.stride, self.dilation)
        return "batch norm" if words == "depthwise 1x1" else words

    def computed(self, reads: Sequence[Read], watch: Watch | None = None) -> Bytes:
        x, grid = reads[0]
        factor = multiplier(grid.scale, self, self.gains(reads))[..., None, None]
        return requantized(convolution_sums(self, x, grid), factor, self.output, watch)

    def size(self, reads: Sequence[Size]) -> Size:
        return windows_along(padded(reads[0], self.padding), self.reach, self.stride)

    @property
    def reach(self) -> Size:
        """The rows and columns that a sum reaches over."""
        return span(self.weight.shape[2:], self.dilation)

    @property
    def keeps_size(self) -> bool:
        """Whether each pixel is a sum of those around it, as many before as behind."""
        (top, left, *behind), (height, width) = self.padding, self.reach
        return (
            self.stride == (1, 1) and (height, width) == (2 * top + 1, 2 * left + 1) and behind == [top, left]
        )


def convolution_words(weight: Sequence[int], groups: int, stride: Size, dilation: Size = (1, 1)) -> str:
    """`words` of a convolution with weights of shape [O, I / groups, kh, kw]: "conv 3x3 /3 groups"."""
    channels, part, kh, kw = weight
    depthwise = groups == channels and part == 1 and groups > 1
    grouped = f" /{groups} groups" if groups > 1 and not depthwise else ""
    return f"{'depthwise' if depthwise else 'conv'} {window_words(kh, kw, stride, dilation)}{grouped}"


def picked(name: str, source: IntegerNode, rows: NDArray[np.signedinteger[Any]]) -> Conv:
    """The 1x1 convolution whose channel o is channel rows[o] of `source`: it changes no value."""
    weight = np.eye(source.channels, dtype=np.int8)[rows].reshape(len(rows), source.channels, 1, 1)
    one, zero = np.ones(len(rows), np.float32), np.zeros(len(rows), np.int32)
    return Conv(name, (source.name,), len(rows), source.output, weight, one, zero, bits=8)


def unshuffled(name: str, source: IntegerNode, factor: int) -> Conv:
    """The pixels of blocks of `factor` f squared as channels: c f^2 + i f + j from pixel (i, j) of channel c.
    A convolution whose sums are one value each; what is no whole block is left out."""
    width = source.channels * factor**2
    weight = np.eye(width, dtype=np.int8).reshape(width, source.channels, factor, factor)
    one, zero = np.ones(width, np.float32), np.zeros(width, np.int32)
    stride = (factor, factor)
    return Conv(name, (source.name,), width, source.output, weight, one, zero, bits=8, stride=stride)


def scaled(
    name: str, source: str, slope: NDArray[np.float32], bias: NDArray[np.int32], grid: QuantParams
) -> Conv:
    """`slope[c] x` of the tensor `source`, and a bias in UNIT-ths of what a step of x becomes: depthwise."""
    c, size = len(slope), np.where(slope == 0, 1, np.abs(slope))
    weight, scale = (
        (UNIT * np.sign(slope)).astype(np.int8).reshape(c, 1, 1, 1),
        (size / UNIT).astype(np.float32),
    )
    return Conv(name, (source,), c, grid, weight, scale, bias, bits=8, groups=c)


def bilinear_convolution(name: str, edged: str, channels: int, factor: int, grid: QuantParams) -> Conv:
    """The phases [C f^2] of bilinear upscaling by `factor` f, of `edged`: a tensor with repeated edges."""
    weight, width = bilinear_weights(factor, channels), channels * factor**2
    scale, zero = np.full(width, 1 / (2 * factor) ** 2, np.float32), np.zeros(width, np.int32)
    return Conv(name, (edged,), width, grid, weight, scale, zero, bits=8)


def multiplier(
    input_scale: NDArray[np.float32], node: Conv, gain: NDArray[np.float32] | np.float32 = ONE
) -> NDArray[np.float32]:
    """float32 [O], or [N, O] for gains [N, 1]: from steps of the accumulator to steps of the output, in the
    runtimes' order."""
    scale = node.weight_scale * gain
    return (np.float32(input_scale) * scale / node.output.scale).astype(np.float32)


def convolution_sums(node: Conv, x: Bytes, grid: QuantParams) -> Steps:
    """`sum(weight * (x - zero_point)) + bias`, exactly. [N, C, H, W] -> whole [N, O, H', W']."""
    kind = _exact_type(node, grid)
    (top, left, bottom, right), (out, part, kh, kw) = node.padding, node.weight.shape
    centred: NDArray[Any] = x.astype(kind) - grid.zero_point
    centred = np.pad(centred, ((0, 0), (0, 0), (top, bottom), (left, right)))
    n, channels, height, width = centred.shape
    (rows, columns), (sh, sw) = windows_along((height, width), node.reach, node.stride), node.stride
    grouped = centred.reshape(n, node.groups, channels // node.groups, height, width)
    weight = node.weight.astype(kind).reshape(node.groups, out // node.groups, part, kh, kw)
    sums = np.zeros((n, node.groups, out // node.groups, rows * columns), kind)
    for dy, dx in np.ndindex(kh, kw):
        top, left = dy * node.dilation[0], dx * node.dilation[1]
        window = grouped[..., top : top + (rows - 1) * sh + 1 : sh, left : left + (columns - 1) * sw + 1 : sw]
        taps = window.reshape(n, node.groups, part, rows * columns)
        tap = weight[..., dy, dx]
        sums += tap * taps if part == out // node.groups == 1 else tap @ taps
    sums = sums.reshape(n, out, rows, columns)
    sums += node.bias.astype(kind).reshape(-1, 1, 1)
    return sums


def _exact_type(node: Conv, grid: QuantParams) -> type[np.floating[Any]]:
    """The smaller float that holds every partial sum of the convolution, with and without its bias."""
    bare = replace(node, bias=np.zeros_like(node.bias))
    largest = max(int(accumulator_bounds(each, grid).max(initial=0)) for each in (bare, node))
    return np.float32 if largest < EXACT_FLOAT32 else np.float64


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
    saturates. Which weights make a pair depends on the kernel, so any two of one output channel count. What
    reads or writes 16 bits has no such kernel.
    """
    if read.is_wide or node.output.is_wide:
        return False
    w = np.sort(node.weight.astype(np.int64).reshape(len(node.weight), -1), axis=1)
    if w.shape[1] < 2:
        return False
    largest = np.maximum(w[:, -2:].clip(min=0).sum(axis=1), -(w[:, :2].clip(max=0).sum(axis=1)))
    return bool((largest * read.high > INT16_MAX).any())
