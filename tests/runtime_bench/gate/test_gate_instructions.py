"""Instructions of an inference, counted by valgrind where it is installed."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest
from click.testing import CliRunner

from qnas.errors import ModelError
from qnas.runtime_bench.gate import by_instructions, instructions
from qnas.runtime_bench.gate.instructions import count_instructions, missing
from qnas.runtime_bench.gate.sequential import Status
from qnas.runtime_bench.gate_cli import main
from qnas.runtime_bench.stats import Estimate
from qnas.runtime_bench.workers.process import LoadOptions
from qnas.runtimes.names import parse_device
from qnas.testing.text_models import text_model

needs_valgrind = pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")


MACS = 4 * 64 * 256 * 256


def chain(path: Path, *operations: str) -> Path:
    """A model of such operations on [64, 256], one after the other; a product is one with [256, 256]."""
    nodes = " ".join(f"x{k + 1} = {each.format(f'x{k}')}" for k, each in enumerate(operations))
    ends = f"(float[64, 256] x0) => (float[64, 256] x{len(operations)})"
    onnx.save(text_model(f"net {ends} <float[256, 256] w> {{ {nodes} }}"), path)
    return path


PRODUCT, ABSOLUTE = "MatMul ({}, w)", "Abs ({})"


@pytest.fixture
def products(tmp_path: Path) -> Path:
    return chain(tmp_path / "products.onnx", *[PRODUCT] * 4)


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


# Where time does not decide ----------------------------------------------------------------------------


def undecided(old: Path, new: Path, *more: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """A gate whose budget is over at once: its exit code, and its rows by name."""
    written = new.with_suffix(".json")
    arguments = [str(new), "--against", str(old), "--budget", "0.001", "--json", str(written), *more]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code != 2, result.output
    return result.exit_code, {row["gate"]: row for row in json.loads(written.read_text())["rows"]}


@needs_valgrind
def test_what_time_leaves_open_instructions_decide(tmp_path: Path) -> None:
    old, new = (chain(tmp_path / f"{count}.onnx", *[PRODUCT] * count) for count in (8, 9))
    exit_code, rows = undecided(old, new)
    assert exit_code == 1
    assert rows["latency"]["status"] == "skipped"
    detail = r"at a load of [0-9.]+ on \d+ processors?;.*instructions decide it"
    assert re.search(detail, rows["latency"]["detail"])
    row = rows["latency, by instructions"]
    assert (row["status"], row["limit"]) == ("fail", 1.05)
    assert row["new"] == pytest.approx(9 / 8, rel=0.02)


@pytest.mark.parametrize(
    ("last", "more", "reason"),
    [
        (ABSOLUTE, (), "the models run different kinds of operations"),
        (PRODUCT, ("--threads", "2"), "they are those of one thread"),
    ],
)
@needs_valgrind
def test_instructions_do_not_stand_for_time_between_programs_of_other_kinds(
    tmp_path: Path, last: str, more: tuple[str, ...], reason: str
) -> None:
    old, new = chain(tmp_path / "old.onnx", PRODUCT, PRODUCT), chain(tmp_path / "new.onnx", PRODUCT, last)
    exit_code, rows = undecided(old, new, *more)
    assert (exit_code, list(rows), rows["latency"]["status"]) == (3, ["latency"], "inconclusive")
    assert rows["latency"]["detail"].endswith(f"instructions do not decide it: {reason}")


@needs_valgrind
def test_a_model_that_cannot_be_counted_leaves_the_latency_open(
    products: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A valgrind that ends at once, as one does that knows no instruction of the runtime."""
    monkeypatch.setattr(instructions, "TOOL", ("--tool=none such",))
    exit_code, rows = undecided(products, products)
    assert (exit_code, list(rows), rows["latency"]["status"]) == (3, ["latency"], "inconclusive")
    assert "instructions do not decide it: " in rows["latency"]["detail"]
    assert "cannot run under valgrind" in rows["latency"]["detail"]


def found(low: float, high: float) -> Status:
    """The verdict on a ratio in this interval, where 5 % are allowed."""
    return by_instructions._status(Estimate((low + high) / 2, low, high), 1.025, 1.075)


def test_a_ratio_near_the_limit_stays_open() -> None:
    assert found(1.0, 1.025) is Status.PASS
    assert found(1.02, 1.03) is found(1.05, 1.05) is found(1.07, 1.08) is Status.INCONCLUSIVE
    assert found(1.0751, 1.1) is Status.FAIL
