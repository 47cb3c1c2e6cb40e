"""What moves values: one function per operation."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from onnx import NodeProto

from qnas.export.from_qdq.graph import QdqGraph, refused, written_name
from qnas.export.from_qdq.values import (
    MOST_CHANNELS,
    Integers,
    Levels,
    Pending,
    Value,
    once,
    same_grid,
)
from qnas.export.from_qdq.windows import window
from qnas.integer.convolution import unshuffled
from qnas.integer.nodes import Concat, DepthToSpace, MaxPool, Mean
from qnas.onnx.graph import attributes
from qnas.quantization.quantizers import QuantParams


def depth_to_space(graph: QdqGraph, node: NodeProto) -> Value:
    """CRD as it is; DCR gets a 1x1 convolution that puts the channels in order, which may join another."""
    a, x = attributes(node), graph.tensor(node)
    f = int(a.get("blocksize", 0))
    crd = a.get("mode", "DCR") == "CRD"

    def write(read: str) -> str:
        source = graph.draft.nodes[read]
        if f < 1 or source.channels % f**2:
            raise refused(node, f"has {source.channels} channels for a factor of {f}: export it again")
        c = source.channels // f**2
        if not crd:
            rows = np.arange(source.channels).reshape(f**2, c).T.reshape(-1)
            read = graph.pick(f"{written_name(node)}.crd", read, rows)
        return graph.draft.put(DepthToSpace(written_name(node), (read,), c, source.output, f))

    return graph.draft.moved(x, written_name(node), write)


def channels_picked(graph: QdqGraph, node: NodeProto) -> Value:
    """Some channels in another order, or more than once: a 1x1 convolution, which may join another."""
    rows = np.array(graph.whole(node, 1, "channels"), np.int64)
    axis = attributes(node).get("axis", 0)
    if axis not in (1, -3) or not 0 < rows.size <= MOST_CHANNELS:
        picks = f"picks {rows.size} places along axis {axis}"
        raise refused(node, f"{picks}: the integer network picks 1 to {MOST_CHANNELS} channels (axis 1)")

    def write(read: str) -> str:
        c = graph.draft.nodes[read].channels
        if not ((-c <= rows) & (rows < c)).all():
            raise refused(node, f"picks channel {rows.min()} to {rows.max()} of {c}: export the model again")
        return graph.pick(written_name(node), read, rows % c)

    return graph.draft.moved(graph.tensor(node), written_name(node), write)


def max_pool(graph: QdqGraph, node: NodeProto) -> Value:
    """Pool bytes whose values ascend."""
    a, x = attributes(node), graph.tensor(node)
    w = window(node, a, tuple(a.get("kernel_shape", ())))
    padding, far = w.padding, (w.padding[2] + w.stride[0] - 1, w.padding[3] + w.stride[1] - 1)
    if a.get("ceil_mode"):  # the last windows reach beyond the padding
        padding = (*padding[:2], *far)
    if w.dilation != (1, 1) or any(p >= k for p, k in zip(padding, w.kernel * 2, strict=True)):
        raise refused(node, "has dilations, or windows outside the image: the integer network has none")
    if isinstance(x, Levels) and (np.diff(x.values[graph.draft.reach(x.node)]) < 0).any():
        graph.unquantized(node, 0)

    def write(read: str) -> str:
        source = graph.draft.nodes[read]
        pool = MaxPool(
            written_name(node), (read,), source.channels, source.output, w.kernel, w.stride, padding
        )
        return graph.draft.put(pool)

    return graph.draft.moved(x, written_name(node), write)


def global_mean(graph: QdqGraph, node: NodeProto) -> Value:
    """The mean over height and width, in steps of the tensor that is read."""
    x, a = graph.tensor(node), attributes(node)
    if node.op_type == "ReduceMean":
        axes = graph.whole(node, 1, "axes") if len(node.input) > 1 else a.get("axes", [])
        if sorted(axis % 4 for axis in axes) != [2, 3] or not a.get("keepdims", 1):
            raise refused(
                node, f"over the axes {axes} is not an operation of the integer network: it has a mean over "
                "height and width (axes 2 and 3) that keeps its axes",
            )  # fmt: skip
    if not isinstance(x, Levels) or x.grid is None:
        x = graph.draft.levels(graph.on_grid(node, 0))

    def write(read: str) -> str:
        source = graph.draft.nodes[read]
        return graph.draft.put(Mean(written_name(node), (read,), source.channels, source.output))

    return graph.draft.moved(x, written_name(node), write)


def space_to_depth(graph: QdqGraph, node: NodeProto) -> Value:
    """The convolution that takes one value each, and the order of ONNX: pixels of a block one by one."""
    f = int(attributes(node).get("blocksize", 0))

    def write(read: str) -> str:
        source, name = graph.draft.nodes[read], written_name(node)
        if not 1 <= f <= MOST_CHANNELS or source.channels * f**2 > MOST_CHANNELS:
            raise refused(node, f"makes {source.channels} channels {f * f} times as many: export it again")
        deep = graph.draft.put(unshuffled(f"{name}.blocks", source, f))
        rows = np.arange(source.channels * f**2).reshape(source.channels, f**2).T.reshape(-1)
        return graph.pick(name, deep, rows)

    return graph.draft.moved(graph.tensor(node), written_name(node), write)


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
        shifted.append(draft.table(name, np.clip(own.every + by, 0, own.top), grid, f"{name}.shifted"))
    return draft.integers(join(shifted), offset, parts[0].kind)
