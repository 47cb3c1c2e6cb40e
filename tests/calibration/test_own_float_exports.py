"""What the export writes as float32 is calibrated like any network, and becomes integers in both formats."""

from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from qnas.calibration.calibrate import Settings, calibrate
from qnas.calibration.document import write_calibration
from qnas.export.cli import main
from qnas.export.from_qdq.reader import read_qdq
from qnas.export.model import build_float32
from qnas.integer.interpreter import run
from qnas.network.architecture import Architecture, find_architecture, named_architectures
from qnas.network.lowering import slot_operations
from qnas.quantization.quantizers import FLOAT_BITS
from qnas.testing.random_networks import build, noise
from qnas.testing.small_calibrations import make_photographs
from qnas.tflite.session import LiteRtSession

SETTINGS = Settings(patch=16, count=6, threads=1, input_range="0..1")


def shallow(name: str) -> Architecture:
    """The float twin of a named architecture with one of its equal blocks, and 18 channels at the most."""
    whole = find_architecture(name).with_bits(FLOAT_BITS)
    frame = replace(whole, blocks=1, channels=min(18, whole.channels), layers={})
    return replace(frame, layers={slot: whole.layers[slot] for slot in slot_operations(frame)})


def test_the_named_architectures_have_seven_float_twins() -> None:
    """Those of one space differ in their bits alone, but for the mixed ones."""
    assert [names[0] for names in TWINS.values()] == [
        "basic-adq-w48-example", "basic-w32", "basic-w48-example", "espcn-w32", "rfdn-adq-w48-example",
        "rfdn-w32", "srresnet-w32",
    ]  # fmt: skip
    assert sorted(chain.from_iterable(TWINS.values())) == sorted(named_architectures())


TWINS: dict[str, list[str]] = {}
for _name in sorted(named_architectures()):
    TWINS.setdefault(shallow(_name).to_json(), []).append(_name)


@pytest.mark.parametrize("name", [names[0] for names in TWINS.values()])
def test_a_float_export_becomes_the_same_integers_in_both_formats(name: str, tmp_path: Path) -> None:
    onnx.save(build_float32(build(shallow(name))), tmp_path / "network.onnx")
    found = calibrate(tmp_path / "network.onnx", [make_photographs(tmp_path / "images")], SETTINGS)
    assert found.fidelity > 35
    write_calibration(found, tmp_path / "network.json")
    formats = ("--format", "onnx-qdq", "--format", "tflite", "--size", "32x32", "--no-parity")
    calibration = ("--calibration", str(tmp_path / "network.json"))
    result = CliRunner().invoke(main, [str(tmp_path / "network.onnx"), *formats, *calibration])
    assert result.exit_code == 0, result.output
    x = noise(32, 32).transpose(2, 0, 1)[None].copy()
    by_onnx = run(read_qdq(tmp_path / "network.qnas.onnx"), x)
    by_tflite = LiteRtSession((tmp_path / "network.qnas.tflite").read_bytes()).run(x)
    np.testing.assert_array_equal(by_tflite, by_onnx)
    assert len(np.unique(by_onnx)) > 40
