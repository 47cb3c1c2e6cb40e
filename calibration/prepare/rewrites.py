"""Float network -> the same function in operations that integer kernels have. Tensors keep their names.

1. A transposed convolution whose output is a whole multiple of its input in size is a convolution to the
   phases of each pixel, and a DepthToSpace: onnxruntime has no integer kernel for it as it is.
2. A bilinear Resize to another tensor's size is two products (`bilinear.py`).
3. PRelu with one slope is a LeakyRelu. x - c is x + (-c), x / c is x * (1 / c).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from qnas.calibration.prepare.bilinear import bilinear_as_products
from qnas.calibration.prepare.float_model import FloatModel

Array = NDArray[np.float32]
Constants = dict[str, Array]


def rewritten(network: FloatModel) -> FloatModel:
    """`network` with all of these rewrites."""
    network = bilinear_as_products(network)  # Case 2
    model = ModelProto()
    model.CopyFrom(network.model)
    constants = _constants(model.graph)
    stored = dict(constants)
    nodes = [new for node in model.graph.node for new in _rewritten(node, constants)]
    graph = model.graph
    del graph.node[:]
    graph.node.extend(nodes)
    new = [numpy_helper.from_array(v, k) for k, v in constants.items() if stored.get(k) is not v]
    changed = {tensor.name for tensor in new}
    kept = [tensor for tensor in graph.initializer if tensor.name not in changed]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *new])
    return replace(network, model=model)


def _constants(graph: GraphProto) -> Constants:
    """Float32 constants by name."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    tensors |= {
        node.output[0]: node.attribute[0].t
        for node in graph.node
        if node.op_type == "Constant" and node.attribute[0].name == "value"
    }
    arrays = {name: numpy_helper.to_array(tensor) for name, tensor in tensors.items()}
    return {name: array for name, array in arrays.items() if array.dtype == np.float32}


def _rewritten(node: NodeProto, constants: Constants) -> list[NodeProto]:
    match node.op_type:
        case "ConvTranspose":
            return _as_phases(node, constants)
        case "PRelu" if node.input[1] in constants and np.ptp(constants[node.input[1]]) == 0:
            alpha = float(constants[node.input[1]].reshape(-1)[0])
            return [helper.make_node("LeakyRelu", node.input[:1], node.output, node.name, alpha=alpha)]
        case "Sub" if node.input[1] in constants:
            return [_with(node, "Add", constants, lambda c: -c)]
        case "Div" if node.input[1] in constants and (constants[node.input[1]] != 0).all():
            return [_with(node, "Mul", constants, lambda c: np.float32(1) / c)]
        case _:
            return [node]


def _with(node: NodeProto, op: str, constants: Constants, of: Callable[[Array], Array]) -> NodeProto:
    """The same node with another operation and constant."""
    name = f"{node.name}.constant"
    constants[name] = np.asarray(of(constants[node.input[1]]), np.float32)
    return helper.make_node(op, [node.input[0], name], node.output, node.name)


# Case 1 ------------------------------------------------------------------------------------------------


def _as_phases(node: NodeProto, constants: Constants) -> list[NodeProto]:
    """Output pixel s y + i takes input pixel y + d through tap i + p - s d, where the kernel has it."""
    a = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    form = _upscaling(node, a, constants)
    if form is None:
        return [node]
    s, top, left = form
    weight = constants[node.input[1]]  # [I, O, kh, kw]
    inputs, outputs, kh, kw = weight.shape
    rows, columns = _reach(kh, s, top), _reach(kw, s, left)
    phases = np.zeros((outputs, s, s, inputs, sum(rows) + 1, sum(columns) + 1), np.float32)
    for i, dy in np.ndindex(s, phases.shape[4]):
        for j, dx in np.ndindex(s, phases.shape[5]):
            y, x = i + top - s * (dy - rows[0]), j + left - s * (dx - columns[0])
            if 0 <= y < kh and 0 <= x < kw:
                phases[:, i, j, :, dy, dx] = weight[:, :, y, x].T
    name, tensor = f"{node.name}.phases", f"{node.output[0]}.phases"
    constants[name] = phases.reshape(outputs * s * s, inputs, *phases.shape[4:])
    names = [node.input[0], name]
    if len(node.input) > 2 and node.input[2]:
        names.append(f"{node.name}.phases_bias")
        constants[names[2]] = np.repeat(constants[node.input[2]], s * s)
    pads = [rows[0], columns[0], rows[1], columns[1]]
    return [
        helper.make_node("Conv", names, [tensor], node.name, pads=pads, kernel_shape=phases.shape[4:]),
        helper.make_node(
            "DepthToSpace", [tensor], node.output, f"{node.name}.shuffle", blocksize=s, mode="CRD"
        ),
    ]


def _upscaling(node: NodeProto, a: dict[str, Any], constants: Constants) -> tuple[int, int, int] | None:
    """(stride, padding above, padding left) when the output is stride times the input in size."""
    weight = constants.get(node.input[1])
    known = all(name in constants for name in node.input[1:] if name)
    if weight is None or not known or weight.ndim != 4 or a.get("group", 1) != 1 or "output_shape" in a:
        return None
    if any(d != 1 for d in a.get("dilations", [])) or a.get("auto_pad", b"NOTSET") != b"NOTSET":
        return None
    strides, pads = a.get("strides", [1, 1]), a.get("pads", [0] * 4)
    extra = a.get("output_padding", [0, 0])
    sizes = {(weight.shape[2 + k] + extra[k] - pads[k] - pads[2 + k], strides[k]) for k in (0, 1)}
    return (strides[0], pads[0], pads[1]) if sizes == {(strides[0], strides[0])} else None


def _reach(kernel: int, stride: int, padding: int) -> tuple[int, int]:
    """How many input pixels before and behind its own an output pixel's block of `stride` depends on."""
    before = max((kernel - 1 - padding) // stride, 0)
    behind = max((stride - 1 + padding) // stride, 0)
    return before, behind
