"""Integer files are no larger than those of onnxruntime's own quantization, and 4-bit ones much smaller."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from qnas.calibration.prepare.float_model import read_float_model
from qnas.calibration.ptq.integer_model import PtqOptions
from qnas.export.foresight import foresee
from qnas.testing.text_models import text_model

LAYERS = "\n".join(
    f"c{i} = Conv <pads = [1, 1, 1, 1]> (p{i - 1}, w{i}, b{i})  p{i} = PRelu (c{i}, s{i})"
    for i in range(1, 7)
)
CONSTANTS = ", ".join(
    f"float[{n}, {n}, 3, 3] w{i}, float[{n}] b{i}, float[{n}, 1, 1] s{i}" for i in range(1, 7) for n in (40,)
)
NETWORK = f"""
net (float[n, 3, h, w] image) => (float[n, 3, y, x] upscaled)
<float[40, 3, 3, 3] w0, float[40, 1, 1] s0, {CONSTANTS}, float[12, 40, 3, 3] last, float little = {{1e-4}}>
{{
    c0 = Conv <pads = [1, 1, 1, 1]> (image, w0)  p0 = PRelu (c0, s0)
    {LAYERS}
    detail = Conv <pads = [1, 1, 1, 1]> (p6, last)
    small = Mul (detail, little)
    four = Concat <axis = 1> (image, image, image, image)
    sum = Add (small, four)
    upscaled = DepthToSpace <blocksize = 2, mode = "DCR"> (sum)
}}"""


class Images(CalibrationDataReader):
    """One image."""

    def __init__(self) -> None:
        self.left = [{"image": np.random.default_rng(0).uniform(size=(1, 3, 24, 24)).astype(np.float32)}]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self.left.pop() if self.left else None


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PReLU of many slopes, each of which is two convolutions in integers; names as torch writes them."""
    path = tmp_path_factory.mktemp("network") / "network.onnx"
    model = text_model(NETWORK)
    for node in model.graph.node:
        node.name = f"/body/blocks/{node.op_type}_{node.output[0]}"
    for tensor in model.graph.initializer:
        if len(tensor.dims) > 2:
            values = numpy_helper.to_array(tensor) * np.float32(0.02)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, path)
    return path


def test_no_format_is_a_tenth_larger_than_the_file_of_onnxruntimes_quantization(
    network: Path, tmp_path: Path
) -> None:
    theirs = tmp_path / "static.onnx"
    quantize_static(
        str(shutil.copy(network, tmp_path)), str(theirs), Images(), quant_format=QuantFormat.QDQ,
        per_channel=True, weight_type=QuantType.QInt8,
    )  # fmt: skip
    found = foresee(network, read_float_model(network, "0..1"), PtqOptions())
    for outlook in found.outlooks:
        assert not outlook.refusal
        assert len(outlook.data) < 1.1 * theirs.stat().st_size


def test_weights_of_four_bits_make_a_file_of_two_thirds(network: Path) -> None:
    read = read_float_model(network, "0..1")
    eight, four = (
        len(foresee(network, read, PtqOptions(weight_bits=bits)).outlooks[0].data) for bits in (8, 4)
    )
    assert four < 0.65 * eight
