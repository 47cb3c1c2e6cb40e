"""One process at a time writes a log."""

from typing import IO


def is_free(file: IO[bytes]) -> bool:
    """Lock it until it is closed, here and in every process that has it as its output.

    A system or a disk without locks has none to wait for.
    """
    try:
        import fcntl
    except ModuleNotFoundError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True
