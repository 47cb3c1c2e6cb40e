"""Instructions of an inference, counted by valgrind where it is installed."""

import json
import shutil
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner

from qnas.errors import ModelError
from qnas.runtime_bench.gate import instructions
from qnas.runtime_bench.gate.instructions import count_instructions, missing
from qnas.runtime_bench.gate_cli import main
from qnas.runtime_bench.workers.process import LoadOptions
from qnas.runtimes.names import parse_device
from qnas.testing.text_models import text_model

needs_valgrind = pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")


MACS = 4 * 64 * 256 * 256


@pytest.fixture
def products(tmp_path: Path) -> Path:
    """A model of four products of [64, 256] with [256, 256]."""
    nodes = " ".join(f"x{k + 1} = MatMul (x{k}, w)" for k in range(4))
    text = f"net (float[64, 256] x0) => (float[64, 256] x4) <float[256, 256] w> {{ {nodes} }}"
    onnx.save(text_model(text), tmp_path / "products.onnx")
    return tmp_path / "products.onnx"


@needs_valgrind
def test_instructions_are_those_of_the_inferences_alone(products: Path) -> None:
    (found,) = count_instructions([(products, parse_device("cpu"), 400_000)], LoadOptions())
    assert MACS / 16 < found.value < 2 * MACS  # AVX-512 does 16 at once; loading takes some 10^9 instructions
    assert found.error < 0.01 * found.value


def test_instructions_are_skipped_with_the_reason_without_valgrind(
    products: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instructions.shutil, "which", lambda name: None)
    arguments = [
        str(products),
        "--against",
        str(products),
        "--no-timing",
        "--instructions",
        "--json",
        "gate.json",
    ]
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
