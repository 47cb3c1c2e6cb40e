"""qnas-export at a terminal: files of the same integers, the proof beside them, exit codes for CI."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from qnas.export.cli import main
from qnas.export.targets import TARGETS
from qnas.onnx.session import open_session
from qnas.runtimes.table import CHECKS
from qnas.testing.places import EXAMPLES
from qnas.testing.random_networks import noise, random_found
from qnas.tflite.reader import read_tflite
from qnas.tflite.session import LiteRtSession
from qnas.torch.checkpoint import save_found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with networks of random weights and one photograph of odd size."""
    for name, file in (
        ("espcn-w4", "found.pt"),
        ("srresnet-w8", "deep.pt"),
        ("rfdn-w8", "esa.pt"),
        ("basic-adq-w48-example", "adq.pt"),
    ):
        found = random_found(name)
        save_found(tmp_path / file, found.architecture, found.network, {})
    for name in ("photographs", "empty"):
        (tmp_path / name).mkdir()
    Image.fromarray(noise(70, 67)).save(tmp_path / "photographs" / "odd.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def export(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def written(path: Path) -> dict[str, str]:
    return {p.key: p.value for p in onnx.load(path).metadata_props}


def test_one_call_writes_onnx_and_tflite_of_the_same_integers_with_the_proof(folder: Path) -> None:
    result = export(
        "found.pt", "--format", "onnx-qdq", "--format", "tflite", "--check", "photographs", "--html"
    )
    assert result.exit_code == 0, result.output
    assert re.search(r"100.0% of \S+ G multiply-adds in integers,\s3 of 3\sconvolutions", result.output)
    assert "nodes that XNNPACK runs: 4 of 4" in result.output
    report = json.loads(Path("found.parity.json").read_text())
    assert report["passed"]
    gated = [r for file in report["files"] for r in file["runtimes"] if r["gated"]]
    assert {r["runtime"] for r in gated} >= {"onnxruntime", "LiteRT with XNNPACK"}
    for runtime in gated:
        assert [d["differing"] for d in runtime["against"].values()] == [0, 0]
    assert report["files"][0]["runtimes"][0]["against"]["torch"]["values"] == 68 * 64 * 3
    assert Path("found.parity.html").read_text().startswith("<!DOCTYPE html>")
    x = noise(9, 11).transpose(2, 0, 1)[None].copy()
    by_onnx = open_session(Path("found.onnx"), threads=1).run(None, {"image": x})[0]
    np.testing.assert_array_equal(LiteRtSession(Path("found.tflite").read_bytes()).run(x), by_onnx)


def test_the_files_say_what_they_are(folder: Path) -> None:
    assert export("found.pt", "--format", "onnx-qdq", "--format", "tflite", "--no-parity").exit_code == 0
    metadata = written(folder / "found.onnx")
    assert (metadata["qnas.bits"], metadata["qnas.scale"]) == ("4", "4")
    assert json.loads(metadata["qnas.architecture"])["space"] == "espcn"
    assert json.loads(metadata["qnas.cost_per_output_size"])["1280x720"]["macs"] == 37056 * 320 * 180
    assert read_tflite(folder / "found.tflite").operators
    assert b'"qnas.color_order": "RGB"' in Path("found.tflite").read_bytes()


def test_an_integer_model_is_written_again_for_another_runtime_with_the_same_integers(folder: Path) -> None:
    assert export("found.pt", "--no-parity", "--target", "portable").exit_code == 0
    result = export("found.onnx", "--format", "tflite", "--check", "photographs", "-o", "again.tflite")
    assert result.exit_code == 0, result.output
    assert export("found.pt", "--format", "tflite", "--no-parity", "-o", "direct.tflite").exit_code == 0
    x = noise(9, 11).transpose(2, 0, 1)[None].copy()
    again, direct = (
        LiteRtSession(Path(f"{name}.tflite").read_bytes()).run(x) for name in ("again", "direct")
    )
    np.testing.assert_array_equal(again, direct)


def test_an_onnx_source_is_not_overwritten(folder: Path) -> None:
    assert export("found.pt", "--no-parity").exit_code == 0
    result = export("found.onnx", "--no-parity")
    assert result.exit_code == 0, result.output
    assert Path("found.qnas.onnx").is_file()


def test_a_runtime_that_computes_something_else_fails_the_export(folder: Path) -> None:
    plain = ("deep.pt", "--target", "portable", "--check", "photographs")
    result = export(*plain)  # onnxruntime merges the two quantizers of Q -> DQ -> Q
    assert result.exit_code == 1
    assert "deep.onnx in onnxruntime: against interpreter" in " ".join(result.output.split())
    assert export(*plain, "--force", "--min-equal", "0", "--max-steps", "255").exit_code == 0


def test_layers_are_compared_on_request(folder: Path) -> None:
    result = export("found.pt", "--check", "photographs", "--check-layers")
    assert "layers in onnxruntime: all 5 layers are equal" in result.output
    (table, *_) = json.loads(Path("found.parity.json").read_text())["files"][0]["layers"]
    assert [layer["differing"] for layer in table["layers"]] == [0] * 5


def test_a_frozen_deviation_is_exported_with_its_price_and_one_per_image_without(folder: Path) -> None:
    frozen = export("adq.pt", "--images", "photographs", "-o", "frozen.onnx")
    assert frozen.exit_code == 0, frozen.output
    (price,) = [note for note in json.loads(Path("frozen.parity.json").read_text())["notes"] if "ADQ" in note]
    assert "dB PSNR-Y on these images" in price
    per_image = export("adq.pt", "--check", "photographs", "--adq", "per-image", "-o", "each.onnx")
    assert per_image.exit_code == 0, per_image.output
    report = json.loads(Path("each.parity.json").read_text())
    assert [d["differing"] for d in report["files"][0]["runtimes"][0]["against"].values()] == [0, 0]


def test_layers_that_may_saturate_without_vnni_are_named_or_refused(folder: Path) -> None:
    eight_bits = str(EXAMPLES / "espcn-w8" / "found.pt")
    risky = export(eight_bits, "--saturation", "error", "--no-parity", "-o", "risky.onnx")
    assert risky.exit_code == 2
    assert "may pass 16 bits on machines without VNNI in conv_0, conv_1, conv_2" in risky.output
    # 255 x (8 + 8) = 4080 for the layer that reads the image, 15 x (8 + 8) for the others
    assert export("found.pt", "--saturation", "error", "--no-parity").exit_code == 0


def test_a_machine_without_torch_and_onnxsim_turns_an_integer_model_into_both_formats(folder: Path) -> None:
    assert export("found.pt", "-o", "found.onnx", "--no-parity").exit_code == 0
    program = """
import sys
sys.modules["torch"] = sys.modules["onnxsim"] = None
from qnas.export.cli import main
main(["found.onnx", "--format", "onnx-qdq", "--format", "tflite", "--check", "photographs"])
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (result.returncode, "Traceback" in result.stderr) == (0, False)
    assert "onnxsim skipped: it is not installed" in result.stdout
    assert "passed" in result.stdout
    assert (folder / "found.qnas.tflite").is_file()


def test_an_onnx_file_that_needs_exact_sums_says_what_to_set_and_one_of_4_bits_does_not(folder: Path) -> None:
    wide, narrow = (
        export(str(EXAMPLES / name / "found.pt"), "-o", f"{name}.onnx", "--no-parity").output
        for name in ("espcn-w8", "espcn-w4")
    )
    assert "without VNNI open it with session.x64quantprecision = 1: 3 convolutions need it" in wide
    assert "VNNI" not in narrow


def test_a_network_with_attention_gets_a_tflite_file_of_one_size(folder: Path) -> None:
    result = export("esa.pt", "--format", "tflite", "--size", "17x16", "--check", "photographs")
    assert result.exit_code == 0, result.output
    assert LiteRtSession(Path("esa.tflite").read_bytes()).input_size == (17, 16)
    unasked = export("esa.pt", "--format", "tflite", "--check", "photographs", "-o", "other.tflite")
    assert "images of 128x128 alone: choose with --size" in " ".join(unasked.output.split())


def test_a_format_that_refuses_the_network_costs_the_other_nothing(folder: Path) -> None:
    wanted = ("--adq", "per-image", "--format", "tflite", "--format", "onnx-qdq", "--check", "photographs")
    result = export("adq.pt", *wanted)
    assert result.exit_code == 2
    assert "error: tflite is not written: --adq per-image needs --target onnxruntime" in result.output
    assert "wrote adq.qnas.onnx" in result.output or "wrote adq.onnx" in result.output
    assert not list(folder.glob("adq*.tflite"))
    report = json.loads(Path("adq.parity.json").read_text())
    assert report["passed"]
    assert len(report["files"]) == 1


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_images_come_in_either_layout(folder: Path, layout: str) -> None:
    assert export("found.pt", "--layout", layout, "--check", "photographs").exit_code == 0
    image = noise(6, 5)[None]
    x = image if layout == "nhwc" else image.transpose(0, 3, 1, 2).copy()
    shape = open_session(Path("found.onnx"), threads=1).run(None, {"image": x})[0].shape
    assert shape == ((1, 24, 20, 3) if layout == "nhwc" else (1, 3, 24, 20))


def test_an_existing_output_is_kept_without_force_and_replaced_with_it(folder: Path) -> None:
    target = Path("found.onnx")
    target.write_text("precious")
    refused = export("found.pt", "--no-parity")
    assert refused.exit_code == 2
    assert "--force" in refused.output
    assert target.read_text() == "precious"
    assert export("found.pt", "--no-parity", "--force").exit_code == 0
    onnx.load(target)


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["missing.pt"], "no checkpoint"),
        (["missing.onnx"], "missing.onnx"),
        (["found.pt", "-o", "nowhere/model.onnx"], "create it first"),
        (["found.pt", "-o", "model.bin"], "does not end in .onnx"),
        (["found.pt", "--images", "empty"], "empty"),
        (["found.pt", "--gate", "tvm"], "tvm"),
        (["found.pt", "--target", "litert"], "use one of onnxruntime"),
        (["found.pt", "--adq", "per-image"], "needs a network with ADQ"),
        (["found.pt", "--calibration", "found.json"], "found.pt is none: leave it out"),
        (["adq.pt", "--adq", "per-image", "--format", "tflite"], "needs --target onnxruntime"),
        (["found.pt", "--format", "tflite", "--target", "portable"], "use one of litert"),
        (["found.pt", "--format", "onnx-qdq", "--format", "onnx-float32"], "by itself"),
        (["found.pt", "--format", "onnx-qdq", "--format", "tflite", "-o", "a.onnx"], "-o names one file"),
        (["found.pt", "--format", "tflite", "--size", "0x4"], "HxW"),
        (["esa.pt", "--format", "tflite", "--size", "4x4"], "use a larger one"),
    ],
)
def test_wrong_calls_end_in_one_line_and_exit_code_2(folder: Path, arguments: list[str], advice: str) -> None:
    before = sorted(folder.iterdir())
    result = export(*arguments)
    assert result.exit_code == 2
    assert result.output.count("\n") == 1
    assert advice in result.output
    assert sorted(folder.iterdir()) == before


def test_the_command_offers_every_target_and_runtime_that_there_is() -> None:
    offered = {option.name: option.type for option in main.params}
    assert tuple(offered["target"].choices) == tuple(TARGETS)  # type: ignore[attr-defined]
    assert list(offered["gate"].choices) == list(CHECKS)  # type: ignore[attr-defined]
