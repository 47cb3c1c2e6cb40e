"""Integer networks of a few nodes, by hand or at random."""

import numpy as np

from qnas.integer.convolution import Conv
from qnas.integer.network import IntegerNetwork
from qnas.integer.nodes import Add, DepthToSpace, ImageInput, IntegerNode, Multiply, Table
from qnas.integer.tables import uint8_table
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


def tied_network(seed: int = 0) -> IntegerNetwork:
    """What processors round in different ways: requantization, a product and sums that are ties, weights of
    -127. RGB, twice as large."""
    rng = np.random.default_rng(seed)
    fine, coarse = grid(2.0**-4, 128), grid(2.0**-3, 128)
    kernels = [np.maximum(weights(rng, 12, *shape), -127) for shape in ((3, 3, 3), (12, 1, 1))]
    for kernel in kernels:
        kernel[:, :2] = -127
    return network(
        image(),
        conv("features", "image", kernels[0], fine, scale=2.0**-6),
        Table("coarse", ("features",), 12, coarse, uint8_table(lambda x: x, fine, coarse), "requantize"),
        conv("more", "coarse", kernels[1], fine, scale=2.0**-8),
        Add("on_one_grid", ("features", "more"), 12, fine),
        Add("halves", ("on_one_grid", "more"), 12, coarse),
        Multiply("product", ("halves", "more"), 12, coarse),
        Add("sum", ("product", "coarse"), 12, coarse),
        DepthToSpace("upscaled", ("sum",), 3, coarse, 2),
        scale=2,
    )
