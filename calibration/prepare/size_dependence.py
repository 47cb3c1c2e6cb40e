"""Tensors whose values depend on how large the image is: sums over it, and what is divided by them.

A range that patches show does not hold for them in an image of another size. Two things tell them:

1. Something in front of them adds up a part of the image that has no fixed size (a sum, a product of
   matrices, a softmax), or computes with the size itself. Behind convolutions, means and what is done value
   by value alone, nothing grows.
2. The network runs on an image and on the same one with mirror images around it, three times three: the
   mean magnitude of a sum grows by 9, that of its root by 3, that of a share falls as far; others stay.
"""

from collections.abc import Sequence
from copy import deepcopy

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from qnas.onnx.builder import GraphNodes
from qnas.onnx.graph import Graph
from qnas.onnx.names import Names
from qnas.onnx.operations import ELEMENTWISE, LOCAL, MULTIPLYING
from qnas.onnx.session import open_session

TIMES = 3
CHANGE = 1.8  # of the mean magnitude; other parts of an image make some percent


def size_dependent(
    model: ModelProto, tensors: Sequence[str], image: NDArray[np.float32], axes: tuple[int, int]
) -> frozenset[str]:
    """Those of the float `tensors`; `image` is one input that the network takes, `axes` height and width.

    None are found where the network does not take `TIMES` that size.
    """
    suspects = _suspects(Graph(model.graph))
    tensors = [name for name in tensors if name in suspects]
    if not tensors:
        return frozenset()
    sides = [image.shape[axis] if axis in axes else 0 for axis in range(image.ndim)]
    around = np.pad(image, [(side * (TIMES // 2),) * 2 for side in sides], mode="symmetric")
    measured, names = _with_magnitudes(model, tensors)
    session = open_session(measured.SerializeToString(), threads=1)
    feed = model.graph.input[0].name
    try:
        runs = [session.run(names, {feed: each}) for each in (image, around)]
    except Exception:  # onnxruntime's many exception types share no base but Exception
        return frozenset()
    return frozenset(
        name for name, *pair in zip(tensors, *runs, strict=True) if max(pair) > CHANGE * min(pair)
    )


def _suspects(graph: Graph) -> set[str]:
    """The tensors behind a node of case 1."""
    image = {value.name for value in graph.inputs}  # what depends on its values
    found = set[str]()
    for node in graph.nodes:
        data = [name for name in node.input if name in image]
        if not data or node.op_type in ("Shape", "Size"):
            continue
        image.update(node.output)
        others = [name for name in node.input if name and name not in image and name not in graph.constants]
        adds_up = node.op_type not in LOCAL or (node.op_type in MULTIPLYING and len(data) > 1)
        computes_with_sizes = node.op_type in ELEMENTWISE and others
        if adds_up or computes_with_sizes or not found.isdisjoint(data):
            found.update(node.output)
    return found


def _with_magnitudes(model: ModelProto, tensors: Sequence[str]) -> tuple[ModelProto, list[str]]:
    """A copy that writes the mean magnitude of each of `tensors`, and the names of these outputs."""
    copy = deepcopy(model)
    made = GraphNodes(Names.of(copy.graph))
    made.nodes.extend(copy.graph.node)
    written = []
    for name in tensors:
        magnitudes = made.put("Abs", [name], made.names.tensor(f"{name}.magnitudes"))
        written.append(made.put("ReduceMean", [magnitudes], made.names.tensor(f"{name}.mean"), keepdims=0))
    made.rewrite(copy.graph)
    del copy.graph.output[:]
    copy.graph.output.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in written)
    return copy, written
