"""Tables that are straight lines, as depthwise convolutions of one weight: the same bytes in every runtime.

onnxruntime adds a sum's zero points before it rounds, so that an added zero is exact for short scales alone
(docs/decisions/0003-short-scales.md), and a table of bytes takes three times as long as a convolution.
"""

import math
from collections.abc import Mapping

import numpy as np

from qnas.export.from_qdq.values import SHORT_BITS, Line
from qnas.integer.convolution import LARGEST_MULTIPLIER, UNIT, Conv, multiplier, scaled
from qnas.integer.network import INT32_MAX, IntegerNetwork, rewritten
from qnas.integer.nodes import IntegerNode, Table
from qnas.quantization.quantizers import QuantParams

NEAR = 0.52  # of a step: half, and what the rounding of the offset to parts of a step adds


def lines_as_convolutions(network: IntegerNetwork, lines: Mapping[str, Line]) -> IntegerNetwork:
    """`network` with convolutions for tables that hold one of `lines`, by name, and have no simpler form."""
    named = network.by_name()

    def edit(node: IntegerNode) -> tuple[IntegerNode, ...]:
        if not isinstance(node, Table) or node.name not in lines or _is_simple(node, named[node.inputs[0]]):
            return (node,)
        conv = _convolution(node, named[node.inputs[0]].output, lines[node.name])
        return (node,) if conv is None else (conv,)

    return rewritten(network, edit)


def _is_simple(node: Table, source: IntegerNode) -> bool:
    """Whether it has a kernel, changes no bytes but cuts some off, or has a short ratio and even zeros."""
    x, y = source.output, node.output
    reach = slice(x.low, x.high + 1)
    if (node.table.clip(y.low, y.high) == x.every.clip(y.low, y.high))[reach].all():
        return True
    if x.is_wide or y.is_wide:  # what adds a zero to it adds in float
        return node.function != "levels"
    mantissa = math.frexp(float(x.scale) / float(y.scale))[0] * 2**SHORT_BITS
    short = mantissa.is_integer() and x.zero_point % 2 == y.zero_point % 2 == 0
    return node.function in ("sigmoid", "leaky_relu") or (node.function == "requantize" and short)


def _convolution(node: Table, read: QuantParams, line: Line) -> Conv | None:
    """None where its sums would not be those bytes."""
    slope, offset = line
    bias = round(offset * UNIT / (abs(slope) * float(read.scale)))
    if abs(bias) > INT32_MAX // 2:
        return None
    c = node.channels
    conv = scaled(
        node.name, node.inputs[0], np.full(c, slope, np.float32), np.full(c, bias, np.int32), node.output
    )
    if not (multiplier(read.scale, conv) < LARGEST_MULTIPLIER).all():
        return None
    reach = slice(read.low, read.high + 1)
    column = np.tile(read.every.astype(read.dtype).reshape(1, 1, -1, 1), (1, c, 1, 1))
    computed = conv.computed([(column, read)])[0, 0, :, 0].astype(np.float64)
    y = node.output
    exact = (slope * read.scale * (read.every - read.zero_point) + offset) / np.float64(y.scale)
    off = np.abs(computed - np.clip(exact + y.zero_point, y.low, y.high))
    return conv if (off[reach] <= NEAR).all() else None
