"""torch computes what the numpy definition says, with the gradients of LSQ, and in eval() exact integers."""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor
from torch.nn import functional as F

from qnas.integer.interpolation import interpolation_steps
from qnas.network.architecture import Architecture, Space, find_architecture, named_architectures
from qnas.network.layers import Layer
from qnas.network.lowering import lower, uniform_layers
from qnas.quantization import quantizers as quantization
from qnas.quantization.quantizers import GREY_LEVEL, WEIGHT_SCALE_BITS, QuantParams, QuantSpec, weight_spec
from qnas.torch.deviation import Deviation
from qnas.torch.network import (
    Affine,
    Convolution,
    Network,
    Quantizer,
    affine_step,
    lsq,
    resize_axis,
    sigmoid,
    snap_scale,
    straight_through,
)

QUANTIZED = [name for name in named_architectures() if not name.endswith("w32")]
Build = Callable[[Architecture], Network]


def outputs(network: Network, image: Tensor) -> dict[str, Tensor]:
    """What every layer computes."""
    values: dict[str, Tensor] = {}
    run = network._run

    def record(layer: Layer, x: list[Tensor]) -> Tensor:
        values[layer.name] = run(layer, x)
        return values[layer.name]

    network._run = record  # type: ignore[method-assign]
    try:
        with torch.no_grad():
            network(image)
    finally:
        del network._run
    return values


def quantizer(bits: int, signed: bool, step: float) -> Quantizer:
    module = Quantizer(QuantSpec(bits, signed))
    torch.nn.init.constant_(module.step, step)
    return module


# Against the numpy definition ------------------------------------------------------------------------------


@given(hnp.arrays(np.float32, 20, elements=st.floats(-1, 2.0**20, width=32)), st.integers(1, 7))
def test_torch_snaps_scales_as_numpy_does(scales: np.ndarray, bits: int) -> None:
    ours = snap_scale(torch.from_numpy(scales), bits).numpy()
    assert np.array_equal(ours, quantization.snap_scale(scales, bits))


def test_snapping_hands_the_gradient_through() -> None:
    scale = torch.tensor([0.3, 5.0], requires_grad=True)
    (snap_scale(scale, 1) * torch.tensor([2.0, 3.0])).sum().backward()  # type: ignore[no-untyped-call]
    assert scale.grad is not None
    assert scale.grad.tolist() == [2, 3]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_quantizer_computes_the_numpy_definition(bits: int, signed: bool) -> None:
    module = quantizer(bits, signed, step=0.3)  # snapped to 1/4
    x = torch.cat(
        [torch.randn(1000, generator=torch.Generator().manual_seed(bits)) * 20, torch.arange(-9, 9) / 8]
    )
    params = QuantParams.activation(module.spec, 0.25)
    expected = quantization.dequantize(quantization.quantize(x.numpy(), params), params)
    assert np.array_equal(module(x).detach().numpy(), expected)


@pytest.mark.parametrize("signed", [False, True])
def test_a_quantizer_has_the_gradients_of_its_plain_composition(signed: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(2, 3, 5, 5, generator=generator) * 3).requires_grad_()
    grad = torch.randn(2, 3, 5, 5, generator=generator)
    module = quantizer(4, signed, step=0.25)
    module(x).backward(grad)

    step = torch.tensor(0.25, requires_grad=True)
    plain_x = x.detach().clone().requires_grad_()
    scale = straight_through(step, step * (x.numel() * module.spec.high) ** -0.5)
    inside = (plain_x / scale).clamp(module.spec.low, module.spec.high)
    (straight_through(torch.round(inside), inside) * scale).backward(grad)  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert plain_x.grad is not None
    assert torch.equal(x.grad, plain_x.grad)
    torch.testing.assert_close(module.step.grad, step.grad)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_lsq_has_the_values_and_gradients_of_the_released_code(bits: int, reference: Path) -> None:
    vectors = {k: torch.from_numpy(v) for k, v in np.load(reference / "quantizers.npz").items()}
    weight, scale = (
        vectors[f"lsq{bits}_w"].requires_grad_(),
        vectors[f"lsq{bits}_s"].flatten().requires_grad_(),
    )
    y = lsq(weight, scale, weight_spec(bits, "paper"))
    y.backward(vectors[f"lsq{bits}_gy"])  # type: ignore[no-untyped-call]
    torch.testing.assert_close(y.detach(), vectors[f"lsq{bits}_y"], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(weight.grad, vectors[f"lsq{bits}_gw"], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(scale.grad, vectors[f"lsq{bits}_gs"].flatten(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_weights_of_a_convolution_are_those_of_the_numpy_definition(bits: int) -> None:
    torch.manual_seed(bits)
    module = Convolution(Layer("c", "conv", ("x",), 5, (3, 3), bits=bits), 4)
    weight, scale = (t.detach().numpy() for t in module.quantized_weight())
    assert np.array_equal(
        scale, quantization.snap_scale(module.weight_scale.detach().numpy(), WEIGHT_SCALE_BITS)
    )
    params = QuantParams.weight(weight_spec(bits), scale)
    expected = quantization.dequantize(quantization.quantize(module.weight.detach().numpy(), params), params)
    assert np.array_equal(weight, expected)


def test_a_gain_multiplies_the_scales_and_leaves_the_integers() -> None:
    torch.manual_seed(0)
    module = Convolution(Layer("c", "conv", ("x", "g"), 5, (3, 3), bits=4), 4)
    weight, scale = module.quantized_weight()
    folded, new_scale = module.quantized_weight(torch.tensor([0.37]))
    assert torch.equal(new_scale, snap_scale(scale * 0.37, WEIGHT_SCALE_BITS))
    assert torch.equal(folded / new_scale.view(-1, 1, 1, 1), weight / scale.view(-1, 1, 1, 1))


def test_the_bias_is_a_whole_number_of_accumulator_steps() -> None:
    module = Convolution(Layer("c", "conv", ("x",), 1, bits=8), 1).eval()
    with torch.no_grad():
        module.weight.fill_(1)
        module.weight_scale.fill_(0.25)
        module.bias.fill_(0.9)
    step = 0.25 * 0.5
    assert module(torch.ones(1, 1, 1, 1), torch.tensor(0.5), None).item() == 1 + 7 * step  # 0.9 = 7.2 steps


def test_full_precision_has_no_quantizer_and_no_scale() -> None:
    network = Network(lower(find_architecture("espcn-w32")))
    assert list(network.quantizers()) == []
    assert set(network.state_dict()) == {f"conv_{k}.{part}" for k in range(3) for part in ("weight", "bias")}


# Exact integers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", QUANTIZED)
def test_every_layer_of_a_network_computes_the_same_in_float32_and_float64(
    name: str, calibrated: Build, picture: Tensor
) -> None:
    network = calibrated(find_architecture(name)).eval()
    single = outputs(network, picture)
    double = outputs(copy.deepcopy(network).double(), picture.double())
    differing = [
        key for key, value in single.items() if not torch.equal(value.double(), double[key].double())
    ]
    inexact = {layer.name for layer in network.layers if layer.op == "sigmoid"}  # rounded to a grid behind it
    assert set(differing) <= inexact
    assert single[network.layers[-1].name].unique().numel() > 5


@pytest.mark.parametrize("name", QUANTIZED)
def test_every_quantized_tensor_and_every_convolution_is_integers_times_its_scale(
    name: str, calibrated: Build, picture: Tensor
) -> None:
    network = calibrated(find_architecture(name)).eval()
    for key, value in outputs(network, picture).items():
        module = network.module(key) if key in network._modules_by_layer else None
        layer = network._named[key]
        if isinstance(module, Quantizer):
            steps = value / module.scale()
            assert module.spec.low <= steps.min()
            assert steps.max() <= module.spec.high
        elif isinstance(module, Convolution):
            scale, gain = network.input_scale(layer), None
            assert scale is not None
            if len(layer.inputs) > 1:
                gain = network.module(layer.inputs[1])(value).flatten()
            steps = value / (scale * module.quantized_weight(gain)[1]).view(1, -1, 1, 1)
        else:
            continue
        assert torch.equal(steps, steps.round())


@pytest.mark.parametrize("space", get_args(Space))
def test_with_a_float_residual_stream_networks_run_too(space: Space, picture: Tensor) -> None:
    blank = Architecture(space, channels=12, blocks=1, scale=2, layers={}, residual_bits=None)
    network = Network(lower(replace(blank, layers=uniform_layers(blank, "growth2_3x3", 4))))
    assert network.eval()(picture).shape == (2, 3, 34, 38)


# Training and evaluation -----------------------------------------------------------------------------------


def test_only_evaluation_rounds_to_pixels_and_clips(calibrated: Build, picture: Tensor) -> None:
    network = calibrated(find_architecture("espcn-w8"))
    with torch.no_grad():
        network.module("conv_2").bias.sub_(0.3)
        trained, evaluated = network.train()(picture), network.eval()(picture)
    pixels = evaluated / GREY_LEVEL
    assert trained.min() < 0
    assert not torch.equal(trained / GREY_LEVEL, (trained / GREY_LEVEL).round())
    assert torch.equal(pixels, (trained / GREY_LEVEL).round().clamp(0, 255))


def test_the_deviation_of_each_image_trains_and_their_running_mean_evaluates() -> None:
    module = Deviation()
    x = torch.stack([torch.tensor([-1.0, 1.0]), torch.tensor([-3.0, 3.0])]).view(2, 2, 1, 1)
    factors = module(x).flatten()
    stds = [math.sqrt(2), 3 * math.sqrt(2)]  # of two values, with n - 1 = 1
    assert factors.tolist() == pytest.approx(stds)
    mean = 0.9 * 1 + 0.1 * sum(stds) / 2
    assert module.running_factor.item() == pytest.approx(mean)
    module.eval()
    assert module(x).shape == (1,)
    assert module(x).item() == module.running_factor.item() == pytest.approx(mean)


def test_the_deviation_of_a_flat_image_is_finite_and_so_is_its_gradient() -> None:
    module = Deviation()
    x = torch.zeros(1, 2, 3, 3, requires_grad=True)
    module(x).sum().backward()
    assert x.grad is not None
    assert module.weight.grad is not None
    assert torch.isfinite(x.grad).all()
    assert torch.isfinite(module.weight.grad)


def test_a_batch_norm_on_integers_evaluates_with_an_integer_slope_and_offset() -> None:
    module = Affine(3).eval()
    with torch.no_grad():
        module.weight.copy_(torch.tensor([0.3, -1.1, 0.0]))
        module.bias.copy_(torch.tensor([0.1, -0.2, 0.7]))
        module.running_mean.copy_(torch.tensor([0.5, 0.25, 0.0]))
    scale = torch.tensor(0.125)
    x = torch.arange(-8, 8).view(1, 1, 4, 4).repeat(1, 3, 1, 1) * scale
    slope, offset = module.coefficients(scale)
    step = affine_step(slope)
    integers = slope / step
    assert torch.equal(integers, integers.round())
    assert ((integers.abs() >= 64) & (integers.abs() <= 127)).all()
    assert torch.equal(offset / (step * scale), (offset / (step * scale)).round())
    assert slope.tolist() == pytest.approx([0.3, -1.1, 0.0], rel=1 / 64, abs=1e-6)
    y = module(x, scale)
    assert torch.equal(y, x * slope.view(1, 3, 1, 1) + offset.view(1, 3, 1, 1))
    plain = F.batch_norm(x, module.running_mean, module.running_var, module.weight, module.bias)
    torch.testing.assert_close(y, plain, atol=0.02, rtol=0)
    assert not torch.equal(y, plain)


def test_a_batch_norm_on_floats_is_the_plain_one() -> None:
    torch.manual_seed(0)
    module = Affine(3)
    x = torch.randn(4, 3, 5, 5)
    torch.testing.assert_close(module(x), F.batch_norm(x, None, None, training=True))
    module.eval()
    torch.testing.assert_close(module(x), F.batch_norm(x, module.running_mean, module.running_var))


# Interpolation ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("small", "large"), [(1, 7), (2, 10), (5, 15), (7, 31), (13, 13)])
def test_resizing_is_bilinear_with_weights_of_whole_64ths(small: int, large: int) -> None:
    weights = interpolation_steps(small, large)
    assert weights.shape == (large, small)
    assert (weights.sum(axis=1) == 64).all()
    x = torch.rand(1, 2, small, small, generator=torch.Generator().manual_seed(0))
    plain = F.interpolate(x, size=(large, large), mode="bilinear")
    ours = resize_axis(resize_axis(x, 2, large), 3, large)
    assert (ours - plain).abs().max() <= 2 / 64  # each axis rounds its weights down


def test_resizing_to_the_same_size_changes_nothing() -> None:
    assert np.array_equal(interpolation_steps(9, 9), 64 * np.eye(9))


def test_the_sigmoid_is_that_of_float64() -> None:
    x = torch.linspace(-9, 9, 1001)
    assert np.array_equal(sigmoid(x).numpy(), (1 / (1 + np.exp(-x.double().numpy()))).astype(np.float32))


# Before training -------------------------------------------------------------------------------------------


def test_branches_of_a_residual_start_at_a_tenth(calibrated: Build) -> None:
    srresnet = find_architecture("srresnet-w8")
    network = calibrated(srresnet)
    inner, branch = network.module("body.3.conv_0"), network.module("body.3.conv_1")
    assert branch.weight.std().item() == pytest.approx(0.1 * inner.weight.std().item(), rel=0.02)
    expected = quantization.lsq_initial_scale(branch.weight.detach().numpy(), 8)
    assert np.array_equal(branch.weight_scale.detach().numpy(), expected)


def test_calibration_gives_each_quantizer_the_best_scale_for_what_it_sees(picture: Tensor) -> None:
    torch.manual_seed(0)
    network = Network(lower(find_architecture("espcn-w4"))).train()
    with torch.no_grad(), network.calibrated_by_data():
        values = outputs(network, picture)
    module = network.module("conv_1.input")
    best = quantization.best_power_of_two(values["conv_0"].numpy(), module.spec)
    assert module.step.item() == best
    with torch.no_grad():
        network(picture * 8)
    assert module.step.item() == best


def test_calibration_ends_even_when_the_network_fails(picture: Tensor) -> None:
    network = Network(lower(find_architecture("espcn-w4")))
    with pytest.raises(RuntimeError), network.calibrated_by_data():
        network(picture[:, :1])
    assert not any(module.calibrating for module in network.quantizers())


def test_quantizers_of_one_stream_share_one_parameter(calibrated: Build) -> None:
    network = calibrated(find_architecture("srresnet-w8"))
    owner = network.module("conv_first.grid")
    for name in ("body.0.conv_1.grid", "body.0.add.grid", "body.15.add.grid"):
        assert not list(network.module(name).parameters())
        assert network.module(name).scale() == owner.scale()
    with torch.no_grad():
        owner.step.mul_(4)
    assert network.module("body.15.add.grid").scale() == owner.scale()


def test_the_tensors_of_a_state_are_named_as_the_layers_are() -> None:
    network = Network(lower(find_architecture("rfdn-adq-w48-example")))
    names = {layer.name for layer in network.layers}
    assert {key.rpartition(".")[0] for key in network.state_dict()} <= names
    assert network.get_submodule("body.2.esa.conv1") is network.module("body.2.esa.conv1")


@pytest.fixture(autouse=True)
def _same_random_numbers() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
