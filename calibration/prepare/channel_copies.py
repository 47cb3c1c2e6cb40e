"""Channels that are copied, picked or put in order, by whatever operations -> one Concat or Gather.

An exporter writes `repeat_interleave`, `chunk` or a channel shuffle as four to ten operations that move
values and compute shapes. What they do is found out by running them: on noise, every channel of the result
is that of one channel of what they read.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, ValueInfoProto

from qnas.calibration.prepare.sr_shape import SrShape
from qnas.onnx.builder import GraphNodes
from qnas.onnx.graph import Graph
from qnas.onnx.names import Names
from qnas.onnx.operations import CHANNEL_MOVING
from qnas.onnx.session import open_session

ENDLESS = 2**31 - 1  # what exporters write for "to the end", or more
Array = NDArray[np.float32]


def channel_copies(model: ModelProto, shape: SrShape) -> bool:
    """Rewrite all of `model`; whether there were any. Leaves behind what nobody reads any more."""
    graph, made = Graph(model.graph), GraphNodes(Names.of(model.graph))
    largest = max(side for size in shape.sizes for side in size)
    ends = {end: start for end, start in _ends(graph, largest).items() if not _is_plain(graph, end, start)}
    found = _found(model, shape, ends) if ends else {}
    for node in graph.nodes:
        made.nodes.append(node)
        for place, end in enumerate(node.output):  # a Split has several
            if end in found:
                node.output[place] = made.names.tensor(f"{end}.unread")
                found[end].put(made, ends[end], end)
    made.rewrite(model.graph)
    return bool(found)


def _ends(graph: Graph, largest: int) -> dict[str, str]:
    """Tensor behind the last of some operations that move channels of one tensor -> that tensor.

    `largest`: the longest side of an image that they are probed with.
    """
    starts: dict[str, str | None] = {}
    for node in graph.nodes:
        starts |= {name: name for name in node.output}
        if node.op_type in CHANNEL_MOVING and not _is_far_crop(graph, node, largest):
            data = node.input if node.op_type == "Concat" else node.input[:1]
            read = {None if name in graph.constants else starts.get(name, name) for name in data}
            starts |= dict.fromkeys(node.output, read.pop() if len(read) == 1 else None)
    moved = {name: start for name, start in starts.items() if start is not None and start != name}
    others = (node for node in graph.nodes if moved.keys().isdisjoint(node.output))
    last = graph.outputs.union(*(node.input for node in others))
    return {name: start for name, start in moved.items() if name in last}


def _is_far_crop(graph: Graph, node: NodeProto, largest: int) -> bool:
    """Whether it cuts what no probed image reaches: a Slice up to a fixed place behind `largest`."""
    if node.op_type != "Slice" or len(node.input) < 3 or node.input[2] not in graph.constants:
        return False
    ends = graph.array(node.input[2])
    return bool(np.any((ends > largest) & (ends < ENDLESS)))


def _is_plain(graph: Graph, end: str, start: str) -> bool:
    """Whether the node that writes `end` is a Concat of `start` alone, or a Gather of constants."""
    node = graph.producers[end]
    plain = node.op_type == "Concat" or (node.op_type == "Gather" and node.input[1] in graph.constants)
    return plain and {name for name in node.input if name not in graph.constants} == {start}


@dataclass(frozen=True)
class _Copy:
    """Channel i of the result is channel rows[i] of `channels`."""

    rows: tuple[int, ...]
    channels: int

    def put(self, made: GraphNodes, start: str, end: str) -> None:
        """Write a Concat where all channels are there, some times over; else a Gather."""
        times = len(self.rows) // self.channels
        if self.rows == tuple(range(self.channels)) * times:
            made.put("Concat", [start] * times, end, axis=1)
        else:
            rows = made.constant(f"{end}.channels", np.array(self.rows))
            made.put("Gather", [start, rows], end, axis=1)


def _found(model: ModelProto, shape: SrShape, wanted: Mapping[str, str]) -> dict[str, _Copy]:
    """The ends that are copies of channels at all sizes that are probed."""
    probed = deepcopy(model)
    feed = probed.graph.input[0].name
    names = sorted({*wanted, *wanted.values()} - {feed})
    del probed.graph.output[:]
    probed.graph.output.extend(ValueInfoProto(name=name) for name in names)
    session = open_session(probed.SerializeToString(), threads=1, optimized=False)
    runs = []
    for size in shape.sizes:
        image = np.random.default_rng(0).uniform(size=shape.input_shape(size)).astype(np.float32)
        try:
            values = dict(zip(names, session.run(names, {feed: image}), strict=True)) | {feed: image}
        except Exception:  # onnxruntime's many exception types share no base but Exception
            return {}  # a part of it does not take that size
        runs.append({end: _copy(values[start], values[end]) for end, start in wanted.items()})
    return {end: copy for end, copy in runs[0].items() if copy and all(each[end] == copy for each in runs)}


def _copy(start: Array, end: Array) -> _Copy | None:
    """None where a channel of `end` is none of `start`, or two."""
    if start.ndim != 4 or end.ndim != 4 or start.shape[2:] != end.shape[2:]:
        return None
    places: dict[bytes, list[int]] = {}
    for index, channel in enumerate(start[0]):
        places.setdefault(channel.tobytes(), []).append(index)
    rows = [places.get(channel.tobytes(), []) for channel in end[0]]
    if any(len(each) != 1 for each in rows):
        return None
    return _Copy(tuple(index for (index,) in rows), start.shape[1])
