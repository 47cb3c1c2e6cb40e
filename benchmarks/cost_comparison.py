"""Our counts against onnx-tool's MACs and qonnx's BitOps, to the unit; writes the tables of docs/cost.md.

In an environment of its own that has qnas, `pip install onnx-tool qonnx torch` and then
python benchmarks/cost_comparison.py
"""

import contextlib
import io
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from math import prod
from pathlib import Path

import click
import numpy as np
import onnx
import onnx_tool
import onnxsim
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.transformation.general import GiveUniqueParameterTensors
from qonnx.transformation.infer_shapes import InferShapes
from qonnx.transformation.qcdq_to_qonnx import QCDQToQuant
from qonnx.util.inference_cost import inference_cost

from qnas.cost.file_cost import NodeCost
from qnas.export.model import build_float32, build_qdq
from qnas.export.targets import TARGETS
from qnas.onnx.cost import model_cost
from qnas.testing.random_networks import random_found
from qnas.testing.text_models import text_model
from qnas.torch.checkpoint import Found, load_found

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "cost.md"
BEGIN, END = "<!-- tables: begin -->\n", "<!-- tables: end -->\n"
SIZE = (64, 64)
EVERY = ("float32", "onnxruntime", "openvino")
NETWORKS = {  # the trained examples, and named architectures with random weights
    "espcn-w4": EVERY, "espcn-w8": EVERY, "basic-w48": EVERY, "basic-w4": EVERY, "srresnet-w8": EVERY,
    "rfdn-w4": ("float32", "openvino"),  # qonnx takes minutes for each
}  # fmt: skip
FORMS: dict[str, Callable[[Found], ModelProto]] = {
    "float32": build_float32,
    "onnxruntime": lambda found: build_qdq(found, TARGETS["onnxruntime"]),
    "openvino": lambda found: build_qdq(found, TARGETS["openvino"]),
}
# One node each: its text, and the multiply-adds counted by hand.
NODES = {
    "Conv, 4 groups": ("float[1, 8, 6, 6] x", "float[12, 2, 3, 3] k",
                       "Conv <group = 4, kernel_shape = [3, 3]>", "12·4·4 · 2·3·3", 12 * 16 * 2 * 9),
    "Conv, stride 2": ("float[1, 4, 7, 7] x", "float[5, 4, 3, 3] k",
                       "Conv <strides = [2, 2], kernel_shape = [3, 3]>", "5·3·3 · 4·3·3", 5 * 9 * 36),
    "Conv, dilated": ("float[1, 4, 7, 7] x", "float[5, 4, 3, 3] k",
                      "Conv <dilations = [2, 2], kernel_shape = [3, 3]>", "5·3·3 · 4·3·3", 5 * 9 * 36),
    "Gemm, A transposed": ("float[5, 3] x", "float[5, 7] k", "Gemm <transA = 1>", "3·7 · 5", 3 * 7 * 5),
    "MatMul, batch 2": ("float[2, 3, 5] x", "float[5, 7] k", "MatMul", "2·3·7 · 5", 2 * 3 * 7 * 5),
    "ConvTranspose, stride 2": ("float[1, 4, 5, 5] x", "float[4, 6, 2, 2] k",
                                "ConvTranspose <strides = [2, 2], kernel_shape = [2, 2]>",
                                "4·5·5 · 6·2·2", 100 * 24),
}  # fmt: skip


@dataclass(frozen=True)
class Compared:
    """One model: our convolutions, and those of each tool, in its order; None where it cannot read it."""

    name: str
    ours: tuple[NodeCost, ...]
    onnx_tool: list[int] | None  # MACs
    qonnx: list[tuple[int, int]] | None  # MACs, BitOps


def compare(name: str, model: ModelProto) -> Compared:
    """Count `model` at `SIZE`; what qonnx reads is the same network in its own form, which we count too."""
    fixed = with_fixed_input(model)
    rewritten = in_qcdq_form(fixed)
    ours = convolutions(model_cost(fixed).layers)
    again = convolutions(model_cost(rewritten).layers)
    if [(c.macs, c.bitops) for c in ours] != [(c.macs, c.bitops) for c in again]:
        raise SystemExit(f"{name}: the rewritten model costs something else")
    return Compared(name, ours, onnx_tool_macs(fixed), qonnx_costs(rewritten))


def convolutions(rows: Sequence[NodeCost]) -> tuple[NodeCost, ...]:
    """The rows that all tools have."""
    return tuple(row for row in rows if row.op == "Conv")


def with_fixed_input(model: ModelProto) -> ModelProto:
    """A copy whose input is one image of `SIZE`."""
    copy = ModelProto()
    copy.CopyFrom(model)
    for dim, size in zip(copy.graph.input[0].type.tensor_type.shape.dim, (1, 3, *SIZE), strict=True):
        dim.dim_value = size
    if any(node.op_type == "Range" for node in copy.graph.node):
        copy, _ = onnxsim.simplify(copy)  # the tools do not follow what graphs compute from shapes
    return copy


def onnx_tool_macs(model: ModelProto) -> list[int] | None:
    """MACs of the convolutions, without the one per output that onnx-tool adds for a bias."""
    value = model.graph.input[0]
    kind = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    try:
        graph = onnx_tool.Model(model).graph
        graph.shape_infer({value.name: np.zeros(shape, kind)})
        graph.profile()
    except Exception as error:  # whatever it meets in a node that it does not know
        print(f"onnx-tool: {type(error).__name__}: {error}")
        return None
    found = []
    for node in (
        n for n in graph.nodemap.values() if n.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul")
    ):
        bias = prod(graph.tensormap[node.output[0]].get_shape()) if len(node.input) > 2 else 0
        found.append((node.op_type, int(node.macs[0]) - bias))
    if any(op == "Conv" for op, _ in found):
        return [macs for op, macs in found if op == "Conv"]
    return [macs for _, macs in found]


def qonnx_costs(model: ModelProto) -> list[tuple[int, int]] | None:
    """MACs and BitOps of the convolutions, zero weights included."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wrapper = ModelWrapper(model).transform(InferShapes()).transform(GiveUniqueParameterTensors())
            costs = inference_cost(
                wrapper.transform(QCDQToQuant()), discount_sparsity=False, cost_breakdown=True
            )
    except Exception as error:  # its transformations assert, and index what is not there
        print(f"qonnx: {type(error).__name__}: {error}")
        return None
    rows = costs["node_cost"].items()
    chosen = [row for name, row in rows if name.startswith("Conv_")] or [row for _, row in rows]
    return [(int(row["total_macs"]), int(row["total_bops"])) for row in chosen]


def in_qcdq_form(model: ModelProto) -> ModelProto:
    """The same network as qonnx reads it: other values, the same counts.

    Weights: float32 -> QuantizeLinear -> Clip(-8, 7) of 4-bit ones -> DequantizeLinear, because qonnx knows
    no INT4 and no scales per channel of stored integers. Biases: float32, because it asks them for a zero
    point. Zero points: 0, because it takes activations that have another for float32.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    readers = {name: node for node in graph.node for name in node.input}
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and len(node.input) > 2:
            zero = stored[node.input[2]]
            shape = numpy_helper.to_array(zero).shape
            zero.CopyFrom(helper.make_tensor(zero.name, zero.data_type, shape, [0] * prod(shape)))
    nodes: list[NodeProto] = []
    for node in graph.node:
        constant = stored.get(node.input[0]) if node.input else None
        kind = constant.data_type if constant is not None else TensorProto.UNDEFINED
        if node.op_type == "DequantizeLinear" and kind == TensorProto.INT32:
            values = numpy_helper.to_array(constant) * numpy_helper.to_array(stored[node.input[1]])
            graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), node.output[0]))
        elif node.op_type == "Cast" and kind == TensorProto.INT4:
            nodes += quantized(graph, constant, readers[node.output[0]], stored, node.output[0])
        elif node.op_type == "DequantizeLinear" and kind == TensorProto.INT8:
            name = f"{node.input[0]}.quantized"
            nodes += quantized(graph, constant, node, stored, name)
            node.input[0] = name
            nodes.append(node)
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(copy)
    return copy


def quantized(
    graph: onnx.GraphProto,
    constant: TensorProto,
    reader: NodeProto,
    stored: dict[str, TensorProto],
    name: str,
) -> list[NodeProto]:
    """Nodes that make tensor `name`, the integers of `constant`, from floats; `reader` dequantizes them."""
    values = numpy_helper.to_array(constant).astype(np.float32)
    scale = numpy_helper.to_array(stored[reader.input[1]])
    floats = values * scale.reshape(-1, *[1] * (values.ndim - 1))
    graph.initializer.append(numpy_helper.from_array(floats.astype(np.float32), f"{name}.float"))
    narrow = constant.data_type == TensorProto.INT4
    made = f"{name}.wide" if narrow else name
    nodes = [helper.make_node("QuantizeLinear", [f"{name}.float", *reader.input[1:3]], [made], axis=0)]
    if narrow:
        for end in (-8, 7):
            graph.initializer.append(numpy_helper.from_array(np.asarray(end, np.int8), f"{name}.{end}"))
        nodes.append(helper.make_node("Clip", [made, f"{name}.-8", f"{name}.7"], [name]))
    return nodes


def network_rows() -> list[str]:
    """One row a network and form."""
    lines = [
        "| network | form | convolutions | MACs | equal in onnx-tool | BitOps | equal in qonnx |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, forms in NETWORKS.items():
        path = ROOT / "examples" / name / "found.pt"
        found = load_found(path) if path.exists() else random_found(name)
        for form in forms:
            each = compare(f"{name} {form}", FORMS[form](found))
            macs, bitops = (sum(getattr(row, n) for row in each.ours) for n in ("macs", "bitops"))
            same_macs = equal([row.macs for row in each.ours], each.onnx_tool)
            same_bitops = equal([(row.macs, row.bitops) for row in each.ours], each.qonnx)
            cells = name, form, len(each.ours), f"{macs:,}", same_macs, f"{bitops:,}", same_bitops
            lines.append("| " + " | ".join(map(str, cells)) + " |")
            print(lines[-1], flush=True)
    return lines


def equal(ours: Sequence[object], theirs: Sequence[object] | None) -> str:
    """ "14 of 14": how many convolutions have an equal in `theirs`; qonnx renames and reorders them."""
    if theirs is None:
        return "not read"
    return f"{(Counter(ours) & Counter(theirs)).total()} of {max(len(ours), len(theirs))}"


def node_rows() -> list[str]:
    """One row an operation, with the count by hand."""
    lines = ["| operation | by hand | MACs | qnas | onnx-tool | qonnx |", "|---|---|---|---|---|---|"]
    for name, (data, weight, call, hand, macs) in NODES.items():
        model = text_model(f"net ({data}) => (float[] y) <{weight}> {{ y = {call} (x, k) }}")
        (ours,) = model_cost(model).layers
        theirs = onnx_tool_macs(model)
        other = qonnx_costs(model)
        cells = theirs[0] if theirs else "not read", other[0][0] if other else "not counted"
        lines.append(f"| {name} | {hand} | {macs} | {ours.macs} | {cells[0]} | {cells[1]} |")
    return lines


@click.command()
@click.option("--write/--print", default=True, help="Replace the tables of docs/cost.md, or print them only.")
def main(write: bool) -> None:
    """Compare the counts of three tools."""
    torch.set_num_threads(1)
    tools = f"onnx-tool {version('onnx-tool')}, qonnx {version('qonnx')}, inputs of {SIZE[0]}x{SIZE[1]}:"
    text = "\n".join([tools, "", *network_rows(), "", *node_rows(), ""])
    print(text)
    if write:
        before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}{text}{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
