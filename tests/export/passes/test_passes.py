"""Every edit of the integer network leaves what it computes as it was."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qnas.errors import UsageError
from qnas.export.formats.table import FORMATS
from qnas.export.integers import integer_network
from qnas.export.passes.channel_padding import pad_channels
from qnas.export.passes.dense_groups import dense_groups
from qnas.export.passes.phases import delay_shuffles
from qnas.export.passes.repeats import fewer_copies, fold_repeats
from qnas.export.targets import TARGETS, fitted
from qnas.integer.convolution import Conv
from qnas.integer.interpreter import run
from qnas.integer.network import IntegerNetwork
from qnas.integer.nodes import Add, Concat, DepthToSpace, Pad, Table
from qnas.integer.tables import sigmoid, uint8_table
from qnas.network.architecture import named_architectures
from qnas.quantization.image_gain import ImageGain
from qnas.testing.random_networks import noise, random_found
from qnas.testing.small_networks import PIXELS, conv, grid, image, network, pixels, weights

QUANTIZED = [name for name in named_architectures() if not name.endswith("w32")]
PASSES: dict[str, Callable[[IntegerNetwork], IntegerNetwork]] = {
    "phases": delay_shuffles,
    "repeats": fold_repeats,
    "groups": dense_groups,
    "channels": lambda net: pad_channels(net, 4),
    **{f"target {name}": lambda net, target=target: fitted(net, target) for name, target in TARGETS.items()},
}


@pytest.mark.parametrize("edit", PASSES)
@pytest.mark.parametrize("name", QUANTIZED)
def test_a_pass_leaves_every_pixel_as_it_was(name: str, edit: str) -> None:
    net = integer_network(random_found(name))
    x = noise(17, 15, seed=3).transpose(2, 0, 1)[None]
    np.testing.assert_array_equal(run(PASSES[edit](net), x), run(net, x))


# Phases ----------------------------------------------------------------------------------------------------


def test_the_last_shuffle_moves_behind_tables_adds_and_narrow_convolutions() -> None:
    rng = np.random.default_rng(0)
    shuffled = (
        conv("up", "image", weights(rng, 12, 3, 3, 3), grid(2**-4)),
        DepthToSpace("shuffle", ("up",), 3, grid(2**-4), 2),
        conv("tail", "shuffle", weights(rng, 3, 3, 5, 3), grid(2**-4)),
        Add("sum", ("shuffle", "tail"), 3, grid(2**-3)),
    )
    net = network(image(), *shuffled, scale=2)
    moved = delay_shuffles(net)
    assert [type(node).__name__ for node in moved.nodes] == [
        "ImageInput",
        "Conv",
        "Conv",
        "Add",
        "DepthToSpace",
    ]
    assert moved.nodes[2].weight.shape == (12, 12, 3, 3)  # 5 rows reach one small row to each side
    x = pixels(4, 5)
    np.testing.assert_array_equal(run(moved, x), run(net, x))
    wide = replace(net.nodes[3], weight=weights(rng, 20, 3, 5, 3))  # 80 channels between the phases
    stays = network(*net.nodes[:3], replace(wide, channels=20))
    assert delay_shuffles(stays) is stays


# Repeats ---------------------------------------------------------------------------------------------------


def test_a_convolution_of_copies_becomes_one_of_the_fewest_that_hold_its_sums() -> None:
    weight = np.array([100, 100, 50, -3]).reshape(1, 4, 1, 1).astype(np.int8)  # one channel, four copies
    folded = fewer_copies(weight, 4)
    assert folded.flatten().tolist() == [123, 124]  # 247 does not fit one int8
    assert fewer_copies(weight, 2).flatten().tolist() == [75, 48, 75, 49]  # sums 150 and 97 of two channels


@given(st.integers(2, 6), st.integers(1, 3), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_folded_copies_compute_the_same(copies: int, channels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weight = weights(rng, 4, copies * channels, 3, 3)
    table = Table(
        "table", ("many",), copies * channels, grid(2**-5, high=15),
        rng.integers(0, 16, 256).astype(np.uint8), "levels",
    )  # fmt: skip
    net = network(
        image(channels),
        Concat("many", ("image",) * copies, copies * channels, PIXELS),
        table,
        conv("c", "table", weight, grid(2**-1, 128)),
    )
    folded = fold_repeats(net)
    x = pixels(4, 4, channels, seed % 1000)
    np.testing.assert_array_equal(run(folded, x), run(net, x))
    read = folded.by_name()[folded.nodes[-1].inputs[0]]
    assert read.channels <= copies * channels
    assert folded.by_name()["table.once"].channels == channels


def test_copies_that_an_addition_reads_come_from_a_convolution_of_ones() -> None:
    net = network(
        image(2),
        Concat("many", ("image",) * 3, 6, PIXELS),
        Add("sum", ("many", "many"), 6, PIXELS),
    )
    folded = fold_repeats(net)
    ones = folded.nodes[1]
    assert isinstance(ones, Conv)
    assert ones.weight[:, :, 0, 0].tolist() == [[1, 0], [0, 1]] * 3
    np.testing.assert_array_equal(run(folded, pixels(3, 4, 2)), run(net, pixels(3, 4, 2)))


def test_four_bit_weights_whose_sums_fit_four_bits_stay_four_bits() -> None:
    net = network(
        image(1),
        Concat("many", ("image",) * 2, 2, PIXELS),
        conv("c", "many", np.array([[[[3]], [[4]]], [[[1]], [[-8]]]]), PIXELS, bits=4),
    )
    assert fold_repeats(net).nodes[-1].bits == 4
    wide = replace(net.nodes[-1], weight=np.full((2, 2, 1, 1), 7, np.int8))
    assert fold_repeats(network(*net.nodes[:-1], wide)).nodes[-1].bits == 8


# Channels --------------------------------------------------------------------------------------------------


def test_the_image_gets_a_fourth_channel_of_zeros_once() -> None:
    rng = np.random.default_rng(0)
    net = network(
        image(),
        conv("a", "image", weights(rng, 5, 3, 3, 3), PIXELS),
        conv("b", "image", weights(rng, 6, 3, 1, 1), PIXELS),
        Concat("both", ("a", "b"), 11, PIXELS),
        conv("c", "both", weights(rng, 3, 11, 3, 3), PIXELS),
    )
    padded = pad_channels(net, 4)
    assert [node.channels for node in padded.nodes] == [3, 4, 8, 8, 16, 3]
    assert isinstance(padded.nodes[1], Pad)
    last = padded.nodes[-1]
    assert isinstance(last, Conv)
    assert (last.weight[:, 5:8] == 0).all()
    assert (last.weight[:, 14:] == 0).all()
    np.testing.assert_array_equal(run(padded, pixels(5, 4)), run(net, pixels(5, 4)))


def test_what_a_shuffle_or_a_grouped_convolution_touches_keeps_its_width() -> None:
    rng = np.random.default_rng(0)
    net = network(
        image(),
        conv("a", "image", weights(rng, 6, 3, 1, 1), PIXELS),
        conv("grouped", "a", weights(rng, 6, 3, 3, 3), PIXELS, groups=2),
        conv("up", "grouped", weights(rng, 12, 6, 1, 1), PIXELS),
        DepthToSpace("shuffle", ("up",), 3, PIXELS, 2),
        scale=2,
    )
    padded = pad_channels(net, 8)
    assert [padded.by_name()[name].channels for name in ("a", "grouped", "up")] == [6, 6, 12]
    np.testing.assert_array_equal(run(padded, pixels(5, 4)), run(net, pixels(5, 4)))


@pytest.mark.parametrize(("function", "width"), [("sigmoid", 6), ("requantize", 8)])
def test_channels_are_added_to_what_decides_a_gain_where_they_hold_zero(function: str, width: int) -> None:
    rng = np.random.default_rng(0)
    table = uint8_table(sigmoid if function == "sigmoid" else lambda x: x, grid(2**-4, 128), PIXELS)
    up = conv("up", "a", weights(rng, 4, 6, 1, 1), grid(2**-1, 128), scale=2**-6)
    net = network(
        image(),
        conv("a", "image", weights(rng, 6, 3, 1, 1), grid(2**-4, 128), scale=2**-4),
        Table("decides", ("a",), 6, PIXELS, table, function),
        replace(up, inputs=("a", "decides"), image_gain=ImageGain(1.0, 0.5, 6)),
    )
    padded = pad_channels(net, 4)
    assert padded.by_name()["decides"].channels == width
    np.testing.assert_array_equal(run(padded, pixels(5, 4)), run(net, pixels(5, 4)))


# Groups and targets ----------------------------------------------------------------------------------------


def test_groups_become_zeros_and_depthwise_convolutions_stay() -> None:
    grouped = conv("g", "image", np.arange(1, 5).reshape(4, 1, 1, 1), PIXELS, groups=2)
    depthwise = conv("d", "g", np.ones((4, 1, 3, 3)), PIXELS, groups=4)
    dense = dense_groups(network(image(2), grouped, depthwise))
    assert dense.nodes[1].weight[:, :, 0, 0].tolist() == [[1, 0], [2, 0], [0, 3], [0, 4]]
    assert dense.nodes[2] is depthwise


def test_a_target_that_does_not_write_a_format_is_refused_with_those_that_do() -> None:
    assert FORMATS["tflite"].target(None).name == "litert"
    with pytest.raises(UsageError, match="--target litert takes no onnx-qdq: use one of onnxruntime"):
        FORMATS["onnx-qdq"].target("litert")
