"""What a .tflite file costs, counted as `qnas.onnx.cost` counts ONNX models.

The bits are those of the values (`qnas.tflite.levels`). Executed BitOps go by the types of the tensors;
float data that meets integer weights is quantized to int8 when it runs (LiteRT's hybrid kernels), and counts
so. Operators write what they write: every tensor that is no constant takes memory from the operator that
writes it to the last that reads it. An operator that is neither in `FORMULAS` nor in `FREE` is reported in
`uncovered`.

The ONNX file and the .tflite file of one network may differ: there a resize by interpolation is a product
with a matrix made from shapes, which nobody counts, here it is a FULLY_CONNECTED with constants; and what
stands for an addition or a change of scales (decision 0010) is a convolution here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from qnas.cost.file_cost import Container, FileCost, NodeCost, executed_bits
from qnas.cost.macs import Shape, convolution, depthwise, product, transposed_channels_last
from qnas.errors import ModelError, UsageError
from qnas.files import read_input
from qnas.onnx.activations import Life, peak_bytes
from qnas.tflite.levels import Grids, tensor_levels, value_bits, weight_bits
from qnas.tflite.reader import BITS, TfliteModel, TfliteOperator, TfliteTensor, read_tflite


def tflite_cost(
    source: Path | bytes | TfliteModel, shapes: Mapping[str, Sequence[int]] | None = None
) -> FileCost:
    """Cost of one run on inputs of `shapes` (input name -> dimensions), by default those that the file has.

    Other sizes are followed through the graph by LiteRT, which takes the file itself, not a TfliteModel.
    Raises ModelError when it is no TFLite model or the tensors of an operator do not fit it, UsageError when
    `shapes` do not fit the inputs, or without ai-edge-litert.
    """
    model = source if isinstance(source, TfliteModel) else read_tflite(source)
    wanted = _changed(model, shapes or {})
    if wanted:
        from qnas.tflite.session import resized_shapes  # LiteRT itself is only needed here

        if isinstance(source, TfliteModel):
            raise UsageError("a model that is read already keeps its sizes: give the file")
        found = resized_shapes(source if isinstance(source, bytes) else read_input(source), wanted)
        tensors = (replace(t, shape=found.get(i, t.shape)) for i, t in enumerate(model.tensors))
        model = replace(model, tensors=tuple(tensors))
    return _Counter(model).cost()


def uncovered(model: TfliteModel) -> tuple[str, ...]:
    """The operators that nobody counts, by name."""
    return tuple(sorted({operator.name for operator in model.operators} - FORMULAS.keys() - FREE))


def _changed(model: TfliteModel, shapes: Mapping[str, Sequence[int]]) -> dict[int, Shape]:
    """The inputs that get another shape than the file's; UsageError for one that may not."""
    inputs = {model.tensors[index].name: index for index in model.inputs if index >= 0}
    if unknown := [name for name in shapes if name not in inputs]:
        raise UsageError(f"the model has no input {unknown[0]!r}: its inputs are {', '.join(inputs)}")
    wanted = {}
    for name, given in shapes.items():
        tensor = model.tensors[inputs[name]]
        declared = tensor.signature or tensor.shape
        if len(given) != len(declared) or any(d not in (-1, g) for d, g in zip(declared, given, strict=True)):
            shown, asked = ("x".join("?" if n < 0 else str(n) for n in sizes) for sizes in (declared, given))
            raise UsageError(f"input {name!r} is {shown}: {asked} does not fit it")
        if tuple(given) != tensor.shape:
            wanted[inputs[name]] = tuple(given)
    return wanted


def unpacked_constants(model: TfliteModel) -> dict[int, int]:
    """Tensor that is computed of constants alone -> the constant, such as the float16 behind a DEQUANTIZE."""
    unpacks: dict[int, int] = {}
    for operator in model.operators:
        reads = [unpacks.get(index, index) for index in operator.inputs if index >= 0]
        if reads and all(model.tensors[index].data is not None for index in reads):
            unpacks |= dict.fromkeys(operator.outputs, reads[0])
    return unpacks


class _Counter:
    """One file at one size."""

    def __init__(self, model: TfliteModel) -> None:
        self.model = model
        self.grids: Grids = tensor_levels(model)
        self.counted: set[int] = set()
        self.unpacks = unpacked_constants(model)

    def cost(self) -> FileCost:
        rows = [self.row(each, FORMULAS[each.name]) for each in self.model.operators if each.name in FORMULAS]
        return FileCost(tuple(rows), uncovered(self.model), peak_bytes(self.lives()))

    def row(self, operator: TfliteOperator, formula: Formula) -> NodeCost:
        output = self.model.tensors[operator.outputs[0]]
        data, weight = (self.input(operator, each) for each in (formula.data, formula.weight))
        read, by = self.model.tensors[data], self.model.tensors[weight]
        _check(operator, formula, read, by, output)
        weights = self.fresh(weight)
        biases = self.fresh(*operator.inputs[formula.bias : formula.bias + 1])
        executed = executed_bits(_container(by), _multiplied(read, by))
        return NodeCost(
            name=output.name,
            macs=formula.macs(operator, read.shape, by.shape, output.shape),
            weight_bits=self.bits(weight),
            activation_bits=self.bits(data),
            parameters=sum(prod(tensor.shape) for tensor in (*weights, *biases)),
            weight_bytes=sum(map(stored_bytes, weights)),
            op=operator.name,
            output_shape=output.shape,
            executed_weight_bits=executed[0],
            executed_activation_bits=executed[1],
            activation_bytes=sum(map(self.activation_bytes, {data, weight})) + stored_bytes(output),
        )

    def input(self, operator: TfliteOperator, position: int) -> int:
        index = operator.inputs[position] if position < len(operator.inputs) else -1
        if index < 0:
            name = self.model.tensors[operator.outputs[0]].name
            raise ModelError(f"{operator.name} {name!r} lacks an input: export it again")
        return index

    def bits(self, index: int) -> int:
        """The bits of the values, those of a constant that is unpacked first."""
        stored = self.model.tensors[self.unpacks.get(index, index)]
        return weight_bits(stored) if stored.data is not None else value_bits(stored, self.grids.get(index))

    def fresh(self, *indices: int) -> list[TfliteTensor]:
        """The constants that these tensors unpack and nobody has counted; marks them as counted."""
        stored = {self.unpacks.get(index, index) for index in indices if index >= 0} - self.counted
        self.counted |= stored
        tensors = (self.model.tensors[index] for index in stored)
        return [tensor for tensor in tensors if tensor.data is not None]

    def activation_bytes(self, index: int) -> int:
        tensor = self.model.tensors[index]
        return 0 if tensor.data is not None or index in self.unpacks else stored_bytes(tensor)

    def lives(self) -> Iterator[Life]:
        operators = self.model.operators
        first = dict.fromkeys((i for i in self.model.inputs if i >= 0), 0)
        last = dict.fromkeys(self.model.outputs, len(operators))
        for step, operator in enumerate(operators):
            first |= {index: step for index in operator.outputs if index not in first}
            last |= {index: step for index in operator.inputs if last.get(index, 0) <= step}
        for index, start in first.items():
            yield Life(self.activation_bytes(index), start, max(start, last.get(index, start)))


def _container(tensor: TfliteTensor) -> Container:
    return Container(BITS[tensor.kind], "INT" in tensor.kind)


def _multiplied(data: TfliteTensor, weight: TfliteTensor) -> Container:
    """The data as it is multiplied: see the module's docstring."""
    hybrid = _container(weight).integer and not _container(data).integer
    return Container(8, True) if hybrid else _container(data)


def stored_bytes(tensor: TfliteTensor) -> int:
    """Bytes of its values; two of 4 bits share one."""
    return _container(tensor).bytes(prod(tensor.shape))


def _check(
    operator: TfliteOperator, formula: Formula, data: TfliteTensor, weight: TfliteTensor, output: TfliteTensor
) -> None:
    ranks = (len(data.shape), len(weight.shape), len(output.shape))
    if min(ranks) < formula.rank or 0 in weight.shape:
        raise ModelError(
            f"{operator.name} {output.name!r} reads {list(data.shape)} and {list(weight.shape)}, which do "
            "not fit it: export it again"
        )


@dataclass(frozen=True)
class Formula:
    """How an operator is counted: MACs of (operator, shapes of data, weight and output); inputs by position.

    `rank`: the least number of dimensions of each of the three.
    """

    macs: Callable[[TfliteOperator, Shape, Shape, Shape], int]
    rank: int
    data: int = 0
    weight: int = 1
    bias: int = 2


def _inner(operator: TfliteOperator, data: Shape) -> int:
    return data[-2 if operator.options.get("AdjX") else -1]


FORMULAS: dict[str, Formula] = {
    "BATCH_MATMUL": Formula(lambda op, x, w, y: product(y, _inner(op, x)), 2),
    "CONV_2D": Formula(lambda op, x, w, y: convolution(y, w), 4),
    "DEPTHWISE_CONV_2D": Formula(lambda op, x, w, y: depthwise(y, w), 4),
    "FULLY_CONNECTED": Formula(lambda op, x, w, y: convolution(y, w), 1),
    "TRANSPOSE_CONV": Formula(lambda op, x, w, y: transposed_channels_last(x, w), 4, data=2, bias=3),
}

_MOVING = frozenset({
    "BATCH_TO_SPACE_ND", "BROADCAST_TO", "CAST", "CONCATENATION", "DEPTH_TO_SPACE", "DEQUANTIZE",
    "EXPAND_DIMS", "FAKE_QUANT", "FILL", "GATHER", "GATHER_ND", "MAX_POOL_2D", "MIRROR_PAD", "PACK", "PAD",
    "PADV2", "QUANTIZE", "RANGE", "RANK", "RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR",
    "REVERSE_V2", "SCATTER_ND", "SELECT", "SELECT_V2", "SHAPE", "SLICE", "SPACE_TO_BATCH_ND",
    "SPACE_TO_DEPTH", "SPLIT", "SPLIT_V", "SQUEEZE", "STRIDED_SLICE", "TILE", "TRANSPOSE", "UNPACK",
    "WHERE", "ZEROS_LIKE",
})  # fmt: skip
_COMPUTING = frozenset({
    "ABS", "ADD", "ADD_N", "ARG_MAX", "ARG_MIN", "AVERAGE_POOL_2D", "CEIL", "COS", "DIV", "ELU", "EQUAL",
    "EXP", "FLOOR", "FLOOR_DIV", "FLOOR_MOD", "GELU", "GREATER", "GREATER_EQUAL", "HARD_SWISH",
    "L2_NORMALIZATION", "L2_POOL_2D", "LEAKY_RELU", "LESS", "LESS_EQUAL", "LOG", "LOGICAL_AND",
    "LOGICAL_NOT", "LOGICAL_OR", "LOGISTIC", "LOG_SOFTMAX", "MAXIMUM", "MEAN", "MINIMUM", "MUL", "NEG",
    "NOT_EQUAL", "POW", "PRELU", "REDUCE_ALL", "REDUCE_ANY", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD",
    "RELU", "RELU6", "RELU_0_TO_1", "RELU_N1_TO_1", "ROUND", "RSQRT", "SIGN", "SIN", "SOFTMAX", "SQRT",
    "SQUARE", "SQUARED_DIFFERENCE", "SUB", "SUM", "TANH", "TOPK_V2",
})  # fmt: skip
FREE = _MOVING | _COMPUTING
