"""AdaDM: a second batch norm behind the function of each block, before the factor of the deviation."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from qnas.cost.network_cost import network_cost
from qnas.export.float_writer import write_float32
from qnas.export.integers import integer_network
from qnas.export.targets import TARGETS, fitted
from qnas.export.to_onnx.writer import write_onnx
from qnas.export.to_tflite.writer import write_tflite
from qnas.export.trained import TrainedParameters
from qnas.integer.convolution import Conv
from qnas.integer.interpreter import run
from qnas.integer.network import IntegerNetwork
from qnas.network.architecture import Architecture, Choice, Space, from_json
from qnas.network.layers import Layer, by_name
from qnas.network.lowering import lower, slot_operations
from qnas.onnx.fusion import count_integer_convolutions
from qnas.onnx.session import open_session
from qnas.search.space.search_space import SearchSpace
from qnas.search.supernet.alphas import softmax
from qnas.search.supernet.noise import StepNoise
from qnas.search.supernet.supernet import Supernet
from qnas.search.supernet.world import World
from qnas.search.training.train import Recipe, start, train
from qnas.testing.random_networks import build, noise
from qnas.tflite.session import LiteRtSession
from qnas.torch.checkpoint import Found, load_found, save_found
from qnas.torch.inference import deviations_per_image, to_network, upscaler
from qnas.torch.network import Network

TARGET = TARGETS["onnxruntime"]
SPACES: tuple[Space, ...] = ("basic", "rfdn_space")
BRANCH = {"basic": "body.0.add", "rfdn_space": "body.0.esa.multiply"}  # f of the first block


def architecture(space: Space, bits: tuple[int, ...] = (8,), normalization: str = "adadm") -> Architecture:
    """Two blocks of 12 channels at `bits` in turn."""
    frame = Architecture(space, 12, 2, 2, {}, normalization)  # type: ignore[arg-type]
    slots = enumerate(slot_operations(frame))
    return replace(frame, layers={s: Choice("simple_3x3", bits[k % len(bits)]) for k, s in slots})


@cache
def found(space: Space) -> Found:
    """A random mixed network whose factors are not one, and fall for one of its blocks."""
    network = build(architecture(space, (4, 8)), seed=2)
    with torch.no_grad():
        for k, module in enumerate(network.network.deviations()):
            module.weight.fill_((0.8, -0.5, 0.6, 1.0)[k])
            module.bias.fill_((0.9, -1.2, 0.2, 0.1)[k])
            module.running_factor.fill_((0.7, 1.9, 1.1, 0.8)[k])
    return network


def outputs(network: Network, x: Tensor) -> dict[str, Tensor]:
    """What every layer puts out."""
    values: dict[str, Tensor] = {}
    step = network._run

    def watched(layer: Layer, inputs: list[Tensor]) -> Tensor:
        values[layer.name] = step(layer, inputs)
        return values[layer.name]

    network._run = watched  # type: ignore[method-assign]
    try:
        network(x)
    finally:
        network._run = step  # type: ignore[method-assign]
    return values


# The definition --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", SPACES)
def test_a_block_adds_the_normalised_function_of_what_it_normalised_times_the_deviation(
    space: Space,
) -> None:
    torch.manual_seed(0)
    network = Network(lower(architecture(space, (32,)))).train()
    x = torch.rand(3, 3, 24, 20)
    with torch.no_grad():
        values = outputs(network, x)
        block = values["body.norm" if space == "basic" else "head"]
        norm = nn.functional.batch_norm(block, None, None, training=True)
        torch.testing.assert_close(values["body.0.norm"], norm)
        f = values[BRANCH[space]]
        again = nn.functional.batch_norm(f, None, None, training=True) * 0.1  # branches start at a tenth
        deviation = block.std((1, 2, 3), keepdim=True)  # the learned function is the identity at first
        torch.testing.assert_close(values["body.0.skip"], block + again * deviation)


def test_the_deviation_scales_the_second_norm_alone() -> None:
    for space in SPACES:
        layers = by_name(lower(architecture(space)))
        scaled = [name for name, layer in layers.items() if "body.0.deviation" in layer.inputs]
        assert scaled == ["body.0.norm_again"]
        assert layers["body.0.norm_again"].op == "affine"
        assert layers["body.0.skip"].inputs[1] == "body.0.norm_again.grid"


def test_the_branches_of_a_basic_block_share_a_scale_that_is_not_the_streams() -> None:
    layers = by_name(lower(architecture("basic")))
    own = "body.0.conv_1.grid"
    assert layers[own].scale_of is None
    assert layers["body.0.parallel.grid"].scale_of == layers["body.0.add.grid"].scale_of == own
    stream = layers["body.0.norm_again.grid"].scale_of
    assert stream == layers["body.0.skip.grid"].scale_of == "body.norm.grid"


def test_a_second_norm_costs_one_multiply_add_a_value_and_block() -> None:
    for space in SPACES:
        one, two = (network_cost(lower(architecture(space, (8,), n)), 20, 30) for n in ("adq", "adadm"))
        tail = 3 * 40 * 60 if space == "basic" else 0  # of the body it stands where ADQ has a product
        assert two.macs - one.macs == 2 * 12 * 20 * 30 + tail
        assert two.bitops - one.bitops == (2 * 12 * 20 * 30 + tail) * 64
        assert two.parameters - one.parameters == 2 * 12 * 2 + (3 * 2 if tail else 0)


# Training --------------------------------------------------------------------------------------------------


def test_the_loss_falls_and_all_of_it_learns(photographs: Path, tmp_path: Path) -> None:
    recipe = Recipe((str(photographs),), steps=40, batch=2, patch=8, warmup=5, cache_mib=8)
    current = start(architecture("basic", (4,)), recipe, torch.device("cpu"))
    names = [f"body.0.{part}" for part in ("deviation.weight", "deviation.bias", "norm_again.weight")]
    before = {name: current.network.get_parameter(name).clone() for name in names}
    losses: list[float] = []
    train(current, tmp_path / "run", None, lambda news: losses.append(news.loss))
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:5])
    assert all(not torch.equal(current.network.get_parameter(name), before[name]) for name in names)
    assert current.network.module("body.0.deviation").running_factor != 1
    save_found(tmp_path / "found.pt", current.architecture, current.network, {})
    again = load_found(tmp_path / "found.pt")
    assert again.architecture == from_json(current.architecture.to_json(), "here")
    image = noise(9, 11)
    np.testing.assert_array_equal(upscaler(again.network)(image), upscaler(current.network.eval())(image))


@pytest.mark.parametrize("mixer", ["shared", "san"])
def test_a_supernet_has_the_same_frame_and_all_of_it_has_gradients(mixer: str) -> None:
    torch.manual_seed(0)
    operations = {"*": ("simple_1x1", "simple_3x3")}
    space = SearchSpace("tiny", "basic", 12, 1, 2, (4, 8), operations, "adadm")
    supernet = Supernet(space, mixer).train()  # type: ignore[arg-type]
    probabilities = [softmax(alpha) for alpha in supernet.alphas]
    noise_of_step = StepNoise(0, torch.device("cpu"), World())
    y = supernet(torch.rand(2, 3, 8, 8), probabilities, noise_of_step)
    assert y.shape == (2, 3, 16, 16)
    y.square().sum().backward()
    for name in ("norm.weight", "norm_again.weight", "norm_again.bias", "deviation.weight"):
        grad = supernet.get_parameter(f"body.0.{name}").grad
        assert grad is not None
        assert grad.abs().max() > 0


# Integers --------------------------------------------------------------------------------------------------


def test_the_frozen_deviation_is_part_of_the_integer_slope() -> None:
    network = found("basic").network
    layer = by_name(network.layers)["body.1.norm_again"]
    scale = network.input_scale(layer)
    assert scale is not None
    integers = TrainedParameters(network).convolution(layer)
    folded = integers.weight.reshape(-1) * integers.weight_scale
    norm = network.module(layer.name)
    slope = (norm.weight / torch.sqrt(norm.running_var + norm.eps)).detach().numpy() * np.float32(1.1)
    np.testing.assert_allclose(folded, slope, rtol=1 / 127)
    assert ((np.abs(integers.weight) >= 64) & (np.abs(integers.weight) <= 127)).all()


def by_onnxruntime(net: IntegerNetwork, x: np.ndarray, optimized: bool) -> np.ndarray:
    session = open_session(write_onnx(net, TARGET).SerializeToString(), threads=1, optimized=optimized)
    return session.run(None, {"image": x})[0]


@pytest.mark.parametrize("adq", ["frozen", "per-image"])
@pytest.mark.parametrize("space", SPACES)
def test_every_backend_equals_torch_on_every_pixel(space: Space, adq: str, tmp_path: Path) -> None:
    one = found(space)
    image = noise(19, 22, seed=5)
    x = np.ascontiguousarray(image.transpose(2, 0, 1)[None])
    with deviations_per_image(one.network, adq == "per-image"), torch.no_grad():
        expected = (one.network(to_network(image[None])) * 256).byte().numpy()
    net = integer_network(one, adq)  # type: ignore[arg-type]
    assert expected.std() > 20
    np.testing.assert_array_equal(run(net, x), expected)
    for_runtime = fitted(net, TARGET)
    for optimized in (True, False):
        np.testing.assert_array_equal(by_onnxruntime(for_runtime, x, optimized), expected)
    if adq == "frozen":
        session = LiteRtSession(write_tflite(net, *image.shape[:2]).data)
        np.testing.assert_array_equal(session.run(x), expected)
    onnx.save(write_onnx(for_runtime, TARGET), tmp_path / "model.onnx")
    report = count_integer_convolutions(tmp_path / "model.onnx")
    assert report.integer == report.total == sum(isinstance(node, Conv) for node in for_runtime.nodes)


def test_one_image_has_another_gain_than_another() -> None:
    network = found("basic").network
    pair = to_network(np.stack([noise(9, 9, 1), noise(9, 9, 2) // 4]))
    with torch.no_grad(), deviations_per_image(network, True):
        values = outputs(network.eval(), pair)
    gains = values["body.deviation"].flatten()
    assert gains[0] != gains[1]


@pytest.mark.parametrize("space", SPACES)
def test_the_float32_graph_computes_what_torch_does(space: Space) -> None:
    torch.manual_seed(0)
    network = Network(lower(architecture(space, (32,))))
    x = torch.rand(2, 3, 24, 20)
    with torch.no_grad():
        network.train()(x)
        for module in network.deviations():
            module.running_factor.fill_(1.7)
        expected = network.eval()(x)
    session = open_session(write_float32(network, "adadm", 2).SerializeToString(), threads=1)
    (input_name,) = (each.name for each in session.get_inputs())
    result = session.run(None, {input_name: x.numpy()})[0]
    np.testing.assert_allclose(result, expected.numpy(), atol=1e-4)
