"""Bilinear resizes to the size of another tensor -> products with weights of 64ths.

onnxruntime has no integer kernel for such a Resize; products of bytes are what the exporter makes of it
(`qnas.integer.interpolation`), so a network with one is integer throughout, in every format.

1. A Resize is two products, of the rows and of the columns.
2. A product with those weights as floats, as our own float models have it, is one with bytes.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from qnas.calibration.prepare.float_model import FloatModel
from qnas.calibration.prepare.preparation import opset_of
from qnas.errors import QnasError
from qnas.integer.interpolation import STEPS, interpolation_steps
from qnas.onnx.builder import GraphNodes
from qnas.onnx.graph import Graph, attributes
from qnas.onnx.interpolation import interpolation_weights
from qnas.onnx.names import Names
from qnas.onnx.shapes import Shapes, infer_shapes

SIDES = ((48, 64), (80, 112))  # of images for which sizes are compared
ODD_SIDES = ((49, 67), (83, 115))  # likewise, unless the network takes no such image
NEEDED_OPSET = 15  # Shape of one axis
HALF_PIXEL = ("half_pixel", "pytorch_half_pixel")
SPOKEN = {2: "rows", 3: "columns"}


def bilinear_as_products(network: FloatModel) -> FloatModel:
    """Write every resize that can be as a product with bytes; tensors keep their sizes."""
    opset = opset_of(network.model, network.name)
    model = deepcopy(network.model)
    graph, made = Graph(model.graph), GraphNodes(Names.of(model.graph))
    resizing = [node for node in graph.nodes if _is_bilinear(node) or _weighs(graph, node)]
    if opset < NEEDED_OPSET or not resizing:
        return network
    known = _known_shapes(network)
    for node in graph.nodes:
        axes = (2, 3) if _is_bilinear(node) else _weighed_axes(graph, node, known)
        data = node.input[1 if axes == (2,) else 0] if axes else ""
        like = _like(network, graph, node, data, axes, known) if axes else None
        if like is None:
            made.nodes.append(node)
        else:
            _put_products(made, node, data, like, axes)
    made.rewrite(model.graph)
    return replace(network, model=model)


def _known_shapes(network: FloatModel) -> list[Shapes]:
    """What is known of each tensor for images of several sizes."""

    def known(size: tuple[int, ...]) -> Shapes:
        return infer_shapes(network.model, {network.input: size})

    found = [known(size) for size in dict.fromkeys(network.shape(*sides) for sides in SIDES)]
    for sides in ODD_SIDES if network.size is None else ():
        with suppress(QnasError):
            found.append(known(network.shape(*sides)))
    return found


def _weighs(graph: Graph, node: NodeProto) -> bool:
    """Whether `node` is a product of two tensors that are computed."""
    return node.op_type == "MatMul" and graph.constants.keys().isdisjoint(node.input)


def _weighed_axes(graph: Graph, node: NodeProto, known: list[Shapes]) -> tuple[int, ...]:
    """The axis that `node` resizes if it is a product with weights of 64ths, for rows from the left."""
    for index, axis in ((0, 2), (1, 3)) if _weighs(graph, node) else ():
        found = [shapes.derived.get(node.input[index], np.zeros(())) for shapes in known]
        matrices = [each if axis == 2 else each.T for each in found]  # [out, in]
        if all(each.ndim == 2 and np.array_equal(each * STEPS, _steps(each)) for each in matrices):
            return (axis,)
    return ()


def _steps(matrix: NDArray[Any]) -> NDArray[np.int64]:
    size_out, size_in = matrix.shape
    return interpolation_steps(size_in, size_out)


def _is_bilinear(node: NodeProto) -> bool:
    """Half pixels, each weighed by its distance, to a size that is no constant factor."""
    if node.op_type != "Resize" or (len(node.input) > 2 and node.input[2] and len(node.input) < 4):
        return False
    a = attributes(node)
    positions = a.get("coordinate_transformation_mode", "half_pixel")
    plain = not a.get("antialias") and not a.get("axes") and not a.get("exclude_outside")
    keeps_sizes = a.get("keep_aspect_ratio_policy", "stretch") == "stretch"
    return a.get("mode", "nearest") == "linear" and positions in HALF_PIXEL and plain and keeps_sizes


def _like(
    network: FloatModel, graph: Graph, node: NodeProto, data: str, axes: tuple[int, ...], known: list[Shapes]
) -> str | None:
    """A tensor before `node` that is always as long in `axes` as its output; first those that it asks."""
    asked = list(_measured(graph, [name for name in node.input if name != data]))
    before: list[str] = [network.input]
    for each in graph.nodes:
        if each.output[0] == node.output[0]:
            break
        before.extend(each.output)
    for name in dict.fromkeys([*(name for name in asked if name in before), *before]):
        if name != data and all(_same_sides(shapes, name, data, node.output[0], axes) for shapes in known):
            return name
    return None


def _same_sides(shapes: Shapes, name: str, data: str, target: str, axes: tuple[int, ...]) -> bool:
    """Whether tensor `name` has the sides of `target`, which has the channels of `data`."""
    source, wanted, found = (shapes.of(each) for each in (data, target, name))
    if source is None or wanted is None or found is None or name in shapes.derived:
        return False
    whole = len(source) == len(wanted) == len(found) == 4
    return whole and source[:2] == wanted[:2] and all(found[axis] == wanted[axis] for axis in axes)


def _measured(graph: Graph, names: Iterable[str]) -> Iterator[str]:
    """The tensors whose shapes the tensors `names` are computed of."""
    waiting, seen = list(names), set[str]()
    while waiting:
        name = waiting.pop()
        found = graph.producers.get(name)
        if found is None or name in seen:
            continue
        seen.add(name)
        if found.op_type == "Shape":
            yield str(found.input[0])
        else:
            waiting.extend(found.input)


def _put_products(made: GraphNodes, node: NodeProto, data: str, like: str, axes: tuple[int, ...]) -> None:
    """Rows, then columns."""
    out = node.output[0]
    for axis in axes:
        weights = interpolation_weights(made, f"{out}.{SPOKEN[axis]}_resized", data, like, axis)
        inputs = [weights, data] if axis == 2 else [data, weights]
        if axis == axes[-1]:
            made.put("MatMul", inputs, out, node.name)
        else:
            rows, name = made.names.tensor(f"{out}.rows"), made.names.node(f"{node.name}.rows")
            data = made.put("MatMul", inputs, rows, name)
