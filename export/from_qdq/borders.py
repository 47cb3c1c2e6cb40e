"""What adds rows and columns to an image, or takes them off: by constants, or by what sizes decide."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Literal

import numpy as np
from onnx import NodeProto

from qnas.export.from_qdq.graph import QdqGraph, refused, written_name
from qnas.export.from_qdq.values import MOST_CHANNELS, Derived, Integers, Levels, Pending, Value
from qnas.integer.convolution import picked
from qnas.integer.crops import Crop, CropTo
from qnas.integer.nodes import Pad, PadMode
from qnas.integer.windows import Sides, Size
from qnas.onnx.graph import attributes

WIDEST = 64  # rows or columns that a Pad adds on a side
LARGEST_MULTIPLE = 64  # of a side, up to which an image is padded
MOST_TIMES = 8  # the size of another tensor
Growth = tuple[int, int, int]  # of a side: its length, what is added before it and behind
MODES: dict[str, PadMode] = {"constant": "zero", "edge": "edge", "reflect": "reflect"}


def whole_numbers(graph: QdqGraph, node: NodeProto, index: int, what: str) -> list[list[int]]:
    """A constant input of whole numbers, or one that sizes decide: for each of the sizes that are tried."""
    found = graph.value(node, index)
    if not isinstance(found, Derived):
        return [graph.whole(node, index, what)] * len(graph.draft.tried)
    return [[int(n) for n in each.reshape(-1)] for each in found.values]


# Pad -------------------------------------------------------------------------------------------------------


def pad(graph: QdqGraph, node: NodeProto) -> Value:
    """Zeros, repeated edges or mirror images around, or channels of the value zero behind the last."""
    a, x = attributes(node), graph.tensor(node)
    given = whole_numbers(graph, node, 1, "padding") if len(node.input) > 1 else []
    amounts = given or [a.get("pads", [])] * len(graph.draft.tried)
    mode, value = a.get("mode", "constant"), 0.0
    if graph.optional(node, 2) is not None:
        value = graph.number(node, 2, "value")
    more = amounts[0][5] if len(amounts[0]) == 8 else 0
    planes = [[*each[:2], *each[4:6]] if len(each) == 8 else [] for each in amounts]
    fits = mode in MODES and all(each == [0, 0, 0, more] for each in planes) and 0 <= more <= MOST_CHANNELS
    if graph.optional(node, 3) is not None or not fits or (more and mode != "constant"):
        raise refused(node, f"of {amounts[0]} in mode {mode} is not an operation of the integer network")

    def write(read: str) -> str:
        source = graph.draft.nodes[read]
        sides, multiple = _margins(graph, node, read, [(*each[2:4], *each[6:8]) for each in amounts])
        grid = source.output
        if mode == "constant":
            zero = grid.zero_point
            wanted = zero - x.offset if isinstance(x, Integers) else 0.0
            if isinstance(x, Pending) or value != wanted or (isinstance(x, Levels) and x.values[zero] != 0):
                raise refused(node, f"adds values of {value}: only zeros, behind a quantizer, can be read")
            grid = replace(grid, low=min(grid.low, zero), high=max(grid.high, zero))
        name, channels = written_name(node), source.channels + more
        return graph.draft.put(Pad(name, (read,), channels, grid, sides, MODES[mode], multiple))

    return graph.draft.moved(x, written_name(node), write)


def _margins(
    graph: QdqGraph, node: NodeProto, read: str, amounts: Sequence[Sequence[int]]
) -> tuple[Sides, Size]:
    """What is added always, and up to which multiples: by one rule for both axes, or one for each."""
    samples: list[list[Growth]] = [
        [
            (size[axis], each[axis], each[axis + 2])
            for size, each in zip(graph.draft.sizes[read], amounts, strict=True)
        ]
        for axis in (0, 1)
    ]
    both = _growth([*samples[0], *samples[1]])
    rules = [both or _growth(each) or (-1, -1, 0) for each in samples]
    (top, bottom, rows), (left, right, columns) = rules
    sides = (top, left, bottom, right)
    if min(sides) < 0 or max(sides) > WIDEST:
        raise refused(
            node, f"adds {list(amounts[0])} rows and columns to one image, {list(amounts[-1])} to another: "
            f"0 to {WIDEST} on a side, or up to a multiple, can be read",
        )  # fmt: skip
    return sides, (rows, columns)


def _growth(samples: Sequence[Growth]) -> tuple[int, int, int] | None:
    """(before, behind, multiple): what is added always and up to which multiple, None if that is no rule."""
    before, least = samples[0][1], min(behind for *_, behind in samples)
    for multiple, behind in product(range(1, LARGEST_MULTIPLE + 1), range(least + 1)):
        if all((a, b) == (before, behind + -(n + a + behind) % multiple) for n, a, b in samples):
            return before, behind, multiple
    return None


# Slice -----------------------------------------------------------------------------------------------------


def crop(graph: QdqGraph, node: NodeProto) -> Value:
    """A part of the rows and columns: without so many at the ends, or as many as another tensor has. Of
    channels a constant part. Every so manieth of these is a convolution that takes one value each."""
    starts, ends = (whole_numbers(graph, node, i, what) for i, what in ((1, "starts"), (2, "ends")))
    axes, steps = (
        whole_numbers(graph, node, i, what)[0] if graph.optional(node, i) is not None else default
        for i, what, default in ((3, "axes", list(range(len(starts[0])))), (4, "steps", [1] * len(starts[0])))
    )
    if (
        not {*axes} <= {1, 2, 3, -3, -2, -1}
        or len(axes) != len(steps)
        or not all(1 <= s <= WIDEST for s in steps)
    ):
        raise refused(node, f"takes every {steps} along axes {axes}: parts of rows and columns can be read")

    def write(read: str) -> str:
        ranges = zip(zip(*starts, strict=True), zip(*ends, strict=True), strict=True)
        for axis, step, (first, last) in zip(axes, steps, ranges, strict=True):
            if axis in (1, -3):
                rows = np.arange(graph.draft.nodes[read].channels)[first[0] : last[0] : step]
                read = graph.pick(written_name(node), read, rows)
            else:
                read = every(graph, node, cut(graph, node, read, axis % 4, first, last), axis % 4, step)
        return read

    return graph.draft.moved(graph.tensor(node), written_name(node), write)


def cut(
    graph: QdqGraph, node: NodeProto, read: str, axis: int, first: Sequence[int], last: Sequence[int]
) -> str:
    """Rows (axis 2) or columns (3) first[i] to last[i] of the images of the i-th size.

    Case 1: all of them. Case 2: without as many at both ends in every size. Case 3: from one place on as many
    as another tensor has, or some times as many.
    """
    lengths = [size[axis - 2] for size in graph.draft.sizes[read]]
    spans = [range(n)[a:b] for n, a, b in zip(lengths, first, last, strict=True)]
    starts = {span.start for span in spans}
    margins = {n - span.stop for n, span in zip(lengths, spans, strict=True)}
    source, name = graph.draft.nodes[read], written_name(node)
    if starts == margins == {0}:  # Case 1
        return read
    if len(starts) == len(margins) == 1:  # Case 2
        start, margin = starts.pop(), margins.pop()
        sides = (start, 0, margin, 0) if axis == 2 else (0, start, 0, margin)
        return graph.draft.put(Crop(name, (read,), source.channels, source.output, sides))
    if len(starts) == 1:  # Case 3
        start, kept = starts.pop(), [len(span) for span in spans]
        for times in range(1, MOST_TIMES + 1):
            like = graph.of_length(node, axis, [n / times for n in kept])
            if like is not None:
                along: Literal[2, 3] = 2 if axis == 2 else 3
                crop = CropTo(name, (read, like), source.channels, source.output, along, start, times)
                return graph.draft.put(crop)
    raise refused(node, f"keeps {spans[0]} of one image and {spans[-1]} of another: no tensor has that size")


def every(graph: QdqGraph, node: NodeProto, read: str, axis: int, step: int) -> str:
    """Every `step`-th row or column."""
    if step == 1:
        return read
    source = graph.draft.nodes[read]
    whole = picked(f"{written_name(node)}.every_{step}", source, np.arange(source.channels))
    return graph.draft.put(replace(whole, stride=(step, 1) if axis == 2 else (1, step)))
