"""One process at a time writes an output, and what a killed one left there is removed.

A process that is killed can remove nothing, but the system takes its locks away. So every hidden file that
qnas makes while it works is locked as long as its process lives.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from qnas.errors import OutputError, UsageError

HIDDEN = ".qnas-"  # how names of hidden files begin
TEMPORARY = ".part"  # how those of outputs end that are not whole yet


def locked(file: IO[bytes]) -> bool | None:
    """Lock it until it is closed, here and in every process that has it as its output.

    False where another process has it locked, None where the system or the disk knows no locks.
    """
    try:
        import fcntl
    except ModuleNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


@contextmanager
def one_writer(*outputs: Path) -> Iterator[None]:
    """Keep other processes from writing `outputs`, files or folders, and remove what killed ones left there.

    Raises UsageError where another process writes one of them, OutputError where that cannot be told.
    """
    with ExitStack() as held:
        for output in {os.path.realpath(output): output for output in outputs}.values():
            held.enter_context(_locked(output))
            remove_leftovers(_place(output)[0])
        yield


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of killed processes from `folder`; those of living ones are locked."""
    for path in folder.glob(f"{HIDDEN}*{TEMPORARY}"):
        with suppress(OSError), path.open("rb") as file:  # one that another process removes just now
            if locked(file):
                path.unlink()


@contextmanager
def _locked(output: Path) -> Iterator[None]:
    """Hold the lock of `output`, a file that goes with it. Raises UsageError, OutputError."""
    folder, name = _place(output)
    path = folder / f"{HIDDEN}{hashlib.sha256(name.encode()).hexdigest()[:16]}.lock"
    while True:
        try:
            file = path.open("ab")
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}, choose another folder") from error
        with file:
            if locked(file) is False:
                raise UsageError(f"another process writes {output}: wait for it, or stop it")
            if not is_at(file, path):
                continue  # the process before removed it between our two steps
            try:
                yield
            finally:
                with suppress(OSError):  # Windows removes no open file
                    path.unlink()
            return


def is_at(file: IO[bytes], path: Path) -> bool:
    """Whether `path` still is the name of the open `file`."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


def _place(output: Path) -> tuple[Path, str]:
    """(the folder of its hidden files, its name there, empty where it is that folder itself)."""
    return (output, "") if output.is_dir() else (output.parent, output.name)
