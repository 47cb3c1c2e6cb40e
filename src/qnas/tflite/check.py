"""Whether the numbers of a .tflite file fit each other.

LiteRT follows offsets safely, but believes shapes, grids, margins and that a tensor is written once: what is
wrong there ends the process.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from qnas.errors import ModelError
from qnas.tflite.reader import TfliteModel, TfliteOperator, TfliteTensor

MOST_ELEMENTS = 2**29  # of one tensor: 64 channels of 3840x2160
SMALLEST, LARGEST = 1e-12, 1e12  # scales whose products and ratios a float32 holds
LARGEST_RATIO = 2**19  # of an input's scale to the output's, in a sum
ZERO_POINTS = {"UINT8": (0, 255), "INT8": (-128, 127)}  # other types have 0
# Only these read tensors of several scales, one for each channel: their weights.
WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")


def check_tflite(model: TfliteModel) -> None:
    """Raises ModelError when LiteRT may not be given the file that `model` was read from."""
    if model.subgraphs != 1:
        raise ModelError(f"the TFLite model has {model.subgraphs} graphs: export it without control flow")
    problem = next(_problems(model), None)
    if problem is not None:
        raise ModelError(f"the TFLite model is damaged ({problem}): export it again")


def _problems(model: TfliteModel) -> Iterator[str]:
    """What is wrong, the first thing first: later checks rely on earlier ones, so only the first counts."""
    if min(model.inputs + model.outputs, default=-1) < 0:
        yield "an input or an output is not there"
    for index, tensor in enumerate(model.tensors):
        yield from _grid_problems(f"tensor {index}", tensor)
    for index, operator in enumerate(model.operators):
        where = f"operator {index}, {operator.name},"
        yield from _operator_problems(where, operator, model.tensors)
        yield from _arithmetic_problems(where, operator, model.tensors)
    yield from _writing_problems(model)


def _grid_problems(where: str, tensor: TfliteTensor) -> Iterator[str]:
    if prod(tensor.shape) > MOST_ELEMENTS:
        yield f"{where} has the shape {tensor.shape}"
    low, high = ZERO_POINTS.get(tensor.kind, (0, 0))
    if ((tensor.zero_point < low) | (tensor.zero_point > high)).any():
        yield f"{where} has a zero point outside {low} .. {high}"
    if not ((tensor.scale > SMALLEST) & (tensor.scale < LARGEST)).all():
        yield f"{where} has a scale out of all proportion"


def _operator_problems(
    where: str, operator: TfliteOperator, tensors: tuple[TfliteTensor, ...]
) -> Iterator[str]:
    """Inputs that are not there; -1 leaves one out, which only the bias of a dense layer may be."""
    needed = operator.inputs[:2] if operator.name == "FULLY_CONNECTED" else operator.inputs
    if not needed or min(needed) < 0:
        yield f"{where} lacks an input"
    if operator.name == "DEPTHWISE_CONV_2D" and len(operator.inputs) < 3:
        yield f"{where} lacks its bias"
    if operator.name == "PAD" and not _pads_to_its_shape(operator, tensors):
        yield f"{where} pads to another shape than its output's"


def _pads_to_its_shape(operator: TfliteOperator, tensors: tuple[TfliteTensor, ...]) -> bool:
    before, *constants, after = (tensors[i] for i in (*operator.inputs[:2], operator.outputs[0]))
    margins = constants[0].values() if constants and constants[0].kind == "INT32" else None
    if margins is None or margins.shape != (len(before.shape), 2) or (margins < 0).any():
        return False
    padded = (size + int(sum(pair)) for size, pair in zip(before.shape, margins.tolist(), strict=True))
    return tuple(padded) == after.shape


def _arithmetic_problems(
    where: str, operator: TfliteOperator, tensors: tuple[TfliteTensor, ...]
) -> Iterator[str]:
    """One scale of each tensor, one type, and no step so small that its ratio overflows."""
    first = operator.inputs[:1] if operator.name in WEIGHTED else operator.inputs
    for tensor in (tensors[i] for i in first + operator.outputs):
        if tensor.kind in ZERO_POINTS and len(tensor.scale) != 1:
            yield f"{where} has a tensor of {len(tensor.scale)} scales"
    if operator.name not in ("ADD", "SUB", "MUL"):
        return
    *reads, written = (tensors[i] for i in operator.inputs + operator.outputs)
    if any(read.kind != written.kind for read in reads):
        yield f"{where} has tensors of several types"
    if operator.name == "MUL" or written.kind not in ZERO_POINTS:
        return
    if max(float(read.scale[0]) for read in reads) >= LARGEST_RATIO * float(written.scale[0]):
        yield f"{where} writes far smaller steps than it reads"


def _writing_problems(model: TfliteModel) -> Iterator[str]:
    stored = [i for i, tensor in enumerate(model.tensors) if tensor.data is not None]
    written = [i for operator in model.operators for i in operator.outputs]
    if len({*stored, *model.inputs, *written}) < len(stored) + len(model.inputs) + len(written):
        yield "a tensor is written twice"
    if not set(model.outputs) <= {*written, *model.inputs}:
        yield "nothing writes its output"
