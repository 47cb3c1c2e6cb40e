"""The schema of .tflite files, and the check that a file's numbers fit each other: runtimes believe them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qnas.errors import ModelError, UsageError

IDENTIFIER = b"TFL3"  # bytes 4 .. 7 of a file
MOST_ELEMENTS = 2**29  # of one tensor: 64 channels of 3840x2160
OPTIONAL = -1  # the index of an input that is left out
SMALLEST, LARGEST = 1e-12, 1e12  # scales whose products and ratios a float32 holds
LARGEST_RATIO = 2**19  # of an input's scale to the output's, in a sum
ZERO_POINTS = {"UINT8": (0, 255), "INT8": (-128, 127)}  # other types have 0
# Only these read tensors of several scales, one for each channel: their weights.
WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")


def load_schema() -> ModuleType:
    """ai-edge-litert's schema; UsageError where it or flatbuffers is not installed."""
    try:
        import flatbuffers  # noqa: F401 - the schema needs it
        from ai_edge_litert import schema_py_generated
    except ImportError as error:
        raise UsageError(f".tflite files need {error.name}: pip install 'qnas[tflite]'") from error
    schema: ModuleType = schema_py_generated
    return schema


def check_root(data: bytes) -> None:
    """What LiteRT takes for granted while it checks the rest: there is a graph. Raises ModelError."""
    schema = load_schema()
    if data[4:8] != IDENTIFIER:
        raise ModelError("this is no .tflite file: its bytes 4 to 7 are not TFL3")
    try:
        graphs = schema.Model.GetRootAs(data).SubgraphsLength()
    except Exception as error:  # an offset into nowhere: struct.error and others
        raise _damaged("its first offset leads nowhere") from error
    if graphs == 0:
        raise _damaged("it has no graph")


def parse_tflite(data: bytes) -> Any:
    """The schema's ModelT. Raises ModelError for what is no .tflite file, or a damaged one.

    LiteRT follows offsets safely, but believes shapes, grids, margins and that a tensor is written once: what
    is wrong there ends the process.
    """
    check_root(data)
    schema = load_schema()
    try:
        model = schema.ModelT.InitFromPackedBuf(data, 0)
        problem = next(_problems(model, schema), None)
    except Exception as error:  # struct.error, numpy's and flatbuffers' own share no base but Exception
        problem = f"{type(error).__name__} while reading it"
        raise _damaged(problem) from error
    if problem is not None:
        raise _damaged(problem)
    return model


def _damaged(problem: str) -> ModelError:
    return ModelError(f"the .tflite file is damaged, {problem}: export it again")


def _problems(model: Any, schema: ModuleType) -> Iterator[str]:
    types = {value: name for name, value in vars(schema.TensorType).items()}
    if len(model.subgraphs) != 1:
        yield f"it has {len(model.subgraphs)} graphs instead of one"
    (graph,) = model.subgraphs
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        yield "it has not one input and one output"
    for index, tensor in enumerate(graph.tensors):
        where = f"tensor {index}"
        shape = [] if tensor.shape is None else [int(n) for n in tensor.shape]
        if any(n < 0 for n in shape) or math.prod(shape) > MOST_ELEMENTS:
            yield f"{where} has the shape {shape}"
        if tensor.quantization is not None:
            yield from _grid_problems(where, tensor.quantization, types.get(tensor.type, ""))
    for index, operator in enumerate(graph.operators):
        code = model.operatorCodes[operator.opcodeIndex]
        op = max(code.builtinCode, code.deprecatedBuiltinCode)  # the second, of 8 bits, came first
        yield from _operator_problems(f"operator {index}", operator, op, model, schema)
        yield from _tensor_problems(f"operator {index}", operator, op, graph, schema)
    yield from _writing_problems(model)


def _grid_problems(where: str, grid: Any, kind: str) -> Iterator[str]:
    low, high = ZERO_POINTS.get(kind, (0, 0))
    zero_points = np.zeros(0, np.int64) if grid.zeroPoint is None else np.asarray(grid.zeroPoint)
    scales = np.zeros(0) if grid.scale is None else np.asarray(grid.scale)
    if ((zero_points < low) | (zero_points > high)).any():
        yield f"{where} has a zero point outside {low} .. {high}"
    if not ((scales > SMALLEST) & (scales < LARGEST)).all():
        yield f"{where} has a scale that is not positive, or out of all proportion"


def _operator_problems(where: str, operator: Any, op: int, model: Any, schema: ModuleType) -> Iterator[str]:
    tensors, builtin = model.subgraphs[0].tensors, schema.BuiltinOperator
    inputs = [] if operator.inputs is None else [int(i) for i in operator.inputs]
    outputs = [] if operator.outputs is None else [int(i) for i in operator.outputs]
    if not inputs or not outputs or not all(0 <= i < len(tensors) for i in inputs[:2] + outputs):
        yield f"{where} reads or writes tensors that are not there"
    if not all(OPTIONAL <= i < len(tensors) for i in inputs):
        yield f"{where} reads tensors that are not there"
    if op != builtin.FULLY_CONNECTED and OPTIONAL in inputs:
        yield f"{where} lacks an input"
    if op == builtin.PAD:
        before, after = (np.asarray(tensors[i].shape) for i in (inputs[0], outputs[0]))
        margins = _int32(model, tensors[inputs[1]]).reshape(-1, 2)
        if (margins < 0).any() or (before + margins.sum(axis=1) != after).any():
            yield f"{where} pads to another shape than its output's"


def _tensor_problems(where: str, operator: Any, op: int, graph: Any, schema: ModuleType) -> Iterator[str]:
    """Arithmetic takes one scale of each tensor for granted, and a depthwise convolution its bias."""
    builtin = schema.BuiltinOperator
    weighted = op in [getattr(builtin, name) for name in WEIGHTED]
    if op == builtin.DEPTHWISE_CONV_2D and len(operator.inputs) < 3:
        yield f"{where} lacks its bias"
    kinds = [getattr(schema.TensorType, name) for name in ZERO_POINTS]
    for index in (*(operator.inputs[:1] if weighted else operator.inputs), *operator.outputs):
        grid = graph.tensors[index].quantization
        scales = 0 if grid is None or grid.scale is None else len(grid.scale)
        if graph.tensors[index].type in kinds and scales != 1:
            yield f"{where} has a tensor of {scales} scales"
    *reads, written = (graph.tensors[i] for i in (*operator.inputs, *operator.outputs))
    if op in (builtin.ADD, builtin.SUB, builtin.MUL) and any(read.type != written.type for read in reads):
        yield f"{where} has tensors of several types"
    if op in (builtin.ADD, builtin.SUB) and written.type in kinds:
        largest = max(read.quantization.scale[0] for read in reads)
        if largest >= LARGEST_RATIO * written.quantization.scale[0]:
            yield f"{where} writes far smaller steps than it reads"


def _writing_problems(model: Any) -> Iterator[str]:
    (graph,) = model.subgraphs
    stored = [i for i, t in enumerate(graph.tensors) if model.buffers[t.buffer].data is not None]
    written = [int(i) for operator in graph.operators for i in operator.outputs]
    if len({*stored, *graph.inputs, *written}) < len(stored) + len(graph.inputs) + len(written):
        yield "a tensor is written twice"
    if not set(graph.outputs) <= {*written, *graph.inputs}:
        yield "nothing writes its output"


def _int32(model: Any, tensor: Any) -> NDArray[np.int32]:
    return np.frombuffer(np.asarray(model.buffers[tensor.buffer].data, np.uint8).tobytes(), "<i4")
