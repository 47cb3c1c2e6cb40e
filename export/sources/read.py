"""Which kind of source a file is, and reading it."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from onnx import ModelProto

from qnas.calibration.progress import Display
from qnas.errors import UsageError
from qnas.export.options import Options
from qnas.export.sources.qdq import read_qdq_source
from qnas.export.sources.source import Source
from qnas.onnx.files import read_model
from qnas.onnx.operations import QUANTIZING

Kind = Literal["found", "qdq", "float"]


def kind_of(path: Path) -> Kind:
    """Return what kind of file it is: a found.pt, or one of two kinds of ONNX model. Raises ModelError."""
    return "found" if path.suffix != ".onnx" else onnx_kind(read_model(path))


def onnx_kind(model: ModelProto) -> Kind:
    """Return whether anything in it is quantized."""
    return "qdq" if any(node.op_type in QUANTIZING for node in model.graph.node) else "float"


def refuse_unfit(kind: Kind, path: Path, options: Options) -> None:
    """Raise UsageError where options and the kind of the source do not go together."""
    if kind != "found" and "onnx-float32" in options.formats:
        raise UsageError("--format onnx-float32 needs a found.pt: an integer model has no float twin")
    if kind != "float" and options.calibration is not None:
        raise UsageError(f"--calibration is for a float model.onnx, and {path} is none: leave it out")
    if kind == "float" and options.calibration is None and options.images is None:
        raise UsageError(
            f"{path} is a float model: calibrate it with --images IMAGES, photographs like those to come, or "
            "give --calibration of qnas-calibrate"
        )


def read_source(path: Path, kind: Kind, options: Options, display: Display) -> Source:
    """Read the network of `path`, calibrated where that is left to do, which `display` shows.

    Raises QnasError.
    """
    return _READERS[kind](path, options, display)


def _found(path: Path, options: Options, display: Display) -> Source:
    from qnas.export.sources.found import read_found  # torch, which the other kinds do without

    return read_found(path, options)


def _float(path: Path, options: Options, display: Display) -> Source:
    from qnas.export.sources.calibrated import read_calibrated

    return read_calibrated(path, options, display)


_READERS: dict[Kind, Callable[[Path, Options, Display], Source]] = {
    "found": _found,
    "qdq": read_qdq_source,
    "float": _float,
}
