"""Public networks of the TensorFlow world: read whole, channels first inside, of any size."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from qnas.calibration.prepare.float_model import Runner, read_float_model
from qnas.onnx.session import open_session
from qnas.testing.places import NETWORKS


def network(name: str) -> Path:
    """The file of a public network, or a skip where there is none."""
    path = NETWORKS / name
    if not path.is_file():
        pytest.skip(f"no network {path}: set QNAS_NETWORKS")
    return path


@pytest.mark.parametrize(
    ("name", "scale", "channels", "white"),
    [
        ("base7_tf.onnx", 3, 3, 255),  # joins channels in front of its first Transpose
        ("espcn_x3_tf.onnx", 3, 1, 1),  # turns grey images by Reshape
        ("fsrcnn_x2_tf.onnx", 2, 1, 1),  # channels last in, first out; slopes written as sums and products
    ],
)
def test_only_the_image_and_the_output_of_a_network_with_channels_last_are_turned(
    name: str, scale: int, channels: int, white: float
) -> None:
    path = network(name)
    found = read_float_model(path)
    assert (found.layout, found.scale, found.channels, found.white) == ("nhwc", scale, channels, white)
    kinds = [node.op_type for node in found.model.graph.node]
    assert [place for place, kind in enumerate(kinds) if kind == "Transpose"] == [0, len(kinds) - 1]
    assert not {"Reshape", "Squeeze", "Abs", "Sub"} & set(kinds)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 37, 29, channels)).astype(np.float32)
    session, feed = open_session(path, threads=1), onnx.load(path).graph.input[0].name
    (wanted,) = session.run(None, {feed: pixels * np.float32(white / 255)})
    shaped = wanted.reshape(1, scale * 37, scale * 29, channels) * (255 / white)
    np.testing.assert_allclose(Runner(found)(pixels), shaped, atol=0.05)
