"""Float networks as integers: the forms, the bytes, the weights, and their distance to the float network."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, numpy_helper
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from qnas.calibration.prepare.float_model import FloatModel, Runner
from qnas.calibration.prepare.rewrites import rewritten
from qnas.calibration.ptq.float_graph import FloatGraph
from qnas.calibration.ptq.grids import plan_grids
from qnas.calibration.ptq.integer_model import IntegerRunner, PtqOptions, fitted_weights, quantized
from qnas.calibration.ptq.rounding import _products, assumed, rounded, successive, upper_root
from qnas.calibration.ptq.weights import (
    INT32_MAX,
    IntegerWeights,
    from_document,
    largest_scale,
    nearest,
    quantize_bias,
    to_document,
    with_room,
)
from qnas.calibration.ranges.ranges import Range
from qnas.errors import CalibrationError, ModelError, UsageError
from qnas.export.from_qdq.reader import integer_network_of
from qnas.integer.interpreter import run
from qnas.integer.requantization import sums_agree, xnnpack_sums_agree
from qnas.onnx.fusion import count_integer_convolutions
from qnas.onnx.session import open_session
from qnas.quantization.quantizers import QuantParams
from qnas.testing.small_ptq import NETWORKS, float_network, patches, pixels_of, psnr, ranges_of, text_network

TEST = patches(3, 40)[:, 4:36, 2:34]


def by_op(model: ModelProto, op: str) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == op]


def stored(model: ModelProto, name: str) -> NDArray[np.generic]:
    return numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == name))


# The graph -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_convolution_runs_in_integers(name: str, bits: int, tmp_path: Path) -> None:
    network = float_network(name, tmp_path)
    model = quantized(network, ranges_of(network, patches()), PtqOptions(weight_bits=bits))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, tmp_path / "q.onnx")
    report = count_integer_convolutions(tmp_path / "q.onnx")
    assert report.total == report.integer > 2
    assert report.float_ops == {"every operation": ("1 PRelu",)}.get(name, ())


@pytest.mark.parametrize("name", NETWORKS)
def test_the_output_ends_in_a_quantizer_whose_bytes_are_pixels(name: str, tmp_path: Path) -> None:
    network = float_network(name, tmp_path)
    model = quantized(network, ranges_of(network, patches()))
    assert {v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.output)} == {
        TensorProto.UINT8
    }
    producers = {name: node for node in model.graph.node for name in node.output}
    node = producers[network.output]
    while node.op_type != "QuantizeLinear":
        assert node.op_type in ("DepthToSpace", "Reshape", "Transpose")
        node = producers[node.input[0]]
    assert stored(model, node.input[1]) == np.float32(1 / 255)
    assert stored(model, node.input[2]) == 0
    assert producers[node.input[0]].op_type in ("Conv", "Add")
    beside_a_negative_part = ["Clip"] if name == "every operation" else []
    clamps = [node for op in ("Clip", "Relu", "Min", "Max") for node in by_op(model, op)]
    of_images = [node.op_type for node in clamps if "_resized." not in node.name]  # others compute weights
    assert of_images == beside_a_negative_part


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", ["abpn", "xlsr with a clip", "espcn with a clip", "rfdn"])
def test_the_exporter_reads_it_and_computes_the_bytes_of_onnxruntime(
    name: str, bits: int, tmp_path: Path
) -> None:
    network = float_network(name, tmp_path)
    model = quantized(network, ranges_of(network, patches()), PtqOptions(weight_bits=bits))
    assert_read_alike(network, model)


def assert_read_alike(network: FloatModel, model: ModelProto) -> None:
    shown = IntegerRunner(network, model)(TEST)
    read = run(integer_network_of(model, "q"), TEST.astype(np.uint8).transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(read.transpose(0, 2, 3, 1), shown)
    assert len(np.unique(shown)) > 40


RESIDUAL = """
net (float[n, 3, h, w] image) => (float[n, 3, h, w] upscaled)
<float[8, 3, 3, 3] k1, float[8, 8, 3, 3] k2, float[8, 8, 3, 3] k3, float[8, 8, 1, 1] k4,
 float[3, 16, 1, 1] k5>
{
    first = Conv <pads = [1, 1, 1, 1]> (image, k1)
    a = Conv <pads = [1, 1, 1, 1]> (first, k2)
    sum = Add (a, first)
    leaky = LeakyRelu <alpha = 0.1> (sum)
    b = Conv <pads = [1, 1, 1, 1]> (leaky, k3)
    more = Add (b, leaky)
    most = Add (more, first)
    gate = Conv (most, k4)
    gated = Sigmoid (gate)
    product = Mul (most, gated)
    both = Concat <axis = 1> (product, leaky)
    last = Conv (both, k5)
    upscaled = Add (last, image)
}"""


@given(st.integers(0, 2**31), st.floats(-3, 3), st.floats(-3, 3))
@settings(max_examples=10, deadline=None)
def test_sums_products_and_concatenations_are_the_exporters_to_the_byte(
    seed: int, a: float, b: float
) -> None:
    """Sums of tensors whose ranges differ by powers of ten: their scales make them exact."""
    rng = np.random.default_rng(seed)
    shapes = {
        "k1": (8, 3, 3, 3),
        "k2": (8, 8, 3, 3),
        "k3": (8, 8, 3, 3),
        "k4": (8, 8, 1, 1),
        "k5": (3, 16, 1, 1),
    }
    weights = {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}
    weights["k2"] *= np.float32(10**a)
    weights["k3"] *= np.float32(10**b)
    network = text_network(RESIDUAL, **weights)
    ranges = ranges_of(network, TEST)
    factor = np.float32(0.5 / max(abs(ranges["last"].low), abs(ranges["last"].high)))
    network = text_network(RESIDUAL, **weights | {"k5": weights["k5"] * factor})
    assert_read_alike(network, quantized(network, ranges_of(network, TEST)))


def test_weights_of_4_bits_are_stored_in_4_bits(tmp_path: Path) -> None:
    network = float_network("abpn", tmp_path)
    model = quantized(network, ranges_of(network, patches()), PtqOptions(weight_bits=4))
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    casts = by_op(model, "Cast")
    assert len(casts) == len(by_op(model, "Conv")) == 4
    assert {kinds[node.input[0]] for node in casts} == {TensorProto.INT4}
    assert {node.attribute[0].i for node in casts} == {TensorProto.INT8}


def test_weights_of_4_bits_need_opset_21() -> None:
    network = text_network(CONV, opset=17, k=np.ones((3, 3, 1, 1)))
    ranges = {name: Range(0, 1) for name in ("image", "c", "upscaled")}
    assert IntegerRunner(network, quantized(network, ranges))(TEST).shape == TEST.shape
    with pytest.raises(ModelError, match="opset 17: weights of 4 bits need 21"):
        quantized(network, ranges, PtqOptions(weight_bits=4))


def test_weights_of_3_bits_are_refused() -> None:
    with pytest.raises(UsageError, match="4 or 8"):
        PtqOptions(weight_bits=3)


def test_a_kept_clip_stays_between_two_quantizers(tmp_path: Path) -> None:
    network = float_network("abpn with a clip", tmp_path)
    (clip,) = [node for node in network.model.graph.node if node.op_type == "Clip"]
    ranges = ranges_of(network, patches())
    model = quantized(network, ranges, PtqOptions(kept_clips=(clip.name,)))
    (kept,) = by_op(model, "Clip")
    producers = {name: node for node in model.graph.node for name in node.output}
    read = producers[kept.input[0]]
    assert read.op_type == "DequantizeLinear"
    scale, zero_point = stored(model, read.input[1]), int(stored(model, read.input[2]))
    span = ranges[clip.input[0]]
    assert span.low >= -(zero_point + 1) * scale
    assert span.high <= (256 - zero_point) * scale
    assert psnr(pixels_of(network, TEST), IntegerRunner(network, model)(TEST)) > 40


CONV = """
net (float[n, 3, h, w] image) => (float[n, 3, h, w] upscaled) <float[3, 3, 1, 1] k>
{
    c = Conv (image, k)
    upscaled = Identity (c)
}"""


def test_a_range_that_is_missing_is_named() -> None:
    network = text_network(RESIDUAL)
    ranges = ranges_of(network, TEST)
    del ranges["leaky"]
    with pytest.raises(ModelError, match="no range of the tensor 'leaky': calibrate"):
        quantized(network, ranges)


def test_a_float_layer_that_is_not_there_is_named() -> None:
    network = text_network(CONV)
    with pytest.raises(ModelError, match="no layer 'Conv_7': name a node that computes"):
        quantized(network, ranges_of(network, TEST), PtqOptions(float_layers=("Conv_7",)))


# Grids ---------------------------------------------------------------------------------------------------

TWO_READERS = """
net (float[n, 3, h, w] image) => (float[n, 3, h, w] upscaled) <float[3, 3, 1, 1] k, float[3, 3, 1, 1] j>
{
    c = Conv (image, k)
    r = Relu (c)
    d = Conv (MORE, j)
    upscaled = Add (r, d)
}"""


def test_a_relu_is_the_lower_end_of_the_grid_of_what_it_alone_reads() -> None:
    network = text_network(TWO_READERS.replace("MORE", "r"))
    ranges = {name: Range(-2, 2) for name in ("image", "c", "d", "upscaled")} | {"r": Range(0, 2)}
    grids = plan_grids(FloatGraph(network), ranges)
    assert grids.of("c") is grids.of("r")
    assert grids.of("r").zero_point == 0
    assert not by_op(quantized(network, ranges), "Clip")


@pytest.mark.parametrize(("high", "scale"), [(0.98, 1 / 256), (0.4, 0.4 / 255)])
def test_a_sigmoid_has_the_grid_of_tflite_unless_that_wastes_a_bit(high: float, scale: float) -> None:
    network = text_network(
        CONV.replace("Identity (c)", "Mul (c, s)").replace("k)", "k)\n    s = Sigmoid (c)")
    )
    ranges = {name: Range(-2, 2) for name in ("image", "c", "upscaled")} | {"s": Range(0.1, high)}
    grid = plan_grids(FloatGraph(network), ranges).of("s")
    assert (float(grid.scale), grid.zero_point) == (pytest.approx(scale), 0)


def test_a_relu_beside_another_reader_is_a_clip_of_bytes() -> None:
    network = text_network(TWO_READERS.replace("MORE", "c"), k=np.eye(3).reshape(3, 3, 1, 1) - 0.4)
    ranges = ranges_of(network, TEST)
    model = quantized(network, ranges)
    (clip,) = by_op(model, "Clip")
    zero = plan_grids(FloatGraph(network), ranges).of("c").zero_point
    assert zero > 0
    assert [stored(model, name) for name in clip.input[1:]] == [zero, 255]
    assert_read_alike(network, model)


@pytest.mark.parametrize("ratio", [1, 1.3, 2.1, 9, 40])
def test_no_runtime_rounds_a_sum_otherwise(ratio: float) -> None:
    """What is only added is on the grid of the sum; what is read besides is coarser by 1/8 at most."""
    inner = """
    net (float[n, 3, h, w] image) => (float[n, 3, h, w] upscaled) <float[3, 3, 1, 1] k, float[3, 3, 1, 1] j>
    {
        c = Conv (image, k)
        d = Conv (c, j)
        s = Add (c, d)
        upscaled = Conv (s, j)
    }"""
    network = text_network(inner)
    spans = {"image": Range(0, 1), "c": Range(-1, 1), "d": Range(-0.1, 0.2), "s": Range(-ratio, ratio)}
    grids = plan_grids(FloatGraph(network), spans | {"upscaled": Range(0, 1)})
    of_sum, of_read, of_added = (float(grids.of(name).scale) for name in ("s", "c", "d"))
    assert of_added == of_sum
    assert of_sum == pytest.approx(2 * ratio / 254, rel=0.03)
    added = [grids.of(name) for name in ("c", "d", "s")]
    assert sums_agree(*added)
    assert xnnpack_sums_agree(*added)
    assert 2 / 254 <= of_read <= 2 / 254 * 1.14
    assert {grids.of(name).zero_point % 2 for name in ("s", "c", "d")} == {0}


# Weights -------------------------------------------------------------------------------------------------

FILTERS = st.integers(0, 2**31).map(
    lambda seed: np.random.default_rng(seed).standard_t(3, (4, 2, 3, 3)).astype(np.float32)
)


@given(FILTERS, st.sampled_from([4, 8]), st.sampled_from(["mse", "max"]))
@settings(max_examples=20, deadline=None)
def test_integers_stay_in_their_bits_and_near_the_weights(weight: np.ndarray, bits: int, rule: str) -> None:
    found = rounded(weight, None, assumed(weight, 1), bits, rule)  # type: ignore[arg-type]
    low, high = {8: (-127, 127), 4: (-8, 7)}[bits]
    assert low <= found.q.min()
    assert found.q.max() <= high
    restored = found.q * found.scale.reshape(-1, 1, 1, 1)
    peak = np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
    assert (np.abs(restored - weight) <= peak * {8: 0.06, 4: 0.6}[bits]).all()


@given(FILTERS, st.sampled_from([4, 8]))
@settings(max_examples=20, deadline=None)
def test_the_error_of_successive_rounding_is_that_of_the_filters_output(
    weight: np.ndarray, bits: int
) -> None:
    rows, moments = weight.reshape(4, -1).astype(np.float64), assumed(weight, 1)[0]
    scale = largest_scale(rows.astype(np.float32), bits)
    q, _, error = successive(rows, np.zeros(4), upper_root(moments), scale, bits)
    d = rows - q * scale[:, None].astype(np.float64)
    np.testing.assert_allclose(error, np.einsum("ok,kl,ol->o", d, moments, d), rtol=1e-6)


@pytest.mark.parametrize("largest", [255, 65535])
def test_sums_of_products_of_steps_are_exact_for_bytes_and_for_16_bits(largest: int) -> None:
    steps = np.random.default_rng(0).integers(largest - 9, largest + 1, (1, 700, 3))
    exact = steps[0].T @ steps[0]
    np.testing.assert_array_equal(_products(steps.astype(np.float32))[0], exact.astype(np.float64))


def test_the_root_of_moments_is_upper_triangular() -> None:
    a = np.random.default_rng(0).normal(size=(7, 9))
    root = upper_root(a @ a.T)
    np.testing.assert_allclose(root @ root.T, a @ a.T, rtol=1e-9)
    assert (root == np.triu(root)).all()


def test_rounding_keeps_what_a_filter_makes_of_a_flat_image() -> None:
    """Of sums of 100 filters: half of the error at most that each weight by itself leaves."""
    weight = np.random.default_rng(1).normal(size=(100, 1, 3, 3)).astype(np.float32)
    scale = largest_scale(weight.reshape(100, -1), 4)
    alone = nearest(weight, scale, 4, 0) * scale.reshape(-1, 1, 1, 1) - weight
    found = rounded(weight, None, assumed(weight, 1), 4, "max")
    together = found.q * found.scale.reshape(-1, 1, 1, 1) - weight
    assert np.abs(together.sum(axis=(1, 2, 3))).mean() < np.abs(alone.sum(axis=(1, 2, 3))).mean() / 2


@given(FILTERS, st.floats(1e-12, 1e3), st.floats(0, 1e6))
@settings(max_examples=50, deadline=None)
def test_no_sum_leaves_32_bits_whatever_the_bias(
    weight: np.ndarray, input_scale: float, largest: float
) -> None:
    weight[0] = 0
    bias = np.float32([largest, -largest, largest / 1e3, 0])
    scale = largest_scale(weight.reshape(4, -1), 8)
    start = IntegerWeights(nearest(weight, scale, 8, 0), scale, 0)
    read = QuantParams(np.asarray(input_scale, np.float32), 0, 0, 255)
    found = with_room(weight, start, bias, read, 8)
    q, step = quantize_bias(bias, found.scale, np.float32(input_scale))
    sums = np.abs(found.q.astype(np.int64)).reshape(4, -1).sum(axis=1) * 255
    assert (sums + np.abs(q.astype(np.int64)) <= INT32_MAX).all()
    np.testing.assert_allclose(q * step.astype(np.float64), bias, rtol=1e-4, atol=float(step.max()))
    assert (found.scale[1:] >= start.scale[1:]).all()  # without weights any scale will do


def test_a_bias_without_weights_keeps_its_value() -> None:
    network = text_network(
        CONV.replace("(image, k)", "(image, k, b)").replace("k>", "k, float[3] b>"),
        k=np.zeros((3, 3, 1, 1)), b=np.float32([0.2, 0.4, 0.6]),
    )  # fmt: skip
    output = IntegerRunner(network, quantized(network, ranges_of(network, TEST)))(TEST)
    np.testing.assert_array_equal(np.unique(output.reshape(-1, 3), axis=0), [[51, 102, 153]])


def test_fitted_weights_do_not_depend_on_batches_and_outlive_a_file(tmp_path: Path) -> None:
    network = float_network("xlsr with a clip", tmp_path)
    images, options = patches(), PtqOptions()
    ranges = ranges_of(network, images)
    one, two = (
        fitted_weights(network, ranges, options, batches) for batches in ([images], [images[:2], images[2:]])
    )
    assert to_document(one) == to_document(two)
    read = from_document(to_document(one), "calibration.json")
    a, b = (quantized(network, ranges, options, weights) for weights in (one, read))
    assert a.SerializeToString() == b.SerializeToString()


@pytest.mark.parametrize(("damage", "said"), [
    ({"q": "AAAA"}, "its weights are damaged"), ({"q": "no base64"}, "weights.c.q is 'no base64', not bytes"),
    ({"scale": "AACAPw=="}, "its weights are damaged"), ({"axis": 9}, "its weights are damaged"),
    ({"shape": [0, 1, 1, 1]}, r"weights.c.shape\[0\] is 0"),
    ({"shape": None}, "weights.c.shape is None, not a list"),
])  # fmt: skip
def test_damaged_weights_are_refused(damage: dict[str, object], said: str) -> None:
    good = to_document({"c": IntegerWeights(np.ones((2, 3, 1, 1), np.int8), np.float32([1, 2]), 0)})
    assert from_document(good, "x")["c"].scale.tolist() == [1, 2]
    with pytest.raises(CalibrationError, match=f"x: {said}.*: make it again"):
        from_document({"c": good["c"] | damage}, "x")


def test_weights_of_another_network_are_refused() -> None:
    network = text_network(CONV)
    wrong = {"Conv_0": IntegerWeights(np.ones((2, 3, 1, 1), np.int8), np.float32([1, 2]), 0)}
    with pytest.raises(ModelError, match="weights of 'Conv_0' are of another network"):
        quantized(network, ranges_of(network, TEST), PtqOptions(), wrong)


# Rewrites ------------------------------------------------------------------------------------------------

TRANSPOSED = {  # attributes: (kernel, becomes a convolution)
    "strides = [2, 2], pads = [1, 1, 1, 1]": (4, True),
    "strides = [2, 2], pads = [4, 4, 4, 4], output_padding = [1, 1]": (9, True),
    "strides = [3, 3], pads = [3, 3, 3, 3]": (9, True),
    "strides = [3, 3]": (3, True),
    "strides = [2, 2], pads = [0, 1, 2, 1]": (4, True),
    "strides = [1, 1], pads = [1, 1, 1, 1]": (3, True),
    "strides = [2, 2], pads = [3, 3, 3, 3]": (4, True),  # leaves out a border
    "strides = [2, 2], pads = [2, 3, 4, 5]": (6, True),
    "strides = [2, 2], pads = [5, 5, 5, 5]": (4, True),
    "strides = [2, 2], pads = [0, 0, 0, 0]": (6, True),  # writes more than twice as much
    "strides = [4, 4]": (2, False),
    "strides = [2, 2]": (3, False),
    "strides = [2, 2], pads = [1, 1, 1, 1], dilations = [2, 2]": (2, False),
}


@pytest.mark.parametrize("attributes", TRANSPOSED)
def test_a_transposed_convolution_is_a_convolution_and_a_shuffle(attributes: str) -> None:
    kernel, becomes_one = TRANSPOSED[attributes]
    rng = np.random.default_rng(0)
    network = text_network(
        f"""net (float[n, 3, h, w] image) => (float[n, 5, y, x] upscaled)
        <float[3, 5, {kernel}, {kernel}] k, float[5] b>
        {{ upscaled = ConvTranspose <{attributes}> (image, k, b) }}""",
        k=rng.normal(size=(3, 5, kernel, kernel)), b=rng.normal(size=5),
    )  # fmt: skip
    new = rewritten(network)
    ops = [node.op_type for node in new.model.graph.node]
    assert ops == (["Conv", "DepthToSpace"] if becomes_one else ["ConvTranspose"])
    onnx.checker.check_model(new.model)
    image = rng.random((1, 5, 6, 3)) * 255
    np.testing.assert_allclose(Runner(new)(image), Runner(network)(image), rtol=1e-4, atol=1e-3)


# How near the float network ------------------------------------------------------------------------------


def by_onnxruntime(network: FloatModel, ranges: dict[str, Range]) -> ModelProto:
    """What quantize_static makes of the same ranges: per channel, uint8 activations, int8 weights."""
    model = ModelProto()
    model.CopyFrom(network.model)
    data = {
        name: TensorData(lowest=np.float32(r.low), highest=np.float32(r.high)) for name, r in ranges.items()
    }
    quantizer = QDQQuantizer(
        model, True, False, QuantType.QInt8, QuantType.QUInt8, TensorsData(CalibrationMethod.MinMax, data),
        [], [], sorted({node.op_type for node in model.graph.node}), {},
    )  # fmt: skip
    quantizer.quantize_model()
    return quantizer.model.model


GAINS = {"abpn": 0.1, "xlsr with a clip": 3, "espcn with a clip": 2, "rfdn": 1}  # dB at least, 8 bits


@pytest.mark.parametrize("name", GAINS)
def test_it_is_nearer_than_quantize_static_with_the_same_ranges(name: str, tmp_path: Path) -> None:
    network = float_network(name, tmp_path)
    ranges, exact = ranges_of(network, patches()), pixels_of(network, TEST)
    session = open_session(by_onnxruntime(network, ranges).SerializeToString(), 1)
    theirs = network.pixels(session.run(None, {network.input: network.feed(TEST)})[0])
    weights = fitted_weights(network, ranges, PtqOptions(), [patches()])
    fitted, assuming = (
        psnr(exact, IntegerRunner(network, quantized(network, ranges, PtqOptions(), w))(TEST))
        for w in (weights, None)
    )
    assert fitted > psnr(exact, np.clip(np.rint(theirs), 0, 255)) + GAINS[name]
    assert assuming > psnr(exact, np.clip(np.rint(theirs), 0, 255))


def test_a_float_layer_computes_in_float(tmp_path: Path) -> None:
    """onnxruntime, left to itself, quantizes float weights between quantizers."""
    network = float_network("espcn with a clip", tmp_path)
    ranges = ranges_of(network, patches())
    first = network.model.graph.node[0].name
    model = quantized(network, ranges, PtqOptions(float_layers=(first,)))
    as_it_runs, as_written = (
        IntegerRunner(network, model, optimized=optimized)(TEST) for optimized in (True, False)
    )
    assert np.abs(as_it_runs - as_written).max() <= 1
    onnx.save(model, tmp_path / "q.onnx")
    report = count_integer_convolutions(tmp_path / "q.onnx")
    assert (report.integer, report.total) == (2, 3)


NORMED = """
net (float[n, 3, h, w] image) => (float[n, 3, h, w] upscaled)
<float[3, 3, 1, 1] k1, float[3] gain, float[3] shift, float[3, 3, 1, 1] k2>
{
    first = Conv (image, k1)
    normed = OPERATION
    bent = LeakyRelu (normed)
    upscaled = Conv (bent, k2)
}"""


@pytest.mark.parametrize(
    ("operation", "quantized_by"),
    [("InstanceNormalization (first, gain, shift)", {"bent"}), ("Tanh (first)", {"normed", "bent"})],
)
def test_an_operation_that_is_not_known_to_bear_grids_computes_and_writes_floats(
    operation: str, quantized_by: set[str]
) -> None:
    """Between it and the convolution behind it nothing is rounded; Tanh is on grids as any known function."""
    network = text_network(NORMED.replace("OPERATION", operation), k1=np.eye(3).reshape(3, 3, 1, 1))
    model = quantized(network, ranges_of(network, TEST))
    written = {node.output[0] for node in by_op(model, "QuantizeLinear")}
    assert written - {"first", "upscaled"} == quantized_by


def test_all_layers_in_float_leave_the_rounding_of_the_output(tmp_path: Path) -> None:
    network = float_network("rfdn", tmp_path)
    layers = tuple(n.name for n in network.model.graph.node if n.op_type == "Conv")
    model = quantized(network, ranges_of(network, patches()), PtqOptions(float_layers=layers))
    difference = np.abs(IntegerRunner(network, model)(TEST) - pixels_of(network, TEST))
    assert difference.max() <= 0.51


def test_channels_last_and_grey_levels_are_the_networks_own(tmp_path: Path) -> None:
    """[N, H, W, 3] in 0..255, as TensorFlow's converters write it."""
    inner = """
    net (float[n, h, w, 3] image) => (float[n, h, w, 3] upscaled) <float[3, 3, 1, 1] k>
    {
        t = Transpose <perm = [0, 3, 1, 2]> (image)
        c = Conv (t, k)
        upscaled = Transpose <perm = [0, 2, 3, 1]> (c)
    }"""
    network = replace(
        text_network(inner, white=255.0, k=np.eye(3)[:, ::-1].reshape(3, 3, 1, 1)), layout="nhwc"
    )
    output = IntegerRunner(network, quantized(network, ranges_of(network, TEST)))(TEST)
    np.testing.assert_array_equal(output, TEST[..., ::-1])


def test_a_long_chain_of_clamps_is_planned_without_recursion() -> None:
    count = 1200  # as many calls within each other as Python allows, and more
    chain = " ".join(f"t{i + 1} = Relu (t{i})" for i in range(count))
    graph = FloatGraph(
        text_network(f"""
        net (float[n, 3, h, w] image) => (float[n, 3, y, x] upscaled) <float[12, 3, 1, 1] k>
        {{ t0 = Conv (image, k) {chain} upscaled = DepthToSpace <blocksize = 2> (t{count}) }}""")
    )
    assert graph.exclusive == {f"t{i}" for i in range(count + 1)}
    grids = plan_grids(graph, dict.fromkeys(graph.floats, Range(0.0, 1.0)))
    assert len({grids.groups.of(f"t{i}") for i in range(count + 1)}) == 1
