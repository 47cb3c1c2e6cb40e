"""The levels that the integer tensors of a .tflite file can take, by its operators, and the bits of these.

Its types say 8 bits where fewer are used, because XNNPACK runs no others. The bits are facts of the file,
never guesses from names:

1. weights of a 4-bit type have 4 bits, and so have int8 weights of zero point 0 that all lie in -8 .. 7: an
   8-bit quantizer of weights reaches 127 in every channel, or at least in one;
2. int8 saturates, and a fused RELU cuts a grid at its zero point, RELU6 and RELU_N1_TO_1 also at 6 and at -1
   and 1: 0 .. 15 stands at 112 .. 127 behind a RELU;
3. what only moves values keeps the levels of what it reads;
4. a QUANTIZE to another zero point moves them.
"""

from dataclasses import replace
from math import inf

import numpy as np

from qnas.cost.file_cost import level_bits
from qnas.errors import ModelError
from qnas.quantization.quantizers import QuantParams
from qnas.tflite.reader import BITS, TfliteModel, TfliteOperator, TfliteTensor

_RANGES = {"INT8": (-128, 127), "UINT8": (0, 255)}
MOVES = frozenset({
    "CONCATENATION", "DEPTH_TO_SPACE", "GATHER", "MAX_POOL_2D", "PAD", "RESHAPE", "SLICE", "SPACE_TO_DEPTH",
    "SPLIT", "STRIDED_SLICE", "TRANSPOSE",
})  # fmt: skip
_BOUNDS = {1: (0.0, inf), 2: (-1.0, 1.0), 3: (0.0, 6.0)}  # fused activation -> least and largest value

Grids = dict[int, QuantParams]  # tensor -> the levels that it can take, of those on one integer grid


def tensor_levels(model: TfliteModel) -> Grids:
    """The grid of every computed tensor of one scale. Raises ModelError for an impossible zero point."""
    grids: Grids = {}
    for index in (*model.inputs, *(each for operator in model.operators for each in operator.outputs)):
        if grid := _grid(model.tensors[index]):
            grids[index] = grid
    for operator in model.operators:
        for index in operator.outputs:
            if index in grids:
                grids[index] = _narrowed(operator, grids[index], _computed(model, operator, grids))
    return grids


def value_bits(tensor: TfliteTensor, grid: QuantParams | None) -> int:
    """The bits of a computed tensor; `grid` is what `tensor_levels` knows of it."""
    return BITS[tensor.kind] if grid is None else level_bits(grid.low, grid.high)


def weight_bits(tensor: TfliteTensor) -> int:
    """The bits of a constant."""
    values = tensor.values() if tensor.kind == "INT8" and not tensor.zero_point.any() else None
    narrow = values is not None and values.size and values.min() >= -8 and values.max() <= 7
    return 4 if narrow else BITS[tensor.kind]  # Case 1


def _grid(tensor: TfliteTensor) -> QuantParams | None:
    """The whole grid of an int8 or uint8 tensor of one scale."""
    if tensor.kind not in _RANGES or len(tensor.scale) != 1:
        return None
    low, high = _RANGES[tensor.kind]
    zero = int(tensor.zero_point[0])
    if not low <= zero <= high:
        raise ModelError(
            f"tensor {tensor.name!r} has the zero point {zero}, beyond {low} .. {high}: export it again"
        )
    return QuantParams(tensor.scale[0], zero, low, high)


def _computed(model: TfliteModel, operator: TfliteOperator, grids: Grids) -> list[QuantParams | None]:
    """The grids of what `operator` reads, constants left out."""
    return [grids.get(index) for index in operator.inputs if index >= 0 and model.tensors[index].data is None]


def _narrowed(operator: TfliteOperator, grid: QuantParams, reads: list[QuantParams | None]) -> QuantParams:
    """`grid` with the levels that `operator` can write, by the cases of the module's docstring."""
    low, high = grid.low, grid.high
    same = [r for r in reads if r is not None and (r.scale, r.zero_point) == (grid.scale, grid.zero_point)]
    if operator.name in MOVES and same and len(same) == len(reads):  # Case 3
        low, high = min(r.low for r in same), max(r.high for r in same)
    if operator.name == "QUANTIZE" and len(reads) == 1 and (read := reads[0]) and read.scale == grid.scale:
        shift = grid.zero_point - read.zero_point  # Case 4
        low, high = max(low, read.low + shift), min(high, read.high + shift)
    if bounds := _BOUNDS.get(operator.options.get("FusedActivationFunction", 0)):  # Case 2
        least, largest = (np.rint(value / float(grid.scale)) + grid.zero_point for value in bounds)
        low, high = int(max(low, least)), int(min(high, largest))
    return replace(grid, low=low, high=max(low, high))
