"""Instructions of an inference, counted by valgrind where it is installed."""

import json
import shutil
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner
from text_models import text_model

from qnas.errors import ModelError
from qnas.runtime_bench.devices.names import parse_device
from qnas.runtime_bench.gate import instructions
from qnas.runtime_bench.gate.instructions import count_instructions, missing
from qnas.runtime_bench.gate_cli import main
from qnas.runtime_bench.workers.process import LoadOptions

needs_valgrind = pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
PRODUCT = "net (float[8, k] x) => (float[8, 256] y) <float[k, 256] w> { y = MatMul (x, w) }"


@needs_valgrind
def test_twice_the_work_is_twice_the_instructions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instructions, "WORTH", 4e6)  # ns
    for size in (512, 1024):
        onnx.save(text_model(PRODUCT.replace("k", str(size))), tmp_path / f"{size}.onnx")
    cpu = parse_device("cpu")
    small, large = count_instructions(
        [(tmp_path / f"{size}.onnx", cpu, size * 20.0) for size in (512, 1024)], LoadOptions()
    )
    assert small.value > 8 * 512 * 256 / 16  # eight multiply-adds an instruction, two instructions each
    assert large.value / small.value == pytest.approx(2, rel=0.2)


def test_instructions_are_skipped_with_the_reason_without_valgrind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, size in (("new", 8), ("old", 8)):
        onnx.save(text_model(PRODUCT.replace("k", str(size))), tmp_path / f"{name}.onnx")
    monkeypatch.setattr(instructions.shutil, "which", lambda name: None)
    arguments = ["new.onnx", "--against", "old.onnx", "--no-timing", "--instructions", "--json", "gate.json"]
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0
    (row,) = json.loads((tmp_path / "gate.json").read_text())["rows"]
    assert (row["status"], row["detail"]) == ("skipped", "valgrind is not installed")
    assert "AVX-512" in result.stdout


@needs_valgrind
def test_instructions_are_counted_on_this_machine_only() -> None:
    assert missing(parse_device("cpu")) is None
    assert missing(parse_device("ssh:host/cpu")) == "valgrind runs on this machine only"


@needs_valgrind
def test_model_that_fails_under_valgrind_is_told_by_its_own_words(tmp_path: Path) -> None:
    (tmp_path / "corrupt.onnx").write_bytes(b"corrupt")
    with pytest.raises(ModelError, match=r"cannot run under valgrind: onnxruntime cannot load .*corrupt"):
        instructions._count(LoadOptions(), tmp_path / "corrupt.onnx", parse_device("cpu"), 1)
