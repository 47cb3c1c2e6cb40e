"""Rows of `qnas-inspect` for a .tflite file, at the size that it is written for.

Its types say 8 bits where fewer are used, so the bits are those of the values:

1. int8 weights that all lie in -8 .. 7 have 4 bits;
2. a fused RELU cuts a grid at its zero point, RELU6 and RELU_N1_TO_1 also at 6 and at -1 and 1; 7 bits are
   taken for a signed grid of 8 that a RELU cut;
3. what only moves values keeps the levels of what it reads.
"""

from dataclasses import replace
from math import inf, prod

import numpy as np

from qnas.errors import ModelError
from qnas.export.inspection.layer_rows import LayerRow, convolution_row, convolution_words
from qnas.integer_network import Conv
from qnas.quantization import QuantParams
from qnas.tflite_reader import BITS, TfliteModel, TfliteOperator, TfliteTensor

_RANGES = {"INT8": (-128, 127), "UINT8": (0, 255)}
_MOVES = frozenset({
    "CONCATENATION", "DEPTH_TO_SPACE", "GATHER", "MAX_POOL_2D", "PAD", "RESHAPE", "SLICE", "SPACE_TO_DEPTH",
    "SPLIT", "STRIDED_SLICE", "TRANSPOSE",
})  # fmt: skip
_ACTIVATIONS = {1: "relu", 2: "relu_n1_to_1", 3: "relu6", 4: "tanh", 5: "sign"}
_BOUNDS = {1: (0.0, inf), 2: (-1.0, 1.0), 3: (0.0, 6.0)}  # activation -> least and largest value
_WORDS = {"CONCATENATION": "concat", "MAX_POOL_2D": "max pool", "MUL": "multiply"}
# Operation -> the axes of its weights' [O, I / groups, kernel ...].
_PRODUCTS = {"CONV_2D": (0, 3, 1, 2), "DEPTHWISE_CONV_2D": (3, 0, 1, 2), "FULLY_CONNECTED": (0, 1)}
# Products that nobody counts here, which a note says.
_UNCOUNTED = frozenset({
    "BATCH_MATMUL", "BIDIRECTIONAL_SEQUENCE_LSTM", "BIDIRECTIONAL_SEQUENCE_RNN", "CONV_3D",
    "CONV_3D_TRANSPOSE", "LSTM", "RNN", "STABLEHLO_CONVOLUTION", "STABLEHLO_DOT_GENERAL", "SVDF",
    "TRANSPOSE_CONV", "UNIDIRECTIONAL_SEQUENCE_LSTM", "UNIDIRECTIONAL_SEQUENCE_RNN",
})  # fmt: skip

Grids = dict[int, QuantParams]  # tensor -> the levels that it can take, of those on one integer grid


def tflite_rows(model: TfliteModel) -> tuple[tuple[LayerRow, ...], tuple[str, ...]]:
    """(a row for every operation, the operations whose cost is not known). Raises ModelError."""
    grids: Grids = {}
    for index in (*model.inputs, *(each for operator in model.operators for each in operator.outputs)):
        if grid := _grid(model.tensors[index]):
            grids[index] = grid
    rows = []
    for operator in model.operators:
        for index in operator.outputs:
            if index in grids:
                grids[index] = _narrowed(operator, grids[index], _computed(model, operator, grids))
        rows.append(_row(model, operator, grids))
    names = {operator.name for operator in model.operators}
    uncounted = {name for name in names if name in _UNCOUNTED or name.startswith(("CUSTOM", "OPERATOR"))}
    return tuple(rows), tuple(sorted(uncounted))


def _grid(tensor: TfliteTensor) -> QuantParams | None:
    """The whole grid of an int8 or uint8 tensor of one scale."""
    if tensor.kind not in _RANGES or len(tensor.scale) != 1:
        return None
    low, high = _RANGES[tensor.kind]
    zero = int(tensor.zero_point[0])
    if not low <= zero <= high:
        raise ModelError(f"tensor {tensor.name!r} has the zero point {zero}, beyond {low} .. {high}")
    return QuantParams(tensor.scale[0], zero, low, high)


def _computed(model: TfliteModel, operator: TfliteOperator, grids: Grids) -> list[QuantParams | None]:
    """The grids of what `operator` reads, constants left out."""
    return [grids.get(index) for index in operator.inputs if index >= 0 and model.tensors[index].data is None]


def _narrowed(operator: TfliteOperator, grid: QuantParams, reads: list[QuantParams | None]) -> QuantParams:
    """`grid` with the levels that `operator` can write, by the cases of the module's docstring."""
    low, high = grid.low, grid.high
    same = [r for r in reads if r is not None and (r.scale, r.zero_point) == (grid.scale, grid.zero_point)]
    if operator.name in _MOVES and same and len(same) == len(reads):  # Case 3
        low, high = min(r.low for r in same), max(r.high for r in same)
    if bounds := _BOUNDS.get(operator.options.get("FusedActivationFunction", 0)):  # Case 2
        least, largest = (np.rint(value / float(grid.scale)) + grid.zero_point for value in bounds)
        low, high = int(max(low, least)), int(min(high, largest))
    return replace(grid, low=low, high=max(low, high))


def _row(model: TfliteModel, operator: TfliteOperator, grids: Grids) -> LayerRow:
    output = model.tensors[operator.outputs[0]]
    computed = [i for i in operator.inputs if i >= 0 and model.tensors[i].data is None]
    bits = (_bits(model.tensors[i], grids.get(i)) for i in computed)
    row = LayerRow(
        name=output.name,
        operation=_words(operator),
        shape=_one_image(output.shape),
        activation_bits=max(bits, default=None),
        output=grids.get(operator.outputs[0]),
    )
    return _product(model, operator, row, grids) if operator.name in _PRODUCTS else row


def _product(model: TfliteModel, operator: TfliteOperator, row: LayerRow, grids: Grids) -> LayerRow:
    """The row of what multiplies by weights; `row` is what is known without these."""
    inputs = [model.tensors[index] for index in operator.inputs[:3] if index >= 0]
    axes = _PRODUCTS[operator.name]
    if len(inputs) < 2 or len(inputs[1].shape) != len(axes) or len(inputs[0].shape) < len(axes):
        raise ModelError(f"{operator.name} {row.name!r} lacks weights of {len(axes)} dimensions")
    read, weight, *bias = inputs
    shape = (*(weight.shape[axis] for axis in axes), 1, 1)[:4]
    if 0 in shape:
        raise ModelError(f"{operator.name} {row.name!r} has weights of shape {weight.shape}")
    row = replace(
        row,
        operation=_words(operator, _convolution(operator, shape, read)),
        weight_bits=BITS[weight.kind],
        macs=prod(model.tensors[operator.outputs[0]].shape) * prod(shape[1:]),
        weight_bytes=_bytes(weight),
        bias_bytes=sum(map(_bytes, bias)),
    )
    grid = grids.get(operator.inputs[0])
    node = _integers(row, axes, weight, bias)
    if node is None or grid is None:
        return row
    full = convolution_row(node, grid, row.shape or ())
    kept = {name: getattr(row, name) for name in ("operation", "activation_bits", "macs", "weight_bytes")}
    return replace(full, **kept)


def _convolution(operator: TfliteOperator, shape: tuple[int, ...], read: TfliteTensor) -> str:
    if operator.name == "FULLY_CONNECTED":
        return "fully connected"
    groups = shape[0] if operator.name == "DEPTHWISE_CONV_2D" else max(1, read.shape[3] // shape[1])
    return convolution_words(shape, groups, operator.options.get("StrideH", 1))


def _integers(
    row: LayerRow, axes: tuple[int, ...], weight: TfliteTensor, biases: list[TfliteTensor]
) -> Conv | None:
    """The weights and biases as a Conv, None where they are no symmetric int8 and int32."""
    values, channels = weight.values(), weight.shape[axes[0]]
    bias = biases[0].values() if biases else np.zeros(channels, np.int32)
    scales = len(weight.scale) in (1, channels) and not weight.zero_point.any()
    if values is None or values.dtype != np.int8 or bias is None or row.output is None or not scales:
        return None
    if bias.dtype != np.int32 or bias.size != channels:
        return None
    values = values.transpose(axes)
    return Conv(
        name=row.name,
        inputs=(),
        channels=channels,
        output=row.output,
        weight=values.reshape((*values.shape, 1, 1)[:4]),
        weight_scale=np.broadcast_to(weight.scale, channels),
        bias=bias,
        bits=4 if values.min() >= -8 and values.max() <= 7 else 8,  # Case 1
    )


def _bits(tensor: TfliteTensor, grid: QuantParams | None) -> int:
    if grid is None:
        return BITS[tensor.kind]
    bits = max(1, (grid.high - grid.low).bit_length())
    return 8 if bits == 7 else bits  # Case 2


def _bytes(tensor: TfliteTensor) -> int:
    return -(-prod(tensor.shape) * BITS[tensor.kind] // 8)


def _words(operator: TfliteOperator, what: str | None = None) -> str:
    """ "depth to space 4", "conv 3x3 relu"; `what` is said instead of the operation's name."""
    options = operator.options
    words = [what or _WORDS.get(operator.name, operator.name.lower().replace("_", " "))]
    if "BlockSize" in options:
        words.append(str(options["BlockSize"]))
    if "FilterHeight" in options:
        words.append(f"{options['FilterHeight']}x{options['FilterWidth']}")
        words += [f"stride {options['StrideH']}"] * (options["StrideH"] > 1)
    activation = options.get("FusedActivationFunction", 0)
    return " ".join([*words, *([_ACTIVATIONS[activation]] if activation in _ACTIVATIONS else [])])


def _one_image(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(channels, height, width) of [1, H, W, C], any other shape as it is."""
    return (shape[3], *shape[1:3]) if len(shape) == 4 and shape[0] == 1 else shape
