"""What a network costs, from its layer list alone.

One MAC is one multiply-add, one "FLOP" in this field's super-resolution tables. `BitOps = MACs * b_w * b_a`.
Bias, activation, quantization and resizing are not counted. A batch norm, and a tensor times ADQ's factor, is
one MAC per value: the integer network runs it as a depthwise 1x1 convolution. In the paper's arithmetic it
counts none, as in its tables.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from qnas.network.layers import Layer, by_name, grid_of
from qnas.quantization.quantizers import AFFINE_BITS, FLOAT_BITS

DECIMAL_G = 10**9
PAPER_G = 2**30  # QuantNAS, table 1: ESPCN at 8 bits on 32x32 is 37 945 344 * 64 = "2.3 G" of these
CONVENTIONS = {"decimal": (DECIMAL_G, "10^9"), "paper": (PAPER_G, "2^30")}  # (G, how it is written)


@dataclass(frozen=True)
class LayerCost:
    """Cost of one layer for one image; `weight_bytes` as stored, four bits in half a byte."""

    name: str
    macs: int
    weight_bits: int
    activation_bits: int
    parameters: int
    weight_bytes: int

    @property
    def bitops(self) -> int:
        """MACs * b_w * b_a."""
        return self.macs * self.weight_bits * self.activation_bits


@dataclass(frozen=True)
class NetworkCost:
    """Sums over the layers that multiply."""

    layers: tuple[LayerCost, ...]

    @property
    def macs(self) -> int:
        """Multiply-adds."""
        return sum(layer.macs for layer in self.layers)

    @property
    def bitops(self) -> int:
        """Bit operations."""
        return sum(layer.bitops for layer in self.layers)

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights, biases (32 bit) not included."""
        return sum(layer.weight_bytes for layer in self.layers)


def layer_sizes(layers: Sequence[Layer], height: int, width: int) -> dict[str, tuple[int, int]]:
    """Height and width of every layer's output for an image of `height` x `width`."""
    sizes: dict[str, tuple[int, int]] = {}
    for layer in layers:
        if layer.op == "image":
            sizes[layer.name] = (height, width)
            continue
        h, w = sizes[layer.inputs[0]]
        match layer.op:
            case "conv" | "max_pool":
                (kh, kw), (ph, pw), s = layer.kernel, layer.padding, layer.stride
                h, w = (h + 2 * ph - kh) // s + 1, (w + 2 * pw - kw) // s + 1
            case "pixel_shuffle" | "upscale":
                h, w = h * layer.factor, w * layer.factor
            case "resize_rows":
                h = sizes[layer.inputs[1]][0]
            case "resize_columns":
                w = sizes[layer.inputs[1]][1]
            case "resize_like":
                h, w = sizes[layer.inputs[1]]
            case "deviation":
                h, w = 1, 1
        sizes[layer.name] = (h, w)
    return sizes


def network_cost(layers: Sequence[Layer], height: int, width: int) -> NetworkCost:
    """Cost of the network for one image of `height` x `width` input pixels."""
    named, sizes = by_name(layers), layer_sizes(layers, height, width)
    rows = []
    for layer in layers:
        if layer.op not in ("conv", "affine", "scale"):
            continue
        h, w = sizes[layer.name]
        paper = layer.arithmetic == "paper"
        grid = grid_of(named, layer.inputs[0])
        activation_bits = grid.quant.bits if grid and grid.quant else FLOAT_BITS
        if layer.op == "conv":
            kh, kw = layer.kernel
            weights = layer.channels * kh * kw * named[layer.inputs[0]].channels // layer.groups
            bits = layer.bits
        else:
            weights, bits = layer.channels, AFFINE_BITS + 1 if grid else FLOAT_BITS
        rows.append(
            LayerCost(
                name=layer.name,
                macs=0 if paper and layer.op != "conv" else weights * h * w,
                weight_bits=bits,
                activation_bits=activation_bits,
                parameters=weights if paper and layer.op == "conv" else weights + layer.channels,
                weight_bytes=stored_bytes(weights, bits),
            )
        )
    return NetworkCost(tuple(rows))


def stored_bytes(weights: int, bits: int) -> int:
    """Bytes of so many weights: float32, int8, or two 4-bit ones to a byte."""
    container = FLOAT_BITS if bits == FLOAT_BITS else 4 if bits <= 4 else 8
    return -(-weights * container // 8)
