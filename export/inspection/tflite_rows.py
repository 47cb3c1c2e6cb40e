"""Rows of `qnas-inspect` for a .tflite file, at the size that it is written for.

Its types say 8 bits where fewer are used, so the bits are those of the values (`qnas.tflite.levels`).
"""

from dataclasses import replace

import numpy as np

from qnas.cost.file_cost import NodeCost
from qnas.export.inspection.layer_rows import LayerRow, convolution_row
from qnas.integer.convolution import Conv, convolution_words
from qnas.quantization.quantizers import QuantParams
from qnas.tflite.cost import FORMULAS, stored_bytes, tflite_cost, unpacked_constants
from qnas.tflite.levels import Grids, tensor_levels, value_bits, weight_bits
from qnas.tflite.reader import TfliteModel, TfliteOperator, TfliteTensor

_ACTIVATIONS = {1: "relu", 2: "relu_n1_to_1", 3: "relu6", 4: "tanh", 5: "sign"}
_WORDS = {"CONCATENATION": "concat", "MAX_POOL_2D": "max pool", "MUL": "multiply"}
# Operation -> the axes of its weights' [O, I / groups, kernel ...].
_PRODUCTS = {"CONV_2D": (0, 3, 1, 2), "DEPTHWISE_CONV_2D": (3, 0, 1, 2), "FULLY_CONNECTED": (0, 1)}


def tflite_rows(model: TfliteModel) -> tuple[tuple[LayerRow, ...], tuple[str, ...]]:
    """(a row for every operation, the operations whose cost is not known). Raises ModelError."""
    cost, grids = tflite_cost(model), tensor_levels(model)
    stored = unpacked_constants(model)
    counted = iter(cost.layers)  # in the order of the operators that are counted
    rows = []
    for operator in model.operators:
        row = _row(model, operator, grids)
        found = next(counted) if operator.name in FORMULAS else None
        if found is not None:
            inputs = [model.tensors[stored.get(index, index)] for index in operator.inputs if index >= 0]
            row = _product(operator, inputs, _counted(row, found), grids.get(operator.inputs[0]))
        rows.append(row)
    return tuple(rows), cost.uncovered


def _row(model: TfliteModel, operator: TfliteOperator, grids: Grids) -> LayerRow:
    output = model.tensors[operator.outputs[0]]
    computed = [i for i in operator.inputs if i >= 0 and model.tensors[i].data is None]
    bits = (value_bits(model.tensors[i], grids.get(i)) for i in computed)
    return LayerRow(
        name=output.name,
        operation=_words(operator),
        shape=_one_image(output.shape),
        activation_bits=max(bits, default=None),
        output=grids.get(operator.outputs[0]),
    )


def _counted(row: LayerRow, cost: NodeCost) -> LayerRow:
    """`row` with what the one count of TFLite files says of an operator that multiplies."""
    return replace(
        row,
        macs=cost.macs,
        weight_bits=cost.weight_bits,
        activation_bits=cost.activation_bits,
        weight_bytes=cost.weight_bytes,
    )


def _product(
    operator: TfliteOperator, inputs: list[TfliteTensor], row: LayerRow, grid: QuantParams | None
) -> LayerRow:
    """The row of what multiplies by weights; `row` has its cost. `inputs`: constants as they are stored."""
    if operator.name not in _PRODUCTS:
        return row
    axes = _PRODUCTS[operator.name]
    read, weight, *bias = inputs[:3]
    shape = (*(weight.shape[axis] for axis in axes), 1, 1)[:4]
    words = _words(operator, _convolution(operator, shape, read))
    row = replace(row, operation=words, bias_bytes=sum(map(stored_bytes, bias)))
    node = _integers(row, axes, weight, bias)
    if node is None or grid is None:
        return row
    full = convolution_row(node, grid, row.shape or ())
    kept = ("operation", "activation_bits", "macs", "weight_bytes")
    return replace(full, **{name: getattr(row, name) for name in kept})


def _convolution(operator: TfliteOperator, shape: tuple[int, ...], read: TfliteTensor) -> str:
    if operator.name == "FULLY_CONNECTED":
        return "fully connected"
    groups = shape[0] if operator.name == "DEPTHWISE_CONV_2D" else max(1, read.shape[3] // shape[1])
    stride, dilation = (
        (operator.options.get(f"{name}H{rest}", 1), operator.options.get(f"{name}W{rest}", 1))
        for name, rest in (("Stride", ""), ("Dilation", "Factor"))
    )
    return convolution_words(shape, groups, stride, dilation)


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
        bits=weight_bits(weight),
    )


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
