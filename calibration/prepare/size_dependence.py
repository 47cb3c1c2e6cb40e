"""Tensors whose values depend on how large the image is: sums over it, and what is divided by them.

A range that patches show does not hold for them in an image of another size. They are found by running the
network on an image and on the same image laid out three times three: a sum grows by 9, the root of one by 3,
a share of the whole falls as far, and everything else stays as large as it was.
"""

from collections.abc import Sequence
from copy import deepcopy

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from qnas.onnx.builder import GraphNodes
from qnas.onnx.names import Names
from qnas.onnx.session import open_session

TIMES = 3
CHANGE = 1.8  # of the largest magnitude; the border of the image alone makes some percent


def size_dependent(
    model: ModelProto, tensors: Sequence[str], image: NDArray[np.float32], axes: tuple[int, int]
) -> frozenset[str]:
    """Those of the float `tensors`; `image` is one input that the network takes, `axes` height and width.

    None are found where the network does not take `TIMES` that size.
    """
    repeats = [TIMES if axis in axes else 1 for axis in range(image.ndim)]
    measured, names = _with_magnitudes(model, tensors)
    session = open_session(measured.SerializeToString(), threads=1)
    feed = model.graph.input[0].name
    try:
        runs = [session.run(names, {feed: each}) for each in (image, np.tile(image, repeats))]
    except Exception:  # onnxruntime's many exception types share no base but Exception
        return frozenset()
    return frozenset(
        name for name, *pair in zip(tensors, *runs, strict=True) if max(pair) > CHANGE * min(pair)
    )


def _with_magnitudes(model: ModelProto, tensors: Sequence[str]) -> tuple[ModelProto, list[str]]:
    """A copy that writes the largest magnitude of each of `tensors`, and the names of these outputs."""
    copy = deepcopy(model)
    made = GraphNodes(Names.of(copy.graph))
    made.nodes.extend(copy.graph.node)
    written = []
    for name in tensors:
        magnitudes = made.put("Abs", [name], made.names.tensor(f"{name}.magnitudes"))
        written.append(made.put("ReduceMax", [magnitudes], made.names.tensor(f"{name}.largest"), keepdims=0))
    made.rewrite(copy.graph)
    del copy.graph.output[:]
    copy.graph.output.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in written)
    return copy, written
