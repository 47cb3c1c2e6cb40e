"""A convolutional network that was exported for images of one size -> the same for images of any size.

1. No operation may look at the whole image but by a mean, or its values would depend on the size.
2. A Resize to a constant size becomes one to the sides of a tensor before it, or else by a whole factor.
3. It has to enlarge images of other sizes, uneven, larger and smaller ones, by the same factor: a size that
   stands in a constant makes it fail there. And at its own size it has to compute what it did.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto

from qnas.calibration.prepare.sr_shape import SrShape, find_shape, laid_out
from qnas.cost.macs import Shape
from qnas.errors import ModelError
from qnas.onnx.builder import GraphNodes
from qnas.onnx.graph import Graph
from qnas.onnx.names import Names
from qnas.onnx.operations import LOCAL, SHAPES_AND_TYPES
from qnas.onnx.session import open_session
from qnas.onnx.shapes import infer_shapes

NARROW, WIDER = 64, 32  # one side of an image, and what the other is larger than that of the network


def freed(model: ModelProto, shape: SrShape) -> tuple[ModelProto, SrShape] | None:
    """`model`, of images of `shape.size` alone, and its shape once that is free; None where it cannot be.

    That it computes the same at its own size is left to the caller.
    """
    if shape.size is None or any(n.op_type not in LOCAL | SHAPES_AND_TYPES for n in model.graph.node):
        return None
    copy = deepcopy(model)
    _resizes_of_any_size(copy, shape)
    for value, letters in ((copy.graph.input[0], "hw"), (copy.graph.output[0], "HW")):
        batch = value.type.tensor_type.shape.dim[0]
        dims = [batch.dim_param or batch.dim_value, shape.channels, *letters]
        if shape.layout == "nhwc":
            dims = [dims[0], *dims[2:], dims[1]]
        value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, TensorProto.FLOAT, dims))
    try:
        found = find_shape(copy, "")
    except ModelError:
        return None
    same = replace(found, size=shape.size, probe=shape.probe, others=()) == replace(shape, others=())
    return (copy, found) if same and found.others and _takes_more(copy, shape) else None


def _takes_more(model: ModelProto, shape: SrShape) -> bool:
    """Whether it also enlarges images that are wider, and higher, than its own size."""
    session = open_session(model.SerializeToString(), threads=1)
    assert shape.size is not None
    height, width = shape.size
    for size in ((NARROW, width + WIDER), (height + WIDER, NARROW)):
        image = np.zeros(laid_out(shape.layout, 1, shape.channels, size), np.float32)
        enlarged = (size[0] * shape.scale, size[1] * shape.scale)
        try:
            (output,) = session.run(None, {model.graph.input[0].name: image})
        except Exception:  # onnxruntime's many exception types share no base but Exception
            return False
        if output.shape != laid_out(shape.layout, 1, shape.channels, enlarged):
            return False
    return True


def _resizes_of_any_size(model: ModelProto, shape: SrShape) -> None:
    """Case 2."""
    graph = Graph(model.graph)
    if not any(node.op_type == "Resize" and len(node.input) == 4 for node in graph.nodes):
        return
    shapes = infer_shapes(model, {model.graph.input[0].name: shape.input_shape()})
    made = GraphNodes(Names.of(model.graph))
    sides: dict[Shape, str] = {}  # height and width -> the first tensor of them
    for node in graph.nodes:
        if node.op_type == "Resize" and len(node.input) == 4 and node.input[3] in graph.constants:
            wanted = tuple(graph.array(node.input[3]).tolist())
            _free_resize(made, node, shapes.of(node.input[0]), wanted, sides.get(wanted[2:]))
        made.nodes.append(node)
        size = shapes.of(node.output[0])
        if size is not None and len(size) == 4 and node.output[0] not in shapes.derived:
            sides.setdefault(size[2:], node.output[0])
    made.rewrite(model.graph)


def _free_resize(
    made: GraphNodes, node: NodeProto, before: Shape | None, wanted: Shape, like: str | None
) -> None:
    """Let a Resize to the constant size `wanted` go to the sides of tensor `like`, or by whole factors."""
    data, target = node.input[0], node.output[0]
    if like is not None:
        ends = ((data, (0, 1)), (like, (2, 3)))
        parts = [
            made.node("Gather", [made.node("Shape", [name], f"{target}.shape"),
                                 made.constant(f"axes_{axes[0]}", np.array(axes))], f"{target}.sides", axis=0)
            for name, axes in ends
        ]  # fmt: skip
        node.input[3] = made.node("Concat", parts, f"{target}.size", axis=0)
    elif before is not None and all(b and a % b == 0 for a, b in zip(wanted, before, strict=False)):
        factors = np.array([a // b for a, b in zip(wanted, before, strict=True)], np.float32)
        node.input[2:] = [made.constant(f"{target}.factors", factors)]
