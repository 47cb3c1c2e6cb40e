"""Single nodes as ONNX: what the file computes is what the interpreter defines."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from qnas.export.integers import integer_network
from qnas.export.targets import ONNX_TARGETS, TARGETS, Layout, Target, fitted
from qnas.export.to_onnx.writer import tensor_names, write_onnx
from qnas.integer.convolution import Conv
from qnas.integer.crops import Crop, CropTo
from qnas.integer.interpreter import run, sizes
from qnas.integer.network import IntegerNetwork
from qnas.integer.nodes import Add, Concat, DepthToSpace, Interpolate, MaxPool, Multiply, Pad, PadMode, Table
from qnas.integer.windows import Sides, Size
from qnas.onnx.cost import model_cost
from qnas.onnx.session import open_session
from qnas.quantization.quantizers import QuantParams, dequantize, quantize
from qnas.testing.random_networks import random_found
from qnas.testing.small_networks import PIXELS, conv, grid, image, network, pixels, weights

FAST, PLAIN = TARGETS["onnxruntime"], TARGETS["portable"]


def outputs(net: IntegerNetwork, target: Target, x: np.ndarray) -> dict[str, np.ndarray]:
    model = write_onnx(net, target)
    data = model.SerializeToString()
    return {
        "reference": ReferenceEvaluator(model).run(None, {"image": x})[0],
        "unoptimized": open_session(data, threads=1, optimized=False).run(None, {"image": x})[0],
        "onnxruntime": open_session(data, threads=1).run(None, {"image": x})[0],
    }


def assert_exact(net: IntegerNetwork, x: np.ndarray) -> None:
    expected = run(net, x)
    for target in (FAST, PLAIN):
        for runtime, got in outputs(net, target, x).items():
            np.testing.assert_array_equal(got, expected, err_msg=f"{target.name} in {runtime}")


@st.composite
def grids(draw: st.DrawFn, lowest: int = -9, highest: int = -4) -> QuantParams:
    """A short grid of 2 to 8 bits, signed or not."""
    bits, scale = draw(st.integers(2, 8)), 2.0 ** draw(st.integers(lowest, highest))
    top = 2**bits - 1
    return draw(st.sampled_from([grid(scale, 0, 0, top), grid(scale, 2 ** (bits - 1), 0, top)]))


@given(
    output=grids(), bits=st.integers(2, 8), groups=st.sampled_from([1, 1, 3]), stride=st.integers(1, 2),
    kernel=st.tuples(st.sampled_from([1, 3, 5]), st.sampled_from([1, 3])),
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_a_convolution_is_exact_at_any_bits_groups_kernel_and_size(
    output: QuantParams, bits: int, groups: int, stride: int, kernel: tuple[int, int],
    size: tuple[int, int], seed: int,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    weight = weights(rng, 3 * groups, 3 // groups, *kernel, bits=bits)
    node = conv(
        "c", "image", weight, output, bias=rng.integers(-5000, 5000, 3 * groups), bits=bits, groups=groups,
        stride=stride,
    )  # fmt: skip
    scales = (rng.integers(8, 16, 3 * groups) * 2.0 ** -rng.integers(8, 12, 3 * groups)).astype(np.float32)
    assert_exact(network(image(), replace(node, weight_scale=scales)), pixels(*size, seed=seed % 1000))


@given(grids(), grids(), grids())
@settings(max_examples=20, deadline=None)
def test_sums_products_and_tables_are_exact_on_short_grids(
    first: QuantParams, second: QuantParams, output: QuantParams
) -> None:
    def copy(name: str, on: QuantParams) -> Conv:
        return conv(name, "image", np.eye(3).reshape(3, 3, 1, 1), on, scale=2.0)

    both = copy("a", first), copy("b", second)
    x = pixels(16, 17)
    assert_exact(network(image(), *both, Add("sum", ("a", "b"), 3, output)), x)
    assert_exact(network(image(), *both, Multiply("product", ("a", "b"), 3, output, np.float32(1.5))), x)


def test_moved_bytes_and_interpolated_ones_are_exact() -> None:
    signed = grid(2**-6, 128)
    nodes = (
        conv("a", "image", weights(np.random.default_rng(0), 8, 3, 3, 3), signed, scale=2**-6),
        MaxPool("pool", ("a",), 8, signed, (3, 2), (2, 2)),
        Interpolate("tall", ("pool", "a"), 8, signed, 2),
        Interpolate("wide", ("tall", "a"), 8, grid(2**-5, 128), 3),
        Pad("edged", ("wide",), 8, grid(2**-5, 128), (1, 1, 1, 1), "edge"),
        Concat("both", ("edged", "edged"), 16, grid(2**-5, 128)),
        DepthToSpace("large", ("both",), 4, grid(2**-5, 128), 2),
    )
    assert_exact(network(image(), *nodes), pixels(9, 8))


around = st.tuples(*[st.integers(0, 2)] * 4)
two = st.tuples(st.integers(1, 3), st.integers(1, 3))


@given(
    padding=around, stride=two, dilation=two, reach=around, mode=st.sampled_from(["zero", "edge", "reflect"]),
    multiple=two, sides=around, size=st.tuples(st.integers(7, 11), st.integers(7, 11)),
)  # fmt: skip
@settings(max_examples=20, deadline=None)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # onnx's pool pads uint8 with NaN
def test_windows_borders_and_crops_are_exact(
    padding: Sides, stride: Size, dilation: Size, reach: Sides, mode: PadMode, multiple: Size, sides: Sides,
    size: Size,
) -> None:  # fmt: skip
    signed, rng = grid(2**-6, 128), np.random.default_rng(0)
    window = conv("a", "wide", weights(rng, 8, 3, 3, 3), signed, scale=2**-6)
    net = network(
        image(),
        Pad("wide", ("image",), 3, PIXELS, reach, mode, multiple),
        replace(window, stride=stride, padding=padding, dilation=dilation),
        MaxPool("pool", ("a",), 8, signed, (3, 3), stride, padding),
        DepthToSpace("large", ("pool",), 2, signed, 2),
        CropTo("part", ("large", "pool"), 2, signed, 2, 1, 2),
        Pad("spread", ("part",), 2, signed, (1, 1, 1, 1), "edge"),
        Crop("cut", ("spread",), 2, signed, sides),
    )
    if min(min(each) for each in sizes(net, *size).values()) > 0:
        assert_exact(net, pixels(*size))


def test_levels_are_looked_up_and_count_as_their_bits() -> None:
    levels = np.sort(np.random.default_rng(0).choice(256, 4, replace=False))[np.arange(256) // 64]
    table = Table("t", ("image",), 3, PIXELS, levels.astype(np.uint8), "levels")
    net = network(image(), table, conv("c", "t", np.ones((1, 3, 1, 1)), grid(2**-6), bits=4))
    assert_exact(net, pixels(5, 5))
    cost = model_cost(write_onnx(net, FAST), {"image": (1, 3, 5, 5)})
    assert cost.bitops == 3 * 25 * 4 * 2


@pytest.mark.parametrize("name", [target.name for target in ONNX_TARGETS])
def test_weights_of_four_bits_are_stored_as_the_target_wants_them(name: str) -> None:
    node = conv("c", "image", weights(np.random.default_rng(0), 4, 3, 3, 3, bits=4), PIXELS, bits=4)
    model = write_onnx(network(image(), node), TARGETS[name])
    kinds = {t.name: t.data_type for t in model.graph.initializer}
    packed, casts = kinds["c.weight"] == 22, sum(n.op_type == "Cast" for n in model.graph.node)  # 22: INT4
    assert (packed, casts) == {
        "onnxruntime": (True, 1), "openvino": (True, 1), "portable": (False, 0), "portable-int4": (True, 0),
    }[name]  # fmt: skip
    assert model_cost(model, {"image": (1, 3, 2, 2)}).bitops == 4 * 27 * 4 * 4 * 8


@pytest.mark.parametrize("name", ["espcn-w4", "basic-w48-example", "srresnet-w8"])
def test_portable_files_have_every_operation_between_quantizers(name: str) -> None:
    """Compilers for NPUs refuse a pixel shuffle or a Clip of bytes."""
    graph = write_onnx(fitted(integer_network(random_found(name)), PLAIN), PLAIN).graph
    stored = {tensor.name for tensor in graph.initializer}
    integers = {node.output[0] for node in graph.node if node.op_type == "QuantizeLinear"} | {"image"}
    readers = {node.op_type for node in graph.node if not integers.isdisjoint(set(node.input) - stored)}
    assert readers == {"DequantizeLinear"}


def test_tensors_named_as_the_ends_of_the_graph_do_not_collide() -> None:
    identity = np.eye(3).reshape(3, 3, 1, 1)
    net = network(
        image(), conv("upscaled", "image", identity, PIXELS), conv("z", "upscaled", identity, PIXELS)
    )
    assert tensor_names(net) == {"image": "image", "upscaled": "upscaled.value", "z": "upscaled"}
    assert_exact(net, pixels(2, 2))


def every_form() -> IntegerNetwork:
    """Nodes of all classes, those whose ONNX forms have several nodes and constants."""
    rng, signed = np.random.default_rng(0), grid(2**-7, 128)
    spread = weights(rng, 3, 3, 3, 3, bits=4)
    return network(
        image(), conv("c", "image", spread, signed, bits=4, padding=(1, 1)),
        MaxPool("m", ("c",), 3, signed, (2, 2), (2, 2)), Pad("p", ("m",), 4, signed, (1, 1, 1, 1), "edge"),
        conv("d", "p", weights(rng, 3, 4, 3, 3), grid(2**-7, 0, 0, 200)),
        Interpolate("i", ("d", "c"), 3, signed, 2), Interpolate("j", ("i", "c"), 3, signed, 3),
        Table("t", ("j",), 3, grid(2**-8), requantized(signed, grid(2**-8)), "requantize"),
        Multiply("x", ("c", "t"), 3, signed, np.float32(0.5)), Add("a", ("x", "c"), 3, signed),
        Concat("s", ("a", "c"), 6, signed), conv("last", "s", weights(rng, 3, 6, 1, 1), PIXELS),
    )  # fmt: skip


def requantized(read: QuantParams, grid: QuantParams) -> np.ndarray:
    return quantize(dequantize(np.arange(256, dtype=np.int32), read), grid).astype(np.uint8)


def renamed(net: IntegerNetwork, names: dict[str, str]) -> IntegerNetwork:
    nodes = [
        replace(
            node, name=names.get(node.name, node.name), inputs=tuple(names.get(n, n) for n in node.inputs)
        )
        for node in net.nodes
    ]
    return replace(net, nodes=tuple(nodes))


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("target", [target.name for target in ONNX_TARGETS])
def test_nodes_may_be_named_as_the_writer_names_tensors(target: str, layout: Layout) -> None:
    """The names that it makes up for the plain network, given to the nodes of four others."""
    plain, x = every_form(), pixels(8, 6)
    graph = write_onnx(plain, TARGETS[target], layout).graph
    known = {node.name for node in plain.nodes}
    stored = {tensor.name for tensor in graph.initializer}
    made = sorted((stored | {name for node in graph.node for name in node.output}) - known)
    wanted = run(plain, x)
    for seed in range(4):
        chosen = np.random.default_rng(seed).permutation(np.array([*made, "image.value", "upscaled.value"]))
        net = renamed(plain, dict(zip(sorted(known - {"image"}), chosen.tolist(), strict=False)))
        model = write_onnx(net, TARGETS[target], layout)
        onnx.checker.check_model(model, full_check=True)
        shown = x if layout == "nchw" else x.transpose(0, 2, 3, 1)
        got = open_session(model.SerializeToString(), 1, optimized=False).run(None, {"image": shown})[0]
        np.testing.assert_array_equal(got if layout == "nchw" else got.transpose(0, 3, 1, 2), wanted)
