"""Dense layers between channels are 1x1 convolutions once a network is prepared."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from qnas.calibration.prepare.float_model import Runner, read_float_model
from qnas.onnx.session import open_session
from qnas.testing.text_models import text_model

LAST, FIRST = "Transpose <perm = [0, 2, 3, 1]>", "Transpose <perm = [0, 3, 1, 2]>"
STORED = """<float[4] s = {1, 1, 2, 2}, int64[2] image_axes = {2, 3}, int64[2] last_axes = {1, 2},
    int64[4] four = {0, 3, 1, 1}, float[3] b = {0.1, 0.2, -0.3},
    float[3, 3] w = {1, 0.5, 0, -0.25, 1, 0, 0.125, 0, 2}>"""
CASES = {
    "a linear layer of channels last": (
        f"t = {LAST} (image) m = MatMul (t, w) a = Add (b, m) r = Relu (a) v = {FIRST} (r)", ["Conv", "Relu"]
    ),
    "one between others of channels last": (
        f"t = {LAST} (image) p = Mul (t, b) m = MatMul (p, w) c = Concat <axis = 3> (t, m) "
        f"q = MatMul (c, ww) v = {FIRST} (q)", ["Mul", "Conv", "Concat", "Conv"],
    ),
    "dense layers of what a mean leaves": (
        "m = GlobalAveragePool (image) f = Flatten (m) d = Gemm <transB = 1> (f, w, b) g = Sigmoid (d) "
        "e = Reshape (g, four) v = Mul (image, e)", ["GlobalAveragePool", "Conv", "Sigmoid", "Mul"],
    ),
    "a mean that keeps no axes": (
        "m = ReduceMean <keepdims = 0> (image, image_axes) d = MatMul (m, w) g = HardSigmoid (d) "
        "e = Unsqueeze (g, image_axes) v = Mul (image, e)",
        ["GlobalAveragePool", "Conv", "HardSigmoid", "Mul"],
    ),
    "a gate spread over the image": (
        "m = GlobalAveragePool (image) g = Sigmoid (m) size = Shape (image) e = Expand (g, size) "
        "v = Mul (image, e)", ["GlobalAveragePool", "Sigmoid", "Mul"],
    ),
    "a mean of channels last": (
        f"t = {LAST} (image) m = ReduceMean (t, last_axes) d = MatMul (m, w) p = Mul (t, d) v = {FIRST} (p)",
        ["GlobalAveragePool", "Conv", "Mul"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_it_becomes_a_convolution_and_computes_the_same(case: str, tmp_path: Path) -> None:
    body, kinds = CASES[case]
    stored = STORED.replace(">", ", float[6, 3] ww = {1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 0, 0, 0, 2, 0, 0, 0, 1}>")
    resize = 'upscaled = Resize <mode = "nearest"> (v, , s)'
    model = text_model(
        f"net (float[n, 3, h, w] image) => (float[n, 3, y, x] upscaled) {stored} {{ {body} {resize} }}"
    )
    onnx.save(model, tmp_path / "network.onnx")
    network = read_float_model(tmp_path / "network.onnx", "0..1")
    assert [node.op_type for node in network.model.graph.node] == [*kinds, "Resize"]
    image = np.random.default_rng(0).uniform(0, 255, (2, 17, 24, 3)).astype(np.float32)
    session = open_session(model.SerializeToString(), threads=1, optimized=False)
    for each in image:
        wanted = session.run(None, {"image": each.transpose(2, 0, 1)[None] / np.float32(255)})[0]
        found = Runner(network)(each[None]).transpose(0, 3, 1, 2) / 255
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


def test_a_dense_layer_of_computed_weights_stays(tmp_path: Path) -> None:
    body = f"t = {LAST} (image) k = ReduceMax (t) weight = Mul (w, k) m = MatMul (t, weight) v = {FIRST} (m)"
    resize = 'upscaled = Resize <mode = "nearest"> (v, , s)'
    model = text_model(
        f"net (float[n, 3, h, w] image) => (float[n, 3, y, x] upscaled) {STORED} {{ {body} {resize} }}"
    )
    onnx.save(model, tmp_path / "network.onnx")
    kinds = [node.op_type for node in read_float_model(tmp_path / "network.onnx", "0..1").model.graph.node]
    assert "MatMul" in kinds
    assert "Conv" not in kinds
