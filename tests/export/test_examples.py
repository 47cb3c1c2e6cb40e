"""The sample networks are what their cards say, and ship exactly."""

import json
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner

from qnas.cost.network_cost import PAPER_G, network_cost
from qnas.export.cli import main
from qnas.testing.places import DATA, ROOT
from qnas.torch.checkpoint import load_found
from qnas.torch.inference import validate

EXAMPLES = sorted(path.parent.name for path in (ROOT / "examples").glob("*/found.pt"))
QUANTIZED = [name for name in EXAMPLES if not name.endswith("w32")]
needs_data = pytest.mark.skipif(
    not (DATA / "Set14").is_dir(), reason=f"no test images in {DATA}, see QNAS_DATA"
)


def test_there_are_examples_at_full_precision_eight_bits_four_bits_and_mixed() -> None:
    assert {"espcn-w32", "espcn-w8", "espcn-w4", "basic-w32", "basic-w48"} <= set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_comes_with_a_card_that_has_its_training_command(name: str) -> None:
    assert "qnas-train" in (ROOT / "examples" / name / "README.md").read_text()


@pytest.mark.parametrize("name", QUANTIZED)
def test_an_example_exports_with_all_sample_pixels_equal(name: str, tmp_path: Path) -> None:
    target = tmp_path / "model.onnx"
    result = CliRunner().invoke(main, [str(ROOT / "examples" / name / "found.pt"), "-o", str(target)])
    assert result.exit_code == 0, result.output
    report = json.loads(target.with_suffix(".parity.json").read_text())
    assert report["passed"]
    for runtime in report["files"][0]["runtimes"]:
        if runtime["gated"]:
            assert [d["equal"] for d in runtime["against"].values()] == [1.0, 1.0], runtime["runtime"]
    onnx.checker.check_model(onnx.load(target), full_check=True)


@needs_data
@pytest.mark.parametrize("name", QUANTIZED)
def test_an_example_is_the_same_in_every_runtime_on_every_pixel_of_set14(name: str, tmp_path: Path) -> None:
    source = tmp_path / "found.pt"
    source.symlink_to(ROOT / "examples" / name / "found.pt")
    exact = ["--check", str(DATA / "Set14"), "--min-equal", "1", "--max-steps", "0"]
    result = CliRunner().invoke(main, [str(source), "--format", "onnx-qdq", "--format", "tflite", *exact])
    assert result.exit_code == 0, result.output


@needs_data
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_still_has_the_psnr_that_its_training_recorded(name: str) -> None:
    """Two were trained when 8-bit weights could be -128 (decision 0027): that is at most 0.01 dB."""
    found = load_found(ROOT / "examples" / name / "found.pt")
    recorded = found.training["validation"]
    quality = validate(found.network, DATA / recorded["folder"], found.architecture.scale)
    narrowed = 1e-2 if name in ("basic-w48", "espcn-w8") else 1e-3
    assert quality.psnr == pytest.approx(recorded["psnr_y"], abs=narrowed)
    assert quality.ssim == pytest.approx(recorded["ssim"], abs=1e-4)


def test_the_mixed_basic_example_needs_no_more_bitops_than_the_papers() -> None:
    network = load_found(ROOT / "examples" / "basic-w48" / "found.pt").network
    assert network_cost(network.layers, 32, 32).bitops / PAPER_G <= 2.6
