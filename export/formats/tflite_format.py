"""TFLite: integer files for LiteRT with XNNPACK, and any .tflite file as it is read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qnas.documents.reading import decode
from qnas.errors import ModelError
from qnas.export.formats.format import FileKind, Format, Written
from qnas.export.targets import TFLITE_TARGETS, fitted
from qnas.export.to_tflite.writer import METADATA, write_tflite
from qnas.integer.network import wide_layers
from qnas.runtimes.inputs import Input
from qnas.tflite.cost import tflite_cost
from qnas.tflite.reader import read_tflite

if TYPE_CHECKING:
    from qnas.export.inspection.inspection import Inspection, Request
    from qnas.export.options import Options
    from qnas.export.sources.source import Source

WIDE_NOTE = "LiteRT's built-in kernels compute these, nearly as the integer network does"
STATIC_SIZE = (128, 128)  # of a file that has no form for every size


def _write(source: Source, options: Options) -> Written:
    if source.integer is None:
        source.refuse("TFLite needs all of it, use --format onnx-qdq")
    network = fitted(source.integer, TFLITE_FORMAT.target(options.target))
    known, size = source.properties(True), options.size
    notes: tuple[str, ...] = ()
    if size is None:
        try:
            model = write_tflite(network, *STATIC_SIZE, resizable=True, io=options.io, properties=known)
        except ModelError:
            size = STATIC_SIZE
            notes = (f"the .tflite file takes images of {size[0]}x{size[1]} alone: choose with --size HxW",)
    if size is not None:
        model = write_tflite(network, *size, io=options.io, properties=known)
    notes += tuple(f"{name} adds with scales that LiteRT rounds differently" for name in model.approximate)
    wide = wide_layers(network)
    if wide:
        notes += (f"{len(wide)} of {len(network.nodes)} layers have 16 bits: {WIDE_NOTE}",)
    inexact = frozenset({"litert-xnnpack"}) if model.approximate or wide else frozenset[str]()
    return Written(model.data, notes, network, inexact)


def _inputs(path: Path) -> tuple[Input, ...]:
    model = read_tflite(path)
    tensors = (model.tensors[index] for index in model.inputs if index >= 0)
    return tuple(
        Input(t.name, t.kind.lower(), tuple(n if n >= 0 else None for n in t.signature or t.shape))
        for t in tensors
    )


def _properties(path: Path) -> dict[str, str]:
    try:
        known = decode(read_tflite(path).metadata.get(METADATA, b"{}"))
    except ValueError:  # somebody else's
        return {}
    return {k: v for k, v in known.items() if isinstance(v, str)} if isinstance(known, dict) else {}


def _inspect(path: Path, request: Request) -> Inspection:
    """What the file says, at its own size."""
    from qnas.export.inspection.inspection import Inspection, missing
    from qnas.export.inspection.tflite_rows import tflite_rows

    model = read_tflite(path)
    try:
        rows, uncounted = tflite_rows(model)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    first = [f"only the first of {model.subgraphs} graphs"] * (model.subgraphs > 1)
    return Inspection("", "TFLite", 0, rows, notes=(*first, *missing(uncounted)))


TFLITE_FORMAT = Format("tflite", ".tflite", _write, TFLITE_TARGETS)
TFLITE = FileKind(".tflite", _inputs, tflite_cost, _properties, _inspect)
