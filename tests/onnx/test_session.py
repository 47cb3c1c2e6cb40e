"""Sums of integer convolutions are exact in the sessions that qnas opens, on every processor."""

import numpy as np
from onnx import TensorProto, numpy_helper

from qnas.onnx.session import open_session
from qnas.testing.text_models import text_model

# Two products of 255 and 127 need 17 bits: 16 channels of them sum to 518 160, which is 255 steps of 2032.
LARGEST = """
largest (uint8[1, 16, 8, 8] x) => (uint8[1, 16, 8, 8] y)
<float one = {1}, uint8 zero = {0}, float step = {2032}>
{
    real = DequantizeLinear(x, one, zero)
    weights = DequantizeLinear<axis = 0>(weight, scale, none)
    sums = Conv(real, weights)
    y = QuantizeLinear(sums, step, zero)
}
"""


def model(convolutions: int = 1) -> bytes:
    """One or two convolutions of weights 127, the second behind the first; they share their constants."""
    text = LARGEST
    if convolutions == 2:
        text = text.replace(
            "y = QuantizeLinear(sums",
            "bytes = QuantizeLinear(sums, step, zero) again = DequantizeLinear(bytes, one, zero)"
            " more = Conv(again, weights) y = QuantizeLinear(more",
        )
    proto = text_model(text)
    for name, array in (
        ("weight", np.full((16, 16, 1, 1), 127, np.int8)),
        ("scale", np.ones(16, np.float32)),
        ("none", np.zeros(16, np.int8)),
    ):
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    assert proto.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    data: bytes = proto.SerializeToString()
    return data


def test_pairs_of_the_largest_products_are_summed_exactly() -> None:
    image = np.full((1, 16, 8, 8), 255, np.uint8)
    (got,) = open_session(model(), threads=1).run(None, {"x": image})
    np.testing.assert_array_equal(got, 255)


def test_convolutions_that_share_constants_are_exact_too() -> None:
    image = np.full((1, 16, 8, 8), 255, np.uint8)
    (got,) = open_session(model(2), threads=1).run(None, {"x": image})
    np.testing.assert_array_equal(got, 255)  # of 255 again
