"""Errors that a user can cause and mend.

    QnasError
    ├── UsageError         options that do not go together, a missing optional package
    ├── ArchitectureError  an architecture file or name that describes no network
    ├── SpaceError         a search space that holds none, or a choice that is not in it
    ├── CheckpointError    a found.pt that is truncated, foreign, unsafe or does not fit
    ├── CalibrationError   a calibration.json that cannot be read or belongs to another model
    ├── ModelError         an ONNX model that cannot be read or run
    ├── ImageError         an image or a folder of images that cannot be read
    ├── OutputError        an output path that exists or cannot be written
    └── TrainingError      a run whose numbers are no longer finite

Every message says what was wrong, where, and what to do about it, in one line.
Commands print it and exit with code 2; anything else is a bug and keeps its traceback.
"""

import errno

LONGEST = 1000  # characters of a message


def printable(text: str, longest: int | None = None) -> str:
    """`text` on one line, in characters that do nothing, cut where it is longer."""
    if longest is not None and len(text) > longest:
        text = f"{text[:longest]}..."
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text)


def printable_lines(text: str) -> str:
    """`text` with its ends of lines, and else as `printable` makes it."""
    return "\n".join(map(printable, text.split("\n")))


def system_error(error: OSError) -> str:
    """What the system refused, with advice, for the end of a message."""
    return f"{error.strerror or error}: {_ADVICE.get(error.errno or 0, 'try again, or elsewhere')}"


_ADVICE = {
    errno.EMFILE: "allow more open files (ulimit -n)",
    errno.ENFILE: "close other programs",
    errno.ENOMEM: "free memory",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOSPC: "free space there, or choose another place",
    errno.EDQUOT: "free space there, or choose another place",
    errno.EFBIG: "allow larger files (ulimit -f), or choose another place",
    errno.EACCES: "check the permissions",
}


class QnasError(Exception):
    """Base of all errors that are the input's fault.

    Names out of files stand in messages: these are made printable, and cut in the middle when they are long.
    """

    def __init__(self, message: str) -> None:
        text = printable(message)
        if len(text) > LONGEST:  # the end says what to do
            text = f"{text[: LONGEST - 205]} ... {text[-200:]}"
        super().__init__(text)


class UsageError(QnasError):
    """The call itself is wrong."""


class ArchitectureError(QnasError):
    """The architecture describes no network that can be built."""


class SpaceError(QnasError):
    """The search space describes no networks."""


class CheckpointError(QnasError):
    """The checkpoint cannot be trusted or does not fit its architecture."""


class CalibrationError(QnasError):
    """The calibration cannot be read or does not fit its model."""


class ModelError(QnasError):
    """The ONNX model cannot be read or run."""


class ImageError(QnasError):
    """An image, or a folder of them, cannot be read."""


class OutputError(QnasError):
    """The output cannot be written."""


class TrainingError(QnasError):
    """Training produced numbers that are not finite."""
