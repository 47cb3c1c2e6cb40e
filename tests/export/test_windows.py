"""Networks of windows, borders, crops and resizes go the whole road: a float file, integers, both formats."""

from pathlib import Path

import numpy as np
import pytest

from qnas.calibration.prepare.float_model import FloatModel, read_float_model
from qnas.calibration.ptq.integer_model import quantized
from qnas.errors import ModelError
from qnas.export.from_qdq.reader import integer_network_of
from qnas.export.targets import TARGETS, fitted
from qnas.export.to_onnx.writer import write_onnx
from qnas.export.to_tflite.writer import write_tflite
from qnas.integer import interpreter
from qnas.integer.network import IntegerNetwork
from qnas.onnx.session import open_session
from qnas.testing import sr_modules
from qnas.testing.places import CASES
from qnas.testing.random_windows import RandomWindows
from qnas.testing.small_ptq import patches, pixels_of, psnr, ranges_of
from qnas.tflite.session import LiteRtSession

FAST, LITE = TARGETS["onnxruntime"], TARGETS["litert"]
ANY_SIZE = (32, 48)


def check(
    network: FloatModel, image: np.ndarray, left_out: tuple[str, ...] = ()
) -> tuple[IntegerNetwork, float]:
    """The integers of `network`, and how near their `image` [1, H, W, 3] is to that of it: PSNR in dB.

    Both files make of it what the interpreter does, and so does the ONNX file read back; XNNPACK runs all of
    the other but `left_out`.
    """
    integers = integer_network_of(quantized(network, ranges_of(network, patches())), "net")
    x = image.transpose(0, 3, 1, 2).astype(np.uint8)
    made = interpreter.run(integers, x)
    model = write_onnx(fitted(integers, FAST), FAST)
    session = open_session(model.SerializeToString(), threads=1)
    np.testing.assert_array_equal(session.run(None, {"image": x})[0], made)
    np.testing.assert_array_equal(interpreter.run(integer_network_of(model, "back"), x), made)
    lite = LiteRtSession(write_tflite(fitted(integers, LITE), *image.shape[1:3]).data)
    np.testing.assert_array_equal(lite.run(x), made)
    assert set(lite.left_out) <= set(left_out)
    return integers, psnr(made.transpose(0, 2, 3, 1).astype(np.float32), pixels_of(network, image))


@pytest.mark.parametrize("seed", range(6))
def test_a_random_network_of_windows_is_exact_in_both_formats(seed: int, tmp_path: Path) -> None:
    path = sr_modules.export(RandomWindows(seed).eval(), tmp_path / "network.onnx")
    height, width = np.random.default_rng(seed).integers(20, 48, 2)
    _, near = check(read_float_model(path, "0..1"), patches(1, 48)[:, :height, :width])
    assert near > 34


@pytest.mark.parametrize(
    ("name", "any_size"),
    [
        ("pixel-unshuffle", True),
        ("padded-maxpool", True),
        ("asymmetric-pads", True),
        ("stride2-then-shuffle", True),
        ("resize-to-sizes", True),
        ("crop-after-reflect-pad", False),  # how much is padded and cut, each size decides
        ("crop-to-skip-size", False),
    ],
)
def test_a_network_of_others_is_exact_in_both_formats(name: str, any_size: bool) -> None:
    path = CASES / f"{name}.onnx"
    if not path.is_file():
        pytest.skip(f"no case {path}: set QNAS_CASES")
    side = 46 if name == "pixel-unshuffle" else 45
    image = patches(1, 48)[:, :side, : side - 8]
    tables = ("QUANTIZE", "CAST", "GATHER") if name == "padded-maxpool" else ()  # of its two constant factors
    integers, near = check(read_float_model(path, "0..1"), image, tables)
    assert near > 42
    assert _takes_any_size(integers, image) == any_size


def _takes_any_size(integers: IntegerNetwork, image: np.ndarray) -> bool:
    """Whether a .tflite file of another size, resized, makes of `image` what the interpreter does."""
    try:
        written = write_tflite(fitted(integers, LITE), *ANY_SIZE, resizable=True)
    except ModelError:
        return False
    x = image.transpose(0, 3, 1, 2).astype(np.uint8)
    np.testing.assert_array_equal(LiteRtSession(written.data).run(x), interpreter.run(integers, x))
    return True


def test_an_image_too_small_to_be_mirrored_is_refused_by_name(tmp_path: Path) -> None:
    path = CASES / "crop-after-reflect-pad.onnx"
    if not path.is_file():
        pytest.skip(f"no case {path}: set QNAS_CASES")
    network = read_float_model(path, "0..1")
    integers = integer_network_of(quantized(network, ranges_of(network, patches())), "net")
    with pytest.raises(ModelError, match=r"mirrors more than there is of 3x9: use a larger image"):
        write_tflite(integers, 3, 9)
