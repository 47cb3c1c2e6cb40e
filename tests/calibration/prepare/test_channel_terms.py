"""Constants of each channel behind a convolution become part of it, whatever moves channels between."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from qnas.calibration.prepare.float_model import Runner, read_float_model
from qnas.testing.text_models import text_model

BODIES = {
    "a mean behind a shuffle": 's = DepthToSpace <blocksize = 2, mode = "CRD"> (c)\nout = Add (s, m)',
    "in the other order": "s = DepthToSpace <blocksize = 2> (c)\nout = Add (m, s)",
    "turned": "s = DepthToSpace <blocksize = 2> (c)\nt = Gather <axis = 1> (s, bgr)\nout = Sub (t, m)",
    "a deviation and a mean": "s = DepthToSpace <blocksize = 2> (c)\nd = Mul (s, e)\nout = Add (d, m)",
    "divided": 's = DepthToSpace <blocksize = 2, mode = "CRD"> (c)\nd = Div (s, e)\nout = Add (d, m)',
    "one for all": 's = DepthToSpace <blocksize = 2, mode = "CRD"> (c)\nout = Add (s, one)',
}


def saved(path: Path, body: str) -> Path:
    model = text_model(f"""
net (float[n, 3, h, w] image) => (float[n, 3, y, x] out)
<float[12, 3, 3, 3] k, float[1, 3, 1, 1] m, float[3, 1, 1] e, int64[3] bgr = {{2, 1, 0}}, float one = {{0.3}}>
{{
    c = Conv <pads = [1, 1, 1, 1]> (image, k)
    {body}
}}""")
    values = {"m": [0.4, 0.1, -0.3], "e": [0.25, 0.5, 2]}
    for tensor in model.graph.initializer:
        if tensor.name in values:
            array = np.asarray(values[tensor.name], np.float32).reshape(tuple(tensor.dims))
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
        elif tensor.name == "k":
            array = onnx.numpy_helper.to_array(tensor) / 64
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("body", BODIES)
def test_they_go_into_weights_and_bias(tmp_path: Path, body: str) -> None:
    path = saved(tmp_path / "network.onnx", BODIES[body])
    network = read_float_model(path, "0..1")
    kinds = {node.op_type for node in network.model.graph.node}
    assert kinds <= {"Conv", "DepthToSpace", "Gather"}
    pixels = np.random.default_rng(0).integers(0, 256, (1, 9, 14, 3)).astype(np.float32)
    (wanted,) = ReferenceEvaluator(onnx.load(path)).run(
        None, {"image": pixels.transpose(0, 3, 1, 2) / np.float32(255)}
    )
    np.testing.assert_allclose(Runner(network)(pixels), 255 * wanted.transpose(0, 2, 3, 1), atol=0.02)


def test_what_others_read_as_well_stays(tmp_path: Path) -> None:
    body = "s = DepthToSpace <blocksize = 2> (c)\nd = Add (s, m)\nout = Mul (d, s)"
    network = read_float_model(saved(tmp_path / "network.onnx", body), "0..1")
    assert [node.op_type for node in network.model.graph.node].count("Add") == 1
