"""Float network -> the same function in operations that integer kernels have. Tensors keep their names.

1. A transposed convolution whose output is a whole multiple of its input in size, or of that without some
   rows and columns, is a convolution to the phases of each pixel, and a DepthToSpace: onnxruntime has no
   integer kernel for it as it is.
2. A bilinear Resize to another tensor's size is two products (`bilinear.py`).
3. PRelu with one slope is a LeakyRelu. x - c is x + (-c), x / c is x * (1 / c). x to the power of 2 is x * x,
   unless what computes in float alone reads it.
"""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from qnas.calibration.prepare.bilinear import bilinear_as_products
from qnas.calibration.prepare.float_model import FloatModel
from qnas.onnx.builder import GraphNodes
from qnas.onnx.graph import Graph, attributes
from qnas.onnx.names import Names
from qnas.onnx.operations import FLOAT_ONLY

Array = NDArray[np.float32]


def rewritten(network: FloatModel) -> FloatModel:
    """`network` with all of these rewrites."""
    network = bilinear_as_products(network)  # Case 2
    model = deepcopy(network.model)
    graph, made = Graph(model.graph), GraphNodes(Names.of(model.graph))
    for node in graph.nodes:
        if not _rewritten(made, graph, node):
            made.nodes.append(node)
    made.rewrite(model.graph)
    return replace(network, model=model)


def _rewritten(made: GraphNodes, graph: Graph, node: NodeProto) -> bool:
    """Write what `node` becomes; whether it becomes something."""
    constant = _floats(graph, node.input[1]) if len(node.input) > 1 else None
    if node.op_type == "ConvTranspose":
        return _phases(made, graph, node)
    if constant is None:
        return False
    match node.op_type:
        case "PRelu" if np.ptp(constant) == 0:
            alpha = float(constant.reshape(-1)[0])
            made.put("LeakyRelu", node.input[:1], node.output[0], node.name, alpha=alpha)
        case "Sub":
            _put(made, "Add", node, -constant)
        case "Div" if (constant != 0).all():
            _put(made, "Mul", node, np.float32(1) / constant)
        case "Pow" if (constant == 2).all() and _read_in_integers(graph, node):
            made.put("Mul", [node.input[0]] * 2, node.output[0], node.name)
        case _:
            return False
    return True


def _read_in_integers(graph: Graph, node: NodeProto) -> bool:
    return all(reader.op_type not in FLOAT_ONLY for reader in graph.readers.get(node.output[0], ()))


def _floats(graph: Graph, name: str) -> Array | None:
    """Constant `name`, None unless it is of float32."""
    array = graph.array(name) if name in graph.constants else None
    return array if array is not None and array.dtype == np.float32 else None


def _put(made: GraphNodes, op: str, node: NodeProto, constant: Array) -> None:
    """What `node` computes, as another operation with another constant."""
    name = made.constant(f"{node.name}.constant", np.asarray(constant, np.float32))
    made.put(op, [node.input[0], name], node.output[0], node.name)


# Case 1 ------------------------------------------------------------------------------------------------


def _phases(made: GraphNodes, graph: Graph, node: NodeProto) -> bool:
    """Output pixel s y + i takes input pixel y + d through tap i + p - s d, where the kernel has it."""
    names = [name for name in node.input[1:] if name]
    known = [array for name in names if (array := _floats(graph, name)) is not None]
    form = _upscaling(attributes(node), known[0]) if len(known) == len(names) else None
    if form is None:
        return False
    (s, (top, left), (fewer_rows, fewer_columns)), (weight, *biases) = form, known  # [I, O, kh, kw], [O]
    inputs, outputs, kh, kw = weight.shape
    rows, columns = _reach(kh, s, top, fewer_rows), _reach(kw, s, left, fewer_columns)
    phases = np.zeros((outputs, s, s, inputs, sum(rows) + 1, sum(columns) + 1), np.float32)
    for i, dy in np.ndindex(s, phases.shape[4]):
        for j, dx in np.ndindex(s, phases.shape[5]):
            y, x = i + top - s * (dy - rows[0]), j + left - s * (dx - columns[0])
            if 0 <= y < kh and 0 <= x < kw:
                phases[:, i, j, :, dy, dx] = weight[:, :, y, x].T
    whole = phases.reshape(outputs * s * s, inputs, *phases.shape[4:])
    read = [node.input[0], made.constant(f"{node.name}.phases", whole)]
    for bias in biases:
        read.append(made.constant(f"{node.name}.phases_bias", np.repeat(bias, s * s)))
    tensor, shuffle = made.names.tensor(f"{node.output[0]}.phases"), made.names.node(f"{node.name}.shuffle")
    pads = [rows[0], columns[0], rows[1] - fewer_rows, columns[1] - fewer_columns]
    made.put("Conv", read, tensor, node.name, pads=pads, kernel_shape=phases.shape[4:])
    made.put("DepthToSpace", [tensor], node.output[0], shuffle, blocksize=s, mode="CRD")
    return True


def _upscaling(a: dict[str, Any], weight: Array) -> tuple[int, tuple[int, int], tuple[int, int]] | None:
    """(stride, padding above and left, by how many rows and columns less than its input its output is a
    multiple of); None when it is none."""
    if weight.ndim != 4 or a.get("group", 1) != 1 or "output_shape" in a:
        return None
    if any(d != 1 for d in a.get("dilations", [])) or a.get("auto_pad", "NOTSET") != "NOTSET":
        return None
    (s, other), pads = a.get("strides", [1, 1]), a.get("pads", [0] * 4)
    extra = a.get("output_padding", [0, 0])
    missing = [pads[k] + pads[2 + k] + s - weight.shape[2 + k] - extra[k] for k in (0, 1)]
    if s != other or any(m % s for m in missing):
        return None
    return s, (pads[0], pads[1]), (missing[0] // s, missing[1] // s)


def _reach(kernel: int, stride: int, padding: int, fewer: int) -> tuple[int, int]:
    """How many input pixels before and behind its own an output pixel's block of `stride` depends on; behind
    at least the `fewer` that have no block."""
    before = max((kernel - 1 - padding) // stride, 0)
    behind = max((stride - 1 + padding) // stride, fewer, 0)
    return before, behind
