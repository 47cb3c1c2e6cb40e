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
from qnas.images.files import write_png
from qnas.images.resize import resize_bicubic
from qnas.images.samples import sample_photographs
from qnas.testing.places import CASES
from qnas.testing.small_ptq import psnr

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


def test_the_range_of_a_softly_bending_network_is_no_silent_guess() -> None:
    network = read_float_model(case("gelu-range-guess"))
    assert network.white == 1
    assert network.white_found.startswith("WARNING: images are read as 0..1, which is a guess (")


def test_weights_without_a_number_are_named() -> None:
    with pytest.raises(ModelError, match=r"the weights '[^']+' hold NaN"):
        read_float_model(case("nan-weights"))
