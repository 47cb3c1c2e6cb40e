"""The definition of an integer network, in numpy: exact integer sums, float32 requantization.

Sums run through BLAS in the smallest float type that holds every partial sum exactly, so that they are the
sums of integers whatever their order.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from qnas.integer.interpolation import STEPS, interpolation_steps
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
    accumulator_bounds,
    image_gain,
    multiplier,
)
from qnas.quantization.image_gain import variance
from qnas.quantization.quantizers import QuantParams

Bytes = NDArray[np.uint8]
Steps = NDArray[Any]  # whole numbers, in integers or in floats that hold them exactly
EXACT_FLOAT32 = 2**24  # every integer up to here is a float32
TIE = 2.0**-20  # relative distance from a tie within which float32 may round to the other side


@dataclass
class NearTies:
    """Per node, how many values lie so close to a tie that another order of float32 operations may move them.

    Exact ties do not count: round half to even decides them, the same way in every runtime.
    """

    counts: dict[str, int]

    def add(self, node: IntegerNode, exact: NDArray[np.float64]) -> None:
        """Count those among `exact`, what `node` rounds."""
        from_tie = np.abs(exact - np.floor(exact) - 0.5)
        close = (from_tie <= TIE * np.abs(exact)) & (from_tie > 0)
        self.counts[node.name] = self.counts.get(node.name, 0) + int(close.sum())


def run(network: IntegerNetwork, images: Bytes, near_ties: NearTies | None = None) -> Bytes:
    """uint8 [N, 3, H, W] -> uint8 [N, 3, s H, s W]."""
    ((_, result),) = deque(trace(network, images, near_ties), maxlen=1)
    return result


def trace(
    network: IntegerNetwork, images: Bytes, near_ties: NearTies | None = None
) -> Iterator[tuple[IntegerNode, Bytes]]:
    """Every node with the uint8 tensor it writes, in order; tensors that nothing more reads are let go."""
    named = network.by_name()
    last_use = {source: node.name for node in network.nodes for source in node.inputs}
    values: dict[str, Bytes] = {}
    for node in network.nodes:
        reads = [(values[name], named[name].output) for name in node.inputs]
        values[node.name] = images if isinstance(node, Image) else _run(node, reads, near_ties)
        yield node, values[node.name]
        for name in node.inputs:
            if last_use[name] == node.name:
                values.pop(name, None)


def upscaler(network: IntegerNetwork) -> Callable[[Bytes], Bytes]:
    """`network` as a function of uint8 images [H, W, 3]."""

    def upscale(image: Bytes) -> Bytes:
        pixels: Bytes = run(network, image.transpose(2, 0, 1)[None])[0].transpose(1, 2, 0)
        return pixels

    return upscale


def _run(node: IntegerNode, reads: list[tuple[Bytes, QuantParams]], ties: NearTies | None) -> Bytes:
    """What `node` writes for `reads`, (tensor, grid) of each input."""
    match node:
        case Conv():
            x, grid = reads[0]
            factor = multiplier(grid.scale, node, image_gains(node, reads))[..., None, None]
            return requantized(convolution_sums(node, x, grid), factor, node, ties)
        case Add():
            return _added(node, reads, ties)
        case Multiply():
            (x, a), (y, b) = reads[:2]
            gain = node.gain * image_gains(node, reads)[..., None, None]
            factor = np.asarray(a.scale * (b.scale * gain) / node.output.scale, np.float32)
            return requantized(_steps(x, a) * _steps(y, b), factor, node, ties)
        case Table():
            return node.table[reads[0][0]]
        case Interpolate():
            return _interpolated(node, reads, ties)
        case Concat() | DepthToSpace() | MaxPool() | Pad():
            return _moved(node, reads)
        case Image():
            raise AssertionError("an image is not computed")
        case _:
            assert_never(node)


def image_gains(node: IntegerNode, reads: list[tuple[Bytes, QuantParams]]) -> NDArray[np.float32]:
    """The gains [N, 1] of the images that `node` reads, [1, 1] where all have 1."""
    gain = image_gain(node)
    if gain is None:
        return np.ones((1, 1), np.float32)
    steps, scale = _steps(*reads[-1]), float(reads[-1][1].scale)
    total, squares = (np.asarray(part.sum(axis=(1, 2, 3)), np.float64) for part in (steps, steps**2))
    return gain.of(variance(total, squares, gain.channels * steps[0, 0].size), scale)[:, None]


def _moved(node: Concat | DepthToSpace | MaxPool | Pad, reads: list[tuple[Bytes, QuantParams]]) -> Bytes:
    """Operations that move bytes."""
    match node:
        case Concat():
            return np.concatenate([x for x, _ in reads], axis=1)
        case DepthToSpace():
            return _depth_to_space(reads[0][0], node.factor)
        case MaxPool():
            return _max_pool(reads[0][0], node)
        case Pad():
            return _padded(node, *reads[0])


def requantized(
    sums: Steps, factor: NDArray[np.float32] | np.float32, node: IntegerNode, ties: NearTies | None = None
) -> Bytes:
    """`clamp(round_half_even(float32(sums) * factor) + zero_point, low, high)`. [N, C, H, W] both ways."""
    product = sums.astype(np.float32, copy=False) * factor
    if ties is not None:
        ties.add(node, sums * np.asarray(factor, np.float64))
    return _quantized(product, node.output)


def _quantized(steps: NDArray[np.float32], grid: QuantParams) -> Bytes:
    whole = np.rint(steps, out=steps)
    whole += grid.zero_point
    return np.clip(whole, grid.low, grid.high, out=whole).astype(np.uint8)


def _steps(x: Bytes, grid: QuantParams) -> Steps:
    """`x - zero_point`; products of two, and sums of 64ths, stay far below 2^31."""
    return x.astype(np.int32) - grid.zero_point


def convolution_sums(node: Conv, x: Bytes, grid: QuantParams) -> Steps:
    """`sum(weight * (x - zero_point)) + bias`, exactly. uint8 [N, C, H, W] -> whole [N, O, H', W']."""
    kind = _exact_type(node, grid)
    (ph, pw), (out, part, kh, kw) = node.padding, node.weight.shape
    centred: NDArray[Any] = x.astype(kind) - grid.zero_point
    centred = np.pad(centred, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    n, channels, height, width = centred.shape
    rows, columns = (height - kh) // node.stride + 1, (width - kw) // node.stride + 1
    grouped = centred.reshape(n, node.groups, channels // node.groups, height, width)
    weight = node.weight.astype(kind).reshape(node.groups, out // node.groups, part, kh, kw)
    sums = np.zeros((n, node.groups, out // node.groups, rows * columns), kind)
    for dy in range(kh):
        for dx in range(kw):
            window = grouped[
                ..., dy : dy + (rows - 1) * node.stride + 1 : node.stride,
                dx : dx + (columns - 1) * node.stride + 1 : node.stride,
            ]  # fmt: skip
            taps = window.reshape(n, node.groups, part, rows * columns)
            sums += (
                weight[..., dy, dx] * taps if part == out // node.groups == 1 else weight[..., dy, dx] @ taps
            )
    sums = sums.reshape(n, out, rows, columns)
    sums += node.bias.astype(kind).reshape(-1, 1, 1)
    return sums


def _exact_type(node: Conv, grid: QuantParams) -> type[np.floating[Any]]:
    """The smaller float that holds every partial sum of the convolution, with and without its bias."""
    bare = replace(node, bias=np.zeros_like(node.bias))
    largest = max(int(accumulator_bounds(each, grid).max(initial=0)) for each in (bare, node))
    return np.float32 if largest < EXACT_FLOAT32 else np.float64


def _depth_to_space(x: Bytes, f: int) -> Bytes:
    n, c, h, w = x.shape
    phases = x.reshape(n, c // f**2, f, f, h, w).transpose(0, 1, 4, 2, 5, 3)
    return phases.reshape(n, c // f**2, h * f, w * f)


def _max_pool(x: Bytes, node: MaxPool) -> Bytes:
    windows = np.lib.stride_tricks.sliding_window_view(x, node.kernel, axis=(2, 3))
    pooled: Bytes = windows[:, :, :: node.stride, :: node.stride].max(axis=(4, 5))
    return pooled


def _added(node: Add, reads: list[tuple[Bytes, QuantParams]], ties: NearTies | None) -> Bytes:
    if ties is not None:
        exact = sum(np.float64(grid.scale) * _steps(x, grid) for x, grid in reads)
        ties.add(node, np.asarray(exact / np.float64(node.output.scale)))
    a, b = (grid.scale * _steps(x, grid).astype(np.float32) for x, grid in reads)
    return _quantized((a + b) / node.output.scale, node.output)


def _interpolated(node: Interpolate, reads: list[tuple[Bytes, QuantParams]], ties: NearTies | None) -> Bytes:
    (x, grid), (like, _) = reads
    weights = interpolation_steps(x.shape[node.axis], like.shape[node.axis])
    steps = _steps(x, grid)
    sums = weights @ steps if node.axis == 2 else steps @ weights.T
    factor = np.float32(np.float32(grid.scale / STEPS) / node.output.scale)
    return requantized(sums, factor, node, ties)


def _padded(node: Pad, x: Bytes, grid: QuantParams) -> Bytes:
    e = node.edge
    wide = np.pad(x, ((0, 0), (0, 0), (e, e), (e, e)), mode="edge")
    more = node.channels - x.shape[1]
    return np.pad(wide, ((0, 0), (0, more), (0, 0), (0, 0)), constant_values=grid.zero_point)


def sizes(network: IntegerNetwork, height: int, width: int) -> Mapping[str, tuple[int, int]]:
    """(height, width) of every node's tensor for an image of that size."""
    found: dict[str, tuple[int, int]] = {}
    for node in network.nodes:
        h, w = found[node.inputs[0]] if node.inputs else (height, width)
        match node:
            case Conv():
                (kh, kw), (ph, pw) = node.weight.shape[2:], node.padding
                h, w = (h + 2 * ph - kh) // node.stride + 1, (w + 2 * pw - kw) // node.stride + 1
            case MaxPool():
                h, w = (h - node.kernel[0]) // node.stride + 1, (w - node.kernel[1]) // node.stride + 1
            case DepthToSpace():
                h, w = h * node.factor, w * node.factor
            case Pad():
                h, w = h + 2 * node.edge, w + 2 * node.edge
            case Interpolate():
                like = found[node.inputs[1]]
                h, w = (like[0], w) if node.axis == 2 else (h, like[1])
        found[node.name] = (h, w)
    return found
