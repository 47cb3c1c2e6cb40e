"""Random networks of others: both formats compute the integers, which are near to the float file."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from qnas.calibration.prepare.float_model import read_float_model
from qnas.calibration.ptq.integer_model import PtqOptions, fitted_weights, quantized
from qnas.export.from_qdq.reader import integer_network_of
from qnas.export.targets import TARGETS, fitted
from qnas.export.to_onnx.writer import write_onnx
from qnas.export.to_tflite.writer import write_tflite
from qnas.integer.interpreter import run
from qnas.onnx.session import open_session
from qnas.testing.random_graphs import random_graph
from qnas.testing.small_ptq import patches, pixels_of, psnr, ranges_of
from qnas.tflite.session import LiteRtSession

TABLES = {"QUANTIZE", "CAST", "GATHER"}  # of functions that XNNPACK has no operator for


@pytest.mark.parametrize("seed", range(4))
def test_a_random_network_is_the_same_in_both_formats_and_near_to_its_file(seed: int, tmp_path: Path) -> None:
    onnx.save(random_graph(seed), tmp_path / "random.onnx")
    network = read_float_model(tmp_path / "random.onnx", "0..1")
    images = patches()
    ranges = ranges_of(network, images)
    weights = fitted_weights(network, ranges, PtqOptions(), [images])
    integers = integer_network_of(quantized(network, ranges, weights=weights), "random")
    model = write_onnx(fitted(integers, TARGETS["onnxruntime"]), TARGETS["onnxruntime"])
    by_onnxruntime = open_session(model.SerializeToString(), threads=1)
    ours = run(integers, images[:2].astype(np.uint8).transpose(0, 3, 1, 2))
    assert psnr(ours.transpose(0, 2, 3, 1).astype(np.float32), pixels_of(network, images[:2])) > 35
    rng = np.random.default_rng(seed)
    for height, width in (tuple(int(n) for n in rng.integers(5, 50, 2)), (1, 9)):
        image = rng.integers(0, 256, (1, 3, height, width)).astype(np.uint8)
        wanted = run(integers, image)
        np.testing.assert_array_equal(by_onnxruntime.run(None, {model.graph.input[0].name: image})[0], wanted)
        written = write_tflite(fitted(integers, TARGETS["litert"]), height, width)
        session = LiteRtSession(written.data)
        np.testing.assert_array_equal(session.run(image), wanted)
        assert {*session.left_out} <= TABLES
        assert not written.approximate
