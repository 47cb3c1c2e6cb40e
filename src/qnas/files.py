"""Inputs that end, and outputs that are written whole or not at all."""

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import IO

from qnas.errors import OutputError
from qnas.one_writer import HIDDEN, TEMPORARY, is_at, locked

LARGEST_INPUT = 1 << 31  # bytes: no ONNX or TFLite model is larger


def open_input(path: Path, largest: int | None = None) -> BufferedReader:
    """Open the regular file `path`, of at most `largest` bytes, for reading.

    Raises OSError, with the reason as its `strerror`, for what it is not: a device may have no end, and a
    FIFO waits until somebody writes.
    """
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    if largest is not None and status.st_size > largest:
        raise OSError(errno.EFBIG, f"it has more than {largest} bytes", str(path))
    return path.open("rb")


def read_input(path: Path, largest: int = LARGEST_INPUT) -> bytes:
    """The bytes of the regular file `path`. Raises OSError as `open_input` does."""
    with open_input(path, largest) as stream:
        return stream.read(largest)


def check_output(path: Path, force: bool) -> None:
    """Refuse early what `atomic_write` would refuse after the work is done.

    Raises OutputError if `path` is a directory, exists without `force`, or its folder cannot be written.
    """
    if path.is_dir():
        raise OutputError(f"{path} is a folder: name a file")
    if path.exists() and not force:
        raise OutputError(f"{path} exists: pass --force to replace it, or name another file")
    folder = path.parent
    if not folder.is_dir():
        raise OutputError(f"cannot write {path}: the folder {folder} does not exist, create it first")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"cannot write {path}: no permission in {folder}, choose another folder")


@contextmanager
def atomic_write(path: Path, force: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it onto `path` on success, remove it on any failure.

    Raises OutputError as `check_output` does, and when the disk refuses the write.
    """
    check_output(path, force)
    try:
        temporary, file = _temporary(path.parent)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}, choose another folder") from error
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(
            0o666 & ~umask
        )  # mkstemp makes it private; an output should be readable as any file is
        if os.name == "nt":  # renames no open file
            file.close()
        temporary.replace(path)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"cannot write {path}: {reason}, free space or choose another folder") from error
    finally:
        file.close()
        temporary.unlink(missing_ok=True)


def _temporary(folder: Path) -> tuple[Path, IO[bytes]]:
    """An empty file in `folder`, locked, so that nobody takes it for a leftover. Raises OSError."""
    while True:  # not named as the output, whose name may be as long as names can be
        handle, name = tempfile.mkstemp(prefix=HIDDEN, suffix=TEMPORARY, dir=folder)
        file = os.fdopen(handle, "rb")
        if locked(file) is not False and is_at(file, Path(name)):
            return Path(name), file
        file.close()  # it was taken for one before it was locked
