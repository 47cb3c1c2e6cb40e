"""What a command does where its output cannot be written, or the system has no more to give: one line, 2."""

import os
import resource
import subprocess
import sys
import tomllib
from pathlib import Path

import onnx
import pytest

from qnas.testing.text_models import INTEGER_CONV, text_model

ROOT = Path(__file__).parents[2]
COMMANDS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
FULL = Path("/dev/full")
SAID = (
    "error: standard output cannot be written or read: No space left on device: "
    "free space there, or choose another place\n"
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    onnx.save(text_model(INTEGER_CONV), tmp_path / "q.onnx")
    return tmp_path / "q.onnx"


def run(command: str, *words: object, **options: object) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    code = "from {} import {}; main()".format(*COMMANDS[command].split(":"))
    line = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.run(line, stderr=subprocess.PIPE, text=True, timeout=120, **options)  # type: ignore[call-overload,no-any-return]


@pytest.mark.skipif(not FULL.exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("command", COMMANDS)
def test_help_that_cannot_be_written_is_an_error(command: str) -> None:
    with FULL.open("w") as full:
        done = run(command, "--help", stdout=full)
    assert (done.returncode, done.stderr) == (2, SAID)


@pytest.mark.skipif(not FULL.exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("line", ["qnas-bench cost Q", "qnas-inspect Q --json", "qnas-search spaces basic"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_cannot_be_written_is_an_error(model: Path, line: str, unbuffered: str) -> None:
    command, *words = line.replace("Q", str(model)).split()
    with FULL.open("w") as full:
        done = run(command, *words, stdout=full, env=os.environ | {"PYTHONUNBUFFERED": unbuffered})
    assert (done.returncode, done.stderr) == (2, SAID)


@pytest.mark.parametrize("line", ["qnas-bench cost Q", "qnas-inspect Q --json"])
def test_output_that_nobody_reads_ends_the_command_in_silence(model: Path, line: str) -> None:
    command, *words = line.replace("Q", str(model)).split()
    reading, writing = os.pipe()
    os.close(reading)
    done = run(command, *words, stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_an_error_that_cannot_be_told_is_still_one(model: Path) -> None:
    code = f"from qnas.runtime_bench.cli import main; main(['cost', {str(model)!r} + 'x'])"
    with FULL.open("w") as full:
        assert (
            subprocess.run([sys.executable, "-c", code], stdout=full, stderr=full, timeout=120).returncode
            == 2
        )


def test_no_file_takes_the_place_of_a_closed_output(model: Path) -> None:
    shell = '"$0" -c "from qnas.runtime_bench.cli import main; main()" cost "$1" --json "$1.json" >&-'
    done = subprocess.run(["sh", "-c", shell, sys.executable, str(model)], timeout=120)
    assert done.returncode == 0
    assert Path(f"{model}.json").read_text().startswith('{"format"')


def test_too_few_open_files_are_told(model: Path) -> None:
    few = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))  # noqa: E731
    done = run("qnas-bench", model, "--runs", 1, stdout=subprocess.PIPE, preexec_fn=few)
    assert done.returncode == 2
    assert done.stderr.endswith("Too many open files: allow more open files (ulimit -n)\n")
    assert done.stderr.count("\n") == 1


def test_names_that_are_too_long_are_told(model: Path) -> None:
    done = run("qnas-bench", "cost", model, "--json", model.with_name("x" * 256), stdout=subprocess.PIPE)
    assert done.returncode == 2
    assert done.stderr.endswith("File name too long, name another file\n")
