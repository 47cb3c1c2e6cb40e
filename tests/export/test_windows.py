"""Networks of windows, borders, crops and resizes go the whole road: a float file, integers, both formats."""

from pathlib import Path

import numpy as np
import pytest

from qnas.calibration.prepare.float_model import read_float_model
from qnas.calibration.ptq.integer_model import quantized
from qnas.export.from_qdq.reader import integer_network_of
from qnas.export.targets import TARGETS, fitted
from qnas.export.to_onnx.writer import write_onnx
from qnas.export.to_tflite.writer import write_tflite
from qnas.integer import interpreter
from qnas.onnx.session import open_session
from qnas.testing import sr_modules
from qnas.testing.random_windows import RandomWindows
from qnas.testing.small_ptq import patches, pixels_of, psnr, ranges_of
from qnas.tflite.session import LiteRtSession

LEAST = 34.0  # dB to the float network


@pytest.mark.parametrize("seed", range(8))
def test_a_random_network_of_windows_is_exact_in_both_formats(seed: int, tmp_path: Path) -> None:
    """Its scales allow exact sums or name those that do not; on an image of an odd size."""
    path = sr_modules.export(RandomWindows(seed).eval(), tmp_path / "network.onnx")
    network = read_float_model(path, "0..1")
    integers = integer_network_of(quantized(network, ranges_of(network, patches())), "net")
    height, width = (int(n) for n in np.random.default_rng(seed).integers(20, 48, 2))
    image = patches(1, 48)[:, :height, :width]
    x = image.transpose(0, 3, 1, 2).astype(np.uint8)
    made = interpreter.run(integers, x)
    model = write_onnx(fitted(integers, TARGETS["onnxruntime"]), TARGETS["onnxruntime"])
    session = open_session(model.SerializeToString(), threads=1)
    np.testing.assert_array_equal(session.run(None, {"image": x})[0], made)
    lite = LiteRtSession(write_tflite(fitted(integers, TARGETS["litert"]), height, width).data)
    np.testing.assert_array_equal(lite.run(x), made)
    assert lite.left_out == ()
    assert psnr(made.transpose(0, 2, 3, 1).astype(np.float32), pixels_of(network, image)) > LEAST
