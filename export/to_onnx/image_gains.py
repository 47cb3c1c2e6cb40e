"""ADQ's gain of an image in an ONNX graph: sums that are exact in float64, a comparison, a factor.

The first three nodes read the image, all others work on numbers. The variance is rounded as
`qnas.quantization.image_gain.variance` rounds it, operation by operation.
"""

import numpy as np
from onnx import TensorProto

from qnas.onnx.builder import GraphNodes
from qnas.quantization.image_gain import ImageGain
from qnas.quantization.quantizers import QuantParams


def image_gain_nodes(
    w: GraphNodes, name: str, source: str, width: int, grid: QuantParams, gain: ImageGain
) -> str:
    """The gain [] float32, as tensor `name`, of the one image in uint8 tensor `source` [1, width, H, W]."""

    def double(value: float) -> str:
        return w.constant(f"double_{value:.17g}", np.float64(value))

    def node(op: str, part: str, *inputs: str) -> str:
        return w.node(op, inputs, f"{name}.{part}")

    wide = w.node("Cast", [source], f"{name}.double", to=TensorProto.DOUBLE)
    total = w.node("ReduceSum", [wide], f"{name}.total", keepdims=0)
    squares = w.node("ReduceSumSquare", [wide], f"{name}.squares", keepdims=0)
    size = w.node("Cast", [node("Size", "size", source)], f"{name}.all", to=TensorProto.DOUBLE)
    count = size
    if width != gain.channels:  # all values are `width` times those of a channel, exactly
        count = node("Mul", "count", node("Div", "pixels", size, double(width)), double(gain.channels))
    zero = grid.zero_point
    if zero:  # sum(q - z) and sum((q - z)^2)
        moved = node("Mul", "moved", size, double(zero))
        both = node("Sub", "both", node("Add", "twice", total, total), moved)
        squares = node("Sub", "centred_squares", squares, node("Mul", "excess", both, double(zero)))
        total = node("Sub", "centred_total", total, moved)
    below = node("Sub", "spread", squares, node("Mul", "level", total, node("Div", "mean", total, count)))
    free = node("Max", "free", node("Sub", "others", count, double(1)), double(1))
    thresholds, factors = gain.steps(float(grid.scale))
    passed = node(
        "GreaterOrEqual", "passed", node("Div", "variance", below, free),
        w.constant(f"{name}.thresholds", thresholds),
    )  # fmt: skip
    ones = w.node("Cast", [passed], f"{name}.ones", to=TensorProto.INT64)
    index = w.node("ReduceSum", [ones], f"{name}.index", keepdims=0)
    return w.node("Gather", [w.constant(f"{name}.factors", factors), index], name)
