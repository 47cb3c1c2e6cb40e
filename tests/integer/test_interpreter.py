"""The interpreter defines what every runtime computes: exact sums, one rounding, half to even."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from qnas.errors import ModelError
from qnas.export.integers import integer_network
from qnas.integer.convolution import accumulator_bounds, convolution_sums
from qnas.integer.interpolation import bilinear_weights
from qnas.integer.interpreter import NearTies, run, sizes, trace
from qnas.integer.network import check_accumulators, pruned, saturating_layers
from qnas.integer.nodes import Add, Concat, DepthToSpace, Interpolate, MaxPool, Multiply, Pad, Table
from qnas.network.architecture import find_architecture, named_architectures
from qnas.testing.random_networks import build, noise, random_found
from qnas.testing.small_networks import PIXELS, conv, grid, image, network, pixels, weights
from qnas.torch.inference import upscaler

QUANTIZED = [name for name in named_architectures() if not name.endswith("w32")]


@pytest.mark.parametrize("name", QUANTIZED)
def test_the_interpreter_equals_torch_on_every_pixel(name: str) -> None:
    found = random_found(name)
    pixel = noise(17, 22, seed=1)
    expected = upscaler(found.network)(pixel)
    assert expected.std() > 10
    result = run(integer_network(found), pixel.transpose(2, 0, 1)[None])
    np.testing.assert_array_equal(result[0].transpose(1, 2, 0), expected)


def test_levels_of_a_tensor_that_has_their_scale_already_are_exact() -> None:
    architecture = replace(find_architecture("basic-w4"), levels="lloyd")
    found = build(architecture)
    read, stream = (found.network.module(name) for name in ("body.0.input", "head.1.grid"))
    with torch.no_grad():
        read.step.copy_(stream.step)
    pixel = noise(9, 8)
    result = run(integer_network(found), pixel.transpose(2, 0, 1)[None])
    np.testing.assert_array_equal(result[0].transpose(1, 2, 0), upscaler(found.network)(pixel))


def only(node, *before) -> np.ndarray:  # type: ignore[no-untyped-def]
    return run(network(image(), *before, node), np.array([[[[10]], [[11]], [[200]]]], np.uint8))[0, :, 0, 0]


def test_halves_round_to_even_and_the_grid_saturates() -> None:
    identity = np.eye(3).reshape(3, 3, 1, 1)
    # 10 / 4 = 2.5 -> 2, 11 / 4 = 2.75 -> 3, 200 / 4 = 50 -> 15
    assert only(conv("c", "image", identity, grid(4 * 2**-8, high=15))).tolist() == [2, 3, 15]
    # with zero point 8: -10 / 4 = -2.5 -> -2 -> 6, -2.75 -> -3 -> 5, -50 -> 0
    assert only(conv("c", "image", -identity, grid(4 * 2**-8, 8, high=15))).tolist() == [6, 5, 0]


def test_a_sum_of_two_grids_is_rounded_once() -> None:
    double = conv("double", "image", 2 * np.eye(3).reshape(3, 3, 1, 1), grid(2 * 2**-8))  # the pixel again
    # 10 / 256 + 2 * 10 / 256 = 30 / 256, in steps of 4 / 256 7.5 -> 8; 33 / 4 = 8.25 -> 8; 600 / 4 = 150
    assert only(Add("a", ("image", "double"), 3, grid(4 * 2**-8)), double).tolist() == [8, 8, 150]


def test_a_product_takes_its_constant_factor_into_account() -> None:
    # 100 * 2^-16 * 1.5 in steps of 2^-8: 0.59 -> 1; 121 -> 0.71 -> 1; 40000 -> 234.4 -> 234
    product = Multiply("m", ("image", "image"), 3, PIXELS, np.float32(1.5))
    assert only(product).tolist() == [1, 1, 234]


def test_a_table_concatenation_and_padding_move_bytes() -> None:
    table = Table("t", ("image",), 3, PIXELS, np.arange(255, -1, -1).astype(np.uint8), "levels")
    assert only(table).tolist() == [245, 244, 55]
    assert only(Concat("c", ("image", "image"), 6, PIXELS)).tolist() == [10, 11, 200, 10, 11, 200]
    padded = run(
        network(image(1), Pad("p", ("image",), 2, grid(1, 7), (1, 1, 1, 1), "edge")),
        np.array([[[[1, 2]]]], np.uint8),
    )
    # The zeros of an image have q = 0: its own zero point, not that of the output.
    assert padded[0, 0].tolist() == [[1, 1, 2, 2]] * 3
    assert (padded[0, 1] == 0).all()


def test_a_pixel_shuffle_follows_depth_to_space_crd() -> None:
    x = pixels(3, 2, channels=8)
    shuffled = run(network(image(8), DepthToSpace("s", ("image",), 2, PIXELS, 2)), x)
    np.testing.assert_array_equal(shuffled, F.pixel_shuffle(torch.from_numpy(x), 2).numpy())


@given(st.integers(3, 12), st.integers(3, 12), st.integers(1, 3), st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_pooling_equals_torch(height: int, width: int, kernel: int, stride: int) -> None:
    x = pixels(height, width)
    pooled = run(network(image(), MaxPool("p", ("image",), 3, PIXELS, (kernel, kernel), (stride, stride))), x)
    expected = F.max_pool2d(torch.from_numpy(x).float(), kernel, stride).byte().numpy()
    np.testing.assert_array_equal(pooled, expected)


@st.composite
def convolutions(draw):  # type: ignore[no-untyped-def]
    """(weight, bias, zero point, stride, padding, groups, x)."""
    groups, stride = draw(st.sampled_from([1, 1, 2, 3])), draw(st.integers(1, 2))
    cin, cout = groups * draw(st.integers(1, 4)), groups * draw(st.integers(1, 4))
    kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    padding = draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    size = [max(draw(st.integers(1, 9)), k - 2 * p) for k, p in zip(kernel, padding, strict=True)]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    bias = rng.integers(-(2**20), 2**20, cout)
    x = rng.integers(0, 256, (2, cin, *size)).astype(np.uint8)
    return (
        weights(rng, cout, cin // groups, *kernel),
        bias,
        draw(st.integers(0, 255)),
        stride,
        padding,
        groups,
        x,
    )


@given(convolutions())
@settings(max_examples=60, deadline=None)
def test_sums_are_those_of_integers(case) -> None:  # type: ignore[no-untyped-def]
    weight, bias, zero_point, stride, padding, groups, x = case
    node = conv("c", "image", weight, PIXELS, bias=bias, stride=stride, groups=groups, padding=padding)
    sums = convolution_sums(node, x, grid(1.0, zero_point))
    centred = torch.from_numpy(x).double() - zero_point
    expected = F.conv2d(
        centred,
        torch.from_numpy(weight).double(),
        torch.from_numpy(bias).double(),
        stride,
        padding,
        1,
        groups,
    )
    np.testing.assert_array_equal(sums, expected.numpy().astype(np.int64))
    bounds = accumulator_bounds(node, grid(1.0, zero_point))
    assert (np.abs(sums).max(axis=(0, 2, 3)) <= bounds).all()


def test_the_bound_of_an_accumulator_is_reached() -> None:
    node = conv("c", "image", np.array([[[[3]], [[-2]]]]), PIXELS, bias=np.array([5]))
    # 3 * 255 + 5 = 770 above, -2 * 255 + 5 = -505 below
    assert accumulator_bounds(node, PIXELS).tolist() == [770]
    assert accumulator_bounds(node, grid(1.0, 8, high=15)).tolist() == [3 * 7 + 2 * 8 + 5]


def test_sums_beyond_32_bits_are_refused_by_name() -> None:
    node = conv("huge", "image", np.full((1, 3, 1, 1), 127), PIXELS, bias=np.array([2**31 - 10]))
    with pytest.raises(ModelError, match="huge may reach 2147580793, beyond 32 bits"):
        check_accumulators(network(image(), node))


def test_layers_that_saturate_pairs_in_16_bits_are_named() -> None:
    safe = conv("safe", "image", np.array([[[[64]], [[64]], [[0]]]]), PIXELS)  # 128 * 255 = 32640
    risky = conv("risky", "image", np.array([[[[64]], [[65]], [[0]]]]), PIXELS)  # 129 * 255 = 32895
    low = conv("low", "image", np.array([[[[-64]], [[-65]], [[0]]]]), PIXELS)
    four_bits = conv("four", "quarter", np.full((1, 1, 3, 3), 127), PIXELS)  # 254 * 15 = 3810
    quarter = conv("quarter", "image", np.ones((1, 3, 1, 1)), grid(2**-4, high=15))
    assert saturating_layers(network(image(), safe, risky, low, quarter, four_bits)) == ("risky", "low")


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_bilinear_upscaling_is_a_convolution_of_whole_steps(factor: int) -> None:
    weight = bilinear_weights(factor, 3)
    assert (weight.sum(axis=(1, 2, 3)) == 4 * factor**2).all()
    output = grid(2**-8)
    nodes = (
        Pad("edged", ("image",), 3, PIXELS, (1, 1, 1, 1), "edge"),
        conv("phases", "edged", weight, output, scale=1 / (2 * factor) ** 2, padding=(0, 0)),
        DepthToSpace("large", ("phases",), 3, output, factor),
    )
    x = pixels(5, 6)
    exact = F.interpolate(torch.from_numpy(x).double(), scale_factor=factor, mode="bilinear")
    np.testing.assert_array_equal(run(network(image(), *nodes), x), torch.round(exact).byte().numpy())


def test_interpolation_rounds_after_each_axis() -> None:
    tall = Interpolate("tall", ("small", "image"), 3, PIXELS, 2)
    small = MaxPool("small", ("image",), 3, PIXELS, (2, 2), (2, 2))
    x = np.zeros((1, 3, 4, 2), np.uint8)
    x[:, :, :2], x[:, :, 2:] = 10, 21
    # half-pixel centres at -0.25, 0.25, 0.75, 1.25 of rows 10 and 21: 10, 12.75, 18.25, 21
    assert run(network(image(), small, tall), x)[0, 0, :, 0].tolist() == [10, 13, 18, 21]


def test_sizes_are_those_of_the_tensors() -> None:
    net = integer_network(random_found("rfdn-w8"))
    x = pixels(19, 16)
    expected = {node.name: tensor.shape[2:] for node, tensor in trace(net, x)}
    assert sizes(net, 19, 16) == expected


def test_near_ties_are_counted_and_exact_ties_are_not() -> None:
    ties = NearTies({})
    identity = np.eye(3).reshape(3, 3, 1, 1)
    halves = conv("halves", "image", identity, grid(2 * 2**-8))
    run(network(image(), halves), pixels(8, 8), ties)
    assert sum(ties.counts.values()) == 0
    near = conv("near", "image", identity, grid(2 * 2**-8), scale=np.nextafter(np.float32(1), np.float32(2)))
    run(network(image(), near), np.array([[[[1]], [[3]], [[4]]]], np.uint8), ties)
    assert ties.counts["near"] == 2  # 0.5 and 1.5, but for the last bit; 2 is no tie
    other = conv(
        "other", "image", 0 * identity, grid(np.nextafter(2**-8, 1, dtype=np.float32)), bias=np.ones(3)
    )
    total = Add("total", ("image", "other"), 3, grid(2 * 2**-8))
    run(network(image(), other, total), np.array([[[[4]], [[5]], [[7]]]], np.uint8), ties)
    # other writes 1: sums of 5, 6 and 8 pixels and a last bit, in steps of 2: near 2.5 alone
    assert ties.counts["total"] == 1


def test_nodes_that_nothing_reads_are_pruned() -> None:
    identity = np.eye(3).reshape(3, 3, 1, 1)
    used, unused = (conv(name, "image", identity, PIXELS) for name in ("used", "unused"))
    assert [node.name for node in pruned(network(image(), unused, used)).nodes] == ["image", "used"]
