"""Reshapes and transpositions between two images -> DepthToSpace or SpaceToDepth.

Exporters write pixel shuffles, and their opposite, as three to eight operations. What these do is found out
by moving numbers as they say: the place of every value tells.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto

from qnas.onnx.builder import GraphNodes
from qnas.onnx.channels_first import TO_FIRST, TO_LAST
from qnas.onnx.graph import Graph, attributes
from qnas.onnx.names import Names
from qnas.onnx.operations import PERMUTING
from qnas.onnx.shapes import Shapes

CHAINED = PERMUTING - {"DepthToSpace", "Identity"}
MOST_NODES = 8  # of a chain
MOST_VALUES = 1 << 24
Places = NDArray[np.int64]


@dataclass(frozen=True)
class Move:
    """DepthToSpace by `factor` to `channels`, or its opposite, in mode CRD or DCR; whether channels are last
    before it and behind."""

    larger: bool
    mode: str
    factor: int
    channels: int
    nhwc: tuple[bool, bool]


def pixel_moves(proto: GraphProto, shapes: Shapes) -> bool:
    """Rewrite all of them; whether there were any. Leaves behind what nobody reads any more.

    Requires shapes at a size whose height and width are neither equal nor a factor of the network.
    """
    graph, made, changed = Graph(proto), GraphNodes(Names.of(proto)), False
    for last in graph.nodes:
        found = _found(graph, shapes, last) if last.op_type in CHAINED else None
        if found is None:
            made.nodes.append(last)
        else:
            _put(made, last, *found)
            changed = True
    made.rewrite(proto)
    return changed


def _found(graph: Graph, shapes: Shapes, last: NodeProto) -> tuple[str, Move] | None:
    """(tensor, what the shortest chain from it to `last` does to it), None where that is nothing known."""
    chain = [last]
    while len(chain) <= MOST_NODES:
        first = chain[0]
        source = shapes.of(first.input[0])
        moved = _moved(chain, shapes) if source is not None and len(source) == 4 else None
        if source is not None and moved is not None and (move := _move(source, moved)) is not None:
            return first.input[0], move
        before = graph.producers.get(first.input[0])
        if before is None or before.op_type not in CHAINED or graph.uses[first.input[0]] != 1:
            return None
        chain.insert(0, before)
    return None


def _moved(chain: Sequence[NodeProto], shapes: Shapes) -> Places | None:
    """Where each value comes from behind `chain`: its place in the image that the first node reads."""
    size = shapes.of(chain[0].input[0]) or ()
    if prod(size) > MOST_VALUES:
        return None
    places = np.arange(prod(size)).reshape(size)
    for node in chain:
        written = shapes.of(node.output[0])
        if written is None or prod(written) != places.size:
            return None
        if node.op_type == "Transpose":
            places = places.transpose(attributes(node).get("perm", range(places.ndim)[::-1]))
        places = places.reshape(written)
    return places if places.ndim == 4 else None


def _move(size: Sequence[int], moved: Places) -> Move | None:
    """What takes the places of an image of `size` to where `moved` has them."""
    places = np.arange(prod(size)).reshape(*size)
    for before, behind in product((False, True), repeat=2):
        x = places.transpose(TO_FIRST) if before else places
        y = moved.transpose(TO_FIRST) if behind else moved
        larger = y.shape[2] > x.shape[2]
        small, large = (x, y) if larger else (y, x)
        f = large.shape[2] // small.shape[2]
        if f < 2 or large.shape[2:] != (small.shape[2] * f, small.shape[3] * f):
            continue
        for mode, form in (("CRD", (-1, f, f)), ("DCR", (f, f, -1))):
            if small.shape[1] == large.shape[1] * f**2 and np.array_equal(_enlarged(small, f, form), large):
                return Move(larger, mode, f, large.shape[1], (before, behind))
    return None


def _enlarged(x: Places, f: int, form: tuple[int, int, int]) -> Places:
    """DepthToSpace of [N, C f^2, H, W], whose channels are `form`: C where it says -1."""
    n, channels, h, w = x.shape
    c, (i, j) = form.index(-1) + 1, [axis + 1 for axis, each in enumerate(form) if each != -1]
    pixels = x.reshape(n, *form, h, w).transpose(0, c, 4, i, 5, j)
    return pixels.reshape(n, channels // f**2, h * f, w * f)


def _put(made: GraphNodes, last: NodeProto, read: str, move: Move) -> None:
    """What writes the output of `last`, of tensor `read`."""
    names, target, name, f = made.names, last.output[0], last.name or last.output[0], move.factor
    if move.nhwc[0]:
        nchw = names.tensor(f"{target}.nchw")
        read = made.put("Transpose", [read], nchw, names.node(f"{name}.to_nchw"), perm=TO_FIRST)
    written = names.tensor(f"{target}.shuffled") if move.nhwc[1] else target
    shuffle = names.node(f"{name}.shuffle")
    if move.larger:
        made.put("DepthToSpace", [read], written, shuffle, blocksize=f, mode=move.mode)
    elif move.mode == "DCR":
        made.put("SpaceToDepth", [read], written, shuffle, blocksize=f)
    else:
        blocks = made.put("SpaceToDepth", [read], names.tensor(f"{target}.blocks"), shuffle, blocksize=f)
        rows = np.arange(move.channels * f**2).reshape(f**2, move.channels).T.reshape(-1)
        order = made.constant(f"{target}.order", rows)
        made.put("Gather", [blocks, order], written, names.node(f"{name}.order"), axis=1)
    if move.nhwc[1]:
        made.put("Transpose", [written], target, names.node(f"{name}.to_nhwc"), perm=TO_LAST)
