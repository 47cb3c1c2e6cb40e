"""Models that another machine sent, each in a folder named by the digest of its files: sent once."""

import base64
import binascii
import hashlib
import os
import re
import shutil
from pathlib import Path

from qnas.errors import OutputError, UsageError

DIGEST = re.compile(r"[0-9a-f]{64}")
NAME = re.compile(r"[\w][\w.\-]{0,200}")  # a plain file name: it comes from another machine


def cache_folder() -> Path:
    """$QNAS_CACHE, $XDG_CACHE_HOME/qnas or ~/.cache/qnas."""
    if chosen := os.environ.get("QNAS_CACHE"):
        return Path(chosen)
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "qnas"


def has(digest: str) -> bool:
    """Whether `kept` has accepted every file of the model."""
    return _folder(digest).is_dir()


def put(digest: str, name: str, data: str, first: bool, last: bool) -> None:
    """Append a piece, base64, to file `name`; `first` and `last` of the model. OutputError when it cannot."""
    folder = _folder(digest).with_suffix(".part")
    file = folder / _name(name)
    try:
        if first:
            shutil.rmtree(folder, ignore_errors=True)  # of a transfer that was cut off
        folder.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as stream:
            stream.write(base64.b64decode(data, validate=True))
    except OSError as error:
        raise OutputError(f"{folder} cannot be written ({error.strerror}): set QNAS_CACHE there") from error
    except binascii.Error as error:
        raise UsageError("a piece of the model arrived damaged: try again") from error
    if last:
        os.replace(folder, _folder(digest))


def kept(digest: str, name: str, sha256: str) -> Path:
    """The path of a file that was sent before; a damaged model is removed, with UsageError."""
    path = _folder(digest) / _name(name)
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        shutil.rmtree(path.parent, ignore_errors=True)
        raise UsageError(f"{path} is damaged and was removed: try again")
    return path


def _folder(digest: str) -> Path:
    if not DIGEST.fullmatch(digest):
        raise UsageError("a model is named by its SHA-256")
    return cache_folder() / "models" / digest


def _name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no plain file name: rename the model")
    return name
