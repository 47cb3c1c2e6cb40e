"""One command has all the others, and a doctor that says what works here."""

import os
import re
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner

from qnas.front_door_cli import COMMANDS, main
from qnas.runtime_bench import doctor

QNAS = str(Path(sys.executable).with_name("qnas"))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_subcommand_is_the_command_of_that_name(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"], prog_name="qnas")
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: qnas {name} ")
    assert import_module(COMMANDS[name][0]).main is main.get_command(None, name)  # type: ignore[attr-defined]


def test_a_misspelled_command_is_one_line_with_the_nearest_name() -> None:
    result = CliRunner().invoke(main, ["exprot"], prog_name="qnas")
    assert (result.exit_code, result.output) == (
        2, "error: qnas has no command 'exprot': did you mean export?\n",
    )  # fmt: skip
    assert "see qnas --help" in CliRunner().invoke(main, ["zzz"], prog_name="qnas").output


def test_a_misspelled_option_of_a_subcommand_is_one_line() -> None:
    result = CliRunner().invoke(main, ["export", "--nope"], prog_name="qnas")
    assert result.exit_code == 2
    assert re.match(r"error: No such option:? '?--nope", result.output)
    assert result.output.count("\n") == 1


def test_help_and_version_load_neither_torch_nor_a_runtime() -> None:
    """They are fast for that reason, which a time could not show."""
    code = (
        "import sys; from qnas.front_door_cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'onnx', 'onnxruntime', 'numpy', 'rich'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
    assert CliRunner().invoke(main, ["--version"]).output.strip().endswith(version("qnas"))


def test_a_shell_can_complete_commands() -> None:
    words = {"COMP_WORDS": "qnas exp", "COMP_CWORD": "1", "_QNAS_COMPLETE": "bash_complete"}
    done = subprocess.run([QNAS], env=os.environ | words, capture_output=True, text=True)
    assert done.stdout.split() == ["plain,export"]


def test_the_doctor_says_what_is_there_and_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doctor.PACKAGES, "qnas-nothing", ("tflite", "a test"))
    monkeypatch.setitem(doctor.PROGRAMS, "qnas-nothing", "a test")
    monkeypatch.setitem(doctor.NEEDS, "train", ("qnas_nothing",))
    found = {name: said for rows in doctor.findings().values() for name, said in rows}
    assert found["onnxruntime"] == version("onnxruntime")
    assert found["qnas-nothing"] == "missing; for a test"
    assert dict(doctor.findings()["Packages"])["qnas-nothing"].endswith("pip install 'qnas[tflite]'")
    assert found["qnas train"] == "needs qnas_nothing: pip install 'qnas[all]'"
    assert found["cpu"] == "works"
    assert CliRunner().invoke(main, ["doctor"]).exit_code == 0
