"""The twin computes what the interpreter does, to the bit, and has a gradient for all that is trained."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from qnas.calibration.prepare.float_model import FloatModel, activations, read_float_model
from qnas.calibration.ptq.integer_model import PtqOptions, quantized
from qnas.export.from_qdq.reader import integer_network_of
from qnas.finetuning.grids import Groups
from qnas.finetuning.narrowing import best_grid
from qnas.finetuning.operations import FORMS
from qnas.finetuning.start import Bits, Start, at_bits, ends
from qnas.finetuning.twin import Twin
from qnas.integer.convolution import Conv
from qnas.integer.interpreter import run
from qnas.integer.network import IntegerNetwork, rewritten
from qnas.integer.nodes import GainedNode, ImageInput, IntegerNode, LikeAnother
from qnas.quantization.quantizers import quantize
from qnas.testing.places import NETWORKS as NETWORKS_OF_OTHERS
from qnas.testing.random_graphs import random_graph
from qnas.testing.random_networks import noise
from qnas.testing.small_ptq import NETWORKS, float_network, patches, ranges_of

W4A4 = Bits(4, 4, ends=True)


def start_of(network: FloatModel, **options: object) -> Start:
    """Its integers, whose convolutions with weights are all trained."""
    ranges = ranges_of(network, patches()[..., : network.channels])
    found = integer_network_of(quantized(network, ranges, PtqOptions(**options)), "network")
    layers = {node.name for node in network.model.graph.node if node.op_type in ("Conv", "ConvTranspose")}
    real = {
        node.name: node.weight * node.weight_scale.reshape(-1, 1, 1, 1)
        for node, _ in found.convolutions()
        if node.name in layers
    }
    return Start(found, real)


def image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return noise(height, width, seed).transpose(2, 0, 1)[None]


def twin_of(start: Start) -> Twin:
    return Twin(start.network, start.real, start.grids)


def upscaled(twin: Twin, pixels: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return twin.eval()(torch.from_numpy(pixels.astype(np.float32))).numpy()


def assert_exact(twin: Twin, pixels: np.ndarray) -> IntegerNetwork:
    """Returns the network that it is."""
    network = twin.network()
    np.testing.assert_array_equal(upscaled(twin, pixels), run(network, pixels))
    return network


def moved(twin: Twin, seed: int = 0) -> Twin:
    """All that is trained a little elsewhere."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return twin


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("bits", [Bits(), Bits(4), W4A4], ids=["8", "w4", "w4a4"])
def test_a_random_network_is_exact_before_and_after_its_parameters_move(
    seed: int, bits: Bits, tmp_path: Path
) -> None:
    onnx.save(random_graph(seed), tmp_path / "random.onnx")
    start = start_of(read_float_model(tmp_path / "random.onnx", "0..1"))
    rng = np.random.default_rng(seed)
    pixels = image(*(int(n) for n in rng.integers(5, 50, 2)), seed)
    start = at_bits(start, bits, [image(32, 32)])
    twin = twin_of(start)
    np.testing.assert_array_equal(run(assert_exact(twin, pixels), pixels), run(start.network, pixels))
    assert_exact(moved(twin), pixels)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_networks_of_all_operations_are_exact_and_every_parameter_has_a_gradient(
    name: str, tmp_path: Path
) -> None:
    start = at_bits(start_of(float_network(name, tmp_path)), Bits(8, 4, ends=True), [image(32, 32)])
    even = name == "every operation"  # it halves the image, and joins it with itself
    twin, pixels = twin_of(start), image(32 if even else 31, 26)
    assert_exact(twin, pixels)
    twin.train()(torch.from_numpy(pixels.astype(np.float32))).sub(100).square().mean().backward()
    weights = {name: p.grad for name, p in twin.named_parameters() if name.endswith("value")}
    assert len(weights) == len(start.real)
    assert all(grad is not None and grad.isfinite().all() for grad in weights.values())
    assert sum(bool(grad.any()) for grad in weights.values()) >= 3  # weights of zeros give none further


@pytest.mark.parametrize("name", ["acnet", "base7_tf", "espcn_x3_tf", "fsrcnn_x2_tf"])
def test_public_networks_are_exact_after_their_parameters_move(name: str) -> None:
    path = NETWORKS_OF_OTHERS / f"{name}.onnx"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    start = start_of(read_float_model(path, "0..255" if name == "base7_tf" else "0..1"))
    pixels = image(30, 24)[:, : start.network.nodes[0].channels]
    assert_exact(moved(twin_of(at_bits(start, W4A4, [pixels]))), pixels)


def test_a_network_of_16_bits_is_exact(tmp_path: Path) -> None:
    network = float_network("every operation", tmp_path, opset=21)
    twin = twin_of(start_of(network, wide=activations(network)))
    assert any(node.output.is_wide for node in twin.start.nodes)
    assert all(own.free.any() for own in twin.convolutions)
    assert_exact(moved(twin), image(24, 34))


def test_a_channel_whose_bias_alone_sets_its_scale_stays_as_it_is(tmp_path: Path) -> None:
    start = start_of(float_network("espcn with a clip", tmp_path))
    convolutions = {node.name: node for node, _ in start.network.convolutions()}
    first = next(iter(convolutions.values()))
    scale, bias = first.weight_scale.copy(), first.bias.copy()
    scale[0], bias[0] = 2.0**-40, 2**30
    dead = replace(first, weight_scale=scale, bias=bias)
    network = rewritten(start.network, lambda node: (dead if node.name == first.name else node,))
    tuned = moved(Twin(network, start.real)).network()
    found = tuned.by_name()[first.name]
    assert (found.weight_scale[0], found.bias[0]) == (scale[0], bias[0])
    assert (found.weight[0] == first.weight[0]).all()
    assert (found.weight[1:] != first.weight[1:]).any()


def test_every_class_of_node_has_a_gradient() -> None:
    def below(kind: type) -> set[type]:
        return {kind}.union(*map(below, kind.__subclasses__()))

    abstract = {IntegerNode, GainedNode, LikeAnother, ImageInput}
    ours = {kind for kind in below(IntegerNode) if kind.__module__.startswith("qnas.")}  # tests make some too
    assert ours - abstract == FORMS.keys()


def test_gradients_of_weights_are_those_of_the_real_numbers_that_stand_for_them(tmp_path: Path) -> None:
    """One convolution without rounding in its way: d(output)/d(weight) is what the weight multiplies."""
    start = start_of(float_network("espcn with a clip", tmp_path))
    twin = twin_of(start).train()
    pixels = torch.from_numpy(image(16, 16).astype(np.float32))
    own = twin.convolutions[len(twin.convolutions) - 1]
    before = twin(pixels).sum()
    before.backward()  # type: ignore[no-untyped-call]
    slope = own.bias.grad.clone()
    with torch.no_grad():
        own.bias += 0.2
    change = float((twin(pixels).sum() - before).detach())
    assert change == pytest.approx(float(slope.sum()) * 0.2, rel=0.3)


def test_the_first_and_the_last_convolutions_are_the_ends(tmp_path: Path) -> None:
    start = start_of(float_network("espcn with a clip", tmp_path))
    convolutions = [node.name for node, _ in start.network.convolutions()]
    assert ends(start.network, start.real) == {convolutions[0], convolutions[-1]}
    narrow = at_bits(start, Bits(4), [])
    assert [node.bits for node, _ in narrow.network.convolutions()] == [8, 4, 8]


def test_activations_of_4_bits_have_16_levels_and_only_convolutions_read_them(tmp_path: Path) -> None:
    start = at_bits(start_of(float_network("rfdn", tmp_path)), W4A4, [image(32, 32)])
    named = start.network.by_name()
    for name in start.real:
        grid = named[named[name].inputs[0]].output
        assert grid.high == (255 if named[name].inputs[0] == start.network.nodes[0].name else 15)
    for node in start.network.nodes:
        if not isinstance(node, Conv) and node.output.high == 15:
            assert node.name in Groups.of(start.network).first
            assert all(isinstance(reader, Conv) for reader in start.network.readers()[node.name])


def test_a_grid_of_4_bits_has_the_least_error_of_those_tried() -> None:
    values = np.abs(np.random.default_rng(0).normal(0, 1, 4000)).astype(np.float32)
    grid = best_grid(values, 4)
    assert (grid.zero_point, grid.high) == (0, 15)
    assert 0.15 < float(grid.scale) < 0.25  # the optimum of a half-wave Gaussian is 0.213

    def error(step: float) -> float:
        other = replace(grid, scale=np.asarray(step, np.float32))
        return float(np.square(quantize(values, other) * step - values).mean())

    assert error(float(grid.scale)) <= min(error(step) for step in (0.1, 0.15, 0.25, 0.3))
