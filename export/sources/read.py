"""Which kind of source a file is, and reading it."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from onnx import ModelProto

from qnas.calibration.progress import Display
from qnas.errors import ModelError, UsageError
from qnas.export.options import Options
from qnas.export.sources.source import Source
from qnas.onnx.files import read_model
from qnas.onnx.other_files import is_found, what_it_is
from qnas.onnx.stored_weights import is_quantized
from qnas.tflite.reader import is_tflite, read_tflite
from qnas.tflite.to_onnx.convert import onnx_of

Kind = Literal["found", "qdq", "float"]


def kind_of(path: Path) -> Kind:
    """Return what kind of file it is: a found.pt, or one of two kinds of model. Raises ModelError."""
    if is_tflite(path):
        return onnx_kind(onnx_of(read_tflite(path)))
    if path.suffix == ".onnx":
        return onnx_kind(read_model(path))
    if not is_found(path) and (what := what_it_is(path)):
        raise ModelError(f"{path} is {what}")
    return "found"


def onnx_kind(model: ModelProto) -> Kind:
    """Return whether anything in it is quantized besides stored weights."""
    return "qdq" if is_quantized(model) else "float"


def refuse_unfit(kind: Kind, path: Path, options: Options) -> None:
    """Raise UsageError where options and the kind of the source do not go together."""
    if kind != "found" and "onnx-float32" in options.formats:
        raise UsageError("--format onnx-float32 needs a found.pt: an integer model has no float twin")
    if kind != "float" and options.calibration is not None:
        raise UsageError(f"--calibration is for a float model, and {path} is none: leave it out")
    if kind == "float" and options.calibration is None and options.images is None:
        raise UsageError(
            f"{path} computes in float: calibrate it with --images IMAGES, photographs like those to come, "
            "or give --calibration of qnas-calibrate"
        )


def read_source(path: Path, kind: Kind, options: Options, display: Display) -> Source:
    """Read the network of `path`, calibrated where that is left to do, which `display` shows.

    Raises QnasError.
    """
    return _READERS[kind](path, options, display)


def _found(path: Path, options: Options, display: Display) -> Source:
    from qnas.export.sources.found import read_found  # torch, which the other kinds do without

    return read_found(path, options)


def _qdq(path: Path, options: Options, display: Display) -> Source:
    from qnas.export.sources.quantized import read_quantized

    return read_quantized(path, options)


def _float(path: Path, options: Options, display: Display) -> Source:
    from qnas.export.sources.calibrated import read_calibrated

    return read_calibrated(path, options, display)


_READERS: dict[Kind, Callable[[Path, Options, Display], Source]] = {
    "found": _found,
    "qdq": _qdq,
    "float": _float,
}
