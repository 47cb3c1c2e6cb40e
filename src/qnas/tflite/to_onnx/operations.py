"""The table of TFLite operators, with what computes value by value or reduces."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from qnas.tflite.reader import TfliteOperator
from qnas.tflite.to_onnx import moving, windows
from qnas.tflite.to_onnx.draft import Draft

Operation = Callable[[Draft, TfliteOperator], None]


def _plain(draft: Draft, operator: TfliteOperator, kind: str, **attributes: Any) -> None:
    """The ONNX operation `kind` of all inputs, which broadcasts as TFLite does."""
    inputs = [draft.value(index) for index in operator.inputs]
    name = draft.name(operator.outputs[0])
    draft.write(operator, draft.made.node(kind, inputs, f"{name}.value", **attributes))


def _bounded(draft: Draft, operator: TfliteOperator, low: float, high: float) -> None:
    inputs = [draft.value(operator.inputs[0]), draft.number(low), draft.number(high)]
    draft.write(operator, draft.made.node("Clip", inputs, f"{draft.name(operator.outputs[0])}.value"))


def _leaky_relu(draft: Draft, operator: TfliteOperator) -> None:
    _plain(draft, operator, "LeakyRelu", alpha=operator.fractions.get("Alpha", 0.0))


def _gelu(draft: Draft, operator: TfliteOperator) -> None:
    _plain(draft, operator, "Gelu", approximate="tanh" if operator.options.get("Approximate") else "none")


def _softmax(draft: Draft, operator: TfliteOperator) -> None:
    name, x = draft.name(operator.outputs[0]), draft.value(operator.inputs[0])
    beta = operator.fractions.get("Beta", 1.0)
    if beta != 1:
        x = draft.made.node("Mul", [x, draft.number(beta)], f"{name}.scaled")
    draft.write(operator, draft.made.node("Softmax", [x], f"{name}.value", axis=-1))


def _square(draft: Draft, operator: TfliteOperator, difference: bool) -> None:
    """SQUARE, SQUARED_DIFFERENCE."""
    name, inputs = draft.name(operator.outputs[0]), [draft.value(index) for index in operator.inputs]
    x = draft.made.node("Sub", inputs, f"{name}.difference") if difference else inputs[0]
    draft.write(operator, draft.made.node("Mul", [x, x], f"{name}.value"))


def _inverse_root(draft: Draft, operator: TfliteOperator) -> None:
    name = draft.name(operator.outputs[0])
    root = draft.made.node("Sqrt", [draft.value(operator.inputs[0])], f"{name}.root")
    draft.write(operator, draft.made.node("Reciprocal", [root], f"{name}.value"))


def _reduced(draft: Draft, operator: TfliteOperator, kind: str) -> None:
    axes = draft.vector(draft.integers(operator, 1))
    keep = operator.options.get("KeepDims", 0)
    name = draft.name(operator.outputs[0])
    draft.write(
        operator,
        draft.made.node(kind, [draft.value(operator.inputs[0]), axes], f"{name}.value", keepdims=keep),
    )


def _mean(draft: Draft, operator: TfliteOperator) -> None:
    """MEAN; of height and width it is a pool, whose sizes may be free."""
    if (
        sorted(axis % 4 for axis in draft.integers(operator, 1)) != [1, 2]
        or len(draft.shape(operator.inputs[0])) != 4
    ):
        _reduced(draft, operator, "ReduceMean")
        return
    name = draft.name(operator.outputs[0])
    pooled = draft.made.node("GlobalAveragePool", [draft.first(operator.inputs[0])], f"{name}.pooled")
    result = draft.last(pooled)
    if not operator.options.get("KeepDims"):
        result = draft.made.node("Squeeze", [result, draft.vector([1, 2])], f"{name}.value")
    draft.write(operator, result)


def _sum_of_many(draft: Draft, operator: TfliteOperator) -> None:
    _plain(draft, operator, "Sum")


def _on_another_grid(draft: Draft, operator: TfliteOperator) -> None:
    """QUANTIZE, DEQUANTIZE: the same numbers, on the grid of the output where it has one."""
    (index,) = operator.inputs
    if index in draft.stored and not draft.model.tensors[operator.outputs[0]].scale.size:
        draft.stored[operator.outputs[0]] = draft.stored[index]  # weights stay weights
    else:
        draft.write(operator, draft.value(index))


PLAIN = {
    "ABS": "Abs", "ADD": "Add", "CEIL": "Ceil", "COS": "Cos", "DIV": "Div", "ELU": "Elu", "EXP": "Exp",
    "FLOOR": "Floor", "HARD_SWISH": "HardSwish", "LOG": "Log", "LOGISTIC": "Sigmoid", "MAXIMUM": "Max",
    "MINIMUM": "Min", "MUL": "Mul", "NEG": "Neg", "POW": "Pow", "PRELU": "PRelu", "RELU": "Relu",
    "ROUND": "Round", "SIGN": "Sign", "SIN": "Sin", "SQRT": "Sqrt", "SUB": "Sub", "TANH": "Tanh",
}  # fmt: skip
OPERATIONS: dict[str, Operation] = {
    **{name: partial(_plain, kind=kind) for name, kind in PLAIN.items()},
    "ADD_N": _sum_of_many,
    "AVERAGE_POOL_2D": windows.pool,
    "BROADCAST_TO": moving.repeat,
    "CAST": moving.cast,
    "CONCATENATION": moving.concatenation,
    "CONV_2D": windows.convolution,
    "DEPTH_TO_SPACE": moving.shuffle,
    "DEPTHWISE_CONV_2D": windows.depthwise,
    "DEQUANTIZE": _on_another_grid,
    "EXPAND_DIMS": moving.reshape,
    "FULLY_CONNECTED": windows.fully_connected,
    "GATHER": moving.gather,
    "GELU": _gelu,
    "LEAKY_RELU": _leaky_relu,
    "MAX_POOL_2D": windows.pool,
    "MEAN": _mean,
    "MIRROR_PAD": windows.pad,
    "PACK": moving.pack,
    "PAD": windows.pad,
    "PADV2": windows.pad,
    "QUANTIZE": _on_another_grid,
    "REDUCE_MAX": partial(_reduced, kind="ReduceMax"),
    "REDUCE_MIN": partial(_reduced, kind="ReduceMin"),
    "RELU6": partial(_bounded, low=0, high=6),
    "RELU_0_TO_1": partial(_bounded, low=0, high=1),
    "RELU_N1_TO_1": partial(_bounded, low=-1, high=1),
    "RESHAPE": moving.reshape,
    "RESIZE_BILINEAR": moving.resize,
    "RESIZE_NEAREST_NEIGHBOR": moving.resize,
    "RSQRT": _inverse_root,
    "SHAPE": moving.shape,
    "SLICE": moving.slice_,
    "SOFTMAX": _softmax,
    "SPACE_TO_DEPTH": moving.shuffle,
    "SPLIT": moving.split,
    "SPLIT_V": moving.split,
    "SQUARE": partial(_square, difference=False),
    "SQUARED_DIFFERENCE": partial(_square, difference=True),
    "SQUEEZE": moving.reshape,
    "STRIDED_SLICE": moving.strided_slice,
    "SUM": partial(_reduced, kind="ReduceSum"),
    "TILE": moving.repeat,
    "TRANSPOSE": moving.transpose,
    "TRANSPOSE_CONV": windows.transposed,
    "UNPACK": moving.unpack,
}
