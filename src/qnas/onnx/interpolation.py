"""`interpolation_steps` as ONNX nodes: sizes are known only when the graph runs."""

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from qnas.integer.interpolation import STEPS
from qnas.onnx.builder import GraphNodes


def interpolation_nodes(graph: GraphNodes, name: str, source: str, like: str, axis: int) -> str:
    """int64 [out, in] steps that resize `axis` of tensor `source` to that of tensor `like`."""

    def n(op: str, inputs: Sequence[str], suffix: str, **attributes: object) -> str:
        return graph.node(op, inputs, f"{name}.{suffix}", **attributes)

    def size(tensor: str, suffix: str) -> str:
        squeezed = graph.constant("first_axis", np.array([0], np.int64))
        whole = n("Shape", [tensor], f"{suffix}_shape", start=axis, end=axis + 1)
        return n("Squeeze", [whole, squeezed], suffix)

    zero, one, two, steps, half = (
        graph.constant(f"int_{v}", np.int64(v)) for v in (0, 1, 2, STEPS, STEPS // 2)
    )
    count_in, count_out = size(source, "in"), size(like, "out")
    odd = n("Add", [n("Mul", [n("Range", [zero, count_out, one], "o"), two], "2o"), one], "2o+1")
    numerator = n("Mul", [n("Mul", [odd, count_in], "odd_in"), steps], "numerator")
    centre = n("Div", [numerator, n("Mul", [count_out, two], "2out")], "centre_steps")
    last = n("Mul", [n("Sub", [count_in, one], "in-1"), steps], "last")
    centre = n("Max", [n("Sub", [centre, half], "centre_raw"), zero], "centre_low")
    centre = n("Min", [centre, last], "centre")
    column = n("Unsqueeze", [centre, graph.constant("second_axis", np.array([1], np.int64))], "column")
    source_at = n("Mul", [n("Range", [zero, count_in, one], "i"), steps], "source")
    distance = n("Abs", [n("Sub", [column, source_at], "difference")], "distance")
    return n("Max", [n("Sub", [steps, distance], "hat"), zero], "steps")


def interpolation_weights(graph: GraphNodes, name: str, source: str, like: str, axis: int) -> str:
    """Write the steps as float32 of bytes: to multiply from the left for axis 2, from the right for 3."""
    steps = interpolation_nodes(graph, name, source, like, axis)
    weights = graph.node("Cast", [steps], f"{name}.uint8", to=TensorProto.UINT8)
    if axis == 3:
        weights = graph.node("Transpose", [weights], f"{name}.columns", perm=[1, 0])
    scale = graph.constant("one_of_steps", np.float32(1 / STEPS))
    zero = graph.constant("zero_of_steps", np.uint8(0))
    return graph.node("DequantizeLinear", [weights, scale, zero], f"{name}.weights")
