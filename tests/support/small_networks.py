"""Integer networks of a few nodes, by hand or at random."""

import numpy as np

from qnas.integer.convolution import Conv
from qnas.integer.network import IntegerNetwork
from qnas.integer.nodes import ImageInput, IntegerNode
from qnas.quantization.quantizers import QuantParams

PIXELS = QuantParams(np.asarray(2.0**-8, np.float32), 0, 0, 255)


def grid(scale: float, zero_point: int = 0, low: int = 0, high: int = 255) -> QuantParams:
    return QuantParams(np.asarray(scale, np.float32), zero_point, low, high)


def image(channels: int = 3) -> ImageInput:
    return ImageInput("image", (), channels, PIXELS)


def conv(
    name: str, read: str, weight: np.ndarray, output: QuantParams, *, scale: float = 1.0,
    bias: np.ndarray | None = None, bits: int = 8, stride: int = 1, groups: int = 1,
    padding: tuple[int, int] | None = None,
) -> Conv:  # fmt: skip
    """A convolution padded to keep the size unless told; `scale` of every channel."""
    out, _, kh, kw = weight.shape
    return Conv(
        name, (read,), out, output, weight.astype(np.int8), np.full(out, scale, np.float32),
        np.zeros(out, np.int32) if bias is None else bias.astype(np.int32), bits, (stride, stride),
        2 * ((kh // 2, kw // 2) if padding is None else padding), groups,
    )  # fmt: skip


def network(*nodes: IntegerNode, scale: int = 1) -> IntegerNetwork:
    return IntegerNetwork("small", scale, nodes)


def pixels(height: int, width: int, channels: int = 3, seed: int = 0, images: int = 1) -> np.ndarray:
    """uint8 [N, C, H, W], every value as likely."""
    return np.random.default_rng(seed).integers(0, 256, (images, channels, height, width)).astype(np.uint8)


def weights(rng: np.random.Generator, *shape: int, bits: int = 8) -> np.ndarray:
    """int8 weights of so many bits."""
    return rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), shape).astype(np.int8)
