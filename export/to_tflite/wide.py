"""Nodes of 16 bits in a .tflite file: int16 tensors around zero, in LiteRT's built-in kernels.

They round in arithmetic of their own, with multipliers of 16 bits, so that values may be a step of 16 bits
off. XNNPACK leaves these operators out.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from qnas.errors import ModelError
from qnas.export.to_tflite.blocks import Blocks, Tensor, int16_steps
from qnas.export.to_tflite.file import Grid
from qnas.integer import nodes
from qnas.integer.convolution import Conv
from qnas.quantization.quantizers import QuantParams

LOGISTIC_STEP = np.float32(2.0**-15)  # of what LiteRT's int16 LOGISTIC writes


def add(blocks: Blocks, node: nodes.Add, read: QuantParams, shape: Sequence[int], *parts: Tensor) -> Tensor:
    """Sum tensors on any two grids."""
    reads = [blocks.widened(x).index for x in parts]
    return blocks.computed_wide("ADD", node.name, node.output, reads, shape, potScaleInt16=False)


def multiply(
    blocks: Blocks, node: nodes.Multiply, read: QuantParams, shape: Sequence[int], *parts: Tensor
) -> Tensor:
    """Multiply tensors. Raises ModelError for a product with a constant."""
    if node.gain != 1:
        raise ModelError(f"{node.name} multiplies 16 bits by a constant: export ONNX alone")
    reads = [blocks.widened(x).index for x in parts]
    return blocks.computed_wide("MUL", node.name, node.output, reads, shape)


def bias(node: Conv, read: QuantParams, x: Tensor) -> NDArray[np.int64]:
    """The bias of a convolution of the int16 tensor `x`, which stands for one on the grid `read`."""
    steps: NDArray[np.int64] = np.rint(node.bias * float(read.scale / x.scale)).astype(np.int64)
    return steps


def mean(blocks: Blocks, node: nodes.Mean, read: QuantParams, shape: Sequence[int], x: Tensor) -> Tensor:
    """Average what lies around zero already."""
    axes = (blocks.ints(f"{node.name}.axes", (1, 2)),)
    return blocks.moved("MEAN", node.name, [x], shape, axes, keepDims=True)


def shuffle(
    blocks: Blocks, node: nodes.DepthToSpace, read: QuantParams, shape: Sequence[int], x: Tensor
) -> Tensor:
    """Shuffle int32 numbers: LiteRT has no kernel for int16."""
    file, name = blocks.file, node.name
    whole = file.operator("CAST", [x.index], file.tensor(f"{name}.int32", x.shape, "INT32"))
    moved = file.tensor(f"{name}.moved", shape, "INT32")
    file.operator("DEPTH_TO_SPACE", [whole], moved, blockSize=node.factor)
    y = blocks.new(name, shape, x.scale, x.zero_point, is_wide=True)
    file.operator("CAST", [moved], y.index)
    return y


def table(blocks: Blocks, node: nodes.Table, read: QuantParams, shape: Sequence[int], x: Tensor) -> Tensor:
    """Case 1: a requantization. Case 2: the runtime's own sigmoid and leaky ReLU. Case 3: any: GATHER."""
    grid, name = node.output, node.name
    match node.function:
        case "requantize" if grid.is_full and not grid.is_wide:  # Case 1
            return blocks.narrowed(name, x, grid)
        case "requantize":
            return blocks.computed_wide("QUANTIZE", name, grid, [blocks.widened(x).index], shape)
        case "leaky_relu":  # Case 2
            reads = [blocks.widened(x).index]
            return blocks.computed_wide("LEAKY_RELU", name, grid, reads, shape, alpha=node.slope)
        case "sigmoid":
            own = grid.is_wide and grid.is_full and grid.scale == LOGISTIC_STEP and int16_steps(grid) == 1
            y = blocks.new(name if own else f"{name}.logistic", shape, LOGISTIC_STEP, 0, is_wide=True)
            blocks.file.operator("LOGISTIC", [blocks.widened(x).index], y.index)
            return y if own else blocks.computed_wide("QUANTIZE", name, grid, [y.index], shape)
    return _gathered(blocks, node, read, shape, x)


def _gathered(
    blocks: Blocks, node: nodes.Table, read: QuantParams, shape: Sequence[int], x: Tensor
) -> Tensor:
    """Look each value up, by its distance from the lowest one of its tensor."""
    file, grid, name = blocks.file, node.output, node.name
    zero_point = 0 if grid.is_wide else grid.zero_point - 128
    apart = round(float(x.scale / read.scale))  # integers of `read`
    places = np.arange(-(read.zero_point // apart), (read.top - read.zero_point) // apart + 1)
    found = node.table[np.clip(places * apart + read.zero_point, read.low, read.high)].astype(np.int32)
    steps = int16_steps(grid) if grid.is_wide else 1
    values = np.rint((found - grid.zero_point) * steps).astype(np.int32) + zero_point
    y = blocks.new(name, shape, np.float32(grid.scale / steps), zero_point, is_wide=grid.is_wide)
    stored = values.astype(np.int16 if grid.is_wide else np.int8)
    entries = file.constant(f"{name}.table", stored, Grid(np.asarray(y.scale), zero_point))
    whole = file.operator("CAST", [x.index], file.tensor(f"{name}.whole", shape, "INT32"))
    first = file.constant(f"{name}.first", np.full(1, -int(places[0]) - x.zero_point, np.int32))
    where = file.operator("ADD", [whole, first], file.tensor(f"{name}.where", shape, "INT32"))
    file.operator("GATHER", [entries, where], y.index, axis=0)
    return y


# Class of a node -> what writes its operators, for the grid of its first input, its shape NHWC and the
# tensors of its operands. Those that are not here do the same with any integers.
FORMS: dict[type[nodes.IntegerNode], Callable[..., Tensor]] = {
    nodes.Add: add,
    nodes.Multiply: multiply,
    nodes.ChannelGate: multiply,
    nodes.Mean: mean,
    nodes.DepthToSpace: shuffle,
    nodes.Table: table,
}
