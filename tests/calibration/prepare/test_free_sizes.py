"""Networks that were exported for one size: freed where no operation needs it, and left alone elsewhere."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from qnas.calibration.prepare.float_model import FloatModel, Runner, read_float_model
from qnas.testing.text_models import text_model

CONV = "c = Conv <pads = [1, 1, 1, 1]> (image, k) r = Relu (c)"
SHUFFLE = 'upscaled = DepthToSpace <blocksize = 2, mode = "CRD"> ({})'
FREE = {
    "convolutions": CONV + SHUFFLE.format("r"),
    "a shuffle of constant shapes": CONV
    + "s = Reshape (r, six) t = Transpose <perm = [0, 1, 4, 2, 5, 3]> (s) upscaled = Reshape (t, four)",
    "a resize to a multiple": CONV + "s = Conv (r, three) upscaled = Resize <mode = 'linear'> (s, , , four)",
    "a resize to what was before": CONV
    + "p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r) s = Resize <mode = 'linear'> (p, , , sides)"
    + "m = Add (r, s)" + SHUFFLE.format("m"),
    "a mean of the image": CONV + "g = GlobalAveragePool (r) m = Mul (r, g)" + SHUFFLE.format("m"),
}  # fmt: skip
FIXED = {
    "a constant of every pixel": CONV + "m = Add (r, pixels)" + SHUFFLE.format("m"),
    "a sum over the image": CONV + "g = ReduceSum (r, axes) m = Mul (r, g)" + SHUFFLE.format("m"),
    "rows": CONV + "f = Reshape (r, rows) g = Relu (f) h = Reshape (g, twelve)" + SHUFFLE.format("h"),
    "a crop": CONV
    + "p = Pad <mode = 'edge'> (r, pads) q = Slice (p, from, to, both)" + SHUFFLE.format("q"),
}  # fmt: skip


def network(folder: Path, body: str) -> FloatModel:
    graph = f"""
net (float[1, 3, 20, 28] image) => (float[1, 3, 40, 56] upscaled)
<float[12, 3, 3, 3] k, float[3, 12, 1, 1] three, float[1, 12, 20, 28] pixels,
 int64[6] six = {{1, 3, 2, 2, 20, 28}},
 int64[4] four = {{1, 3, 40, 56}}, int64[2] axes = {{2, 3}}, int64[3] rows = {{1, 12, 560}}, int64[8] pads =
 {{0, 0, 4, 4, 0, 0, 4, 4}}, int64[2] from = {{4, 4}}, int64[2] to = {{24, 32}}, int64[2] both = {{2, 3}},
 int64[4] twelve = {{1, 12, 20, 28}}, int64[4] sides = {{1, 12, 20, 28}}>
{{ {body} }}"""
    onnx.save(text_model(graph.replace("'", '"')), folder / "network.onnx")
    return read_float_model(folder / "network.onnx", "0..1")


@pytest.mark.parametrize("body", FREE)
def test_a_size_that_nothing_needs_is_freed(tmp_path: Path, body: str) -> None:
    found = network(tmp_path, FREE[body])
    assert (found.size, found.scale) == (None, 2)
    assert "the file says images of 28x20 alone" in found.remarks[-1]
    assert Runner(found)(np.zeros((2, 31, 23, 3), np.float32)).shape == (2, 62, 46, 3)


@pytest.mark.parametrize("body", FIXED)
def test_a_size_that_something_needs_stays(tmp_path: Path, body: str) -> None:
    assert network(tmp_path, FIXED[body]).size == (20, 28)
