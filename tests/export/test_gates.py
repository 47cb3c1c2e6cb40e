"""Means over the image, products per channel and products of far scales: every runtime rounds them alike."""

import numpy as np
import pytest
from numpy.typing import NDArray

from qnas.export.targets import TARGETS
from qnas.export.to_onnx.writer import write_onnx
from qnas.export.to_tflite.writer import write_tflite
from qnas.integer.convolution import Conv
from qnas.integer.interpreter import run
from qnas.integer.network import IntegerNetwork
from qnas.integer.nodes import ChannelGate, ImageInput, IntegerNode, Mean, Multiply, Table
from qnas.integer.requantization import products_agree
from qnas.onnx.session import open_session
from qnas.quantization.quantizers import QuantParams
from qnas.tflite.session import LiteRtSession

PAIRS = np.stack(np.meshgrid(np.arange(256), np.arange(256)))[None].astype(np.uint8)  # [1, 2, 256, 256]


def grid(scale: float, zero_point: int) -> QuantParams:
    return QuantParams(np.asarray(scale, np.float32), zero_point, 0, 255)


def by_onnxruntime(network: IntegerNetwork, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    model = write_onnx(network, TARGETS["onnxruntime"])
    result: NDArray[np.uint8] = open_session(model.SerializeToString(), 1).run(None, {"image": image})[0]
    return result


def check(image: NDArray[np.uint8], *nodes: IntegerNode) -> None:
    """Every byte is that of the interpreter, in files of one size and of every size, wholly in XNNPACK."""
    network = IntegerNetwork("test", 1, nodes)
    wanted = run(network, image)
    np.testing.assert_array_equal(by_onnxruntime(network, image), wanted)
    for written in (write_tflite(network, *image.shape[2:]), write_tflite(network, 16, 16, resizable=True)):
        session = LiteRtSession(written.data)
        np.testing.assert_array_equal(session.run(image), wanted)
        assert session.left_out == ()


def next_to_ties(height: int, width: int, channels: int = 64) -> NDArray[np.uint8]:
    """uint8 [1, C, H, W] whose means are halves, or one step of the sum away from them."""
    rng = np.random.default_rng(height)
    pixels = height * width
    sums = np.rint((rng.integers(0, 255, channels) + 0.5) * pixels).astype(int) + rng.integers(
        -1, 2, channels
    )
    least, rest = np.divmod(sums.clip(0, 255 * pixels), pixels)
    return (
        (least[:, None] + (np.arange(pixels) < rest[:, None]))
        .reshape(1, channels, height, width)
        .astype("u1")
    )


@pytest.mark.parametrize("zero_point", [0, 37, 128])
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (49, 20), (72, 88), (255, 257)])  # the last: 24 bits
def test_a_mean_is_exact_next_to_ties_and_beyond_24_bits(size: tuple[int, int], zero_point: int) -> None:
    image = next_to_ties(*size)
    x = ImageInput("image", (), 64, grid(0.0371, zero_point))
    check(image, x, Mean("mean", ("image",), 64, x.output))


def test_a_mean_of_a_large_image_is_that_of_the_definition() -> None:
    image = np.full((1, 3, 70, 90), 200, np.uint8)
    image[0, 1, :35] = 3  # half of it: (200 + 3) / 2 is 101.5, a tie that goes to the even distance from 128
    x = ImageInput("image", (), 3, grid(1, 0))
    network = IntegerNetwork("mean", 1, (x, Mean("mean", ("image",), 3, x.output)))
    assert run(network, image).reshape(-1).tolist() == [200, 102, 200]


@pytest.mark.parametrize("gain", [1.0, 1.7])
@pytest.mark.parametrize("channels", [3, 16])
def test_a_product_per_channel_is_exact(channels: int, gain: float) -> None:
    image = np.random.default_rng(channels).integers(0, 256, (1, channels, 19, 31)).astype(np.uint8)
    x, y = ImageInput("image", (), channels, grid(0.05, 130)), grid(0.11, 100)
    mean = Mean("mean", ("image",), channels, x.output)
    half = np.arange(128).repeat(2).astype(np.uint8)
    gate = Table("gate", ("mean",), channels, grid(2.0**-8, 0), half, "levels")
    product = ChannelGate("product", ("image", "gate"), channels, y, gain=np.float32(gain))
    network = IntegerNetwork("test", 1, (x, mean, gate, product))
    wanted = run(network, image)
    assert len(np.unique(wanted)) > 20
    np.testing.assert_array_equal(by_onnxruntime(network, image), wanted)
    np.testing.assert_array_equal(LiteRtSession(write_tflite(network, 19, 31).data).run(image), wanted)


def product(a: QuantParams, b: QuantParams, y: QuantParams) -> IntegerNetwork:
    """Of two channels of the image, each with its grid: tables of the same bytes."""
    image = ImageInput("image", (), 2, grid(1, 0))
    zero, same = np.zeros(1, np.int32), np.arange(256, dtype=np.uint8)
    nodes: list[IntegerNode] = [image]
    for i, (name, each) in enumerate((("a", a), ("b", b))):
        weight = np.eye(2, dtype=np.int8)[i].reshape(1, 2, 1, 1)
        nodes.append(Conv(f"{name}.byte", ("image",), 1, grid(1, 0), weight, np.ones(1, np.float32), zero, 8))
        nodes.append(Table(name, (f"{name}.byte",), 1, each, same, "levels"))
    return IntegerNetwork("product", 1, (*nodes, Multiply("product", ("a", "b"), 1, y)))


@pytest.mark.parametrize(
    ("scales", "zero_points"),
    [
        ((0.049063314, 2.0**-8, 0.024421154), (241, 175)),  # found: 8 of 65,536 pairs differ
        ((0.08080372, 2.0**-8, 0.05170778), (49, 99)),  # 2 pairs
        ((0.375, 2.0**-8, 0.125), (130, 40)),
        ((0.375, 2.0**-8, 0.125), (130, 41)),  # ties behind an odd zero point
    ],
)
def test_it_is_known_which_products_onnxruntime_rounds_otherwise(
    scales: tuple[float, float, float], zero_points: tuple[int, int]
) -> None:
    a, b, y = grid(scales[0], zero_points[0]), grid(scales[1], 0), grid(scales[2], zero_points[1])
    network = product(a, b, y)
    wanted = run(network, PAIRS)
    assert np.array_equal(by_onnxruntime(network, PAIRS), wanted) == products_agree(a, b, y)
    np.testing.assert_array_equal(LiteRtSession(write_tflite(network, 256, 256).data).run(PAIRS), wanted)
