"""A TFLite file -> an ONNX graph of the same operations on [N, H, W, C].

1. Of a float file it computes the same; float16 weights are float32.
2. Integers on a grid are real numbers between a QuantizeLinear and a DequantizeLinear. Weights are constants
   behind a DequantizeLinear; the image in and out is uint8, int8 ones 128 higher.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from qnas.errors import ModelError
from qnas.tflite.check import check_tflite
from qnas.tflite.reader import TfliteModel, TfliteTensor
from qnas.tflite.to_onnx.draft import Draft, refused
from qnas.tflite.to_onnx.operations import OPERATIONS

OPSET, IR_VERSION = 21, 10
BYTES = {"INT8": 128, "UINT8": 0}  # type of an image -> what is added to its values


def onnx_of(model: TfliteModel) -> ModelProto:
    """The ONNX model, of the sizes that the file declares.

    Raises ModelError for what LiteRT may not be given, or an operator that is not in the table, by name.
    """
    check_tflite(model)
    if (len(model.inputs), len(model.outputs)) != (1, 1):
        raise ModelError(
            f"the model has {len(model.inputs)} inputs and {len(model.outputs)} outputs: a network of one "
            "image in and one image out can be read"
        )
    draft = Draft(model)
    (source,), (target,) = model.inputs, model.outputs
    name = draft.made.names.tensor(draft.name(source))
    entry = _entry(draft, source, name)
    for operator in model.operators:
        if operator.name not in OPERATIONS:
            raise refused(
                operator, model.tensors, f"is no operator that can be read: there are {', '.join(OPERATIONS)}"
            )
        try:
            OPERATIONS[operator.name](draft, operator)
        except ModelError:
            raise
        except Exception as error:  # options or operands that are not there, or do not fit
            why = f"is damaged ({type(error).__name__}): export it again"
            raise refused(operator, model.tensors, why) from error
    kind, written = _ending(draft, target)
    result = helper.make_tensor_value_info(written, kind, _dims(model.tensors[target], "out"))
    graph = helper.make_graph(
        draft.made.nodes, "network", [entry], [result], list(draft.made.initializers.values())
    )
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="qnas")


def _entry(draft: Draft, index: int, name: str) -> ValueInfoProto:
    """The input; the draft knows its real numbers then."""
    tensor = draft.model.tensors[index]
    kind = TensorProto.UINT8 if tensor.kind in BYTES and tensor.scale.size else TensorProto.FLOAT
    if kind == TensorProto.FLOAT and "FLOAT" not in tensor.kind:
        raise ModelError(f"the input {name!r} is {tensor.kind.lower()}: an image is float32, uint8 or int8")
    draft.values[index] = name
    if kind == TensorProto.UINT8:
        draft.values[index] = draft.made.node(
            "DequantizeLinear", [name, *_grid(draft, tensor)], f"{name}.value"
        )
    return helper.make_tensor_value_info(name, kind, _dims(tensor, ""))


def _ending(draft: Draft, index: int) -> tuple[int, str]:
    """(type, name) of the output, under a name of its own."""
    tensor, value = draft.model.tensors[index], draft.value(index)
    name = draft.made.names.tensor(f"{draft.name(index)}.output")
    if tensor.kind not in BYTES or not tensor.scale.size:
        draft.made.put("Identity", [value], name)
        return TensorProto.FLOAT, name
    draft.made.put("QuantizeLinear", [value, *_grid(draft, tensor)], name)
    return TensorProto.UINT8, name


def _grid(draft: Draft, tensor: TfliteTensor) -> list[str]:
    """The scale and the zero point of an image in bytes from 0 on."""
    zero = np.uint8(int(tensor.zero_point[0]) + BYTES[tensor.kind])
    return [draft.made.constant("image.scale", tensor.scale[0]), draft.made.constant("image.zero", zero)]


def _dims(tensor: TfliteTensor, prefix: str) -> list[int | str]:
    sizes = tensor.signature or tensor.shape
    return [size if size >= 0 else f"{prefix}{axis}" for axis, size in enumerate(sizes)]
