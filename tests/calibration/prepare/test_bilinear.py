"""A bilinear Resize to the size of another tensor is two products with weights of 64ths."""

import numpy as np
import pytest
from onnx import TensorProto

from qnas.calibration.prepare.bilinear import bilinear_as_products
from qnas.calibration.prepare.float_model import FloatModel, Runner
from qnas.onnx.builder import GraphNodes
from qnas.onnx.interpolation import interpolation_nodes
from qnas.onnx.names import Names
from qnas.testing.small_ptq import patches, text_network

ATTENTION = """
net (float[n, 3, h, w] image) => (float[n, 3, h, w] upscaled)
<int64[1] zero = {0}, int64[1] two = {2}, int64[1] four = {4}>
{
    small = MaxPool <kernel_shape = [3, 3], strides = [3, 3]> (image)
    all = Shape (small)
    first = Slice (all, zero, two)
    asked = Shape (OTHER)
    last = Slice (asked, two, four)
    sizes = Concat <axis = 0> (first, last)
    mask = Resize <mode = "linear"ATTRIBUTES> (small, , , sizes)
    upscaled = Mul (mask, image)
}"""
IMAGE = patches(count=1, side=32)


def network(attributes: str = "", other: str = "image") -> FloatModel:
    return text_network(ATTENTION.replace("ATTRIBUTES", attributes).replace("OTHER", other))


def kinds(found: FloatModel) -> list[str]:
    return [node.op_type for node in found.model.graph.node]


@pytest.mark.parametrize("sides", [(32, 32), (31, 20), (9, 32)])
def test_the_products_are_the_resize_to_two_64ths(sides: tuple[int, int]) -> None:
    original = network(', coordinate_transformation_mode = "half_pixel"')
    found = bilinear_as_products(original)
    assert "Resize" not in kinds(found)
    assert kinds(found).count("MatMul") == 2
    image = IMAGE[:, : sides[0], : sides[1]]
    (wanted,), (got,) = (list(Runner(each, ["mask"]).tensors(image).values()) for each in (original, found))
    assert got.shape == wanted.shape
    assert np.abs(got - wanted).max() <= 2 / 64 * np.ptp(wanted)


@pytest.mark.parametrize(
    "attributes",
    [
        ', coordinate_transformation_mode = "align_corners"',
        ', coordinate_transformation_mode = "asymmetric"',
        ", antialias = 1",
    ],
)
def test_other_interpolations_stay(attributes: str) -> None:
    original = network(attributes)
    assert bilinear_as_products(original) is original or "Resize" in kinds(bilinear_as_products(original))


def test_a_size_that_no_tensor_before_has_stays() -> None:
    body = ATTENTION.replace("upscaled = Mul (mask, image)", "upscaled = Relu (mask)")
    twice = body.replace(
        "last = Slice (asked, two, four)", "once = Slice (asked, two, four)\n last = Mul (once, two)"
    )
    found = bilinear_as_products(text_network(twice.replace("ATTRIBUTES", "").replace("OTHER", "image")))
    assert "Resize" in kinds(found)


HALVES = """
    up = MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (image)
    down = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (image)
    small ="""


def test_a_half_that_is_rounded_up_is_no_half_that_is_rounded_down() -> None:
    halved = ATTENTION.replace("small =", HALVES, 1).replace("Mul (mask, image)", "Relu (mask)")
    body = halved.replace(
        "last = Slice (asked, two, four)", "whole = Slice (asked, two, four)\n last = Div (whole, two)"
    )
    original = text_network(body.replace("ATTRIBUTES", "").replace("OTHER", "image"))
    found = bilinear_as_products(original)
    assert kinds(found).count("MatMul") == 2
    odd = IMAGE[:, :31, :21]
    (wanted,), (got,) = (list(Runner(each, ["mask"]).tensors(odd).values()) for each in (original, found))
    assert got.shape == wanted.shape == (1, 3, 15, 10)


def test_old_opsets_stay() -> None:
    old = text_network(ATTENTION.replace("ATTRIBUTES", "").replace("OTHER", "image"), opset=14)
    assert bilinear_as_products(old) is old


OURS = """
net (float[n, 3, h, w] image) => (float[n, 3, h, w] upscaled)
{
    small = MaxPool <kernel_shape = [3, 3], strides = [3, 3]> (image)
    upscaled = Mul (mask, image)
}"""


def with_products(steps: float) -> FloatModel:
    """OURS with a `mask` of products of `small`, whose weights are floats: whole numbers over `steps`."""
    plain = text_network(OURS)
    made = GraphNodes(Names.of(plain.model.graph), nodes=[plain.model.graph.node[0]])
    divisor, weights = made.constant("steps", np.float32(steps)), []
    for axis, read in ((2, "small"), (3, "tall")):
        whole = interpolation_nodes(made, f"axis{axis}", read, "image", axis)
        floats = made.node("Cast", [whole], f"axis{axis}.float", to=TensorProto.FLOAT)
        weights.append(made.node("Div", [floats, divisor], f"axis{axis}.weights"))
        if axis == 2:
            made.put("MatMul", [weights[0], "small"], "tall")
    turned = made.node("Transpose", [weights[1]], "turned", perm=[1, 0])
    made.put("MatMul", ["tall", turned], "mask")
    made.nodes.append(plain.model.graph.node[1])
    made.rewrite(plain.model.graph)
    return plain


def test_products_with_float_weights_of_64ths_are_products_with_bytes() -> None:
    original = with_products(64)
    found = bilinear_as_products(original)
    producers = {node.output[0]: node for node in found.model.graph.node}
    products = [node for node in found.model.graph.node if node.op_type == "MatMul"]
    weights = [producers[products[0].input[0]], producers[products[1].input[1]]]
    assert [node.op_type for node in weights] == ["DequantizeLinear"] * 2
    (wanted,), (got,) = (list(Runner(each, ["mask"]).tensors(IMAGE).values()) for each in (original, found))
    np.testing.assert_array_equal(got, wanted)


def test_products_with_other_weights_stay() -> None:
    original = with_products(63)
    nodes = [list(each.model.graph.node) for each in (original, bilinear_as_products(original))]
    assert nodes[0] == nodes[1]
