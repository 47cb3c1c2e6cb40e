"""Weights as a file stores them -> float32 initializers of the same values.

1. A sparse tensor is written out, within a bound on its elements.
2. What dequantizes (or quantizes and dequantizes) constants alone is computed: integers are then only how the
   weights are stored, and the network computes in float.
3. float16 and bfloat16, all of whose values are float32 values too, become float32: in weights, inputs,
   outputs, and in what casts to them.
"""

from __future__ import annotations

from math import prod

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto, helper, numpy_helper

from qnas.errors import ModelError
from qnas.onnx.files import parts
from qnas.onnx.graph import Graph
from qnas.onnx.operations import QUANTIZING, UNPACKING
from qnas.onnx.session import open_session
from qnas.onnx.shapes import MOST_ELEMENTS

HALVES: dict[int, str] = {TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16"}
NEWEST_IR = 10  # that onnxruntime surely reads
TYPES = ("to", "dtype", "output_dtype")  # attributes that name the type of an output


def is_quantized(model: ModelProto) -> bool:
    """Whether anything that an image determines is quantized, not only stored weights."""
    stored = {node.output[0] for node in _unpacking(Graph(model.graph))}
    return any(n.op_type in QUANTIZING and stored.isdisjoint(n.output) for n in model.graph.node)


def as_float32(model: ModelProto) -> tuple[str, ...]:
    """Rewrite all of `model` by the cases of the module's docstring; a sentence for each that there was.

    Raises ModelError where a sparse tensor is damaged or too large, or stored weights cannot be computed.
    """
    said = []
    if _write_out_sparse(model.graph):
        said.append("sparse weights are read with their zeros")
    if _unpack(model):
        said.append(
            "only the weights are stored as integers: they are read as the numbers that they stand for, "
            "and calibration chooses all integers anew"
        )
    if found := _widen(model):
        said.append(f"{' and '.join(found)} numbers are read as float32, all of which have the same value")
    return tuple(said)


# Case 1 --------------------------------------------------------------------------------------------------


def _write_out_sparse(graph: GraphProto) -> bool:
    held = [(n.output[0], a.sparse_tensor) for n in graph.node if n.op_type == "Constant"
            for a in n.attribute if a.name == "sparse_value"]  # fmt: skip
    sparse = [*((each.values.name, each) for each in graph.sparse_initializer), *held]
    if sum(prod(each.dims) for _, each in sparse) > MOST_ELEMENTS:
        raise ModelError(f"sparse weights of more than {MOST_ELEMENTS} values: export a smaller network")
    stored = [_written_out(name, each) for name, each in sparse]
    del graph.sparse_initializer[:]
    graph.initializer.extend(stored)
    names = {name for name, _ in held}
    kept = [node for node in graph.node if names.isdisjoint(node.output)]
    del graph.node[:]
    graph.node.extend(kept)
    return bool(sparse)


def _written_out(name: str, sparse: SparseTensorProto) -> TensorProto:
    """Return the dense tensor. Its indices are [NNZ], or one for each dimension [NNZ, rank]."""
    shape = tuple(sparse.dims)
    try:
        values = numpy_helper.to_array(sparse.values).reshape(-1)
        indices = numpy_helper.to_array(sparse.indices).astype(np.int64)
        flat = indices if indices.ndim == 1 else np.ravel_multi_index(tuple(indices.T), shape)
        whole = np.zeros(prod(shape), values.dtype)
        if len(flat) != len(values) or (flat < 0).any():
            raise ValueError("indices")
        whole[flat] = values
    except (ValueError, IndexError, TypeError) as error:
        raise ModelError(f"the sparse weights {name!r} are damaged: export the model again") from error
    return numpy_helper.from_array(whole.reshape(shape), name)


# Case 2 --------------------------------------------------------------------------------------------------


def _unpacking(graph: Graph) -> list[NodeProto]:
    """The nodes that compute with constants alone, as far as they unpack weights that are quantized."""
    fixed, found = set(graph.constants), []
    for node in graph.nodes:
        if node.op_type in UNPACKING and fixed.issuperset(filter(None, node.input)):
            fixed.update(node.output)
            found.append(node)
    return found if any(node.op_type in QUANTIZING for node in found) else []


def _unpack(model: ModelProto) -> bool:
    graph = Graph(model.graph)
    found = _unpacking(graph)
    if not found:
        return False
    written = {name for node in found for name in node.output}
    left = [node for node in graph.nodes if written.isdisjoint(node.output)]
    wanted = sorted(written.intersection(graph.outputs.union(*(node.input for node in left))))
    constants = [node for node in left if node.op_type == "Constant"]
    outputs = [helper.make_empty_tensor_value_info(name) for name in wanted]
    unpacking = helper.make_graph([*constants, *found], "weights", [], outputs, model.graph.initializer)
    for node in unpacking.node:
        node.name = ""  # onnxruntime loads no two nodes of one name
    version = min(model.ir_version, NEWEST_IR)
    computing = helper.make_model(unpacking, opset_imports=model.opset_import, ir_version=version)
    session = open_session(computing.SerializeToString(), threads=1, optimized=False)
    for name, value in zip(wanted, session.run(wanted, {}), strict=True):
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    del model.graph.node[:]
    model.graph.node.extend(left)
    read = Graph(model.graph).uses
    stored = [tensor for tensor in model.graph.initializer if read[tensor.name]]
    del model.graph.initializer[:]
    model.graph.initializer.extend(stored)
    return True


# Case 3 --------------------------------------------------------------------------------------------------


def _widen(model: ModelProto) -> list[str]:
    """The names of the types that there were."""
    nodes, tensors = parts(model)
    found = set[int]()
    for tensor in tensors:
        if tensor.data_type in HALVES:
            found.add(tensor.data_type)
            whole = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(whole, tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.elem_type in HALVES:
            found.add(value.type.tensor_type.elem_type)
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for attribute in (each for node in nodes for each in node.attribute):
        if attribute.name in TYPES and attribute.i in HALVES:
            found.add(attribute.i)
            attribute.i = TensorProto.FLOAT
    if found:
        del model.graph.value_info[:]
    return [HALVES[kind] for kind in sorted(found)]
