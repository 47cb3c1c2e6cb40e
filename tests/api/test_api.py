"""The Python API: its names, its weight, and the page that shows it."""

import doctest
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import qnas
from qnas.errors import QnasError
from qnas.testing.places import EXAMPLES, ROOT


def test_the_public_names_are_these() -> None:
    assert qnas.__all__ == [
        "benchmark", "calibrate", "check", "choose_bits", "export", "finetune", "gate", "load", "search",
        "train", "upscale",
    ]  # fmt: skip
    assert all(callable(getattr(qnas, name)) for name in qnas.__all__)
    assert set(qnas.__all__) <= set(dir(qnas))


def test_importing_it_loads_nothing_heavy() -> None:
    heavy = "{'numpy', 'torch', 'onnx', 'onnxruntime', 'rich', 'click'}"
    program = f"import sys, qnas; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_an_unknown_name_says_which_there_are() -> None:
    with pytest.raises(AttributeError, match=r"quantise.*benchmark, calibrate"):
        qnas.quantise  # noqa: B018


def test_the_page_of_the_api_runs_and_prints_nothing_more(
    tmp_path: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "examples").symlink_to(EXAMPLES)
    assert photographs == tmp_path / "photographs"
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "api.md"
    shutil.copy(ROOT / "docs" / "api.md", page)
    failed, tried = doctest.testfile(str(page), module_relative=False)
    out, err = capfd.readouterr()
    assert (failed, out, err) == (0, "", ""), out
    assert tried > 20


def test_a_mistake_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(QnasError, match="nothing is gated"):
        qnas.gate(tmp_path / "a.onnx")
