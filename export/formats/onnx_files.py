"""ONNX files as they are read, whoever wrote them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from onnx import TensorProto

from qnas.errors import ModelError
from qnas.export.formats.format import FileKind
from qnas.onnx.cost import model_cost
from qnas.onnx.files import damage_refused, model_bytes, read_model
from qnas.onnx.fusion import count_integer_convolutions
from qnas.onnx.graph import Graph
from qnas.onnx.session import check_model
from qnas.runtimes.inputs import Input

if TYPE_CHECKING:
    from qnas.export.inspection.inspection import Inspection, Request


def _inputs(path: Path) -> tuple[Input, ...]:
    model = read_model(path, external_data=False)
    found = []
    with damage_refused(path):
        for value in Graph(model.graph).inputs:
            tensor = value.type.tensor_type
            dims = (d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in tensor.shape.dim)
            kind = TensorProto.DataType.Name(tensor.elem_type).lower()
            found.append(Input(value.name, kind, tuple(dims)))
    return tuple(found)


def _properties(path: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in read_model(path, external_data=False).metadata_props}


def _whole(path: Path) -> bytes:
    check_model(path)
    return model_bytes(path)


def _inspect(path: Path, request: Request) -> Inspection:
    """The integer network when the file is within its operations, otherwise what the graph alone says."""
    from qnas.export.from_qdq.reader import read_qdq
    from qnas.export.inspection.inspection import Inspection, inspected_network, missing
    from qnas.export.inspection.onnx_rows import onnx_rows

    try:
        network = read_qdq(path)
    except ModelError as error:
        rows, uncovered = onnx_rows(path, request.height, request.width)
        notes = (f"no integer network of ours, so only what the graph says: {error}", *missing(uncovered))
        return Inspection("", "ONNX", 0, rows, (request.height, request.width), notes=notes)
    return inspected_network(network, "ONNX", request)


ONNX = FileKind(
    ".onnx", _inputs, model_cost, _properties, _inspect, check_model, _whole, count_integer_convolutions
)
