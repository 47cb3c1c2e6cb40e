"""Folders for a while, and those that a killed process left."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from qnas import temporary
from qnas.errors import ModelError, OutputError
from qnas.temporary import temporary_folder

OWNER = """
import time
from qnas.temporary import temporary_folder
with temporary_folder() as folder:
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_leftovers_of_killed_processes_are_removed_and_nothing_else(place: Path) -> None:
    owners = [
        subprocess.Popen(
            [sys.executable, "-c", OWNER], stdout=subprocess.PIPE, env=os.environ | {"TMPDIR": str(place)}
        )
        for _ in range(2)
    ]
    try:
        folders = [Path(owner.stdout.readline().decode().strip()) for owner in owners if owner.stdout]
        owners[0].send_signal(signal.SIGKILL)
        owners[0].wait()
        (place / "qnas-notes").mkdir()
        for folder in place.iterdir():
            os.utime(folder, (0, 0))
        temporary._remove_leftovers.cache_clear()
        with temporary_folder() as new:
            assert sorted(place.iterdir()) == sorted([folders[1], place / "qnas-notes", new])
    finally:
        for owner in owners:
            owner.kill()
            owner.communicate()


def test_a_full_disk_is_named_whatever_the_work_says(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=4096))
    with (
        pytest.raises(OutputError, match=f"{place} is full: free space there, or set TMPDIR"),
        temporary_folder(),
    ):
        raise ModelError("Protobuf serialization failed; export it again")
    assert list(place.iterdir()) == []


def test_an_error_of_the_work_is_handed_on(place: Path) -> None:
    with pytest.raises(ModelError, match=r"^damaged$"), temporary_folder():
        raise ModelError("damaged")
