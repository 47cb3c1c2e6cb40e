"""A .tflite file computes what the interpreter defines, on every value, inside XNNPACK."""

import json
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from qnas.errors import ModelError, UsageError
from qnas.export.integers import integer_network
from qnas.export.to_tflite.channel_order import dcr_order, in_runtime_order, shuffled_back
from qnas.export.to_tflite.writer import METADATA, write_tflite
from qnas.integer import interpreter
from qnas.integer.convolution import Conv, unshuffled
from qnas.integer.crops import Crop, CropTo
from qnas.integer.network import IntegerNetwork
from qnas.integer.nodes import (
    Add,
    Concat,
    DepthToSpace,
    ImageInput,
    IntegerNode,
    Interpolate,
    MaxPool,
    Multiply,
    Pad,
    PadMode,
    Table,
)
from qnas.integer.windows import NO_SIDES
from qnas.quantization.quantizers import QuantParams, dequantize, quantize
from qnas.testing.random_networks import noise, random_found
from qnas.tflite.check import check_tflite
from qnas.tflite.reader import load_schema, read_tflite
from qnas.tflite.session import LiteRtSession

few = settings(max_examples=25, deadline=None)
all_pairs = np.stack(np.meshgrid(np.arange(256), np.arange(256)))[None].astype(np.uint8)  # [1, 2, 256, 256]


def grid(scale: float = 2.0**-8, bits: int = 8, signed: bool = False) -> QuantParams:
    return QuantParams(np.asarray(scale, np.float32), 2 ** (bits - 1) if signed else 0, 0, 2**bits - 1)


two = st.tuples(st.integers(1, 3), st.integers(1, 3))  # of height and width
sides = st.tuples(*[st.integers(0, 3)] * 4)
grids = st.builds(grid, st.integers(-12, 3).map(lambda e: 2.0**e), st.integers(2, 8), st.booleans())
lengths = st.integers(1, 7)


def network(*nodes: IntegerNode) -> IntegerNetwork:
    return IntegerNetwork("test", 1, nodes)


def image(channels: int = 3, output: QuantParams | None = None) -> ImageInput:
    return ImageInput("image", (), channels, output or grid())


def pixels(channels: int, height: int, width: int, high: int = 255) -> NDArray[np.uint8]:
    rng = np.random.default_rng(height * 100 + width)
    return rng.integers(0, high + 1, (1, channels, height, width)).astype(np.uint8)


def conv(name: str, source: str, inputs: int, outputs: int, output: QuantParams, **options: object) -> Conv:
    """3x3, lively weights; `options` are fields of Conv."""
    rng = np.random.default_rng(outputs)
    kernel = options.pop("kernel", (3, 3))
    groups = int(str(options.get("groups", 1)))
    weight = rng.integers(-127, 128, (outputs, inputs // groups, *kernel)).astype(np.int8)  # type: ignore[misc]
    scale = np.ldexp(rng.integers(8, 16, outputs), -10).astype(np.float32)
    bias = rng.integers(-3000, 3000, outputs).astype(np.int32)
    options = {"bits": 8, "padding": (1, 1, 1, 1)} | options
    return Conv(name, (source,), outputs, output, weight, scale, bias, **options)  # type: ignore[arg-type]


def check(integers: IntegerNetwork, images: NDArray[np.uint8], left_out: tuple[str, ...] = ()) -> None:
    """Every byte is that of the interpreter; XNNPACK runs all but `left_out`."""
    written = write_tflite(integers, *images.shape[2:])
    session = LiteRtSession(written.data)
    np.testing.assert_array_equal(session.run(images), interpreter.run(integers, images))
    assert written.approximate == ()
    assert session.left_out == left_out


def check_any_size(integers: IntegerNetwork, images: NDArray[np.uint8]) -> None:
    """The same in a file of another size, which is resized."""
    session = LiteRtSession(write_tflite(integers, 32, 33, resizable=True).data)
    np.testing.assert_array_equal(session.run(images), interpreter.run(integers, images))
    assert session.left_out == ()


# Nodes one by one ------------------------------------------------------------------------------------------


@few
@given(grids, grids, lengths, lengths, st.data())
def test_a_convolution_is_exact_whatever_its_grids_window_and_groups(
    read: QuantParams, output: QuantParams, height: int, width: int, data: st.DataObject
) -> None:
    kernel = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    node = conv(
        "conv", "image", 4, 8, output, kernel=kernel, padding=data.draw(sides), stride=data.draw(two),
        dilation=data.draw(two), groups=data.draw(st.sampled_from([1, 2, 4])),
    )  # fmt: skip
    height, width = height + node.reach[0] - 1, width + node.reach[1] - 1
    top = max(float(np.abs(node.weight_scale).max()) * float(read.scale), 1e-9)
    output = replace(output, scale=np.asarray(data.draw(st.floats(top * 2, top * 2000)), np.float32))
    check(network(image(4, read), replace(node, output=output)), pixels(4, height, width, read.high))


def operands(a: QuantParams, b: QuantParams) -> tuple[IntegerNode, ...]:
    """Two tensors of one channel: the image's bytes, on the grids a and b."""
    picks = [
        Conv(
            name, ("image",), 1, each, np.eye(2, dtype=np.int8)[i].reshape(1, 2, 1, 1), each.scale.reshape(1),
            np.array([-each.zero_point], np.int32), 8,
        )
        for i, (name, each) in enumerate((("a", a), ("b", b)))
    ]  # fmt: skip
    return image(2, grid(1.0)), *picks


@pytest.mark.parametrize(
    ("a", "b", "output"),
    [
        (grid(0.5), grid(0.5), grid(0.5)),  # nothing is rounded
        (grid(1.0), grid(2.0, signed=True), grid(0.5, signed=True)),
        (grid(0.5), grid(0.5), grid(1.0)),  # ties
        (grid(0.5, signed=True), grid(0.5), grid(1.0)),  # two zero points
        (grid(0.25), grid(1.0, signed=True), grid(2.0, signed=True)),  # two scales, rounded
        (grid(0.75), grid(0.25), grid(1.0, 4)),
        (grid(0.75), grid(0.5), grid(1.0)),  # three and two times a unit
        (grid(31 / 16), grid(17 / 4, signed=True), grid(2.25, signed=True)),  # 31 and 68 times
        (grid(1.0, 4), grid(1.0, 4), grid(2.0, 4)),
        (grid(1.0, 3, signed=True), grid(0.5, 4), grid(1.0, 4, signed=True)),
        (grid(0.1), grid(0.23), grid(0.31)),  # 31sts: no sum is close to a tie
        (grid(1.0), grid(2.0**-10), grid(0.5)),
    ],
)
def test_an_addition_is_exact_for_every_pair_of_bytes(
    a: QuantParams, b: QuantParams, output: QuantParams
) -> None:
    check(network(*operands(a, b), Add("sum", ("a", "b"), 1, output)), all_pairs)


@pytest.mark.parametrize("scales", [(0.1, 0.25, 0.4), (1.0, 2.0**-10, 4.0)])  # 1024: four weights hold 508
def test_an_addition_without_a_common_unit_is_named_and_at_most_one_step_off(
    scales: tuple[float, float, float],
) -> None:
    a, b, output = (grid(scale) for scale in scales)
    integers = network(*operands(a, b), Add("sum", ("a", "b"), 1, output))
    written = write_tflite(integers, 256, 256)
    off = LiteRtSession(written.data).run(all_pairs).astype(int) - interpreter.run(integers, all_pairs)
    assert written.approximate == ("sum",)
    assert np.abs(off).max() <= 1


@pytest.mark.parametrize("gain", [1.0, 0.75, 0.8125])
@pytest.mark.parametrize("output", [grid(2.0**-4, signed=True), grid(2.0**-3, 4), grid(0.0371, signed=True)])
def test_a_product_is_exact_for_every_pair_of_bytes(gain: float, output: QuantParams) -> None:
    nodes = operands(grid(2.0**-4, signed=True), grid())
    check(network(*nodes, Multiply("product", ("a", "b"), 1, output, np.float32(gain))), all_pairs)


def requantize(read: QuantParams, output: QuantParams) -> NDArray[np.uint8]:
    real = (np.arange(256) - read.zero_point).astype(np.float32) * read.scale
    steps = np.rint(real / output.scale) + output.zero_point
    return np.clip(steps, output.low, output.high).astype(np.uint8)


@few
@given(grids, grids)
def test_a_table_that_requantizes_is_exact_and_inside_xnnpack(read: QuantParams, output: QuantParams) -> None:
    node = Table("table", ("image",), 1, output, requantize(read, output), "requantize")
    outside = () if read.scale / output.scale < 256 else ("QUANTIZE", "CAST", "GATHER")
    values = np.arange(read.high + 1, dtype=np.uint8).reshape(1, 1, 1, -1)
    check(network(image(1, read), node), values, outside)


def sigmoid(read: QuantParams) -> NDArray[np.uint8]:
    real = (np.arange(256) - read.zero_point) * float(read.scale)
    return np.clip(np.rint(256 / (1 + np.exp(-real))), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("exponent", range(-8, 2))
@pytest.mark.parametrize("signed", [True, False])
def test_a_sigmoid_is_the_one_of_the_runtime(exponent: int, signed: bool) -> None:
    read = grid(2.0**exponent, signed=signed)
    node = Table("gate", ("image",), 1, grid(), sigmoid(read), "sigmoid")
    check(network(image(1, read), node), np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16))


def test_a_sigmoid_that_differs_from_the_runtimes_keeps_its_bytes_outside_xnnpack() -> None:
    read = grid(2.0**-5, signed=True)
    other = sigmoid(read)
    other[200] += 1
    node = Table("gate", ("image",), 1, grid(), other, "sigmoid")
    values = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    check(network(image(1, read), node), values, ("QUANTIZE", "CAST", "GATHER"))


@pytest.mark.parametrize("output", [grid(0.3), grid(0.3, signed=True), grid(0.03, bits=4, signed=True)])
@pytest.mark.parametrize("slope", [0.05, 0.2])
def test_a_leaky_relu_is_inside_xnnpack(output: QuantParams, slope: float) -> None:
    read, q = grid(0.1, signed=True), np.arange(256, dtype=np.int32)
    x = dequantize(q, read)
    table = quantize(np.where(x < 0, np.float32(slope) * x, x), output).astype(np.uint8)
    node = Table("leaky", ("image",), 1, output, table, "leaky_relu", slope)
    check(network(image(1, read), node), q.astype(np.uint8).reshape(1, 1, 16, 16))


@pytest.mark.parametrize("read", [grid(), grid(bits=4), grid(bits=4, signed=True)])
def test_a_table_of_any_bytes_is_gathered(read: QuantParams) -> None:
    table = np.random.default_rng(0).permutation(256).astype(np.uint8)
    node = Table("levels", ("image",), 1, grid(0.1), table, "levels")
    values = np.arange(read.high + 1, dtype=np.uint8).reshape(1, 1, 1, -1)
    check(network(image(1, read), node), values, ("QUANTIZE", "CAST", "GATHER"))


@pytest.mark.parametrize("parts", [1, 2, 5, 6, 16, 27])
def test_a_concatenation_holds_any_number_of_parts(parts: int) -> None:
    node = Concat("all", ("image",) * parts, 3 * parts, grid())
    check(network(image(), node), pixels(3, 2, 3))


def test_parts_of_4_and_8_bits_on_one_scale_join() -> None:
    few_bits, all_bits = grid(2.0**-3, 4), grid(2.0**-3)
    nodes = (conv("a", "image", 3, 4, few_bits), conv("b", "image", 3, 5, all_bits))
    check(network(image(), *nodes, Concat("both", ("a", "b"), 9, all_bits)), pixels(3, 5, 6))


@few
@given(two, two, sides, st.booleans(), lengths, lengths)
def test_a_max_pool_is_exact_whatever_its_window(
    kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, ...], signed: bool,
    height: int, width: int,
) -> None:  # fmt: skip
    inside = tuple(min(p, k - 1) for p, k in zip(padding, kernel * 2, strict=True))
    read = grid(signed=signed)
    net = network(image(2, read), MaxPool("pool", ("image",), 2, read, kernel, stride, inside))
    x = pixels(2, height + kernel[0] - 1, width + kernel[1] - 1)
    check(net, x)
    check_any_size(net, x)


@few
@given(lengths, lengths, lengths, lengths, grids)
def test_interpolation_is_exact_whatever_the_sizes(
    height: int, width: int, rows: int, columns: int, output: QuantParams
) -> None:
    """From the image's size to that of a wider image: both are read from one, by valid convolutions."""
    h, w = max(height, rows), max(width, columns)
    small = conv(
        "small", "image", 2, 3, grid(2.0**-2), kernel=(h - height + 1, w - width + 1), padding=NO_SIDES
    )
    like = conv(
        "like", "image", 2, 1, grid(2.0**-2), kernel=(h - rows + 1, w - columns + 1), padding=NO_SIDES
    )
    output = replace(output, scale=np.asarray(2.0**-1, np.float32))
    tall = Interpolate("tall", ("small", "like"), 3, output, 2)
    check(
        network(image(2), small, like, tall, Interpolate("wide", ("tall", "like"), 3, output, 3)),
        pixels(2, h, w),
    )


@pytest.mark.parametrize(("edge", "channels"), [(0, 3), (1, 3), (2, 3), (0, 8), (1, 4)])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 5)])
def test_padding_repeats_edges_and_adds_channels_of_zero(
    edge: int, channels: int, height: int, width: int
) -> None:
    node = Pad("pad", ("image",), channels, grid(signed=True), (edge,) * 4, "edge")
    check(network(image(3, grid(signed=True)), node), pixels(3, height, width))


modes = st.sampled_from(["zero", "edge", "reflect"])


@few
@given(sides, modes, lengths, lengths, st.booleans())
def test_padding_is_exact_in_every_mode_on_every_side_at_any_size(
    around: tuple[int, int, int, int], mode: PadMode, height: int, width: int, signed: bool
) -> None:
    read = grid(signed=signed)
    net = network(image(3, read), Pad("pad", ("image",), 4, read, around, mode))
    x = pixels(3, height + 3, width + 3)
    check(net, x)
    check_any_size(net, x)


@few
@given(sides, modes, st.integers(2, 5), lengths, lengths)
def test_an_image_padded_to_a_multiple_and_cut_to_twice_its_size_is_exact(
    around: tuple[int, int, int, int], mode: PadMode, multiple: int, height: int, width: int
) -> None:
    net = network(
        image(3),
        Pad("pad", ("image",), 3, grid(), around, mode, (multiple, multiple + 1)),
        conv("more", "pad", 3, 8, grid(), kernel=(1, 1), padding=NO_SIDES),
        DepthToSpace("large", ("more",), 2, grid(), 2),
        CropTo("rows", ("large", "image"), 2, grid(), 2, 1, 2),
        CropTo("cut", ("rows", "image"), 2, grid(), 3, 0, 2),
    )
    check(net, pixels(3, height + 7, width + 7))


@few
@given(sides, lengths, lengths)
def test_a_crop_is_exact_at_any_size(around: tuple[int, int, int, int], height: int, width: int) -> None:
    net = network(image(3), Crop("cut", ("image",), 3, grid(), around))
    x = pixels(3, height + 6, width + 6)
    check(net, x)
    check_any_size(net, x)


@pytest.mark.parametrize(("channels", "factor"), [(1, 2), (3, 2), (4, 3)])
def test_pixels_become_channels_and_come_back(channels: int, factor: int) -> None:
    source = image(channels, grid(signed=True))
    shuffle = DepthToSpace("back", ("deep",), channels, source.output, factor)
    net, x = network(source, unshuffled("deep", source, factor), shuffle), pixels(channels, 6, 12)
    np.testing.assert_array_equal(interpreter.run(net, x), x)
    check(net, x)
    check_any_size(net, x)


# Pixel shuffles --------------------------------------------------------------------------------------------


def test_the_order_of_a_shuffle_by_2_of_3_channels() -> None:
    assert dcr_order(3, 2).tolist() == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]


def joined_in_front() -> IntegerNetwork:
    """Convolutions, a batch norm, a pool and a table share the order of the shuffle behind them; another
    convolution and a second shuffle read it too."""
    signed = grid(2.0**-2, signed=True)
    norm = conv("norm", "b", 12, 12, signed, kernel=(1, 1), padding=NO_SIDES, groups=12)
    total = Add("sum", ("a", "norm"), 12, signed)
    table = Table("table", ("sum",), 12, grid(2.0**-3), requantize(signed, grid(2.0**-3)), "requantize")
    pool = MaxPool("pool", ("table",), 12, grid(2.0**-3), (2, 2), (1, 1))
    third = DepthToSpace("third", ("pool",), 3, grid(2.0**-3), 2)
    end = DepthToSpace("end", ("last",), 3, grid(), 2)
    first = (conv("a", "image", 3, 12, signed), conv("b", "image", 3, 12, signed))
    last = conv("last", "pool", 12, 12, grid())
    beside = Add("beside", ("third", "end"), 3, grid(2.0**-3))
    return network(image(), *first, norm, total, table, pool, third, last, end, beside)


def test_an_order_shared_by_a_component_costs_no_node() -> None:
    integers = joined_in_front()
    ordered = in_runtime_order(integers)
    assert [node.name for node in ordered.nodes] == [node.name for node in integers.nodes]


def image_shuffled() -> IntegerNetwork:
    return network(image(8), DepthToSpace("end", ("image",), 2, grid(), 2))


def parts_shuffled() -> IntegerNetwork:
    halves = (conv("a", "image", 3, 4, grid()), conv("b", "image", 3, 8, grid()))
    both = Concat("both", ("a", "b"), 12, grid())
    return network(image(), *halves, both, DepthToSpace("end", ("both",), 3, grid(), 2))


def groups_shuffled() -> IntegerNetwork:
    last = conv("last", "image", 4, 16, grid(), groups=2)
    return network(image(4), last, DepthToSpace("end", ("last",), 4, grid(), 2))


def two_factors() -> IntegerNetwork:
    """One tensor of 16 channels, shuffled by 2 and by 4."""
    a = conv("a", "image", 3, 16, grid())
    by_two = DepthToSpace("by_two", ("a",), 4, grid(), 2)
    again = DepthToSpace("again", ("by_two",), 1, grid(), 2)
    by_four = DepthToSpace("by_four", ("a",), 1, grid(), 4)
    return network(image(), a, by_two, again, by_four, Add("sum", ("again", "by_four"), 1, grid()))


@pytest.mark.parametrize("make", [image_shuffled, parts_shuffled, groups_shuffled, two_factors])
def test_what_cannot_be_reordered_is_permuted_in_front_of_its_shuffle(make: object) -> None:
    integers = make()  # type: ignore[operator]
    added = {node.name for node in in_runtime_order(integers).nodes} - set(integers.by_name())
    assert added == {"again.ordered", "by_four.ordered"} if make is two_factors else {"end.ordered"}


@pytest.mark.parametrize(
    "make", [joined_in_front, image_shuffled, parts_shuffled, groups_shuffled, two_factors]
)
def test_the_runtimes_order_computes_the_same(make: object) -> None:
    integers = make()  # type: ignore[operator]
    images = pixels(integers.nodes[0].channels, 5, 6)
    back = shuffled_back(in_runtime_order(integers))
    np.testing.assert_array_equal(interpreter.run(back, images), interpreter.run(integers, images))
    check(integers, images)


# Whole networks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["espcn-w4", "basic-w48-example", "rfdn-w8", "srresnet-w8", "rfdn-adq-w48-example"]
)
def test_a_network_is_exact_and_inside_xnnpack(name: str) -> None:
    check(integer_network(random_found(name)), noise(31, 26, 1).transpose(2, 0, 1)[None])


@pytest.fixture(scope="module")
def espcn() -> IntegerNetwork:
    return integer_network(random_found("espcn-w4"))


def test_a_resizable_network_takes_images_of_other_sizes(espcn: IntegerNetwork) -> None:
    written = write_tflite(espcn, 8, 8, resizable=True)
    session = LiteRtSession(written.data)
    for height, width in ((8, 8), (1, 5), (13, 4)):
        images = pixels(3, height, width)
        np.testing.assert_array_equal(session.run(images), interpreter.run(espcn, images))
    assert written.resizable
    assert session.delegated == (4, 4)


def test_an_addition_that_rounds_is_exact_at_any_size_too() -> None:
    total = Add("sum", ("a", "b"), 1, grid(1.0, signed=True))
    integers = network(*operands(grid(0.5), grid(0.25, signed=True)), total)
    session = LiteRtSession(write_tflite(integers, 3, 3, resizable=True).data)
    np.testing.assert_array_equal(session.run(all_pairs), interpreter.run(integers, all_pairs))


@pytest.mark.parametrize(
    "nodes",
    [
        (Pad("fixed", ("image",), 3, grid(), multiple=(8, 1)),),
        (
            conv("small", "image", 3, 3, grid(), stride=(2, 2)),
            CropTo("fixed", ("image", "small"), 3, grid(), 2),
        ),
        (
            conv("small", "image", 3, 3, grid(), stride=(2, 2)),
            Interpolate("fixed", ("small", "image"), 3, grid(), 2),
        ),
    ],
)
def test_a_node_without_a_form_for_every_size_is_named(nodes: tuple[IntegerNode, ...]) -> None:
    with pytest.raises(ModelError, match="fixed needs a fixed size"):
        write_tflite(network(image(), *nodes), 8, 8, resizable=True)


def test_uint8_images_cost_two_operators_outside_xnnpack(espcn: IntegerNetwork) -> None:
    session = LiteRtSession(write_tflite(espcn, 6, 7, io="uint8").data)
    images = pixels(3, 6, 7)
    np.testing.assert_array_equal(session.run(images), interpreter.run(espcn, images))
    assert session.delegated == (4, 6)
    assert session.left_out == ("QUANTIZE", "QUANTIZE")


def test_without_xnnpack_nothing_is_delegated(espcn: IntegerNetwork) -> None:
    session = LiteRtSession(write_tflite(espcn, 6, 7).data, xnnpack=False)
    assert session.delegated == (0, 4)
    assert session.run(pixels(3, 6, 7)).shape == (1, 3, 24, 28)


def test_several_images_run_one_after_the_other(espcn: IntegerNetwork) -> None:
    images = np.concatenate([pixels(3, 4, 5), pixels(3, 4, 5)[:, :, ::-1]])
    session = LiteRtSession(write_tflite(espcn, 4, 5).data)
    np.testing.assert_array_equal(session.run(images), interpreter.run(espcn, images))


# The file --------------------------------------------------------------------------------------------------


def unpacked(data: bytes) -> Any:
    """The schema's ModelT."""
    return load_schema().ModelT.InitFromPackedBuf(data, 0)


def test_properties_are_json_in_the_metadata(espcn: IntegerNetwork) -> None:
    data = write_tflite(espcn, 4, 4, properties={"scale": "4", "color_order": "RGB"}).data
    model = unpacked(data)
    (entry,) = [each for each in model.metadata if each.name == METADATA.encode()]
    assert json.loads(bytes(model.buffers[entry.buffer].data)) == {"scale": "4", "color_order": "RGB"}


def test_every_buffer_begins_at_a_multiple_of_16_bytes(espcn: IntegerNetwork) -> None:
    data = write_tflite(espcn, 4, 4).data
    buffers = [each.data.tobytes() for each in unpacked(data).buffers if each.data is not None]
    long = [each for each in buffers if len(each) > 100]
    assert long
    assert [data.index(each) % 16 for each in long] == [0] * len(long)


def test_a_file_is_the_same_every_time(espcn: IntegerNetwork) -> None:
    assert write_tflite(espcn, 4, 4).data == write_tflite(espcn, 4, 4).data


def test_an_image_too_small_for_a_window_is_refused_by_the_windows_name() -> None:
    pool = MaxPool("pool", ("image",), 3, grid(), (7, 7), (3, 3))
    with pytest.raises(ModelError, match="pool has nothing to read in an image of 6x9"):
        write_tflite(network(image(), pool), 6, 9)


def test_a_second_image_is_refused() -> None:
    nodes = (image(), replace(image(), name="other"), Add("sum", ("image", "other"), 3, grid()))
    with pytest.raises(ModelError, match="other is a second image"):
        write_tflite(network(*nodes), 4, 4)


def test_a_file_for_one_size_refuses_another(espcn: IntegerNetwork) -> None:
    session = LiteRtSession(write_tflite(espcn, 4, 5).data)
    with pytest.raises(ModelError, match="takes images of 4x5 with 3 channels, not 5x4 with 3"):
        session.run(pixels(3, 5, 4))


def test_without_ai_edge_litert_the_extra_is_named(
    espcn: IntegerNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    monkeypatch.delitem(sys.modules, "ai_edge_litert.interpreter", raising=False)
    with pytest.raises(UsageError, match=r"pip install 'qnas\[tflite\]'"):
        write_tflite(espcn, 4, 4)
    with pytest.raises(UsageError, match=r"pip install 'qnas\[tflite\]'"):
        LiteRtSession(b"")


@pytest.mark.parametrize("data", [b"", b"TFL3", b"\x1c\0\0\0TFL3", b"not a model of any kind at all, no"])
def test_what_is_no_tflite_file_is_refused(data: bytes) -> None:
    with pytest.raises(ModelError):
        LiteRtSession(data)
    with pytest.raises(ModelError):
        read_tflite(data)


SMALL_FILE = write_tflite(
    network(
        image(),
        Pad("pad", ("image",), 4, grid(), (1, 1, 1, 1), "edge"),
        conv("a", "pad", 4, 4, grid(0.5, 4), kernel=(1, 1), padding=(1, 0, 1, 0)),
        Table("levels", ("a",), 4, grid(0.5), np.arange(256, dtype=np.uint8)[::-1].copy(), "levels"),
        Interpolate("wide", ("levels", "image"), 4, grid(), 3),
    ),
    4, 5,
).data  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(SMALL_FILE) - 1), st.integers(0, 255)), min_size=1, max_size=8),
    st.integers(8, len(SMALL_FILE)) | st.just(len(SMALL_FILE)),
)
def test_a_damaged_file_runs_or_is_refused_but_nothing_else(
    edits: list[tuple[int, int]], length: int
) -> None:
    data = bytearray(SMALL_FILE)
    for position, value in edits:
        data[position] = value
    try:
        session = LiteRtSession(bytes(data[:length]))
        session.run(pixels(3, 4, 5))
    except ModelError:
        return
    assert session.delegated[1] > 0


def edited(find: str, value: object) -> bytes:
    """SMALL_FILE with one field of one table changed, as only a hand could."""
    import flatbuffers

    model = unpacked(SMALL_FILE)
    target = model.subgraphs[0]
    *path, last = find.split(".")
    for step in path:
        target = target[int(step)] if step.isdigit() else getattr(target, step)
    if last.isdigit():
        target[int(last)] = value
    else:
        setattr(target, last, value)
    builder = flatbuffers.Builder(2**16)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


@pytest.mark.parametrize(
    ("find", "value", "problem"),
    [
        ("tensors.0.shape", [1, 4, 2**30, 3], "has the shape"),
        ("tensors.0.shape", [1, -4, 5, 3], "an impossible shape of tensor"),
        ("tensors.0.quantization.zeroPoint", [300], "zero point outside -128 .. 127"),
        ("tensors.0.quantization.scale", [float("nan")], "does not fit it"),
        ("tensors.0.quantization.scale", [1e13], "a scale out of all proportion"),
        ("operators.0.inputs", [0, 99, 99], "a tensor beyond the"),
        ("operators.0.inputs", [], "lacks an input"),
        ("operators.0.inputs", [0, 1, 99], "a tensor beyond the"),
        ("operators.0.inputs", [0, 1, -1], "lacks an input"),
        ("inputs", [-1], "an input or an output is not there"),
    ],
)
def test_the_numbers_that_a_runtime_would_believe_are_checked(find: str, value: object, problem: str) -> None:
    with pytest.raises(ModelError, match=problem):
        check_tflite(read_tflite(edited(find, value)))


def test_a_session_has_one_image_in_and_one_out() -> None:
    small = read_tflite(SMALL_FILE)
    several = edited("outputs", [*small.inputs, *small.outputs])
    check_tflite(read_tflite(several))
    with pytest.raises(ModelError, match="has 1 inputs and 2 outputs: name one"):
        LiteRtSession(several)


MARGINS = [tensor.name for tensor in read_tflite(SMALL_FILE).tensors].index("pad.margins")
PADDING = [operator.name for operator in read_tflite(SMALL_FILE).operators].index("PAD")


@pytest.mark.parametrize(
    ("find", "value"),
    [
        (f"tensors.{MARGINS - 1}.shape", [1, 6, 7, 5]),
        (f"tensors.{MARGINS}.shape", [8]),
        (f"tensors.{MARGINS}.type", load_schema().TensorType.UINT32),
        (f"tensors.{MARGINS}.buffer", 0),  # computed
        (f"operators.{PADDING}.inputs", [0]),
    ],
)
def test_margins_that_do_not_lead_to_the_outputs_shape_are_refused(find: str, value: object) -> None:
    with pytest.raises(ModelError, match="pads to another shape"):
        check_tflite(read_tflite(edited(find, value)))


def test_a_zero_point_without_a_scale_is_checked_too() -> None:
    grid_of_margins = load_schema().QuantizationParametersT()
    grid_of_margins.zeroPoint = [3]
    with pytest.raises(ModelError, match=rf"tensor {MARGINS} has a zero point outside 0 \.\. 0"):
        check_tflite(read_tflite(edited(f"tensors.{MARGINS}.quantization", grid_of_margins)))
