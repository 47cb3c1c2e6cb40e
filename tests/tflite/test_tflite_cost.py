"""Analytic cost of .tflite files against counts by hand, and against the ONNX file of the same network."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import flatbuffers
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qnas.cost.file_cost import FileCost
from qnas.errors import ModelError, QnasError, UsageError
from qnas.export.integers import integer_network
from qnas.export.model import build_qdq
from qnas.export.targets import TARGETS, fitted
from qnas.export.to_tflite.writer import write_tflite
from qnas.onnx.cost import model_cost
from qnas.testing.random_networks import random_found
from qnas.tflite.cost import tflite_cost
from qnas.tflite.levels import tensor_levels, value_bits, weight_bits
from qnas.tflite.reader import (
    IDENTIFIER,
    TfliteModel,
    TfliteOperator,
    TfliteTensor,
    load_schema,
    read_tflite,
)

RELU = 1


def tensor(
    *shape: int, kind: str = "FLOAT32", name: str = "x", zero: int = 0, scale: float = 0.5,
    values: Sequence[int] | None = None,
) -> TfliteTensor:  # fmt: skip
    """Integers have one scale; a constant when `values` are given, all 100 for ()."""
    scaled = 0 if kind.startswith("FLOAT") else 1
    data = None
    if values is not None:
        width = 4 if kind in ("FLOAT32", "INT32") else 1
        count = int(np.prod(shape)) * width
        data = np.resize(np.asarray(values or [100], np.int8).view(np.uint8), count)
    return TfliteTensor(
        name, shape, kind, np.full(scaled, scale, np.float32), np.full(scaled, zero, np.int64), 0, data
    )  # fmt: skip


def model(operators: Sequence[TfliteOperator], *tensors: TfliteTensor, outputs: int = 1) -> TfliteModel:
    """Tensor 0 is the input, the last ones are the outputs."""
    ends = tuple(range(len(tensors) - outputs, len(tensors)))
    return TfliteModel(tensors, tuple(operators), (0,), ends, 1)


def operator(name: str, inputs: Sequence[int], output: int, **options: int) -> TfliteOperator:
    return TfliteOperator(name, tuple(inputs), (output,), options)


INT8_WEIGHT = tensor(5, 3, 3, 4, kind="INT8", values=())
OPERATORS = {
    "convolution": ("CONV_2D", [0, 1], (1, 7, 7, 4), (5, 3, 3, 4), (1, 5, 5, 5), 125 * 36),
    "grouped": ("CONV_2D", [0, 1], (1, 6, 6, 8), (12, 3, 3, 2), (1, 4, 4, 12), 12 * 16 * 9 * 2),
    "depthwise": ("DEPTHWISE_CONV_2D", [0, 1], (1, 6, 6, 4), (1, 3, 3, 8), (1, 4, 4, 8), 128 * 9),
    "dense": ("FULLY_CONNECTED", [0, 1], (1, 6, 5), (7, 5), (1, 6, 7), 6 * 7 * 5),
    "batched product": ("BATCH_MATMUL", [0, 1], (2, 3, 5), (2, 5, 7), (2, 3, 7), 42 * 5),
}


@pytest.mark.parametrize("case", OPERATORS)
def test_macs_of_operators_are_those_counted_by_hand(case: str) -> None:
    name, inputs, data, weight, output, macs = OPERATORS[case]
    tensors = tensor(*data), tensor(*weight, values=()), tensor(*output)
    (node,) = tflite_cost(model([operator(name, inputs, 2)], *tensors)).layers
    assert (node.op, node.macs, node.output_shape) == (name, macs, output)
    assert (node.parameters, node.weight_bytes) == (np.prod(weight), 4 * np.prod(weight))
    assert node.bitops == node.executed_bitops == macs * 32 * 32


def test_transposed_convolution_counts_every_weight_that_reads_an_input() -> None:
    tensors = tensor(1, 5, 5, 4), tensor(4, kind="INT32", values=()), tensor(6, 2, 2, 4, values=())
    net = model([operator("TRANSPOSE_CONV", [1, 2, 0], 3)], *tensors, tensor(1, 10, 10, 6))
    (node,) = tflite_cost(net).layers
    assert node.macs == 5 * 5 * 4 * 6 * 2 * 2
    assert node.parameters == 6 * 2 * 2 * 4


def test_product_of_a_transposed_matrix_sums_its_rows() -> None:
    tensors = tensor(5, 3), tensor(5, 7, values=()), tensor(3, 7)
    (node,) = tflite_cost(model([operator("BATCH_MATMUL", [0, 1], 2, AdjX=1)], *tensors)).layers
    assert node.macs == 3 * 7 * 5


def integer_convolution(weight: TfliteTensor, data: TfliteTensor | None = None) -> FileCost:
    read = data or tensor(1, 7, 7, 4, kind="INT8")
    bias = tensor(5, kind="INT32", values=())
    written = tensor(1, 5, 5, 5, kind=read.kind)
    return tflite_cost(model([operator("CONV_2D", [0, 1, 2], 3)], read, weight, bias, written))


@pytest.mark.parametrize(
    ("kind", "values", "bits", "stored"),
    [
        ("INT8", (-8, 7), 4, 180),
        ("INT8", (-8, 8), 8, 180),
        ("INT8", (-9, 7), 8, 180),
        ("UINT8", (0, 7), 8, 180),
    ],
)
def test_int8_weights_that_all_fit_four_bits_have_four(
    kind: str, values: tuple[int, ...], bits: int, stored: int
) -> None:
    (node,) = integer_convolution(tensor(5, 3, 3, 4, kind=kind, values=values)).layers
    assert (node.weight_bits, node.executed_weight_bits, node.weight_bytes) == (bits, 8, stored)
    assert (node.bitops, node.executed_bitops) == (125 * 36 * bits * 8, 125 * 36 * 64)
    assert node.parameters == 180 + 5


def test_weights_typed_int4_take_half_a_byte_and_are_multiplied_as_bytes() -> None:
    weight = replace(INT8_WEIGHT, kind="INT4", data=np.full(90, 0x77, np.uint8))
    (node,) = integer_convolution(weight).layers
    assert (node.weight_bits, node.weight_bytes, node.executed_weight_bits) == (4, 90, 8)


def test_a_shifted_grid_of_weights_keeps_its_eight_bits() -> None:
    assert weight_bits(replace(tensor(4, kind="INT8", values=(1,)), zero_point=np.array([3]))) == 8


def test_float_data_that_meets_int8_weights_is_multiplied_as_int8() -> None:
    (node,) = integer_convolution(INT8_WEIGHT, tensor(1, 7, 7, 4)).layers
    assert (node.activation_bits, node.executed_activation_bits, node.executed_weight_bits) == (32, 8, 8)


def test_weights_that_are_dequantized_first_are_multiplied_as_floats() -> None:
    tensors = tensor(1, 7, 7, 4), INT8_WEIGHT, tensor(5, 3, 3, 4), tensor(1, 5, 5, 5)
    steps = [operator("DEQUANTIZE", [1], 2), operator("CONV_2D", [0, 2], 3)]
    cost = tflite_cost(model(steps, *tensors))
    (node,) = cost.layers
    assert (node.weight_bits, node.executed_weight_bits, node.weight_bytes) == (8, 32, 180)
    assert cost.peak_activation_bytes == 4 * (196 + 125)  # the unpacked weights are no activation


@pytest.mark.parametrize(
    ("zero", "activation", "bits"),
    [(112, RELU, 4), (112, 0, 8), (124, RELU, 2), (-128, RELU, 8), (0, RELU, 8), (-127, RELU, 8)],
)
def test_a_fused_relu_leaves_the_levels_above_the_zero_point(zero: int, activation: int, bits: int) -> None:
    read, written = (tensor(1, 4, kind="INT8", zero=z) for z in (0, zero))
    net = model([operator("ADD", [0, 0], 1, FusedActivationFunction=activation)], read, written)
    assert value_bits(written, tensor_levels(net)[1]) == bits


def test_a_quantize_to_another_zero_point_moves_the_levels() -> None:
    tensors = tuple(tensor(1, 4, kind="INT8", zero=z) for z in (0, 120, -120))
    steps = [operator("ADD", [0, 0], 1), operator("QUANTIZE", [1], 2)]
    levels = tensor_levels(model(steps, *tensors))[2]
    assert (levels.low, levels.high) == (-128, 127 - 240)  # a signed grid of 4 bits
    assert value_bits(tensors[2], levels) == 4


def test_a_quantize_to_another_scale_has_all_levels() -> None:
    tensors = tensor(1, 4, kind="INT8", zero=120), tensor(1, 4, kind="INT8", zero=-120, scale=0.25)
    levels = tensor_levels(model([operator("QUANTIZE", [0], 1)], *tensors))[1]
    assert (levels.low, levels.high) == (-128, 127)


def test_weights_that_two_operators_share_are_stored_once() -> None:
    tensors = tensor(1, 4, kind="INT8"), tensor(4, 4, kind="INT8", values=()), tensor(1, 4, kind="INT8")
    steps = [operator("FULLY_CONNECTED", [0, 1, -1], 2), operator("FULLY_CONNECTED", [2, 1, -1], 3)]
    cost = tflite_cost(model(steps, *tensors, tensor(1, 4, kind="INT8")))
    assert (cost.macs, cost.parameters, cost.weight_bytes) == (32, 16, 16)


def test_a_tensor_takes_memory_until_its_last_reader() -> None:
    x, a, b, c = (tensor(1, n, kind="INT8") for n in (100, 30, 20, 100))
    steps = [operator("MEAN", [0], 1), operator("RELU", [1], 2), operator("ADD", [0, 2], 3)]
    # x + a, x + a + b, x + b + c
    assert tflite_cost(model(steps, x, a, b, c)).peak_activation_bytes == 220


def test_what_a_convolution_reads_and_writes_is_counted_in_its_containers() -> None:
    (node,) = integer_convolution(INT8_WEIGHT).layers
    assert node.activation_bytes == 196 + 125
    assert node.weight_bytes == 180


def test_operators_without_a_formula_are_reported_by_name() -> None:
    tensors = tensor(1, 4), tensor(1, 4), tensor(1, 4)
    steps = [operator("CUSTOM house", [0], 1), operator("SVDF", [1], 2)]
    assert tflite_cost(model(steps, *tensors)).uncovered == ("CUSTOM house", "SVDF")


@pytest.mark.parametrize("inputs", [[0], [0, -1]])
def test_an_operator_without_its_weights_raises_and_is_named(inputs: list[int]) -> None:
    net = model([operator("CONV_2D", inputs, 1)], tensor(1, 4, 4, 4), tensor(1, 4, 4, 4, name="y"))
    with pytest.raises(ModelError, match="CONV_2D 'y' lacks an input"):
        tflite_cost(net)


def test_weights_of_the_wrong_rank_raise() -> None:
    tensors = tensor(1, 4, 4, 4), tensor(4, 4, values=()), tensor(1, 4, 4, 4, name="y")
    with pytest.raises(ModelError, match=r"CONV_2D 'y' reads \[1, 4, 4, 4\] and \[4, 4\]"):
        tflite_cost(model([operator("CONV_2D", [0, 1], 2)], *tensors))


# Files that the exporter wrote


@cache
def exported(name: str, height: int = 24, width: int = 20, resizable: bool = True) -> bytes:
    network = fitted(integer_network(random_found(name)), TARGETS["litert"])
    return write_tflite(network, height, width, resizable=resizable).data


def as_onnx(name: str, height: int = 24, width: int = 20) -> FileCost:
    """The ONNX file of the same network: no channels padded, no groups made dense."""
    return model_cost(build_qdq(random_found(name), TARGETS["openvino"]), {"image": (1, 3, height, width)})


@pytest.mark.parametrize("name", ["espcn-w4", "espcn-w8"])
def test_both_files_of_a_network_cost_the_same(name: str) -> None:
    ours, theirs = tflite_cost(exported(name)), as_onnx(name)
    for sum_ in (
        "macs",
        "bitops",
        "executed_bitops",
        "parameters",
        "activation_bytes",
        "peak_activation_bytes",
    ):
        assert getattr(ours, sum_) == getattr(theirs, sum_)
    bits = [(node.weight_bits, node.activation_bits) for node in ours.layers]
    assert bits == ([(4, 8), (4, 4), (4, 4)] if name == "espcn-w4" else [(8, 8)] * 3)
    assert ours.weight_bytes == theirs.weight_bytes * (2 if name == "espcn-w4" else 1)  # int8 holds 4 bits


@pytest.mark.parametrize("name", ["basic-w48-example", "basic-w4"])
def test_what_tflite_adds_to_a_network_are_changes_of_scales_as_depthwise_convolutions(name: str) -> None:
    ours, theirs = tflite_cost(exported(name)), as_onnx(name)
    own = [node for node in ours.layers if node.op == "CONV_2D"]
    added = [node for node in ours.layers if node.op != "CONV_2D"]
    assert [(n.macs, n.bitops, n.executed_bitops) for n in own] == [
        (n.macs, n.bitops, n.executed_bitops) for n in theirs.layers
    ]
    assert {node.op for node in added} == {"DEPTHWISE_CONV_2D"}
    assert all(node.weight_bytes == node.output_shape[3] for node in added)  # 1x1, a weight each


def test_another_size_is_followed_through_the_graph() -> None:
    given = {"image": (1, 40, 28, 3)}
    assert tflite_cost(exported("espcn-w4"), given) == tflite_cost(exported("espcn-w4", 40, 28))


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"image": (1, 3, 24, 20)}, "'image' is 1x?x?x3: 1x3x24x20 does not fit"),
        ({"image": (24, 20)}, "24x20 does not fit"),
        ({"picture": (1, 24, 20, 3)}, "no input 'picture': its inputs are image"),
    ],
)
def test_shapes_that_do_not_fit_the_inputs_raise(shapes: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        tflite_cost(exported("espcn-w4"), shapes)
    assert message in str(caught.value)


def test_a_file_of_one_size_takes_no_other() -> None:
    fixed = exported("espcn-w4", resizable=False)
    assert tflite_cost(fixed, {"image": (1, 24, 20, 3)}) == tflite_cost(exported("espcn-w4"))
    with pytest.raises(UsageError, match="'image' is 1x24x20x3: 1x40x28x3 does not fit"):
        tflite_cost(fixed, {"image": (1, 40, 28, 3)})


def test_a_model_that_is_read_already_keeps_its_size() -> None:
    with pytest.raises(UsageError, match="give the file"):
        tflite_cost(read_tflite(exported("espcn-w4")), {"image": (1, 40, 28, 3)})


def sum_of_two(graphs: int = 1) -> bytes:
    """A file that adds its inputs a and b, float32 of 1x4x4x3 and of any height and width."""
    schema = load_schema()
    graph, built, code, add = schema.SubGraphT(), schema.ModelT(), schema.OperatorCodeT(), schema.OperatorT()
    graph.tensors = []
    for name in ("a", "b", "sum"):
        each = schema.TensorT()
        each.name, each.shape, each.shapeSignature = name, [1, 4, 4, 3], [1, -1, -1, 3]
        graph.tensors.append(each)
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.ADD
    add.inputs, add.outputs = [0, 1], [2]
    add.builtinOptionsType, add.builtinOptions = schema.BuiltinOptions.AddOptions, schema.AddOptionsT()
    graph.operators, graph.inputs, graph.outputs = [add], [0, 1], [2]
    built.version, built.operatorCodes, built.subgraphs = 3, [code], [graph] * graphs
    built.buffers = [schema.BufferT()]
    builder = flatbuffers.Builder(1024)
    builder.Finish(built.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def test_a_model_of_several_inputs_has_a_cost_at_other_sizes() -> None:
    cost = tflite_cost(sum_of_two(), {"a": (1, 8, 5, 3), "b": (1, 8, 5, 3)})
    assert (cost.macs, cost.peak_activation_bytes) == (0, 3 * 4 * 8 * 5 * 3)


def test_sizes_that_litert_refuses_are_told_in_its_words() -> None:
    with pytest.raises(ModelError, match=r"on 1x8x5x3 and 1x6x5x3: .* not broadcastable.*; choose another"):
        tflite_cost(sum_of_two(), {"a": (1, 8, 5, 3), "b": (1, 6, 5, 3)})


def test_control_flow_is_no_damage() -> None:
    with pytest.raises(ModelError, match="has 2 graphs: export it without control flow"):
        tflite_cost(sum_of_two(graphs=2), {"a": (1, 8, 5, 3), "b": (1, 8, 5, 3)})


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 255)), min_size=1, max_size=4), st.data())
def test_damage_is_refused_or_counted_but_breaks_nothing(
    edits: list[tuple[int, int]], drawn: st.DataObject
) -> None:
    data = bytearray(exported("espcn-w4"))
    for near_the_end, value in edits:  # tables of the graph lie in front, buffers behind
        low = len(data) // 2 if near_the_end else 8
        data[drawn.draw(st.integers(low, len(data) - 1))] = value
    try:
        cost = tflite_cost(bytes(data))
    except QnasError:
        return
    assert cost.macs >= 0


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("metadata", "metadata that has no buffer"),
        ("signature", "the signature of tensor 'image' does not fit"),
    ],
)
def test_metadata_and_signatures_that_do_not_fit_are_damage(part: str, message: str) -> None:
    schema = load_schema()
    broken = schema.ModelT.InitFromPackedBuf(bytearray(exported("espcn-w4")), 0)
    if part == "metadata":
        broken.metadata[0].buffer = 999
    else:
        (image,) = (t for t in broken.subgraphs[0].tensors if t.name == b"image")
        image.shapeSignature = [1, -1]
    builder = flatbuffers.Builder(2**16)
    builder.Finish(broken.Pack(builder), file_identifier=IDENTIFIER)
    with pytest.raises(ModelError, match=message):
        tflite_cost(bytes(builder.Output()))
