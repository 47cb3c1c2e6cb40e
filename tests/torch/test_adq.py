"""ADQ per image: the gain of an image is a number that integers decide, and the same one everywhere."""

import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from qnas.errors import ModelError
from qnas.export.integers import integer_network
from qnas.export.passes.channel_padding import pad_channels
from qnas.export.passes.phases import delay_shuffles
from qnas.export.passes.repeats import fold_repeats
from qnas.export.targets import TARGETS, fitted
from qnas.export.to_onnx.simplify import simplify
from qnas.export.to_onnx.writer import write_onnx
from qnas.export.to_tflite.writer import write_tflite
from qnas.images.files import list_images, read_image
from qnas.integer.convolution import Conv
from qnas.integer.interpreter import run, trace
from qnas.integer.network import IntegerNetwork
from qnas.integer.nodes import Concat, DepthToSpace, Multiply
from qnas.network.architecture import find_architecture
from qnas.onnx.cost import model_cost
from qnas.onnx.fusion import count_integer_convolutions
from qnas.onnx.session import open_session
from qnas.quantization.image_gain import FACTORS, ImageGain, variance
from qnas.quantization.quantizers import SMALLEST_SCALE, dequantize, snap_scale
from qnas.testing.random_networks import build, noise, random_found
from qnas.testing.small_networks import PIXELS, conv, grid, image, network, pixels, weights
from qnas.torch.checkpoint import Found
from qnas.torch.deviation import Deviation
from qnas.torch.inference import (
    calibrate_deviations,
    deviations_per_image,
    freezing_price,
    to_network,
    upscaler,
    validate,
)

TARGET = TARGETS["onnxruntime"]
NAMES = ("basic-adq-w48-example", "rfdn-adq-w48-example", "linear")


@cache
def adaptive(name: str) -> Found:
    """A random network whose deviations have all but equal weights, one of them falling.

    "linear" is the first of NAMES with the paper's form of the factor.
    """
    linear = name == "linear"
    architecture = find_architecture(NAMES[0] if linear else name)
    found = build(replace(architecture, normalization="adq_linear") if linear else architecture, seed=3)
    with torch.no_grad():
        for k, module in enumerate(found.network.deviations()):
            module.weight.fill_((0.8, -0.5, 1.3, 1.0, 0.6)[k])
            module.bias.fill_((0.9, 1.2, 0.05, 0.3, 0.1)[k] if linear else (0.9, -1.2, 2.0, 0.3, 0.1)[k])
    return found


@cache
def exported(name: str) -> tuple[IntegerNetwork, onnx.ModelProto]:
    net = fitted(integer_network(adaptive(name), "per-image"), TARGET)
    return net, simplify(write_onnx(net, TARGET))[0]


def by_onnxruntime(model: onnx.ModelProto, x: np.ndarray, optimized: bool = True) -> np.ndarray:
    session = open_session(model.SerializeToString(), threads=1, optimized=optimized)
    return session.run(None, {"image": x})[0]


# The decision ----------------------------------------------------------------------------------------------


def test_a_variance_is_that_of_the_values_behind_the_sums() -> None:
    total, squares = np.array([7.0, 12.0]), np.array([21.0, 48.0])  # 1, 2, 4 and 4, 4, 4
    assert variance(total, squares, 3).tolist() == [(21 - 7 * (7 / 3)) / 2, 0.0]
    assert variance(np.array([5.0]), np.array([25.0]), 1).tolist() == [0.0]


def test_a_factor_changes_halfway_between_short_numbers() -> None:
    gain = ImageGain(1.0, 0.0, channels=3)  # the standard deviation itself
    ends = [(31 / 32) ** 2, (17 / 16) ** 2]  # between 15/16 and 1, and between 1 and 9/8
    around = [end * (1 + side * 1e-12) for end in ends for side in (-1, 1)]
    assert gain.of(np.array(around)).tolist() == [15 / 16, 1, 1, 9 / 8]
    assert gain.of(np.array(around) / 2.0**-8, scale=2.0**-4).tolist() == [15 / 16, 1, 1, 9 / 8]


def test_a_falling_factor_is_largest_for_a_flat_image() -> None:
    gain = ImageGain(-0.5, 0.0, channels=3)
    largest = SMALLEST_SCALE**-0.5
    assert gain.of(np.array([0.0, 1.0, 16.0, 2.0**80])).tolist() == [largest, 1, 0.5, 2.0**-20]


@pytest.mark.parametrize(("bias", "factor"), [(math.log(3), 3), (-80, SMALLEST_SCALE), (80, FACTORS[-1])])
def test_a_factor_that_does_not_hang_on_the_image_stays_within_bounds(bias: float, factor: float) -> None:
    thresholds, factors = ImageGain(0.0, bias, channels=3).steps()
    assert len(thresholds) == 0
    assert factors.tolist() == [factor]


@given(st.floats(-4, 4), st.floats(-4, 4), st.floats(-20, 20))
def test_a_factor_is_the_learned_function_snapped(weight: float, bias: float, log_std: float) -> None:
    std = max(math.exp(log_std), SMALLEST_SCALE)
    factor = math.exp(np.clip(weight * math.log(std) + bias, *np.log(FACTORS[[0, -1]])))
    mantissa = math.frexp(factor)[0] * 16
    assume(abs(mantissa % 1 - 0.5) > 1e-5)  # float32 could put it on the other side
    found = ImageGain(weight, bias, channels=3).of(np.array([math.exp(2 * log_std)]))
    assert found.tolist() == snap_scale(np.array([factor], np.float32), 4).tolist()


@given(st.floats(-4, 4), st.floats(-4, 4), st.floats(-20, 20))
def test_a_linear_factor_is_the_learned_line_snapped(weight: float, bias: float, log_std: float) -> None:
    std = max(math.exp(log_std), SMALLEST_SCALE)
    factor = float(np.clip(weight * std + bias, *FACTORS[[0, -1]]))
    mantissa = math.frexp(factor)[0] * 16
    assume(abs(mantissa % 1 - 0.5) > 1e-5)
    found = ImageGain(weight, bias, 3, "linear").of(np.array([math.exp(2 * log_std)]))
    assert found.tolist() == snap_scale(np.array([factor], np.float32), 4).tolist()


def test_a_line_that_falls_below_zero_stops_at_the_smallest_factor() -> None:
    gain = ImageGain(-1.0, 2.0, 3, "linear")
    assert gain.of(np.array([0.0, 1.0, 4.0, 9.0])).tolist() == [2, 1, SMALLEST_SCALE, SMALLEST_SCALE]


# The definition --------------------------------------------------------------------------------------------


def test_an_image_of_twice_the_deviation_has_twice_the_gain() -> None:
    gain = ImageGain(1.0, math.log(256 / math.sqrt(8)), channels=1)  # 1 at a deviation of sqrt(8) grey levels
    node = conv("c", "image", np.ones((1, 1, 1, 1)), PIXELS, bias=np.array([1]))
    net = network(image(1), replace(node, inputs=("image", "image"), image_gain=gain))
    both = np.array([[[[10, 14]]], [[[10, 18]]]], np.uint8)  # variances 8 and 32
    assert run(net, both).tolist() == [[[[11, 15]]], [[[22, 38]]]]


def test_a_product_has_the_gain_of_its_last_input() -> None:
    gain = ImageGain(1.0, math.log(256 / math.sqrt(24 / 5)), channels=3)
    product = Multiply("m", ("image", "image", "image"), 3, grid(2.0**-16 * 8), image_gain=gain)
    net = network(image(), product)
    model = write_onnx(net, TARGET)
    for values, expected in (([10, 14], [12, 24]), ([10, 18], [25, 81])):  # 12.5 and 24.5, half to even
        x = np.array([[[values]] * 3], np.uint8)
        (reference,) = ReferenceEvaluator(model).run(None, {"image": x})
        for result in (run(net, x), by_onnxruntime(model, x), reference):
            assert result.tolist() == [[[expected]] * 3]


# The same in every backend ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "size"),
    [(0, (1, 1)), (0, (3, 5)), (0, (21, 18)), (1, (17, 17)), (1, (23, 30)), (2, (3, 5)), (2, (21, 18))],
)
def test_every_backend_equals_torch_on_every_pixel(space: int, size: tuple[int, int]) -> None:
    found = adaptive(NAMES[space])
    net, model = exported(NAMES[space])
    images = np.stack([noise(*size, seed=5), noise(*size, seed=6) // 3, np.full((*size, 3), 90, np.uint8)])
    batch = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    frozen = np.stack([upscaler(found.network)(pixel) for pixel in images]).transpose(0, 3, 1, 2)
    with deviations_per_image(found.network, True), torch.no_grad():
        expected = (found.network(to_network(images)) * 256).byte().numpy()
        alone = upscaler(found.network)(images[1])
    assert (expected != frozen).any()
    np.testing.assert_array_equal(alone.transpose(2, 0, 1), expected[1])  # others in a batch do not matter
    np.testing.assert_array_equal(run(integer_network(found, "per-image"), batch), expected)
    np.testing.assert_array_equal(run(net, batch), expected)
    for k in range(3):
        for optimized in (True, False):
            np.testing.assert_array_equal(by_onnxruntime(model, batch[k : k + 1], optimized)[0], expected[k])
    if images[0].size < 100:  # pure Python
        (reference,) = ReferenceEvaluator(model).run(None, {"image": batch[:1]})
        np.testing.assert_array_equal(reference[0], expected[0])


def test_images_differ_in_their_gains() -> None:
    found = adaptive(NAMES[0])
    gains = []
    with deviations_per_image(found.network, True), torch.no_grad():
        for module in found.network.deviations():
            module.register_forward_hook(lambda module, inputs, factor: gains.append(factor.flatten()))
        found.network(to_network(np.stack([noise(8, 8, 1), noise(8, 8, 2) // 4])))
    assert len(gains) == 5  # three blocks, the body and the tail
    assert sum(bool(first != second) for first, second in gains) > 2  # two may have the same short factor


@given(
    st.integers(1, 7), st.sampled_from([2.0**-6, 2.0**-8]), st.floats(-1.5, 1.5),
    st.sampled_from([4, 8]), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_channels_of_zeros_do_not_count(
    channels: int, scale: float, weight: float, bits: int, height: int, width: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    zero, top = (8, 15) if bits == 4 else (128, 255)
    gain = ImageGain(weight, 0.5, channels)
    source = conv("source", "image", weights(rng, channels, 3, 3, 3), grid(scale, zero, 0, top), scale=2**-6)
    reader = conv("reader", "source", weights(rng, 5, channels, 3, 3, bits=bits), grid(2**-4, high=top),
                  scale=11 * 2**-10, bias=rng.integers(-50, 50, 5), bits=bits)  # fmt: skip
    reader = replace(reader, inputs=("source", "source"), image_gain=gain)
    end = conv("end", "reader", weights(rng, 3, 5, 1, 1), PIXELS, scale=2**-10)
    net = network(image(), source, reader, end)
    padded = pad_channels(net, 4)
    x = pixels(height, width, seed=seed % 999)
    expected = run(net, x)
    np.testing.assert_array_equal(run(padded, x), expected)
    for form in (net, padded):
        np.testing.assert_array_equal(by_onnxruntime(write_onnx(form, TARGET), x), expected)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_the_graph_takes_one_image_at_a_time(layout: str) -> None:
    net, _ = exported(NAMES[0])
    model = write_onnx(net, TARGET, layout)
    onnx.checker.check_model(model, full_check=True)
    for tensor in (*model.graph.input, *model.graph.output):
        assert tensor.type.tensor_type.shape.dim[0].dim_value == 1
    x = pixels(6, 7)
    fed = x if layout == "nchw" else np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    got = by_onnxruntime(model, fed)
    np.testing.assert_array_equal(got if layout == "nchw" else got.transpose(0, 3, 1, 2), run(net, x))
    frozen = write_onnx(integer_network(adaptive(NAMES[0])), TARGET)
    assert frozen.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


# Passes ----------------------------------------------------------------------------------------------------


def test_a_gain_survives_the_folding_of_copies() -> None:
    rng = np.random.default_rng(1)
    node = conv("c", "many", weights(rng, 3, 12, 1, 1, bits=4), grid(2**-2, 128))
    gain = ImageGain(1.0, 1.0, channels=12)
    net = network(
        image(), Concat("many", ("image",) * 4, 12, PIXELS),
        replace(node, inputs=("many", "many"), image_gain=gain),
    )  # fmt: skip
    folded = fold_repeats(net)
    assert folded.nodes[-1].inputs == ("image", "many")
    np.testing.assert_array_equal(run(folded, pixels(4, 4)), run(net, pixels(4, 4)))


def test_a_convolution_with_a_gain_stays_behind_a_shuffle() -> None:
    rng = np.random.default_rng(2)
    gained = replace(
        conv("tail", "shuffle", weights(rng, 3, 3, 3, 3), PIXELS),
        inputs=("shuffle", "shuffle"), image_gain=ImageGain(1.0, 0.0, channels=3),
    )  # fmt: skip
    up = conv("up", "image", weights(rng, 12, 3, 1, 1), grid(2**-4))
    net = network(image(), up, DepthToSpace("shuffle", ("up",), 3, grid(2**-4), 2), gained, scale=2)
    assert delay_shuffles(net) is net


# What runs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_all_convolutions_and_products_run_as_integers(name: str, tmp_path: Path) -> None:
    net, model = exported(name)
    onnx.save(model, tmp_path / "model.onnx")
    report = count_integer_convolutions(tmp_path / "model.onnx")
    assert report.integer == report.total == sum(isinstance(node, Conv) for node in net.nodes)
    open_session(tmp_path / "model.onnx", 1, optimized_model_path=tmp_path / "optimized.onnx")
    ops = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert ops.count("QLinearMul") == sum(isinstance(node, Multiply) for node in net.nodes)
    assert not {"Conv", "QuantizeLinear", "DequantizeLinear"} & set(ops)


def test_weights_stay_packed_and_cost_what_they_cost_frozen() -> None:
    found = build(find_architecture(NAMES[0]).with_bits(5))
    for bits, network_found in ((4, adaptive(NAMES[0])), (5, found)):
        costs = []
        for adq in ("frozen", "per-image"):
            model = write_onnx(fitted(integer_network(network_found, adq), TARGET), TARGET)
            costs.append(model_cost(model, {"image": (1, 3, 8, 8)}))
        assert (costs[0].macs, costs[0].bitops) == (costs[1].macs, costs[1].bitops), bits
        assert costs[1].uncovered == ()


# What is refused -------------------------------------------------------------------------------------------


def test_a_network_without_adq_is_refused() -> None:
    with pytest.raises(ModelError, match="--adq per-image needs a network with ADQ"):
        integer_network(random_found("espcn-w8"), "per-image")


@pytest.mark.parametrize("name", [name for name in TARGETS if name != "onnxruntime"])
def test_other_targets_are_refused_by_name(name: str) -> None:
    net = integer_network(adaptive(NAMES[0]), "per-image")
    with pytest.raises(ModelError, match=f"--adq per-image needs --target onnxruntime: target {name} has"):
        fitted(net, TARGETS[name])


def test_tflite_is_refused() -> None:
    with pytest.raises(ModelError, match="--adq per-image needs --target onnxruntime: TFLite has"):
        write_tflite(integer_network(adaptive(NAMES[1]), "per-image"), 24, 24)


# Frozen ----------------------------------------------------------------------------------------------------


def test_a_constant_factor_is_the_mean_over_the_images_given() -> None:
    found = build(find_architecture(NAMES[0]), seed=1)
    images = [noise(9, 12, 1), noise(16, 8, 2) // 2]
    factors = []
    for pixel in images:  # the first deviation reads the output of head.1
        reads = dict((node.name, (node, q)) for node, q in trace(
            integer_network(found), np.ascontiguousarray(pixel.transpose(2, 0, 1)[None])
        ))  # fmt: skip
        node, q = reads["head.1"]
        factors.append(dequantize(q, node.output).astype(np.float64).std(ddof=1))  # weight 1, bias 0
    calibrate_deviations(found.network, images)
    first = found.network.module("body.deviation")
    assert first.running_factor.item() == pytest.approx(np.mean(factors), rel=1e-5)
    assert not found.network.per_image
    after = [module.running_factor.clone() for module in found.network.deviations()]
    calibrate_deviations(found.network, images[::-1])
    assert after == [module.running_factor for module in found.network.deviations()]
    calibrate_deviations(found.network, [])
    assert after == [module.running_factor for module in found.network.deviations()]


def test_the_price_of_freezing_is_the_difference_of_two_validations(photographs: Path) -> None:
    network = adaptive(NAMES[0]).network
    price = freezing_price(network, map(read_image, list_images(photographs)), 4)
    assert price.frozen == pytest.approx(validate(network, photographs, 4).psnr)
    with deviations_per_image(network, True):
        assert price.per_image == pytest.approx(validate(network, photographs, 4).psnr)
    assert price.psnr == price.per_image - price.frozen != 0


def test_a_deviation_that_runs_per_image_trains_as_before() -> None:
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    plain, switched = Deviation(), Deviation()
    switched.per_image = True
    assert torch.equal(plain(x), switched(x))
    assert torch.equal(plain.running_factor, switched.running_factor)
