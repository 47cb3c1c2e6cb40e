"""Every format: adding one is adding its file and a line here."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from qnas.errors import ModelError
from qnas.export.formats.format import FileKind, Format
from qnas.export.formats.onnx_files import ONNX
from qnas.export.formats.onnx_formats import ONNX_FLOAT32, ONNX_QDQ
from qnas.export.formats.tflite_format import TFLITE, TFLITE_FORMAT

FORMATS: dict[str, Format] = {each.name: each for each in (ONNX_QDQ, TFLITE_FORMAT, ONNX_FLOAT32)}
FILE_KINDS: dict[str, FileKind] = {each.suffix: each for each in (ONNX, TFLITE)}


def file_kind(path: Path) -> FileKind:
    """Return the kind of a model file by its ending. Raises ModelError for another one."""
    kind = FILE_KINDS.get(path.suffix.lower())
    if kind is None:
        raise ModelError(f"{path} is no {' or '.join(FILE_KINDS)} file: name a model")
    return kind


def files_of(model: Path) -> Iterator[Path]:
    """The file itself, and those that belong to it as far as it can be read."""
    yield model
    with suppress(ModelError):
        yield from file_kind(model).companions(model)


def models_in(folder: Path) -> Iterator[Path]:
    """The files of the models in a folder."""
    for path in folder.glob("*"):
        if path.suffix.lower() in FILE_KINDS:
            yield from files_of(path)
