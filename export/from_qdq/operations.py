"""Convolutions, resizes and what moves values: one function per operation."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from qnas.export.from_qdq.graph import QdqGraph, attributes, constant, refused, written_name
from qnas.export.from_qdq.values import (
    ALL,
    MOST_CHANNELS,
    Derived,
    Integers,
    Levels,
    Pending,
    Value,
    once,
    same_grid,
)
from qnas.export.integers import bilinear_weights
from qnas.export.to_onnx.interpolation import interpolation_nodes
from qnas.export.to_onnx.nodes import GraphNodes
from qnas.integer_network import (
    INT32_MAX,
    Concat,
    Conv,
    DepthToSpace,
    IntegerNode,
    Interpolate,
    MaxPool,
    Pad,
    multiplier,
)
from qnas.interpolation import STEPS
from qnas.quantization import QuantParams

LARGEST_MULTIPLIER = 1e27  # times an int32 it is still a float32
WIDEST_EDGE = 16

# Convolutions --------------------------------------------------------------------------------------------


def convolution(graph: QdqGraph, node: NodeProto) -> Value:
    """The integers of a Conv, without its output grid."""
    read = graph.on_grid(node, 0)
    channels, scale = graph.draft.nodes[read].channels, graph.draft.nodes[read].output.scale
    weight, weight_scale, bits = _weights(graph, node)
    a = attributes(node)
    groups = int(a.get("group", 1))
    if groups < 1 or weight.shape[1] * groups != channels or len(weight) % groups:
        raise refused(
            node, f"has weights {weight.shape} in {groups} groups for {channels} channels: export it again"
        )
    bias = _bias(graph, node, weight_scale * scale)
    if tuple(a.get("kernel_shape", weight.shape[2:])) != weight.shape[2:]:
        raise refused(node, f"has another kernel than its weights {weight.shape}: export it again")
    stride = _one(node, a.get("strides", [1, 1]), "stride")
    padding = _padding(node, a, weight.shape[2:], stride)

    def write(grid: QuantParams) -> str:
        conv = Conv(
            written_name(node), (read,), len(weight), grid, weight, weight_scale, bias, bits, stride, padding,
            groups,
        )  # fmt: skip
        if not (multiplier(scale, conv) < LARGEST_MULTIPLIER).all():
            raise refused(node, "has scales out of all proportion: calibrate it with real images")
        return graph.draft.put(conv)

    return Pending(once(write))


def _weights(graph: QdqGraph, node: NodeProto) -> tuple[NDArray[np.int8], NDArray[np.float32], int]:
    """(int8 [O, I / groups, kh, kw], scale [O], bits), shifted to the zero point 0."""
    steps = graph.constant(node, 1, "weight").steps
    if steps is None:
        raise refused(node, f"has float weights {node.input[1]!r}: quantize them")
    q = steps.q
    if q.ndim != 4 or not q.size:
        raise refused(node, f"has weights {q.shape}: two-dimensional convolutions can be read")
    if steps.scale.ndim and steps.axis not in (0, -4):
        raise refused(
            node, f"has weight scales along axis {steps.axis}: quantize per output channel (axis 0)"
        )
    if q.min() < -128 or q.max() > 127:
        raise refused(
            node, f"has weights {q.min()} .. {q.max()} steps from zero: quantize them symmetrically, in int8"
        )
    bits = steps.bits if q.min() >= -(1 << steps.bits - 1) and q.max() < 1 << steps.bits - 1 else 8
    scale = np.broadcast_to(steps.scale, len(q)).astype(np.float32)
    return q.astype(np.int8), scale, bits


def _bias(graph: QdqGraph, node: NodeProto, step: NDArray[np.float32]) -> NDArray[np.int32]:
    """int32 [O] in steps s_x * s_w; a float one, or one of another scale, is rounded to them.

    That is what integer runtimes do with it.
    """
    if graph.optional(node, 2) is None:
        return np.zeros(len(step), np.int32)
    bias = graph.constant(node, 2, "bias")
    if bias.array.shape != step.shape:
        raise refused(node, f"has a bias {bias.array.shape} for {len(step)} channels: export it again")
    if bias.steps is not None and np.allclose(bias.steps.scale, step, rtol=1e-5, atol=0):
        whole = bias.steps.q.astype(np.float64)
    else:
        whole = np.rint(bias.array.astype(np.float64) / step.astype(np.float64))
    if not (np.abs(whole) <= INT32_MAX).all():
        raise refused(node, "has a bias beyond 32 bits in steps of its input and weight: calibrate it again")
    return whole.astype(np.int32)


def _padding(node: NodeProto, a: dict[str, Any], kernel: tuple[int, ...], stride: int) -> tuple[int, int]:
    """(rows, columns) on each side."""
    if any(d != 1 for d in a.get("dilations", [])):
        raise refused(node, "has dilations: the integer network has none")
    mode = a.get("auto_pad", "NOTSET")
    if mode.startswith("SAME") and stride == 1 and all(k % 2 for k in kernel):
        return kernel[0] // 2, kernel[1] // 2
    pads = [0, 0, 0, 0] if mode == "VALID" else a.get("pads", [0, 0, 0, 0])
    if mode.startswith("SAME") or len(pads) != 4 or pads[:2] != pads[2:]:
        raise refused(node, f"has the padding {mode if mode != 'NOTSET' else pads}: pad both sides alike")
    if not all(0 <= p <= k for p, k in zip(pads, kernel, strict=False)):
        raise refused(node, f"has the padding {pads}, wider than its kernel: pad less")
    return pads[0], pads[1]


def _one(node: NodeProto, sizes: list[int], what: str) -> int:
    """A size that is the same along both axes."""
    if len(sizes) != 2 or sizes[0] != sizes[1] or not 1 <= sizes[0] <= 1024:
        raise refused(node, f"has the {what} {sizes}: it has to be the same along both axes")
    return int(sizes[0])


# Moving values -------------------------------------------------------------------------------------------


def depth_to_space(graph: QdqGraph, node: NodeProto) -> Value:
    """CRD as it is; DCR gets a 1x1 convolution that puts the channels in order, which may join another."""
    a, x = attributes(node), graph.tensor(node)
    f = int(a.get("blocksize", 0))
    crd = a.get("mode", "DCR") == "CRD"

    def make(read: str) -> IntegerNode:
        source = graph.draft.nodes[read]
        if f < 1 or source.channels % f**2:
            raise refused(node, f"has {source.channels} channels for a factor of {f}: export it again")
        c = source.channels // f**2
        if not crd:
            rows = np.arange(source.channels).reshape(f**2, c).T.reshape(-1)
            read = graph.draft.put(_permutation(f"{written_name(node)}.crd", source, rows))
            graph.permutations[read] = rows
        return DepthToSpace(written_name(node), (read,), c, source.output, f)

    return graph.draft.moved(x, written_name(node), make)


def _permutation(name: str, source: IntegerNode, rows: NDArray[np.int64]) -> Conv:
    """The convolution whose output channel o is channel rows[o]: weight 1 of scale 1."""
    c = source.channels
    weight = np.eye(c, dtype=np.int8)[rows].reshape(c, c, 1, 1)
    zero = np.zeros(c, np.int32)
    return Conv(name, (source.name,), c, source.output, weight, np.ones(c, np.float32), zero, bits=8)


def max_pool(graph: QdqGraph, node: NodeProto) -> Value:
    """Of bytes whose values ascend."""
    a, x = attributes(node), graph.tensor(node)
    plain = not any(a.get("pads", [0])) and a.get("auto_pad", "NOTSET") in ("NOTSET", "VALID")
    if not plain or a.get("ceil_mode") or any(d != 1 for d in a.get("dilations", [])):
        raise refused(node, "has padding, dilations or a rounded-up size: the integer network pools without")
    kernel, stride = a.get("kernel_shape", []), _one(node, a.get("strides", [1, 1]), "stride")
    if len(kernel) != 2 or not all(1 <= k <= 1024 for k in kernel):
        raise refused(node, f"has the kernel {kernel}: two sizes are needed")
    if isinstance(x, Levels) and (np.diff(x.values[graph.draft.reach(x.node)]) < 0).any():
        graph.unquantized(node, 0)

    def make(read: str) -> IntegerNode:
        source = graph.draft.nodes[read]
        return MaxPool(
            written_name(node), (read,), source.channels, source.output, (kernel[0], kernel[1]), stride
        )

    return graph.draft.moved(x, written_name(node), make)


def pad(graph: QdqGraph, node: NodeProto) -> Value:
    """The border repeated on all sides alike, or channels of the value zero behind the last."""
    a, x = attributes(node), graph.tensor(node)
    amounts = graph.whole(node, 1, "padding") if len(node.input) > 1 else a.get("pads", [])
    mode = a.get("mode", "constant")
    edge, more = (amounts[2], amounts[5]) if len(amounts) == 8 else (0, 0)
    repeated = mode == "edge" and amounts == [0, 0, edge, edge] * 2 and 0 < edge <= WIDEST_EDGE
    zeros = mode == "constant" and amounts == [0] * 5 + [more, 0, 0] and 0 < more <= MOST_CHANNELS
    value = graph.number(node, 2, "value") if graph.optional(node, 2) is not None else 0.0
    if graph.optional(node, 3) is not None or (not repeated and not zeros):
        raise refused(
            node, f"of {amounts} in mode {mode} is not an operation of the integer network: pad by Conv"
        )

    def make(read: str) -> IntegerNode:
        source = graph.draft.nodes[read]
        if repeated:
            return Pad(written_name(node), (read,), source.channels, source.output, edge)
        grid, zero = source.output, source.output.zero_point
        wanted = zero - x.offset if isinstance(x, Integers) else 0.0
        if isinstance(x, Pending) or value != wanted or (isinstance(x, Levels) and x.values[zero] != 0):
            raise refused(node, f"adds channels of {value}: only zeros, behind a quantizer, can be read")
        grid = replace(grid, low=min(grid.low, zero), high=max(grid.high, zero))
        return Pad(written_name(node), (read,), source.channels + more, grid)

    return graph.draft.moved(x, written_name(node), make)


def concat(graph: QdqGraph, node: NodeProto) -> Value:
    """Parts that are not on the grid of the result become tables onto it."""
    parts = [graph.tensor(node, index) for index in range(len(node.input))]
    if attributes(node).get("axis") not in (1, -3):
        raise refused(node, "joins another axis than the channels: the integer network joins these (axis 1)")
    draft = graph.draft

    def join(names: list[str]) -> str:
        grids = [draft.nodes[name].output for name in names]
        channels = sum(draft.nodes[name].channels for name in names)
        low, high = min(g.low for g in grids), max(g.high for g in grids)
        return draft.put(
            Concat(written_name(node), tuple(names), channels, replace(grids[0], low=low, high=high))
        )

    integers = [p for p in parts if isinstance(p, Integers)]
    if len(integers) == len(parts):
        return _joined_integers(graph, node, integers, join)
    floats = [p for p in parts if not isinstance(p, Integers)]
    if len(floats) != len(parts):
        raise refused(node, "joins float and integer tensors: dequantize all of them")
    grids = [p.grid if isinstance(p, Levels) else None for p in floats]
    if grids[0] is not None and all(g is not None and same_grid(g, grids[0]) for g in grids):
        name = join([graph.on_grid(node, index) for index in range(len(parts))])
        return draft.levels(name)

    def write(grid: QuantParams) -> str:
        tables = [f"{written_name(node)}.{index}" for index in range(len(parts))]
        return join([draft.on_grid(p, grid, table) for p, table in zip(floats, tables, strict=True)])

    return Pending(once(write))


def _joined_integers(
    graph: QdqGraph, node: NodeProto, parts: list[Integers], join: Callable[[list[str]], str]
) -> Integers:
    """Bytes behind bytes, whatever values they stand for: the grid of the first is that of all."""
    draft, offset = graph.draft, max(p.offset for p in parts)
    names = [p.write(p.grid) for p in parts]
    first = draft.nodes[names[0]].output
    zero_point = first.zero_point + offset - parts[0].offset
    shifted = []
    for name, part in zip(names, parts, strict=True):
        own, by = draft.nodes[name].output, offset - part.offset
        grid = replace(own, scale=first.scale, zero_point=zero_point, low=own.low + by, high=own.high + by)
        shifted.append(draft.table(name, np.clip(ALL + by, 0, 255), grid, f"{name}.shifted"))
    return draft.integers(join(shifted), offset, parts[0].kind)


# Resizing ------------------------------------------------------------------------------------------------


def resize(graph: QdqGraph, node: NodeProto) -> Value:
    """Bilinear upscaling by a whole factor: repeated edges, a 3x3 convolution to the phases, a shuffle."""
    a = attributes(node)
    form = (a.get("mode", "nearest"), a.get("coordinate_transformation_mode", "half_pixel"))
    if graph.opset < 11 or form not in (("linear", "half_pixel"), ("linear", "pytorch_half_pixel")):
        what = f"in mode {', '.join(form)} is not an operation of the integer network"
        raise refused(node, f"{what}: use linear, half_pixel or a pixel shuffle")
    scales = (
        graph.constant(node, 2, "scales").array.reshape(-1).tolist()
        if graph.optional(node, 2) is not None
        else []
    )
    f = int(scales[3]) if len(scales) == 4 and 2 <= scales[3] <= 6 else 0
    if scales != [1, 1, f, f] or len(node.input) > 3 or a.get("antialias") or a.get("axes"):
        raise refused(node, f"has the scales {scales}: upscaling by a constant 2 .. 6 can be read")
    read = graph.on_grid(node, 0)
    source, name = graph.draft.nodes[read], written_name(node)
    c = source.channels
    if c * f**2 > MOST_CHANNELS:
        raise refused(node, f"upscales {c} channels: that is more than an integer convolution can do at once")
    weight, scale = bilinear_weights(f, c), np.full(c * f**2, 1 / (2 * f) ** 2, np.float32)

    def write(grid: QuantParams) -> str:
        edged = graph.draft.put(Pad(f"{name}.edged", (read,), c, source.output, edge=1))
        zero = np.zeros(c * f**2, np.int32)
        phases = Conv(f"{name}.phases", (edged,), c * f**2, grid, weight, scale, zero, bits=8)
        return graph.draft.put(DepthToSpace(name, (graph.draft.put(phases),), c, grid, f))

    return Pending(once(write))


def matmul(graph: QdqGraph, node: NodeProto) -> Value:
    """Only the product with the interpolation matrix of `interpolation_nodes`."""
    weights = [graph.value(node, index) for index in (0, 1)]
    forms: tuple[tuple[int, Literal[2, 3]], ...] = (
        (1, 2),
        (0, 3),
    )  # where the tensor stands, what is resized
    for index, axis in forms:
        matrix = weights[1 - index]
        if isinstance(matrix, Derived):
            read = graph.on_grid(node, index)
            sizes = graph.measured[matrix.expression]
            for like in sorted(sizes - {read}) or [read]:
                if matrix == _interpolation(graph, read, like, axis):
                    channels = graph.draft.nodes[read].channels
                    return Pending(once(partial(_put_interpolate, graph, node, (read, like), channels, axis)))
    raise refused(node, "is only an operation of the integer network as qnas interpolates: use a 1x1 Conv")


def _put_interpolate(
    graph: QdqGraph,
    node: NodeProto,
    inputs: tuple[str, ...],
    channels: int,
    axis: Literal[2, 3],
    grid: QuantParams,
) -> str:
    return graph.draft.put(Interpolate(written_name(node), inputs, channels, grid, axis))


def _interpolation(graph: QdqGraph, read: str, like: str, axis: Literal[2, 3]) -> Value:
    """The expression that `onnx_writer` computes the weights with."""
    form = GraphNodes()
    weights = form.node(
        "Cast", [interpolation_nodes(form, "t", "source", "like", axis)], "u", to=TensorProto.UINT8
    )
    if axis == 3:
        weights = form.node("Transpose", [weights], "columns", perm=[1, 0])
    scale, zero = form.constant("scale", np.float32(1 / STEPS)), form.constant("zero", np.uint8(0))
    form.node("DequantizeLinear", [weights, scale, zero], "weights")
    values: dict[str, Value] = {name: constant(tensor) for name, tensor in form.initializers.items()}
    values |= {"source": graph.draft.levels(read), "like": graph.draft.levels(like)}
    for each in form.nodes:
        values[each.output[0]] = graph.derived(each, [values[name] for name in each.input])
    return values["weights"]
