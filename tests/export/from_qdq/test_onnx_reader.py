"""QDQ models of this package, of onnxruntime and in QCDQ form are read as networks that compute the same."""

import logging
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from qnas.export.from_qdq.reader import integer_network_of, read_qdq
from qnas.export.integers import integer_network
from qnas.export.targets import TARGETS, fitted
from qnas.export.to_onnx.writer import write_onnx
from qnas.integer.convolution import Conv
from qnas.integer.interpreter import run
from qnas.integer.nodes import Add, Concat, DepthToSpace, ImageInput, MaxPool, Multiply, Pad, Table
from qnas.onnx.session import open_session
from qnas.testing.qdq_text import EYE, READ, WRITE, kinds, pixels, read, text_model
from qnas.testing.random_networks import noise, random_found


def nchw(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None])


# Our own files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["onnxruntime", "portable", "portable-int4"])
@pytest.mark.parametrize("name", ["espcn-w4", "rfdn-w8"])
def test_what_is_written_comes_back_number_for_number(name: str, target: str, tmp_path: Path) -> None:
    network = fitted(integer_network(random_found(name)), TARGETS[target])
    path = tmp_path / "model.onnx"
    onnx.save(write_onnx(network, TARGETS[target]), path)
    back = read_qdq(path)
    assert back.scale == network.scale
    renamed = {old.name: new.name for old, new in zip(network.nodes, back.nodes, strict=True)}
    for old, new in zip(network.nodes, back.nodes, strict=True):
        assert type(old) is type(new)
        assert tuple(renamed[source] for source in old.inputs) == new.inputs
        for entry in fields(old):
            if entry.name not in ("name", "inputs"):
                got, expected = getattr(new, entry.name), getattr(old, entry.name)
                np.testing.assert_equal(got, expected, f"{old.name}.{entry.name}")


@pytest.mark.parametrize("target", ["onnxruntime", "portable"])
@pytest.mark.parametrize("name", ["basic-w48-example", "rfdn-adq-w48-example"])
def test_clips_and_gains_come_back_with_the_same_pixels(name: str, target: str) -> None:
    network = fitted(integer_network(random_found(name)), TARGETS[target])
    back = integer_network_of(write_onnx(network, TARGETS[target]), "back")
    assert len(back.nodes) <= len(network.nodes)
    image = nchw(noise(24, 21, seed=1))
    np.testing.assert_array_equal(run(back, image), run(network, image))


def test_channels_last_at_both_ends_are_read() -> None:
    network = integer_network(random_found("espcn-w4"))
    back = integer_network_of(write_onnx(network, TARGETS["portable"], "nhwc"), "back")
    image = nchw(noise(6, 5, seed=1))
    np.testing.assert_array_equal(run(back, image), run(network, image))


# onnxruntime's quantizer ----------------------------------------------------------------------------------

FLOAT_NETWORKS = {
    "chain": """c = Conv <pads = [2, 2, 2, 2]> (image, w0, b0) r = Relu(c)
        d = Conv <pads = [1, 1, 1, 1]> (r, w1, b1)
        l = LeakyRelu <alpha = 0.1> (d) m = MaxPool <kernel_shape = [3, 3]> (l) k = Concat <axis = 1> (m, m)
        e = Conv <pads = [2, 2, 2, 2]> (k, w3, b3)
        upscaled = DepthToSpace <blocksize = 2, mode = "CRD"> (e)""",
    "branches": """c = Conv <pads = [2, 2, 2, 2]> (image, w0, b0) d = Conv <pads = [1, 1, 1, 1]> (c, w1, b1)
        a = Add(c, d) s = Sigmoid(a) m = Mul(s, c) k = Concat <axis = 1> (m, a)
        e = Conv <pads = [1, 1, 1, 1]> (k, w3, b3) u = DepthToSpace <blocksize = 2, mode = "DCR"> (e)
        upscaled = Clip(u, zero, one)""",
}  # fmt: skip


def quantized_by_onnxruntime(name: str, folder: Path, **options: object) -> Path:
    quantization = pytest.importorskip("onnxruntime.quantization")
    rng = np.random.default_rng(0)
    shapes = {"w0": (8, 3, 5, 5), "w1": (8, 8, 3, 3), "w3": (12, 16, 3, 3)}
    values = {k: rng.normal(0, 1 / np.sqrt(np.prod(s[1:])), s).astype(np.float32) for k, s in shapes.items()}
    values |= {f"b{k[1:]}": rng.normal(0.3, 0.1, s[0]).astype(np.float32) for k, s in shapes.items()}
    onnx.save(text_model(FLOAT_NETWORKS[name], **values), folder / "float.onnx")

    class Images(quantization.CalibrationDataReader):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            self.feeds: Iterator[dict[str, np.ndarray]] = (
                {"image": nchw(noise(16, 16, seed)).astype(np.float32) / 255} for seed in range(3)
            )

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.feeds, None)

    logging.disable(logging.WARNING)  # it recommends a step of its own that float models need not have
    path = folder / "quantized.onnx"
    quantization.quantize_static(folder / "float.onnx", path, Images(), **options)
    logging.disable(logging.NOTSET)
    return path


def float_model_pixels(path: Path, image: np.ndarray, optimized: bool) -> np.ndarray:
    output = open_session(path, 1, optimized).run(None, {"image": image.astype(np.float32) / 255})[0]
    return np.clip(np.rint(output * 255), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("name", FLOAT_NETWORKS)
def test_models_of_quantize_static_are_read_exactly(
    name: str, signed: bool, per_channel: bool, tmp_path: Path
) -> None:
    types = pytest.importorskip("onnxruntime.quantization").QuantType
    activations = types.QInt8 if signed else types.QUInt8
    path = quantized_by_onnxruntime(name, tmp_path, per_channel=per_channel, activation_type=activations)
    network, image = read_qdq(path), nchw(noise(24, 20, seed=9))
    got = run(network, image)
    assert got.std() > 10
    assert (got == float_model_pixels(path, image, optimized=False)).mean() >= 0.999
    for optimized in (False, True):
        difference = np.abs(got.astype(int) - float_model_pixels(path, image, optimized))
        # onnxruntime's own add of tensors on two grids rounds otherwise: 2 steps
        assert (difference == 0).mean() >= (0.99 if optimized and name == "branches" else 0.999)
        assert difference.max() <= (2 if optimized and name == "branches" else 1)


def test_asymmetric_uint8_weights_are_shifted_when_they_fit() -> None:
    network = read(f"{READ} w = DequantizeLinear(u_eye, half, z128) y = Conv(x, w) {WRITE}")
    conv = network.nodes[1]
    assert isinstance(conv, Conv)
    np.testing.assert_array_equal(conv.weight[:, :, 0, 0], 5 * np.eye(3))
    np.testing.assert_array_equal(run(network, pixels(4, 8)), pixels(10, 20))  # 5 * 0.5 of each


# Small models, computed by hand -----------------------------------------------------------------------------


def test_a_convolution_between_quantizers_keeps_its_integers() -> None:
    network = read(f"""{READ} w = DequantizeLinear(eye, half, i0) b2 = DequantizeLinear(b, half)
        c = Conv(x, w, b2) y = Relu(c) p = QuantizeLinear(y, quarter, z)
        upscaled = DequantizeLinear(p, quarter, z)""")
    assert kinds(network) == [ImageInput, Conv, Table]
    conv = network.nodes[1]
    assert isinstance(conv, Conv)
    np.testing.assert_array_equal(conv.bias, [4, 0, -4])
    # channel 0: 0.5 * (10 + 4) = 7; channel 1: 5; channel 2: 0.5 * (10 - 4) = 3. 2 - 4 < 0 is cut off.
    expected = [[7, 3], [5, 1], [3, 0]]
    np.testing.assert_array_equal(run(network, pixels(10, 2))[0, :, 0], expected)


def test_a_quantizer_on_the_grid_of_pixels_is_the_image_itself() -> None:
    network = read(f"{READ} {EYE} y = Conv(x, w) {WRITE}")
    assert kinds(network) == [ImageInput, Conv]
    assert network.scale == 1


def test_an_image_of_0_to_1_on_a_coarse_grid_is_a_table() -> None:
    body = f"""q = QuantizeLinear(image, quarter, z) x = DequantizeLinear(q, quarter, z) {EYE} y = Conv(x, w)
        p = QuantizeLinear(y, quarter, z) upscaled = DequantizeLinear(p, quarter, z)"""
    network = read(body, "0..1")
    assert kinds(network) == [ImageInput, Conv, Conv, Conv]  # straight lines
    # 20 / 255 = 0.08 -> 0 steps; 70 / 255 = 0.27 -> 1 step of 0.25 -> 63.75; 255 -> 4 steps = 1
    np.testing.assert_array_equal(run(network, pixels(20, 70, 255)), pixels(0, 64, 255))


def test_signed_activations_lie_128_higher() -> None:
    network = read(f"""q = QuantizeLinear(image, one, i128) x = DequantizeLinear(q, one, i128) {EYE}
        y = Conv(x, w) p = QuantizeLinear(y, one, i0) upscaled = DequantizeLinear(p, one, i0)""")
    assert kinds(network) == [ImageInput, Conv, Table]
    assert (network.nodes[0].output.zero_point, network.nodes[1].output.zero_point) == (0, 128)
    np.testing.assert_array_equal(run(network, pixels(5, 127, 200)), pixels(5, 127, 127))  # int8 saturates


def test_qcdq_activations_of_four_bits_fill_0_to_15() -> None:
    network = read(f"{READ} {EYE} y = Conv(x, w) p = QuantizeLinear(y, two, i0) r = Clip(p, i_8, i7) "
                   "upscaled = DequantizeLinear(r, two, i0)")  # fmt: skip
    grid = network.nodes[1].output
    assert (grid.zero_point, grid.low, grid.high) == (8, 0, 15)
    np.testing.assert_array_equal(run(network, pixels(7, 13, 99)), pixels(8, 12, 14))  # 3.5 -> 4, 6.5 -> 6, 7


def test_an_unsigned_clip_belongs_to_the_quantizer() -> None:
    network = read(f"{READ} {EYE} y = Conv(x, w) p = QuantizeLinear(y, one, z) r = Clip(p, u0, u15) "
                   "upscaled = DequantizeLinear(r, one, z)")  # fmt: skip
    assert kinds(network) == [ImageInput, Conv]
    np.testing.assert_array_equal(run(network, pixels(9, 200)), pixels(9, 15))


def test_a_clip_of_bytes_that_others_read_unclipped_is_a_table() -> None:
    network = read(f"{READ} {EYE} y = Conv(x, w) p = QuantizeLinear(y, one, z) r = Clip(p, u0, u15) "
                   "s = DequantizeLinear(p, one, z) t = DequantizeLinear(r, one, z) a = Add(s, t) "
                   "v = QuantizeLinear(a, one, z) upscaled = DequantizeLinear(v, one, z)")  # fmt: skip
    assert kinds(network) == [ImageInput, Conv, Table, Add]
    np.testing.assert_array_equal(run(network, pixels(9, 20)), pixels(18, 35))


def test_float_clips_are_bounds_of_the_quantizer_behind_them() -> None:
    network = read(f"{READ} {EYE} c = Conv(x, w) y = Clip(c, half, hundred) {WRITE}")
    grid = network.nodes[1].output
    assert (grid.low, grid.high) == (0, 100)  # 0.5 is a tie, to even
    np.testing.assert_array_equal(run(network, pixels(3, 101)), pixels(3, 100))


def test_weights_quantized_in_the_graph_are_folded() -> None:
    network = read(f"{READ} q4 = QuantizeLinear(float_w, quarter, i0) r = Clip(q4, i_8, i7) "
                   f"w = DequantizeLinear(r, quarter, i0) y = Conv(x, w) {WRITE}")  # fmt: skip
    conv = network.nodes[1]
    assert isinstance(conv, Conv)
    np.testing.assert_array_equal(conv.weight[:, :, 0, 0], 4 * np.eye(3))  # 1 / 0.25
    assert conv.bits == 4


def test_a_float_bias_is_rounded_to_steps_of_the_sums() -> None:
    network = read(f"{READ} w = DequantizeLinear(eye, half, i0) y = Conv(x, w, float_b) {WRITE}")
    conv = network.nodes[1]
    assert isinstance(conv, Conv)
    np.testing.assert_array_equal(conv.bias, [1, 0, -2])  # 0.3 / 0.5, 0.2 / 0.5, -0.8 / 0.5


def test_weight_scales_per_channel_are_kept() -> None:
    network = read(f"{READ} w = DequantizeLinear <axis = 0> (eye, scales3, zeros3) y = Conv(x, w) {WRITE}")
    np.testing.assert_array_equal(run(network, pixels(10))[0, :, 0, 0], [5, 10, 20])


def test_functions_between_quantizers_are_one_table() -> None:
    network = read(f"{READ} d = Sub(x, two) s = Sigmoid(d) y = Mul(x, s) {WRITE}")
    assert kinds(network) == [ImageInput, Table]
    # 1 / (1 + e) = 0.27, 2 / 2 = 1, 3 / (1 + 1 / e) = 2.19
    np.testing.assert_array_equal(run(network, pixels(0, 1, 2, 3)), pixels(0, 0, 1, 2))


def test_parts_of_a_concatenation_get_tables_onto_its_grid() -> None:
    network = read(
        f"""{READ} {EYE} c = Conv(x, w) p = QuantizeLinear(c, two, z) d = DequantizeLinear(p, two, z)
        k = Concat <axis = 1> (x, d) e = QuantizeLinear(k, half, z) f = DequantizeLinear(e, half, z)
        g = Concat <axis = 1> (f, f) h = DepthToSpace <blocksize = 2, mode = "CRD"> (g)
        upscaled = QuantizeLinear(h, half, z)""",
        result="uint8[n, 3, y, x]",
    )
    assert kinds(network) == [ImageInput, Conv, Table, Table, Concat, Concat, DepthToSpace]
    assert network.scale == 2
    # channels are 3 of x and 3 of d, twice: 5 / 0.5 = 10; 5 / 2 -> 2 steps of 2, 4 / 0.5 = 8
    expected = [[[10, 10], [10, 8]], [[8, 8], [10, 10]], [[10, 8], [8, 8]]]
    np.testing.assert_array_equal(run(network, pixels(5))[0], expected)


def test_channels_in_dcr_order_are_put_in_order_by_the_convolution() -> None:
    body = f"""{READ} w = DequantizeLinear <axis = 0> (k12, s12, z12) y = Conv(x, w)
        p = QuantizeLinear(y, one, z)
        d = DequantizeLinear(p, one, z) upscaled = DepthToSpace <blocksize = 2, mode = "DCR"> (d)"""
    scales = np.arange(1, 13).astype(np.float32)  # channel o of the convolution is (o + 1) (r + g + b)
    network = read(body, s12=scales, z12=np.zeros(12, np.int8))
    assert kinds(network) == [ImageInput, Conv, DepthToSpace]
    # DCR: channel (2 i + j) 3 + c becomes pixel (i, j) of c, 3 (o + 1) for pixels of 1
    expected = [[[3, 12], [21, 30]], [[6, 15], [24, 33]], [[9, 18], [27, 36]]]
    np.testing.assert_array_equal(run(network, pixels(1))[0], expected)


def test_bilinear_upscaling_is_a_convolution_of_the_edged_image() -> None:
    body = f'{READ} y = Resize <mode = "linear"> (x, , up2) {WRITE}'
    network = read(body)
    assert kinds(network) == [ImageInput, Pad, Conv, DepthToSpace]
    # rows alike; columns of [0, 100]: 0, 0.25 * 100, 0.75 * 100, 100
    expected = np.array([[[[0, 25, 75, 100]] * 2] * 3], np.uint8)
    np.testing.assert_array_equal(run(network, pixels(0, 100)), expected)


def test_edges_and_channels_of_zero_are_padding() -> None:
    network = read(
        f"""{READ} e = Pad <mode = "edge"> (x, edges)
        m = MaxPool <kernel_shape = [3, 3]> (e) y = Relu(m) {WRITE}"""
    )
    assert kinds(network) == [ImageInput, Pad, MaxPool]
    np.testing.assert_array_equal(run(network, pixels(1, 5, 2)), pixels(5, 5, 5))
    wide = f"{READ} e = Pad(x, more) w = DequantizeLinear(k34, one, i0) y = Conv(e, w) {WRITE}"
    padded = read(wide, k34=np.ones((3, 4, 1, 1), np.int8))
    np.testing.assert_array_equal(run(padded, pixels(7)), pixels(21))  # 7 + 7 + 7 + 0


def test_a_table_of_bytes_is_read_as_it_is() -> None:
    body = f"""{READ} i = Cast <to = 6> (q) t = Gather(backwards, i) d = DequantizeLinear(t, one, z) {EYE}
        y = Conv(d, w) {WRITE}"""
    np.testing.assert_array_equal(run(read(body), pixels(0, 200)), pixels(255, 55))


def test_an_image_read_at_another_scale_is_multiplied() -> None:
    body = """v = DequantizeLinear(image, one, z) a = Abs(v) p = QuantizeLinear(a, half, z)
        x = DequantizeLinear(p, half, z) y = DequantizeLinear(image, two, z) k = Mul(y, x)
        upscaled = QuantizeLinear(k, hundred, z)"""
    network = read(body, image="uint8[n, 3, h, w]", result="uint8[n, 3, y, x]")
    assert kinds(network) == [ImageInput, Table, Multiply]
    assert [node.gain for node in network.nodes if isinstance(node, Multiply)] == [2]
    np.testing.assert_array_equal(run(network, pixels(10)), pixels(2))  # 10 * 2 * 10 / 100


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_short_scales_give_what_the_reference_evaluator_gives(data: st.DataObject) -> None:
    s, t, u = (np.float32(2.0 ** data.draw(st.integers(-4, 2))) for _ in range(3))
    kind = data.draw(st.sampled_from([np.uint8, np.int8]))
    ends = np.iinfo(kind)
    zero, other = (kind(data.draw(st.integers(int(ends.min), int(ends.max)))) for _ in range(2))
    weight = np.array(data.draw(st.lists(st.integers(-128, 127), min_size=9, max_size=9)), np.int8)
    constants = {"s": s, "t": t, "u": u, "zs": zero, "zt": other, "weight": weight.reshape(3, 3, 1, 1)}
    model = text_model(
        """q = QuantizeLinear(image, s, zs) x = DequantizeLinear(q, s, zs)
        w = DequantizeLinear(weight, u, i0) c = Conv(x, w) r = Relu(c) p = QuantizeLinear(r, t, zt)
        d = DequantizeLinear(p, t, zt) upscaled = LeakyRelu <alpha = 0.25> (d)""",
        opset=21,
        **constants,
    )
    image = np.random.default_rng(0).integers(0, 256, (1, 3, 4, 5)).astype(np.uint8)
    expected = np.asarray(ReferenceEvaluator(model).run(None, {"image": image.astype(np.float32)})[0])
    got = run(integer_network_of(model, "net", "0..255"), image)
    np.testing.assert_array_equal(got, np.clip(np.rint(expected), 0, 255))
