"""Bilinear resizes to the size of another tensor -> two products with weights of 64ths.

onnxruntime has no integer kernel for such a Resize; products of bytes are what the exporter makes of it
(`qnas.integer.interpolation`), so a network with one is integer throughout, in every format.
"""

from collections.abc import Iterator
from dataclasses import replace

from onnx import ModelProto, NodeProto

from qnas.calibration.prepare.float_model import FloatModel
from qnas.calibration.prepare.preparation import opset_of
from qnas.onnx.builder import GraphNodes
from qnas.onnx.graph import Graph, attributes
from qnas.onnx.interpolation import interpolation_weights
from qnas.onnx.names import Names
from qnas.onnx.shapes import Shapes, infer_shapes

SIDES = ((48, 64), (80, 112))  # of images for which sizes are compared
NEEDED_OPSET = 15  # Shape of one axis
HALF_PIXEL = ("half_pixel", "pytorch_half_pixel")


def bilinear_as_products(network: FloatModel) -> FloatModel:
    """Write every Resize that can be as two products; the sizes of tensors stay."""
    opset = opset_of(network.model, network.name)
    resizes = [node for node in network.model.graph.node if _is_bilinear(node)]
    if opset < NEEDED_OPSET or network.layout != "nchw" or not resizes:
        return network
    known = [_shapes(network, sides) for sides in ([network.size] if network.size else SIDES)]
    model = ModelProto()
    model.CopyFrom(network.model)
    made = GraphNodes(Names.of(model.graph))
    for node in network.model.graph.node:
        like = _like(network, node, known) if node in resizes else None
        if like is None:
            made.nodes.append(node)
        else:
            _products(made, node, like)
    made.rewrite(model.graph)
    return replace(network, model=model)


def _is_bilinear(node: NodeProto) -> bool:
    """Half pixels, each weighed by its distance, to a size that is no constant factor."""
    if node.op_type != "Resize" or (len(node.input) > 2 and node.input[2] and len(node.input) < 4):
        return False
    a = attributes(node)
    positions = a.get("coordinate_transformation_mode", "half_pixel")
    plain = not a.get("antialias") and not a.get("axes") and not a.get("exclude_outside")
    keeps_sizes = a.get("keep_aspect_ratio_policy", "stretch") == "stretch"
    return a.get("mode", "nearest") == "linear" and positions in HALF_PIXEL and plain and keeps_sizes


def _shapes(network: FloatModel, sides: tuple[int, int]) -> Shapes:
    return infer_shapes(network.model, {network.input: (1, network.channels, *sides)})


def _like(network: FloatModel, node: NodeProto, known: list[Shapes]) -> str | None:
    """A tensor before `node` that is always as high and wide as its output; first those that it asks."""
    asked = list(_measured(network.model, node))
    before: list[str] = [network.input]
    for each in network.model.graph.node:
        if each.output[0] == node.output[0]:
            break
        before.extend(each.output)
    for name in dict.fromkeys([*(name for name in asked if name in before), *before]):
        if name != node.input[0] and all(_same_sides(shapes, name, node) for shapes in known):
            return name
    return None


def _same_sides(shapes: Shapes, name: str, node: NodeProto) -> bool:
    """Whether tensor `name` has the sides of what `node` writes, which has the channels of what it reads."""
    source, target, found = (shapes.of(each) for each in (node.input[0], node.output[0], name))
    if source is None or target is None or found is None or name in shapes.derived:
        return False
    whole = len(source) == len(target) == len(found) == 4
    return whole and source[:2] == target[:2] and found[2:] == target[2:]


def _measured(model: ModelProto, node: NodeProto) -> Iterator[str]:
    """The tensors whose shapes `node` takes its size from."""
    writers = Graph(model.graph).producers
    waiting, seen = list(node.input[1:]), set[str]()
    while waiting:
        name = waiting.pop()
        found = writers.get(name)
        if found is None or name in seen:
            continue
        seen.add(name)
        if found.op_type == "Shape":
            yield str(found.input[0])
        else:
            waiting.extend(found.input)


def _products(made: GraphNodes, node: NodeProto, like: str) -> None:
    """Rows, then columns."""
    x, out = node.input[0], node.output[0]
    rows = made.names.tensor(f"{out}.rows")
    weights = interpolation_weights(made, f"{out}.rows_resized", x, like, 2)
    made.put("MatMul", [weights, x], rows, made.names.node(f"{node.name}.rows"))
    weights = interpolation_weights(made, f"{out}.columns_resized", rows, like, 3)
    made.put("MatMul", [rows, weights], out, node.name)
