"""What the file of a model says of itself: its inputs, its cost, the architecture it was exported from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnx import TensorProto

from qnas.cost.file_cost import FileCost
from qnas.cost.network_cost import NetworkCost, network_cost
from qnas.documents.reading import decode
from qnas.errors import ArchitectureError, ModelError, UsageError
from qnas.network.architecture import from_json
from qnas.network.lowering import lower
from qnas.onnx.cost import model_cost
from qnas.onnx.shapes import damage_refused, read_model
from qnas.runtime_bench.inputs import Input, Shape, ShapeRequest, image_axes, resolve_shapes
from qnas.runtime_bench.model_files import SUFFIXES
from qnas.tflite.cost import tflite_cost
from qnas.tflite.reader import read_tflite

ARCHITECTURE = "qnas.architecture"
TFLITE_PROPERTIES = "qnas"  # the metadata entry that holds them, as JSON


@dataclass(frozen=True)
class ModelCost:
    """A file at input shapes; `architecture`: of one image of what it was exported from, None if unknown."""

    path: Path
    shapes: dict[str, Shape]
    cost: FileCost
    architecture: NetworkCost | None


def cost_models(paths: Sequence[Path], requests: Sequence[ShapeRequest]) -> tuple[ModelCost, ...]:
    """Count every file at the shapes asked for. Raises ModelError, or UsageError when a request fits none."""
    declared = [declared_inputs(path) for path in paths]
    known = {each.name for inputs in declared for each in inputs}
    for request in requests:
        if request.name is not None and request.name not in known:
            raise UsageError(f"no model has an input {request.name!r}: there are {', '.join(sorted(known))}")
    found = []
    for path, inputs in zip(paths, declared, strict=True):
        shapes = resolve_shapes(inputs, requests)
        found.append(ModelCost(path, shapes, file_cost(path, shapes), architecture_cost(path, shapes)))
    return tuple(found)


def file_cost(path: Path, shapes: Mapping[str, Sequence[int]] | None = None) -> FileCost:
    """Cost of one run of an .onnx or .tflite file on inputs of `shapes` (input name -> dimensions).

    Raises ModelError and UsageError as `model_cost` and `tflite_cost` do.
    """
    return tflite_cost(path, shapes) if _is_tflite(path) else model_cost(path, shapes)


def declared_inputs(path: Path) -> tuple[Input, ...]:
    """The inputs that the file declares, with the sizes that it leaves free. Raises ModelError."""
    if _is_tflite(path):
        tflite = read_tflite(path)
        tensors = (tflite.tensors[index] for index in tflite.inputs if index >= 0)
        return tuple(
            Input(t.name, t.kind.lower(), tuple(n if n >= 0 else None for n in t.signature or t.shape))
            for t in tensors
        )
    model = read_model(path, external_data=False)
    constants = {tensor.name for tensor in model.graph.initializer}
    found = []
    with damage_refused(path):
        for value in (each for each in model.graph.input if each.name not in constants):
            tensor = value.type.tensor_type
            dims = (d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in tensor.shape.dim)
            kind = TensorProto.DataType.Name(tensor.elem_type).lower()
            found.append(Input(value.name, kind, tuple(dims)))
    return tuple(found)


def architecture_cost(path: Path, shapes: Mapping[str, Sequence[int]]) -> NetworkCost | None:
    """The cost for one image of the architecture that qnas-export left in the metadata.

    None without one, or when it is of another version of qnas. Raises ModelError when the file is unreadable.
    """
    text = _properties(path).get(ARCHITECTURE)
    shape = next(iter(shapes.values()), ())
    axes = image_axes(shape)
    if text is None or axes is None:
        return None
    try:
        return network_cost(lower(from_json(text, str(path))), shape[axes[0]], shape[axes[1]])
    except ArchitectureError:
        return None


def _properties(path: Path) -> dict[str, str]:
    if not _is_tflite(path):
        return {entry.key: entry.value for entry in read_model(path, external_data=False).metadata_props}
    try:
        known = decode(read_tflite(path).metadata.get(TFLITE_PROPERTIES, b"{}"))
    except ValueError:  # somebody else's
        return {}
    return {k: v for k, v in known.items() if isinstance(v, str)} if isinstance(known, dict) else {}


def _is_tflite(path: Path) -> bool:
    if path.suffix.lower() not in SUFFIXES:
        raise ModelError(f"{path} is no .onnx or .tflite file: name a model")
    return path.suffix.lower() == ".tflite"
