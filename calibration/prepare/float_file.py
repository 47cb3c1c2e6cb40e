"""Reading the file of a float network: what it holds, or what it is instead."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from math import prod
from pathlib import Path

import numpy as np
import onnx.inliner
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto

from qnas.calibration.prepare.sr_shape import MOST_PIXELS
from qnas.errors import ModelError
from qnas.files import read_input
from qnas.onnx.files import damage_refused, external_files, read_model
from qnas.onnx.graph import STANDARD, Graph, node_name
from qnas.onnx.operations import QUANTIZING
from qnas.onnx.session import open_session
from qnas.onnx.shapes import check_constants, declared_sizes, op_name
from qnas.onnx.stored_weights import as_float32, is_quantized
from qnas.tflite.reader import is_tflite, read_tflite
from qnas.tflite.session import LiteRtSession
from qnas.tflite.to_onnx.convert import onnx_of

QDQ = frozenset({"DequantizeLinear", "QuantizeLinear"})
NEAR = 1e-4  # of the largest output: float32 sums in another order
FREE_SIDES = (64, 128)  # of an image that is compared, where a file leaves them free


@dataclass(frozen=True, eq=False)
class FloatFile:
    """`model`: float32, functions inlined, all weights in it. `sha256`: of all files that it lies in.

    `remarks`: what a user has to know of how it was read, a sentence each.
    """

    model: ModelProto
    sha256: str
    remarks: tuple[str, ...]


def read_float_file(path: Path) -> FloatFile:
    """Read a network whose activations are floats, however its weights are stored.

    Raises ModelError when it cannot be read, is quantized, has other than one input and one output, or
    operations that are not ONNX's own or hold graphs of their own.
    """
    tflite = is_tflite(path)
    files = [] if tflite else external_files(path)
    with damage_refused(path):
        model = onnx_of(read_tflite(path)) if tflite else read_model(path)
        for function in model.functions:
            _check_branches(function.node, path.name)
        plain = onnx.inliner.inline_local_functions(model) if model.functions else model
        _check_operations(plain, path.name)
        check_constants(plain)
        remarks = as_float32(plain)
        _check_tensors(plain, path.name)
        if tflite:
            remarks += _compared_with_litert(path, plain, hybrid=bool(remarks))
    digest = sha256(path.read_bytes())
    for file in files:
        digest.update(file.read_bytes())
    return FloatFile(plain, digest.hexdigest(), remarks)


def _compared_with_litert(path: Path, model: ModelProto, hybrid: bool) -> tuple[str, ...]:
    """A remark that the graph computes what LiteRT does. Raises ModelError where it does not.

    `hybrid`: only weights are integers, and LiteRT rounds activations as it runs: nothing can be equal then.
    """
    if hybrid:
        return ("not compared with LiteRT, which rounds what such a file computes as it runs",)
    sizes = declared_sizes(model.graph.input[0])
    shape = [size or default for size, default in zip(sizes, (1, *FREE_SIDES, 3), strict=False)]
    if len(sizes) != 4 or prod(shape) > 3 * MOST_PIXELS:
        return ()  # no image, or too large a one: who looks at the shape says so
    image = np.random.default_rng(0).uniform(size=shape).astype(np.float32)
    wanted = LiteRtSession(read_input(path)).raw(image)
    session = open_session(model.SerializeToString(), threads=1)
    found = session.run(None, {model.graph.input[0].name: image})[0]
    off = np.inf if found.shape != wanted.shape else float(np.abs(found - wanted).max(initial=0))
    if not off <= NEAR * max(1.0, float(np.abs(wanted).max(initial=0))):
        raise ModelError(
            f"{path.name} is not read as LiteRT runs it (values differ by {off:g}): export it as ONNX"
        )
    return (f"read from TFLite: onnxruntime is within {off:.1g} of LiteRT on a random image",)


def _check_branches(nodes: Iterable[NodeProto], name: str) -> None:
    for node in nodes:
        if any(a.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for a in node.attribute):
            raise ModelError(
                f"{name} has the operation {op_name(node)} (node {node_name(node)}), which repeats or "
                "chooses parts of the network: export it without branches"
            )


def _check_operations(model: ModelProto, name: str) -> None:
    nodes = model.graph.node
    if not nodes:
        raise ModelError(f"{name} has no operations: export it again")
    if is_quantized(model):
        quantized = [node for node in nodes if node.op_type in QUANTIZING]
        others = [node for node in quantized if node.op_type not in QDQ]
        as_it_is = "qnas-export takes it as it is, or calibrate" if not others else "calibrate"
        named = op_name((others or quantized)[0])
        raise ModelError(
            f"{name} is quantized already ({len(quantized)} nodes such as {named}): {as_it_is} the float "
            "model that it was made of"
        )
    for node in nodes:
        if node.domain not in STANDARD:
            raise ModelError(
                f"{name} has the operation {op_name(node)} (node {node_name(node)}), which is not of ONNX: "
                "export it with ONNX's own operations"
            )
    _check_branches(nodes, name)


def _check_tensors(model: ModelProto, name: str) -> None:
    graph = Graph(model.graph)
    for what, values in (("inputs", graph.inputs), ("outputs", model.graph.output)):
        if len(values) != 1:
            shown = ", ".join(value.name for value in values) or "none"
            raise ModelError(
                f"{name} has {len(values)} {what} ({shown}): a network of one image in and one image out can "
                "be calibrated, export it so"
            )
    # Fewer dimensions: sizes and factors of a Resize may be float64 in a float32 network.
    kinds = {tensor.data_type for tensor in graph.constants.values() if len(tensor.dims) > 1}
    kinds |= {value.type.tensor_type.elem_type for value in [*graph.inputs, *model.graph.output]}
    if TensorProto.DOUBLE in kinds:
        raise ModelError(f"{name} is a float64 model: export it in float32")
    for key, tensor in graph.constants.items():
        if tensor.data_type == TensorProto.FLOAT and np.isnan(graph.array(key)).any():
            raise ModelError(f"{name}: the weights {key!r} hold NaN: export the network again")
