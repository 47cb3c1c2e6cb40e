"""One process writes an output, its lock ends with it, and what it left when it was killed is removed."""

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from qnas.errors import OutputError, UsageError
from qnas.files import atomic_write
from qnas.one_writer import one_writer, remove_leftovers

WRITER = """
import sys, time
from pathlib import Path
from qnas.files import atomic_write
from qnas.one_writer import one_writer

output = Path(sys.argv[1])
with one_writer(output), atomic_write(output / "file" if output.is_dir() else output) as temporary:
    temporary.write_text("half")
    print("writing", flush=True)
    time.sleep(600)
"""


def writing(output: Path) -> subprocess.Popen[bytes]:
    """Another process in the middle of writing."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(output)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"writing\n"
    return process


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate(timeout=60)


@pytest.mark.parametrize("output", ["found.pt", ".", "x" * 255])
def test_a_second_writer_is_refused_until_the_first_is_gone(tmp_path: Path, output: str) -> None:
    path = tmp_path / output
    process = writing(path)
    try:
        assert len(list(tmp_path.iterdir())) == 2  # a lock and a temporary file
        with pytest.raises(UsageError, match=r"another process writes .*: wait for it, or stop it"):
            one_writer(path).__enter__()
        remove_leftovers(tmp_path)  # is none
        assert len(list(tmp_path.iterdir())) == 2
    finally:
        kill(process)
    with one_writer(path):
        assert [each.suffix for each in tmp_path.iterdir()] == [".lock"]
    assert list(tmp_path.iterdir()) == []


def test_other_outputs_of_a_folder_are_free(tmp_path: Path) -> None:
    process = writing(tmp_path / "found.pt")
    try:
        with one_writer(tmp_path / "other.pt", tmp_path), atomic_write(tmp_path / "other.pt") as temporary:
            temporary.write_text("whole")
    finally:
        kill(process)
    assert (tmp_path / "other.pt").read_text() == "whole"


def test_only_our_own_leftovers_are_removed(tmp_path: Path) -> None:
    mine = [tmp_path / name for name in (".notes.part", "qnas-a.part", ".qnas-b.txt", "found.pt")]
    for path in mine:
        path.write_text("mine")
    (tmp_path / ".qnas-c.part").write_text("half")
    with one_writer(tmp_path / "found.pt"):
        pass
    assert sorted(tmp_path.iterdir()) == sorted(mine)


def test_an_output_that_is_named_twice_is_one(tmp_path: Path) -> None:
    with one_writer(tmp_path / "a", tmp_path / "." / "a"), pytest.raises(UsageError), ExitStack() as second:
        second.enter_context(one_writer(tmp_path / "b", tmp_path / "a"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        OutputError, match=r"cannot write .*none.*: No such file or directory, choose another"
    ):
        one_writer(tmp_path / "none" / "a").__enter__()
