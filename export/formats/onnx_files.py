"""ONNX files as they are read, whoever wrote them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from onnx import TensorProto
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from qnas.errors import ModelError
from qnas.export.formats.format import FileKind
from qnas.onnx.cost import model_cost
from qnas.onnx.fusion import count_integer_convolutions
from qnas.onnx.graph import Graph
from qnas.onnx.shapes import damage_refused, read_model
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


def _companions(path: Path) -> list[Path]:
    """The files that hold its external data."""
    model = read_model(path, external_data=False)
    tensors = [tensor for tensor in model.graph.initializer if uses_external_data(tensor)]
    return [path.parent / name for name in sorted({ExternalDataInfo(tensor).location for tensor in tensors})]


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


ONNX = FileKind(".onnx", _inputs, model_cost, _properties, _inspect, _companions, count_integer_convolutions)
