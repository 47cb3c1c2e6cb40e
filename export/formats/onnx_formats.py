"""ONNX as it is written: integer QDQ graphs, and the float32 twin of a trained network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnx import ModelProto

from qnas.export.formats.format import Format, Written
from qnas.export.targets import ONNX_TARGETS, fitted
from qnas.export.to_onnx.simplify import simplify
from qnas.export.to_onnx.writer import write_onnx
from qnas.integer.network import saturating_layers, wide_layers
from qnas.onnx.compact import compacted
from qnas.onnx.fusion import count_integer_convolutions
from qnas.onnx.session import EXACT_SUMS, unshared

if TYPE_CHECKING:
    from qnas.export.options import Options
    from qnas.export.sources.source import Source

WIDE_NOTE = (
    "on processors onnxruntime and OpenVINO compute these in float, nearly as the integer network does"
)
# The checks open it so: elsewhere nothing would tell (docs/decisions/0021-exact-sums-without-vnni.md).
EXACT_SUMS_NOTE = f"on x86 processors without VNNI open it with {EXACT_SUMS} = 1"


def _qdq(source: Source, options: Options) -> Written:
    target = ONNX_QDQ.target(options.target)
    if source.integer is None:
        return _as_calibrated(source, options)
    network = fitted(source.integer, target)
    model, note = write_onnx(network, target, options.layout), ""
    if options.simplified:
        model, note = simplify(model)
    notes = [note]
    if saturating := saturating_layers(network):
        notes.append(f"{EXACT_SUMS_NOTE}: {len(saturating)} convolutions need it")
    if wide := wide_layers(network):
        notes.append(f"{len(wide)} of {len(network.nodes)} layers have 16 bits: {WIDE_NOTE}")
    return Written(_finished(model, source, True), tuple(notes), network, source.inexact)


def plain_qdq(source: Source) -> bytes:
    """The integer network of `source` as a QDQ model that fits no target yet: one to export further."""
    assert source.integer is not None
    return _finished(write_onnx(source.integer, ONNX_TARGETS[0]), source, True)


def _as_calibrated(source: Source, options: Options) -> Written:
    """The QDQ model as calibration made it, and what of it runs in float."""
    if options.target is not None or options.layout != "nchw":
        source.refuse("leave out --target and --layout, which need all of it")
    data = _finished(source.qdq_model(), source, True)
    fusion = count_integer_convolutions(data)
    notes = (
        f"{source.why_float.partition(': ')[0]}; the file is the QDQ model itself, for onnxruntime",
        f"in float: {', '.join(fusion.float_names) or 'nothing'}",
        EXACT_SUMS_NOTE,
    )
    return Written(data, notes, inexact=source.inexact)


def _float32(source: Source, options: Options) -> Written:
    model, note = simplify(source.float_model())
    return Written(_finished(model, source, False), (note,))


def _finished(model: ModelProto, source: Source, integer: bool) -> bytes:
    model = compacted(unshared(model))
    onnx.helper.set_model_props(model, source.properties(integer))
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    return data


ONNX_QDQ = Format("onnx-qdq", ".onnx", _qdq, ONNX_TARGETS)
ONNX_FLOAT32 = Format("onnx-float32", ".onnx", _float32, alone=True)
