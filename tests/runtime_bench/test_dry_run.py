"""What `qnas-calibrate --dry-run` foresees is what the calibration and the exports then do."""

from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from qnas.calibration.calibrate import Settings, calibrate
from qnas.calibration.document import write_calibration
from qnas.errors import QnasError
from qnas.export.checks.check import executed
from qnas.export.options import Options
from qnas.export.run import export
from qnas.runtime_bench.dry_run import dry_run
from qnas.testing.random_graphs import FLOAT_OPERATIONS, OPERATIONS, random_graph
from qnas.testing.small_calibrations import make_photographs

SETTINGS = Settings(patch=24, count=4, threads=1, input_range="0..1")


def outcome(path: Path, images: Path, settings: Settings, name: str) -> tuple[str, bytes]:
    """What an export of the calibrated network says in the format `name`, and the file that it writes."""
    calibration, suffix = path.with_suffix(".json"), {"onnx-qdq": ".onnx", "tflite": ".tflite"}[name]
    if not calibration.exists():
        write_calibration(calibrate(path, [images], settings), calibration)
    target = path.with_name(f"{path.stem}.out{suffix}")
    try:
        export(path, Options((name,), calibration=calibration, parity=False), target)
    except QnasError as error:
        return str(error), b""
    return "", target.read_bytes()


@pytest.mark.parametrize(
    ("seed", "changes"),
    [
        (0, {}),
        (1, {"weight_bits": 4}),
        (2, {}),
        (3, {}),
        (4, {"float_layers": ("conv_2*",)}),
        (5, {"weight_bits": 4}),
    ],
)
def test_every_format_does_what_was_foreseen(seed: int, changes: dict[str, object], tmp_path: Path) -> None:
    """Networks of random operations, half of them with such as no integer network has."""
    path, settings = tmp_path / "random.onnx", replace(SETTINGS, **changes)
    operations = OPERATIONS if seed % 2 else (*OPERATIONS, *FLOAT_OPERATIONS, *FLOAT_OPERATIONS)
    onnx.save(random_graph(seed, operations), path)
    images = make_photographs(tmp_path / "images")
    found = dry_run(path, settings)
    for outlook in found.foresight.outlooks:
        said, data = outcome(path, images, settings, outlook.format)
        assert outlook.refusal == said
        assert bool(outlook.data) == bool(data)
    if found.foresight.works:
        fusion, macs = executed(tmp_path / "random.out.onnx")
        assert found.fusion is not None
        assert found.fusion.float_names == fusion.float_names
        assert found.integer_share == macs[0] / macs[1]
