"""Inputs that end, and outputs that are written whole and never in place of what is read or no plain file."""

import errno
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
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


_KINDS = {
    stat.S_IFDIR: "folder",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


def check_outputs(outputs: Iterable[Path | None], force: bool, reads: Iterable[Path | None] = ()) -> None:
    """Refuse early what `write_file` would refuse after the work is done; None stands for no file.

    `reads`: the files that the command reads, of which none may be replaced. Raises OutputError, as it does
    where two outputs are one file and where `check_output` does.
    """
    paths = [path for path in outputs if path is not None]
    present = any(map(os.path.lexists, paths))  # what is not there replaces nothing
    inputs = [path for path in reads if path is not None] if present else []
    named = set[str]()
    for path in paths:
        if (real := os.path.realpath(path)) in named:
            raise OutputError(f"{path} is named for two outputs: name another file")
        named.add(real)
        for read in inputs:
            if _same(path, read):
                raise OutputError(f"{path} would replace what is read: name another file")
        check_output(path, force)


def check_output(path: Path, force: bool) -> None:
    """Raise OutputError where `path` cannot be written.

    That is where it is no plain file (a folder, link, pipe, socket or device), exists without `force`, or
    where its folder does not exist or cannot be written.
    """
    try:
        kind = stat.S_IFMT(path.lstat().st_mode)
    except FileNotFoundError:
        kind = 0
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}, name another file") from error
    if kind in _KINDS:
        raise OutputError(f"{path} is a {_KINDS[kind]}, which is never replaced: name a file")
    if kind and not force:
        raise OutputError(f"{path} exists: pass --force to replace it, or name another file")
    folder = path.parent
    if not folder.is_dir():
        raise OutputError(f"cannot write {path}: the folder {folder} does not exist, create it first")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"cannot write {path}: no permission in {folder}, choose another folder")


def made_folder(path: Path) -> Path:
    """`path` as a folder, which is made where it is not there. Raises OutputError where that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {path} ({error.strerror}): name another") from error
    return path


def write_file(path: Path, data: str | bytes, force: bool = False) -> None:
    """Write `data`, text as UTF-8 ("?" for what it has not), whole or not at all. Raises OutputError."""
    with atomic_write(path, force) as temporary:
        temporary.write_bytes(data.encode("utf-8", "replace") if isinstance(data, str) else data)


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
        check_output(path, force)  # again: the work may have taken hours
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


def _same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:  # one of them does not exist
        return False
