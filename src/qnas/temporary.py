"""Folders for a while: gone with what made them, or removed by the next process where that was killed."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from qnas.errors import OutputError
from qnas.one_writer import locked

PREFIX, LOCK = "qnas-", ".qnas-lock"  # of the folders, and the file in each that is locked while it is used
NEW = 60.0  # seconds in which a folder may have no lock yet
ROOM = 1 << 20  # bytes: a disk with less is full


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a folder in TMPDIR. Raises OutputError where the work in it fails and the disk is full."""
    _remove_leftovers()
    with tempfile.TemporaryDirectory(prefix=PREFIX) as name:
        folder = Path(name)
        try:
            with (folder / LOCK).open("wb") as lock:
                locked(lock)
                yield folder
        except Exception as error:
            if shutil.disk_usage(folder).free < ROOM:
                raise OutputError(f"{folder.parent} is full: free space there, or set TMPDIR") from error
            raise


@cache
def _remove_leftovers() -> None:
    """Once a process: remove what killed processes of this user left; those of living ones are locked."""
    if not hasattr(os, "getuid"):
        return
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):
            state = folder.lstat()
            if state.st_uid != os.getuid() or time.time() - state.st_mtime < NEW:
                continue
            with os.fdopen(os.open(folder / LOCK, os.O_RDONLY | os.O_NOFOLLOW), "rb") as lock:
                if locked(lock):
                    shutil.rmtree(folder, ignore_errors=True)
