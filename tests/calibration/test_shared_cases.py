"""Small networks of others, each of a kind that failed once: calibrated, they stay near to their file."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from qnas.calibration.calibrate import Settings, calibrate, quantized_model
from qnas.calibration.prepare.float_model import Runner, read_float_model
from qnas.calibration.prepare.sr_shape import InputRange
from qnas.calibration.ptq.integer_model import IntegerRunner
from qnas.errors import ModelError
from qnas.export.from_qdq.reader import integer_network_of
from qnas.export.targets import TARGETS, fitted
from qnas.export.to_onnx.writer import write_onnx
from qnas.export.to_tflite.writer import write_tflite
from qnas.images.files import write_png
from qnas.images.resize import resize_bicubic
from qnas.images.samples import sample_photographs
from qnas.integer.convolution import Conv
from qnas.integer.interpreter import run
from qnas.integer.nodes import Add, ChannelGate, Concat, DepthToSpace, ImageInput, Mean, Multiply, Table
from qnas.onnx.session import open_session
from qnas.testing.places import CASES
from qnas.testing.small_ptq import psnr
from qnas.tflite.session import LiteRtSession

SIZES = ((72, 88), (71, 87), (192, 256))  # multiples of 8, odd, and large beside the patches of 32


def case(name: str) -> Path:
    """The file of a case, or a skip where there is none."""
    path = CASES / f"{name}.onnx"
    if not path.is_file():
        pytest.skip(f"no case {path}: set QNAS_CASES")
    return path


def photograph(height: int, width: int) -> np.ndarray:
    """Grey levels [1, H, W, 3]."""
    (_, image), *_ = sample_photographs()
    return np.clip(np.rint(resize_bicubic(image[:192, :256].astype(np.float64), (height, width))), 0, 255)[
        None
    ]


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("crop-after-reflect-pad", 44),  # dB; the crop at the end was dropped: a larger image at odd sizes
        ("crop-to-skip-size", 44),  # did not run at odd sizes
        ("sum-over-image", 44),  # 24 dB lost away from the size of the patches
        ("layernorm-written-out", 44),  # a grid between each two float operations
        ("edsr-quantize-at-end", 44),  # the Round at its end was no operation of integers
        ("clip-round-at-end", 44),  # likewise; in 0..255, as its clip says
        ("gelu-range-guess", 44),
        ("channel-disparity", 48),  # 34 dB: between two convolutions channels are uneven by thousands
        ("bgr-and-mean", 48),  # the mean of the output was a rounding of its own
        ("fp16-storage", 44),  # refused, though float32 has all its values
        ("sparse-initializer", 42),  # a traceback
        ("weight-only-int8", 44),  # each command named the other one
    ],
)
def test_a_network_of_others_is_near_to_its_file_at_every_size(
    name: str, least: float, tmp_path: Path
) -> None:
    path = case(name)
    for title, image in sample_photographs():
        write_png(tmp_path / f"{title}.png", image)
    white: InputRange = "0..255" if name == "clip-round-at-end" else "0..1"
    found = calibrate(path, [tmp_path], Settings(patch=32, count=48, hr=True, input_range=white, threads=1))
    network = read_float_model(path, white)
    model = quantized_model(path, found)
    onnx.checker.check_model(model)
    for size in SIZES:
        image = photograph(*size)
        wanted = np.clip(np.rint(Runner(network)(image)), 0, 255)
        ours = IntegerRunner(network, model)(image)
        assert ours.shape == (1, 2 * size[0], 2 * size[1], 3)
        assert psnr(ours, wanted) > least


@pytest.mark.parametrize(
    ("name", "nodes"),
    [
        ("squeeze-excite", {Mean, ChannelGate, Table}),  # all of these had no form in TFLite
        ("square-relu", {Multiply}),
        ("max-as-leaky-relu", {Table}),
        ("dense-block", {Add, Concat, Table}),  # an added zero fed several quantizers: float in onnxruntime
    ],
)
def test_a_network_of_others_is_integer_and_the_same_in_both_formats(
    name: str, nodes: set[type], tmp_path: Path
) -> None:
    path = case(name)
    for title, image in sample_photographs():
        write_png(tmp_path / f"{title}.png", image)
    found = calibrate(path, [tmp_path], Settings(patch=32, count=24, hr=True, input_range="0..1", threads=1))
    integers = integer_network_of(quantized_model(path, found), name)
    assert {type(node) for node in integers.nodes} == nodes | {ImageInput, Conv, DepthToSpace}
    model = write_onnx(fitted(integers, TARGETS["onnxruntime"]), TARGETS["onnxruntime"])
    open_session(model.SerializeToString(), 1, optimized_model_path=tmp_path / "runs.onnx")
    left = {node.op_type for node in onnx.load(tmp_path / "runs.onnx").graph.node}
    assert left.isdisjoint({"Add", "Conv", "DequantizeLinear", "Mul", "QuantizeLinear"})
    by_onnxruntime = open_session(model.SerializeToString(), threads=1)
    by_litert = LiteRtSession(write_tflite(fitted(integers, TARGETS["litert"]), 32, 32, resizable=True).data)
    network = read_float_model(path, "0..1")
    for size in SIZES[:2]:
        image = photograph(*size)
        pixels = image.astype(np.uint8).transpose(0, 3, 1, 2)
        wanted = run(integers, pixels)
        np.testing.assert_array_equal(by_onnxruntime.run(None, {"image": pixels})[0], wanted)
        np.testing.assert_array_equal(by_litert.run(pixels), wanted)
        exact = np.clip(np.rint(Runner(network)(image)), 0, 255)
        assert psnr(wanted.transpose(0, 2, 3, 1).astype(np.float32), exact) > 44
    assert by_litert.left_out == ()


def test_the_range_of_a_softly_bending_network_is_no_silent_guess() -> None:
    network = read_float_model(case("gelu-range-guess"))
    assert network.white == 1
    assert network.white_found.startswith("WARNING: images are read as 0..1, which is a guess (")


def test_weights_without_a_number_are_named() -> None:
    with pytest.raises(ModelError, match=r"the weights '[^']+' hold NaN"):
        read_float_model(case("nan-weights"))
