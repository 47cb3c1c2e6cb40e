"""Analytic cost of ONNX graphs against counts by hand."""

import re
from math import prod
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, StringStringEntryProto

from qnas.cost.file_cost import FileCost, NodeCost
from qnas.errors import ModelError, UsageError
from qnas.onnx.activations import Life, peak_bytes
from qnas.onnx.cost import model_cost
from qnas.testing.text_models import FLOAT_CONV, INTEGER_CONV, text_model

ESPCN = """
espcn (float[n, 3, h, w] image) => (float[n, 3, y, x] upscaled)
<float[64, 3, 5, 5] k0, float[64] b0, float[32, 64, 3, 3] k1, float[32] b1,
 float[48, 32, 3, 3] k2, float[48] b2>
{
    c0 = Conv <pads = [2, 2, 2, 2]> (image, k0, b0)
    r0 = Relu (c0)
    c1 = Conv <pads = [1, 1, 1, 1]> (r0, k1, b1)
    r1 = Relu (c1)
    c2 = Conv <pads = [1, 1, 1, 1]> (r1, k2, b2)
    upscaled = DepthToSpace <blocksize = 4, mode = "CRD"> (c2)
}"""
# A 3x3 convolution of 8 channels to 8 whose activations and weights are made by the nodes put in.
QUANTIZED = """
net (uint8[1, 8, 4, 4] image) => (float[1, 8, 4, 4] result)
<float one = {0.5}, float other = {0.25}, uint8 zero = {0}, uint8 fifteen = {15},
 int8[8] zeros, float[8] scales, int8[8, 8, 3, 3] k8, int4[8, 8, 3, 3] k4, float[8, 8, 3, 3] k32>
{
    ACTIVATION
    WEIGHT
    result = Conv <pads = [1, 1, 1, 1]> (a, w)
}"""
INT8_WEIGHT = "w = DequantizeLinear <axis = 0> (k8, scales, zeros)"
QUANTIZED_WHEN_RUN = "q = QuantizeLinear <axis = 0> (k32, scales, zeros)  " + INT8_WEIGHT.replace("k8", "q")
MACS = 8 * 4 * 4 * 8 * 9


def quantized(
    activation: str = "a = DequantizeLinear (image, one, zero)", weight: str = INT8_WEIGHT
) -> ModelProto:
    return text_model(QUANTIZED.replace("ACTIVATION", activation).replace("WEIGHT", weight))


def only_node(cost: FileCost) -> NodeCost:
    (node,) = cost.layers
    return node


def set_bits(model: ModelProto, output: str, bits: str) -> None:
    (node,) = (node for node in model.graph.node if output in node.output)
    node.metadata_props.append(StringStringEntryProto(key="qnas.bits", value=bits))


def test_espcn_costs_what_the_quantnas_paper_says() -> None:
    cost = model_cost(text_model(ESPCN), {"image": (1, 3, 32, 32)})
    # 64*3*25*32*32, 32*64*9*32*32, 48*32*9*32*32; table 1 of QuantNAS: 2.3 GBitOps of 2^30 at 8 x 8 bits.
    assert [node.macs for node in cost.layers] == [4_915_200, 18_874_368, 14_155_776]
    assert cost.macs == 37_945_344
    assert cost.bitops == 37_945_344 * 32 * 32
    assert cost.parameters == 64 * 75 + 64 + 32 * 576 + 32 + 48 * 288 + 48
    assert cost.weight_bytes == 4 * (64 * 75 + 32 * 576 + 48 * 288)
    assert cost.uncovered == ()


def test_macs_grow_with_the_batch_and_the_area() -> None:
    model = text_model(ESPCN)
    assert model_cost(model, {"image": (2, 3, 64, 96)}).macs == 2 * 2 * 3 * 37_945_344


def test_integer_convolution_of_an_image_has_eight_by_eight_bits() -> None:
    node = only_node(model_cost(text_model(INTEGER_CONV), {"image": (1, 3, 4, 4)}))
    assert (node.op, node.macs, node.weight_bits, node.activation_bits) == ("Conv", 12 * 27 * 16, 8, 8)
    assert node.bitops == 12 * 27 * 16 * 64
    assert node.weight_bytes == 12 * 27


@pytest.mark.parametrize(
    ("activation", "bits"),
    [
        ("a = DequantizeLinear (image, one, zero)", 8),
        ("a = Cast <to = 1> (image)", 8),
        ("c = Clip (image, zero, fifteen)  a = DequantizeLinear (c, one, zero)", 4),
        ("c = Clip (image, zero, fifteen)  d = DequantizeLinear (c, one, zero)  a = Relu (d)", 4),
        ("c = Clip (image, zero)  a = DequantizeLinear (c, one, zero)", 8),
        ("d = DequantizeLinear (image, one, zero)  a = LeakyRelu (d)", 32),
        ("d = DequantizeLinear (image, one, zero)  a = Clip (d, one, other)", 32),
    ],
)
def test_activation_bits_are_those_of_the_values(activation: str, bits: int) -> None:
    node = only_node(model_cost(quantized(activation)))
    assert (node.activation_bits, node.weight_bits, node.bitops) == (bits, 8, MACS * bits * 8)


@pytest.mark.parametrize(
    ("between", "bits"),
    [
        (
            "m = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (d)  q = QuantizeLinear (m, one, zero)",
            4,
        ),
        ("m = Concat <axis = 1> (d)  q = QuantizeLinear (m, one, zero)", 4),
        ("m = Relu (d)  q = QuantizeLinear (m, one, zero)", 4),
        ("m = MaxPool <kernel_shape = [1, 1]> (d)  q = QuantizeLinear (m, other, zero)", 8),
        ("m = LeakyRelu (d)  q = QuantizeLinear (m, one, zero)", 8),
        ("m = Add (d, d)  q = QuantizeLinear (m, one, zero)", 8),
    ],
)
def test_four_bits_survive_data_movement_back_onto_their_own_grid_only(between: str, bits: int) -> None:
    clipped = "c = Clip (image, zero, fifteen)  d = DequantizeLinear (c, one, zero)"
    model = quantized(f"{clipped}  {between}  a = DequantizeLinear (q, one, zero)")
    assert only_node(model_cost(model)).activation_bits == bits


def test_concatenation_has_the_bits_of_its_widest_part() -> None:
    text = """
    net (uint8[1, 4, 4, 4] x, uint8[1, 4, 4, 4] y) => (float[1, 8, 4, 4] result)
    <float one = {0.5}, uint8 zero = {0}, uint8 three = {3}, uint8 fifteen = {15}, float[8, 8, 1, 1] k>
    {
        x4 = Clip (x, zero, fifteen)
        y2 = Clip (y, zero, three)
        both = Concat <axis = 1> (x4, y2)
        a = DequantizeLinear (both, one, zero)
        result = Conv (a, k)
    }"""
    assert only_node(model_cost(text_model(text))).activation_bits == 4


@pytest.mark.parametrize(
    ("weight", "bits", "stored"),
    [
        ("w = Identity (k32)", 32, 4 * 576),
        (INT8_WEIGHT, 8, 576),
        ("c = Cast <to = 3> (k4)  w = DequantizeLinear <axis = 0> (c, scales, zeros)", 4, 288),
        ("w = DequantizeLinear <axis = 0> (k4, scales)", 4, 288),
        (QUANTIZED_WHEN_RUN, 8, 4 * 576),
    ],
)
def test_weight_bits_and_bytes_are_those_of_the_stored_constant(weight: str, bits: int, stored: int) -> None:
    node = only_node(model_cost(quantized(weight=weight)))
    assert (node.weight_bits, node.weight_bytes, node.parameters) == (bits, stored, 576)
    assert node.bitops == MACS * bits * 8


def test_two_four_bit_values_share_a_byte_and_an_odd_one_has_its_own() -> None:
    text = """
    net (float[1, 3, 4, 4] x) => (float[1, 1, 4, 4] y) <int4[1, 3, 1, 1] k, float one = {0.5}>
    {
        w = DequantizeLinear (k, one)
        y = Conv (x, w)
    }"""
    assert model_cost(text_model(text)).weight_bytes == 2


def test_metadata_says_the_bits_of_weights_in_a_wider_container() -> None:
    model = quantized()
    set_bits(model, "w", "4")
    node = only_node(model_cost(model))
    assert (node.weight_bits, node.weight_bytes) == (4, 576)


def test_metadata_that_is_no_number_raises_and_names_the_node() -> None:
    model = quantized()
    set_bits(model, "w", "four")
    with pytest.raises(ModelError, match=r"node w: metadata qnas\.bits is 'four'"):
        model_cost(model)


FLOAT_NODES = {
    "grouped": ("float[1, 8, 6, 6] x", "float[12, 2, 3, 3] k", "Conv <group = 4> (x, k)", 12 * 16 * 2 * 9),
    "strided": ("float[1, 4, 7, 7] x", "float[5, 4, 3, 3] k", "Conv <strides = [2, 2]> (x, k)", 5 * 9 * 36),
    "one-dimensional": ("float[1, 4, 10] x", "float[5, 4, 3] k", "Conv (x, k)", 5 * 8 * 4 * 3),
    "transposed": (
        "float[1, 4, 5, 5] x", "float[4, 6, 2, 2] k", "ConvTranspose <strides = [2, 2]> (x, k)", 100 * 24,
    ),
    "matmul": ("float[2, 3, 5] x", "float[5, 7] k", "MatMul (x, k)", 2 * 3 * 7 * 5),
    "weight first": ("float[5, 7] x", "float[3, 5] k", "MatMul (k, x)", 3 * 7 * 5),
    "gemm": ("float[5, 3] x", "float[5, 7] k", "Gemm <transA = 1> (x, k)", 3 * 7 * 5),
    "batch norm": ("float[1, 4, 5, 5] x", "float[4] k", "BatchNormalization (x, k, k, k, k)", 4 * 25),
    "fused": ("float[1, 4, 3, 3] x", "float[2, 4, 3, 3] k", "com.microsoft.FusedConv (x, k)", 2 * 4 * 9),
}  # fmt: skip


@pytest.mark.parametrize("case", FLOAT_NODES)
def test_macs_of_float_nodes_are_those_counted_by_hand(case: str) -> None:
    declared, weight, call, macs = FLOAT_NODES[case]
    node = only_node(model_cost(text_model(f"net ({declared}) => (float[] y) <{weight}> {{ y = {call} }}")))
    assert node.macs == macs
    assert (node.weight_bits, node.activation_bits) == (32, 32)
    count = prod(map(int, re.findall(r"\d+", weight)))
    assert (node.parameters, node.weight_bytes) == (count, 4 * count)


@pytest.mark.parametrize(
    ("weight", "call", "macs"),
    [
        ("uint8[5, 4, 3, 3] k", "ConvInteger (x, k)", 5 * 4 * 4 * 9),
        ("int8[5, 4, 3, 3] k", "QLinearConv (x, s, z, k, s, n, s, z)", 5 * 4 * 4 * 9),
        ("uint8[4, 6] k", "MatMulInteger (x, k)", 4 * 4 * 6 * 4),
        ("uint8[4, 6] k", "QLinearMatMul (x, s, z, k, s, z, s, z)", 4 * 4 * 6 * 4),
    ],
)
def test_macs_of_integer_nodes_are_those_counted_by_hand(weight: str, call: str, macs: int) -> None:
    kind = "uint8" if call.startswith("QLinear") else "int32"
    text = f"net (uint8[1, 4, 4, 4] x) => ({kind}[] y) <{weight}, float s, uint8 z, int8 n> {{ y = {call} }}"
    node = only_node(model_cost(text_model(text)))
    assert (node.macs, node.weight_bits, node.activation_bits) == (macs, 8, 8)


def test_shapes_pass_through_the_integer_operations_of_onnxruntime() -> None:
    text = """
    net (uint8[1, 4, 8, 8] x) => (uint8[] y) <int8[4, 8, 3, 3] k, float s, uint8 z, int8 n>
    {
        a = com.microsoft.QLinearAdd (x, s, z, x, s, z, s, z)
        r = com.microsoft.QLinearLeakyRelu (a, s, z, s, z)
        c = com.microsoft.QLinearConcat <axis = 1> (s, z, a, s, z, r, s, z)
        y = QLinearConv (c, s, z, k, s, n, s, z)
    }"""
    cost = model_cost(text_model(text))
    assert (cost.macs, cost.uncovered) == (4 * 36 * 8 * 9, ())


def test_shapes_that_the_graph_computes_are_followed() -> None:
    text = """
    net (float[n, 4, h, w] x) => (float[] y) <float[16, 5] k, int64[1] minus = {-1}>
    {
        sizes = Shape <end = 1> (x)
        target = Concat <axis = 0> (sizes, minus)
        rows = Reshape (x, target)
        y = MatMul (rows, k)
    }"""
    assert model_cost(text_model(text), {"x": (3, 4, 2, 2)}).macs == 3 * 16 * 5


def test_resize_by_a_matrix_computed_from_the_shape_is_followed_but_not_counted() -> None:
    text = """
    net (float[1, 4, h, w] x) => (float[] y)
    <float[5, 4, 1, 1] k, int64 zero = {0}, int64 one = {1}, int64 two = {2}, int64[1] first = {0}>
    {
        size = Shape <start = 2, end = 3> (x)
        height = Squeeze (size, first)
        double = Mul (height, two)
        rows = Range (zero, double, one)
        minus_one = Constant <value_ints = [-1]> ()
        column = Unsqueeze (rows, minus_one)
        columns = Range (zero, height, one)
        product = Mul (column, columns)
        matrix = Cast <to = 1> (product)
        tall = MatMul (matrix, x)
        y = Conv (tall, k)
    }"""
    node = only_node(model_cost(text_model(text), {"x": (1, 4, 6, 7)}))
    assert (node.op, node.macs) == ("Conv", 5 * 12 * 7 * 4)


def test_functions_inside_the_model_are_counted() -> None:
    text = """
    net (float[1, 3, 4, 4] x) => (float[1, 5, 4, 4] y) <float[5, 3, 1, 1] k> { y = house.block (x, k) }
    <domain: "house", opset_import: ["" : 21]>
    block (x, k) => (y)
    {
        c = Conv (x, k)
        y = Relu (c)
    }"""
    assert model_cost(text_model(text)).macs == 5 * 3 * 16


def test_weights_that_two_nodes_share_are_stored_once() -> None:
    text = """
    net (float[1, 4, 4, 4] x) => (float[] y) <float[4, 4, 1, 1] k>
    {
        a = Conv (x, k)
        y = Conv (a, k)
    }"""
    cost = model_cost(text_model(text))
    assert (cost.macs, cost.parameters, cost.weight_bytes) == (2 * 4 * 4 * 16, 16, 64)


def test_operations_without_a_formula_are_reported_by_name() -> None:
    text = """
    net (float[5, 1, 4] x) => (float[] y) <float[1, 12, 4] k, float[1, 12, 3] r>
    {
        s = LSTM <hidden_size = 3> (x, k, r)
        y = house.Something (s)
    }"""
    cost = model_cost(text_model(text))
    assert cost.uncovered == ("LSTM", "house.Something")
    assert cost.macs == 0


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({}, "'image' is ?x3x?x?: give the shape"),
        ({"image": (1, 3, 32)}, "'image' is ?x3x?x?: 1x3x32 does not fit"),
        ({"image": (1, 4, 32, 32)}, "1x4x32x32 does not fit"),
        ({"picture": (1, 3, 32, 32)}, "no input 'picture': its inputs are image"),
    ],
)
def test_shapes_that_do_not_fit_the_inputs_raise(shapes: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        model_cost(text_model(ESPCN), shapes)
    assert message in str(caught.value)


def test_channels_that_do_not_fit_the_weights_raise_and_name_the_node() -> None:
    text = "net (float[n, c, h, w] x) => (float[] y) <float[5, 3, 1, 1] k> { y = Conv (x, k) }"
    with pytest.raises(ModelError, match="node y: 4 channels come in, its weights take 3"):
        model_cost(text_model(text), {"x": (1, 4, 8, 8)})


def test_shape_that_cannot_be_inferred_raises_and_names_the_node() -> None:
    text = """
    net (float[3, 4] x) => (float[] y) <float[4, 2] k>
    {
        s = house.Something (x)
        y = MatMul (s, k)
    }"""
    with pytest.raises(ModelError, match=r"node y \(MatMul\): the shape of its tensor 's' is unknown"):
        model_cost(text_model(text))


def test_file_that_is_no_model_raises(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(ModelError, match="is no readable ONNX model"):
        model_cost(path)


@pytest.mark.parametrize(
    ("activation", "weight", "executed"),
    [
        ("a = DequantizeLinear (image, one, zero)", INT8_WEIGHT, (8, 8)),
        ("c = Clip (image, zero, fifteen)  a = DequantizeLinear (c, one, zero)", INT8_WEIGHT, (8, 8)),
        ("d = DequantizeLinear (image, one, zero)  a = Relu (d)", INT8_WEIGHT, (8, 8)),
        ("a = DequantizeLinear (image, one, zero)", "w = DequantizeLinear <axis = 0> (k4, scales)", (8, 8)),
        ("a = DequantizeLinear (image, one, zero)", QUANTIZED_WHEN_RUN, (8, 8)),
        ("a = DequantizeLinear (image, one, zero)", "w = Identity (k32)", (32, 32)),
        ("a = Cast <to = 1> (image)", INT8_WEIGHT, (32, 32)),
        ("d = DequantizeLinear (image, one, zero)  a = LeakyRelu (d)", INT8_WEIGHT, (32, 32)),
    ],
)
def test_executed_bits_are_those_of_containers_or_of_floats(
    activation: str, weight: str, executed: tuple[int, int]
) -> None:
    node = only_node(model_cost(quantized(activation, weight)))
    assert (node.executed_weight_bits, node.executed_activation_bits) == executed
    assert node.executed_bitops == MACS * executed[0] * executed[1]


def test_half_floats_are_multiplied_as_such() -> None:
    text = "net (float16[1, 3, 4, 4] x) => (float16[] y) <float16[5, 3, 1, 1] k> { y = Conv (x, k) }"
    node = only_node(model_cost(text_model(text)))
    assert (node.bitops, node.executed_bitops) == (5 * 16 * 3 * 256, 5 * 16 * 3 * 256)


@pytest.mark.parametrize(("text", "width"), [(FLOAT_CONV, 4), (INTEGER_CONV, 1)])
def test_integers_between_quantizers_are_counted_as_a_runtime_fuses_them(text: str, width: int) -> None:
    cost = model_cost(text_model(text), {"image": (1, 3, 4, 4)})
    assert only_node(cost).activation_bytes == (48 + 192) * width
    assert cost.activation_bytes == (48 + 192) * width
    assert cost.peak_activation_bytes == (192 + 192) * width  # the shuffle reads and writes 12 x 4 x 4


Q, D = "QuantizeLinear", "DequantizeLinear"


@pytest.mark.parametrize(
    ("nodes", "peak"),
    [
        # conv: image 128 and a 128, then a and the result
        (f"c = Conv (a, w)  q = {Q} (c, one, zero)  result = Identity (q)", 256),
        # elementwise operations of one tensor on the way to the quantizer are not there either
        (f"c = Conv (a, w)  r = LeakyRelu (c)  q = {Q} (r, one, zero)  result = Identity (q)", 256),
        # a clamp belongs to its quantizer
        (f"c = Conv (a, w)  u = {Q} (c, one, zero)  result = Clip (u, zero, fifteen)", 256),
        # a second reader needs the floats, and its own output is floats as well
        (f"c = Conv (a, w)  q = {Q} (c, one, zero)  s = Sigmoid (c)  result = Cast <to = 2> (s)", 1024),
        # no quantizer: conv writes floats beside the image, then Relu floats beside floats
        ("c = Conv (a, w)  r = Relu (c)  result = Cast <to = 2> (r)", 1024),
        # a sum of two dequantized tensors: image, q, result; q waits for the second convolution
        (
            f"c = Conv (a, w)  q = {Q} (c, one, zero)  d = {D} (q, one, zero)  e = Conv (d, w)"
            f"  f = {Q} (e, one, zero)  g = {D} (f, one, zero)  h = Add (g, a)  result = {Q} (h, one, zero)",
            384,
        ),
        # what is moved as floats is moved as integers
        (f"m = Identity (a)  c = Conv (m, w)  result = {Q} (c, one, zero)", 256),
    ],
)
def test_peak_of_the_activations_is_that_counted_by_hand(nodes: str, peak: int) -> None:
    text = f"""
    net (uint8[1, 8, 4, 4] image) => (uint8[1, 8, 4, 4] result)
    <float one = {{0.5}}, uint8 zero = {{0}}, uint8 fifteen = {{15}}, int8[8, 8, 1, 1] k, int8 n>
    {{
        a = {D} (image, one, zero)
        w = {D} (k, one, n)
        {nodes}
    }}"""
    assert model_cost(text_model(text)).peak_activation_bytes == peak


def test_peak_is_unknown_where_a_shape_is() -> None:
    text = """
    net (float[1, 3, 4, 4] x) => (float[] z) <float[5, 3, 1, 1] k>
    {
        y = Conv (x, k)
        z = house.Something (y)
    }"""
    cost = model_cost(text_model(text))
    assert (cost.macs, cost.uncovered, cost.peak_activation_bytes) == (5 * 3 * 16, ("house.Something",), None)


def test_what_follows_from_shapes_and_constants_takes_no_memory() -> None:
    text = """
    net (float[1, 4, 2, 2] x) => (float[] y) <float[256, 5] k, int64[2] sizes = {1, -1}>
    {
        shape = Shape (x)
        number = Cast <to = 1> (shape)
        wide = Add (k, k)
        rows = Reshape (x, sizes)
        y = Relu (rows)
    }"""
    assert model_cost(text_model(text)).peak_activation_bytes == 4 * (16 + 16)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9), st.integers(0, 9)), max_size=8))
def test_peak_is_the_largest_sum_of_any_step(drawn: list[tuple[int, int, int]]) -> None:
    lives = [Life(size, min(a, b), max(a, b)) for size, a, b in drawn]
    sums = [sum(x.size for x in lives if x.first <= step <= x.last) for step in range(10)]
    assert peak_bytes(lives) == max(sums)
