"""Operations of other exporters, read as integers: the bytes are those that onnxruntime computes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qnas.errors import ModelError
from qnas.export.from_qdq.reader import integer_network_of
from qnas.export.targets import TARGETS, fitted
from qnas.export.to_onnx.writer import write_onnx
from qnas.integer.convolution import Conv
from qnas.integer.interpreter import run
from qnas.integer.network import IntegerNetwork
from qnas.integer.nodes import Add, Concat, DepthToSpace, ImageInput, Table
from qnas.onnx.session import open_session
from qnas.testing.qdq_text import EYE, READ, WRITE, kinds, read, text_model

SOME = np.random.default_rng(3).integers(0, 256, (1, 3, 6, 5)).astype(np.uint8)


def by_onnxruntime(body: str, image: np.ndarray, **options: object) -> np.ndarray:
    """The pixels of the model as it is written: float operations between quantizers."""
    model = text_model(body, **options)  # type: ignore[arg-type]
    session = open_session(model.SerializeToString(), 1, optimized=False)
    output = session.run(None, {"image": image.astype(np.float32)})[0]
    return np.clip(np.rint(output), 0, 255).astype(np.uint8)


def same(body: str, image: np.ndarray = SOME, **options: object) -> IntegerNetwork:
    """The network of the model, which computes what onnxruntime does, and no flat image."""
    network = read(body, **options)
    got = run(network, image)
    np.testing.assert_array_equal(got, by_onnxruntime(body, image, **options))
    assert len(np.unique(got)) > 10
    return network


# Transposed convolutions ----------------------------------------------------------------------------------

TRANSPOSED = {  # attributes: kernel, stride, groups
    "pads = [1, 1, 1, 1], strides = [2, 2]": (4, 2, 1),
    "pads = [1, 1, 1, 1], strides = [2, 2], output_padding = [1, 1]": (3, 2, 1),
    "pads = [0, 0, 0, 0], strides = [3, 3]": (3, 3, 1),
    "pads = [3, 3, 3, 3], strides = [3, 3]": (9, 3, 1),
    "pads = [0, 1, 2, 1], strides = [2, 2]": (4, 2, 1),
    "pads = [2, 2, 2, 2], strides = [1, 1]": (5, 1, 1),
    "pads = [1, 1, 1, 1], strides = [2, 2], group = 3": (4, 2, 3),
}


@pytest.mark.parametrize("attributes", TRANSPOSED)
def test_a_transposed_convolution_is_one_between_phases(attributes: str) -> None:
    kernel, stride, groups = TRANSPOSED[attributes]
    rng = np.random.default_rng(0)
    constants = {
        "k": rng.integers(-20, 20, (3, 3 // groups, kernel, kernel)).astype(np.int8),
        "s": np.float32([2**-6, 2**-7, 2**-5][: 3 // groups]),
        "zs": np.zeros(3 // groups, np.int8), "float_b": np.float32([20, 60, 40]),
    }  # fmt: skip
    body = (
        f"{READ} w = DequantizeLinear <axis = 1> (k, s, zs) "
        f"y = ConvTranspose <{attributes}> (x, w, float_b) {WRITE}"
    )
    network = same(body, **constants)
    assert network.scale == stride
    assert kinds(network) == ([ImageInput, Conv, DepthToSpace] if stride > 1 else [ImageInput, Conv])


def test_phases_take_the_taps_that_reach_them() -> None:
    taps = np.zeros((3, 3, 4, 4), np.int8)
    taps[np.arange(3), np.arange(3)] = np.arange(16).reshape(4, 4)
    network = read(
        f"{READ} w = DequantizeLinear(taps, one, i0) "
        f"y = ConvTranspose <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w) {WRITE}",
        taps=taps,
    )
    conv = network.nodes[1]
    assert isinstance(conv, Conv)
    # Output row 2 y + a gets row i through tap t = 2 (y - i) + a + 1: of a = 0, row y by tap 1, y - 1 by 3.
    np.testing.assert_array_equal(conv.weight[0, 0], [[15, 13, 0], [7, 5, 0], [0, 0, 0]])
    np.testing.assert_array_equal(conv.weight[3, 0], [[0, 0, 0], [0, 10, 8], [0, 2, 0]])


@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        ("strides = [2, 2]", "does not write 2 times the size"),
        ('strides = [2, 2], auto_pad = "SAME_UPPER"', "export it with pads"),
        ("strides = [2, 2], output_shape = [8, 8]", "export it with pads"),
        ("dilations = [2, 2]", "has dilations"),
    ],
)
def test_transposed_convolutions_of_other_sizes_are_refused(attributes: str, why: str) -> None:
    body = f"{READ} w = DequantizeLinear(k, one, i0) [up] y = ConvTranspose <{attributes}> (x, w) {WRITE}"
    with pytest.raises(ModelError, match=rf"ConvTranspose \(node up\).*{why}"):
        read(body, k=np.ones((3, 3, 3, 3), np.int8))


# Nearest neighbours ---------------------------------------------------------------------------------------

NEAREST = [
    'coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"',
    'coordinate_transformation_mode = "half_pixel", nearest_mode = "round_prefer_floor"',
    'coordinate_transformation_mode = "pytorch_half_pixel", nearest_mode = "round_prefer_ceil"',
]


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("form", NEAREST)
def test_nearest_upscaling_repeats_channels_in_front_of_a_shuffle(form: str, factor: int) -> None:
    scales = np.float32([1, 1, factor, factor])
    body = f'{READ} y = Resize <mode = "nearest", {form}> (x, , scales) {WRITE}'
    network = same(body, scales=scales)
    assert kinds(network) == [ImageInput, Conv, DepthToSpace]
    np.testing.assert_array_equal(run(network, SOME), SOME.repeat(factor, 2).repeat(factor, 3))


def test_nearest_upscaling_that_shifts_pixels_is_refused() -> None:
    form = 'coordinate_transformation_mode = "asymmetric", nearest_mode = "ceil"'
    with pytest.raises(ModelError, match=r"Resize \(node r\) to .* repeats no pixels"):
        read(f'{READ} [r] y = Resize <mode = "nearest", {form}> (x, , up2) {WRITE}')


# One constant per channel ---------------------------------------------------------------------------------

LINES = {
    "y = Mul(x, c)": [0.5, 1.25, 2], "y = Mul(c, x)": [0.5, -1.25, 0], "y = Add(x, c)": [5, -20, 0.25],
    "y = Sub(x, c)": [5, -20, 0.25], "y = Sub(c, x)": [200, 100, 255], "y = Div(x, c)": [2, 4, -0.5],
}  # fmt: skip


@pytest.mark.parametrize("body", LINES)
@pytest.mark.parametrize("shape", [(3, 1, 1), (1, 3, 1, 1)])
def test_constants_per_channel_are_a_depthwise_convolution(body: str, shape: tuple[int, ...]) -> None:
    network = same(f"{READ} {body} {WRITE}", c=np.float32(LINES[body]).reshape(shape))
    assert kinds(network) == [ImageInput, Conv]


def test_a_batch_norm_of_constants_is_a_depthwise_convolution() -> None:
    network = same(
        f"{READ} y = BatchNormalization <epsilon = 0.0> (x, gain, shift, mean, variance) {WRITE}",
        gain=np.float32([1, 2, 2]), shift=np.float32([10, 0, -5]), mean=np.float32([4, 8, 2]),
        variance=np.float32([1, 4, 16]),
    )  # fmt: skip
    assert kinds(network) == [ImageInput, Conv]


@pytest.mark.parametrize("slopes", [[0.25, 0.5, 0], [0.25, -0.5, 2]])
@pytest.mark.parametrize("zero", [0, 100])
def test_prelu_is_the_sum_of_its_halves(slopes: list[float], zero: int) -> None:
    network = same(
        f"""{READ} d = Sub(x, hundred) e = QuantizeLinear(d, one, z100) f = DequantizeLinear(e, one, z100)
        y = PRelu(f, slope) g = QuantizeLinear(y, two, z_out) h = DequantizeLinear(g, two, z_out)
        upscaled = Add(h, hundred)""",
        slope=np.float32(slopes).reshape(3, 1, 1), z100=np.uint8(100), z_out=np.uint8(zero),
    )  # fmt: skip
    assert [kind for kind in kinds(network) if kind in (Conv, Add)] == [Conv, Conv, Add, Conv]


def test_prelu_of_one_slope_for_all_is_a_table() -> None:
    network = same(
        f"{READ} d = Sub(x, hundred) y = PRelu(d, slope) a = Add(y, hundred) "
        "p = QuantizeLinear(a, one, z) upscaled = DequantizeLinear(p, one, z)",
        slope=np.full((3, 1, 1), 0.25, np.float32),
    )
    assert kinds(network) == [ImageInput, Table]


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_prelu_on_any_grid_rounds_as_the_float_operation_does(data: st.DataObject) -> None:
    scales = [np.float32(2.0 ** data.draw(st.integers(-3, 3))) for _ in range(2)]
    zeros = [np.uint8(data.draw(st.integers(0, 255))) for _ in range(2)]
    slopes = data.draw(st.lists(st.integers(-24, 24), min_size=3, max_size=3))
    body = f"""{READ} d = Sub(x, hundred) e = QuantizeLinear(d, s0, z0) f = DequantizeLinear(e, s0, z0)
        y = PRelu(f, slope) g = QuantizeLinear(y, s1, z1) h = DequantizeLinear(g, s1, z1)
        upscaled = Add(h, hundred)"""
    options = {"s0": scales[0], "s1": scales[1], "z0": zeros[0], "z1": zeros[1],
               "slope": np.float32(slopes).reshape(3, 1, 1) / 8}  # fmt: skip
    image = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(run(read(body, **options), image), by_onnxruntime(body, image, **options))


# Leaky ReLU -----------------------------------------------------------------------------------------------

LEAKY = f"""{READ} d = Sub(x, hundred) e = QuantizeLinear(d, s0, z0) f = DequantizeLinear(e, s0, z0)
    y = LeakyRelu <alpha = 0.05> (f) g = QuantizeLinear(y, s1, z1) h = DequantizeLinear(g, s1, z1)
    upscaled = Add(h, hundred)"""
EVERY = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3).transpose(0, 3, 1, 2)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.01, 3), st.integers(1, 254), st.floats(0.01, 3), st.integers(1, 254))
def test_leaky_relu_is_written_as_what_it_is(s0: float, z0: int, s1: float, z1: int) -> None:
    grids = {"s0": np.float32(s0), "z0": np.uint8(z0), "s1": np.float32(s1), "z1": np.uint8(z1)}
    network = read(LEAKY, **grids)
    got = run(network, EVERY)
    leaky = network.by_name().get("g")
    assert not isinstance(leaky, Table) or leaky.function != "levels"
    in_a_row = (
        isinstance(leaky, Table) and leaky.function == "requantize"
    )  # which portable files do not hinder
    for target in ("onnxruntime", "portable"):
        model = write_onnx(fitted(network, TARGETS[target]), TARGETS[target])
        for optimized in (False, True) if target == "onnxruntime" or not in_a_row else (False,):
            output = open_session(model.SerializeToString(), 1, optimized).run(None, {"image": EVERY})[0]
            np.testing.assert_array_equal(output, got)


def test_the_slope_of_a_leaky_relu_is_found_again() -> None:
    grids = {"s0": np.float32(1), "z0": np.uint8(128), "s1": np.float32(0.5), "z1": np.uint8(20)}
    network = read(LEAKY, **grids)
    (table,) = [node for node in network.nodes if isinstance(node, Table) and node.function == "leaky_relu"]
    assert table.slope == 0.05
    again = integer_network_of(write_onnx(network, TARGETS["portable"]), "again")
    assert [node.slope for node in again.nodes if isinstance(node, Table)] == [
        node.slope for node in network.nodes if isinstance(node, Table)
    ]


# Pixel shuffles in DCR order ------------------------------------------------------------------------------


def test_the_order_of_a_shuffle_goes_through_a_sum_into_its_convolution() -> None:
    """As in anchor-based networks: the image, as often as a pixel has places, is added in front of it."""
    rng = np.random.default_rng(0)
    body = f"""{READ} w = DequantizeLinear(k, s, i0) c = Conv <pads = [1, 1, 1, 1]> (x, w)
        a = QuantizeLinear(c, one, z100) a2 = DequantizeLinear(a, one, z100)
        r = Concat <axis = 1> (x, x, x, x) y = Add(a2, r) e = QuantizeLinear(y, one, z)
        d = DepthToSpace <blocksize = 2, mode = "DCR"> (e) upscaled = DequantizeLinear(d, one, z)"""
    k = rng.integers(-20, 20, (12, 3, 3, 3)).astype(np.int8)
    network = same(body, k=k, s=np.float32(2**-7), z100=np.uint8(100))
    assert kinds(network) == [ImageInput, Conv, Concat, Conv, Add, DepthToSpace]
    shipped = fitted(network, TARGETS["onnxruntime"])
    assert [type(node) for node in shipped.nodes].count(Conv) == 2
    np.testing.assert_array_equal(run(shipped, SOME), run(network, SOME))


def test_a_shuffle_of_what_others_read_too_keeps_a_convolution_for_its_order() -> None:
    body = f"""{READ} w = DequantizeLinear(k12, s, i0) c = Conv(x, w) a = QuantizeLinear(c, one, z)
        a2 = DequantizeLinear(a, one, z) d = DepthToSpace <blocksize = 2, mode = "DCR"> (a2)
        e = DepthToSpace <blocksize = 2, mode = "CRD"> (a2) y = Add(d, e) {WRITE}"""
    k12 = np.random.default_rng(0).integers(0, 20, (12, 3, 1, 1)).astype(np.int8)
    network = same(body, k12=k12, s=np.float32(2**-7))
    assert kinds(network) == [ImageInput, Conv, Conv, DepthToSpace, DepthToSpace, Add]


# Channels that are picked ---------------------------------------------------------------------------------

HEAD = """q = QuantizeLinear(image, one, z) x = DequantizeLinear(q, one, z) w = DequantizeLinear(k12, s, i0)
    c = Conv(x, w) a = QuantizeLinear(c, one, z) a2 = DequantizeLinear(a, one, z) """
K12 = np.random.default_rng(0).integers(0, 20, (12, 3, 1, 1)).astype(np.int8)
HEADS = {"k12": K12, "s": np.float32(2**-7)}


@pytest.mark.parametrize("rows", [[2, 0, 1], [0, 0, 2], [-1, 1, -3]])
def test_channels_in_another_order_are_a_convolution_of_ones(rows: list[int]) -> None:
    network = same(f"{READ} y = Gather <axis = 1> (x, rows) {WRITE}", rows=np.array(rows))
    assert kinds(network) == [ImageInput, Conv]
    np.testing.assert_array_equal(run(network, SOME), SOME[:, rows])


def test_a_convolution_writes_only_the_channels_that_are_picked() -> None:
    network = same(f"{HEAD} y = Gather <axis = 1> (a2, rows) {WRITE}", rows=np.array([7, 3, 11]), **HEADS)
    assert kinds(network) == [ImageInput, Conv]
    np.testing.assert_array_equal(network.nodes[1].weight, K12[[7, 3, 11]])


def test_a_pick_that_is_named_as_another_node_is_none_of_that() -> None:
    """The reader calls both "twice"."""
    body = f"""{READ} {EYE} e = Conv(x, w) f = QuantizeLinear(e, one, z) x2 = DequantizeLinear(f, one, z)
        w12 = DequantizeLinear(k12, s, i0) [twice] c = Conv(x2, w12) a = QuantizeLinear(c, one, z)
        a2 = DequantizeLinear(a, one, z) [pick] g = Gather <axis = 1> (a2, rows)
        y = Concat <axis = 1> (g, a2) last = Gather <axis = 1> (y, three) {WRITE.replace("(y,", "(last,")}"""
    constants = {"rows": np.array([7, 3, 11]), "three": np.array([0, 5, 14]), **HEADS}
    model = text_model(body, **constants)
    next(node for node in model.graph.node if node.name == "pick").name = "twice.float"
    got = run(integer_network_of(model, "net", "0..255"), SOME)
    np.testing.assert_array_equal(got, by_onnxruntime(body, SOME, **constants))


def test_channels_that_are_copied_are_not_convolved_again() -> None:
    """A convolution of 3 channels and one that copies them take less than one of 12."""
    body = f"""{READ} {EYE} c = Conv(x, w) a = QuantizeLinear(c, one, z) a2 = DequantizeLinear(a, one, z)
        g = Gather <axis = 1> (a2, rows) y = DepthToSpace <blocksize = 2, mode = "CRD"> (g) {WRITE}"""
    network = same(body, rows=np.arange(3).repeat(4))
    assert kinds(network) == [ImageInput, Conv, Conv, DepthToSpace]
    assert [node.channels for node in network.nodes] == [3, 3, 12, 3]


@pytest.mark.parametrize("function", ["", "LeakyRelu <alpha = 0.25>"])
def test_the_parts_of_a_split_convolution_are_convolutions(function: str) -> None:
    body = HEAD + (
        f"l = {function} (a2) m = QuantizeLinear(l, half, z) r = DequantizeLinear(m, half, z) "
        if function
        else "r = Identity (a2) "
    )
    body += f"""d = Gather <axis = 1> (r, first) e = Gather <axis = 1> (r, second)
        f = Gather <axis = 1> (r, third)
        g = Add(d, e) h = QuantizeLinear(g, two, z) i = DequantizeLinear(h, two, z) y = Add(i, f) {WRITE}"""
    parts = {"first": np.arange(3), "second": np.arange(3, 6), "third": np.arange(6, 9)}
    network = same(body, **parts, **HEADS)
    convolutions = [node for node in network.nodes if isinstance(node, Conv)]
    assert [node.channels for node in convolutions] == [3, 3, 3]
    assert all(node.weight.shape == (3, 3, 1, 1) for node in convolutions)


def test_a_convolution_that_others_read_too_is_kept_whole() -> None:
    body = f"""{HEAD} d = Gather <axis = 1> (a2, rows) e = Concat <axis = 1> (a2, d, d, d, d)
        y = Gather <axis = 1> (e, last) {WRITE}"""
    network = same(body, rows=np.arange(3), last=np.array([0, 13, 23]), **HEADS)
    assert kinds(network) == [ImageInput, Conv, Conv, Concat, Conv]


SHUFFLED = np.array([5, 0, 11, 3, 8, 1, 10, 2, 9, 4, 7, 6])


@pytest.mark.parametrize("mode", ["CRD", "DCR"])
@pytest.mark.parametrize("first", [SHUFFLED, np.arange(12).repeat(2)[:16]], ids=["shuffled", "copied"])
def test_picks_of_picks_pick_once(first: np.ndarray, mode: str) -> None:
    body = f"""{HEAD} g = Gather <axis = 1> (a2, first) h = Gather <axis = 1> (g, second)
        y = DepthToSpace <blocksize = 2, mode = "{mode}"> (h) {WRITE}"""
    network = same(body, first=first, second=np.roll(SHUFFLED, 3), **HEADS)
    assert kinds(network).count(Conv) == 1 + (len(first) > 12)


@pytest.mark.parametrize(
    ("operation", "why"),
    [
        ("Gather <axis = 2> (x, rows)", "picks 3 places along axis 2"),
        ("Gather <axis = 1> (x, far)", r"picks channel 0 to 3 of 3"),
        ("Gather <axis = 1> (x, none)", "picks 0 places along axis 1"),
        ("Gather <axis = 1> (x, real)", "float32 numbers as its channels: whole ones are needed"),
    ],
)
def test_other_picks_are_refused(operation: str, why: str) -> None:
    constants = {
        "rows": np.arange(3),
        "far": np.arange(4),
        "none": np.zeros(0, np.int64),
        "real": np.float32([0]),
    }
    with pytest.raises(ModelError, match=why):
        read(f"{READ} [g] y = {operation} {WRITE}", **constants)


# Uneven padding, pooling, functions, opsets ---------------------------------------------------------------


def test_padding_may_differ_from_side_to_side() -> None:
    k = np.random.default_rng(0).integers(-20, 20, (3, 3, 2, 4)).astype(np.int8)
    body = f"""{READ} w = DequantizeLinear(k, s, i0) c = Conv <pads = [1, 1, 0, 2]> (x, w, float_b)
        y = Relu(c) {WRITE}"""
    network = same(body, k=k, s=np.float32(2**-6), float_b=np.float32([50, 60, 70]))
    conv = network.nodes[1]
    assert isinstance(conv, Conv)
    assert (conv.padding, conv.weight.shape) == ((1, 1, 0, 2), (3, 3, 2, 4))


def test_average_pooling_is_a_depthwise_convolution_of_ones() -> None:
    network = same(
        f"""{READ} up = Resize <mode = "nearest", nearest_mode = "floor",
        coordinate_transformation_mode = "asymmetric"> (x, , up4)
        y = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (up) {WRITE}""",
        up4=np.float32([1, 1, 4, 4]),
    )
    assert kinds(network) == [ImageInput, Conv, DepthToSpace, Conv]
    assert network.scale == 2


@pytest.mark.parametrize(
    "function",
    ["Elu <alpha = 0.5>", "Erf", "Gelu", 'Gelu <approximate = "tanh">', "Mish", "Softplus", "HardSwish"],
)
def test_functions_of_one_value_are_tables(function: str) -> None:
    body = f"{READ} d = Sub(x, hundred) e = Div(d, hundred) v = {function}(e) m = Mul(v, hundred) " \
           f"y = Add(m, hundred) {WRITE}"  # fmt: skip
    network = same(body, opset=20)
    assert kinds(network) == [ImageInput, Table]


@pytest.mark.parametrize("opset", [13, 17, 19, 21, 23, 24, 25])
def test_models_of_every_opset_are_read(opset: int) -> None:
    network = same(
        f"""{READ} {EYE} c = Conv(x, w) r = Relu(c) p = QuantizeLinear(r, one, z)
        d = DequantizeLinear(p, one, z) u = Resize <mode = "linear"> (d, , up2) y = Clip(u, zero, hundred)
        v = QuantizeLinear(y, one, z) upscaled = DequantizeLinear(v, one, z)""",
        opset=opset,
    )
    assert network.scale == 2
