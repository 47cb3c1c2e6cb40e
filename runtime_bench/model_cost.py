"""What the file of a model says of itself: its inputs, its cost, the architecture it was exported from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qnas.cost.file_cost import FileCost
from qnas.cost.macs import Shape
from qnas.cost.network_cost import NetworkCost, network_cost
from qnas.errors import ArchitectureError, UsageError
from qnas.export.formats.table import file_kind
from qnas.network.architecture import from_json
from qnas.network.lowering import lower
from qnas.runtimes.inputs import ShapeRequest, image_axes, resolve_shapes

ARCHITECTURE = "qnas.architecture"


@dataclass(frozen=True)
class ModelCost:
    """A file at input shapes; `architecture`: of one image of what it was exported from, None if unknown."""

    path: Path
    shapes: dict[str, Shape]
    cost: FileCost
    architecture: NetworkCost | None


def cost_models(paths: Sequence[Path], requests: Sequence[ShapeRequest]) -> tuple[ModelCost, ...]:
    """Count every file at the shapes asked for. Raises ModelError, or UsageError when a request fits none."""
    declared = [file_kind(path).inputs(path) for path in paths]
    known = {each.name for inputs in declared for each in inputs}
    for request in requests:
        if request.name is not None and request.name not in known:
            raise UsageError(f"no model has an input {request.name!r}: there are {', '.join(sorted(known))}")
    found = []
    for path, inputs in zip(paths, declared, strict=True):
        shapes = resolve_shapes(inputs, requests)
        cost = file_kind(path).cost(path, shapes)
        found.append(ModelCost(path, shapes, cost, architecture_cost(path, shapes)))
    return tuple(found)


def architecture_cost(path: Path, shapes: Mapping[str, Sequence[int]]) -> NetworkCost | None:
    """The cost for one image of the architecture that qnas-export left in the metadata.

    None without one, or when it is of another version of qnas. Raises ModelError when the file is unreadable.
    """
    text = file_kind(path).properties(path).get(ARCHITECTURE)
    shape = next(iter(shapes.values()), ())
    axes = image_axes(shape)
    if text is None or axes is None:
        return None
    try:
        return network_cost(lower(from_json(text, str(path))), shape[axes[0]], shape[axes[1]])
    except ArchitectureError:
        return None
