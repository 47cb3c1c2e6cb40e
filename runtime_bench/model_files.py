"""The files that a model lies in, and their digest."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from qnas.errors import ModelError
from qnas.export.formats.table import FILE_KINDS, file_kind
from qnas.files import open_input


@dataclass(frozen=True)
class ModelFiles:
    """The model itself comes first among `files`; `sha256` has one entry each, `digest` stands for all."""

    files: tuple[Path, ...]
    sha256: tuple[str, ...]
    size: int

    @property
    def path(self) -> Path:
        """The model itself."""
        return self.files[0]

    @property
    def digest(self) -> str:
        """The SHA-256 of one file, or of the digests of several."""
        return (
            self.sha256[0]
            if len(self.files) == 1
            else hashlib.sha256("".join(self.sha256).encode()).hexdigest()
        )


def model_files(path: Path) -> ModelFiles:
    """Raises ModelError when `path` is no readable model of a known kind."""
    kind = file_kind(path)
    if not path.is_file():
        raise ModelError(f"{path} is not a file: name an {' or '.join(FILE_KINDS)} model")
    files = (path, *kind.companions(path))
    try:
        return ModelFiles(files, tuple(map(sha256_of, files)), sum(file.stat().st_size for file in files))
    except OSError as error:
        raise ModelError(f"{error.filename} cannot be read ({error.strerror}): check the path") from error


def sha256_of(file: Path) -> str:
    """In hexadecimal; OSError when it cannot be read."""
    with open_input(file) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
