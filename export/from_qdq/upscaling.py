"""Upscaling by a whole factor, and the interpolation of this package."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from qnas.export.from_qdq.graph import QdqGraph, constant, refused, written_name
from qnas.export.from_qdq.values import MOST_CHANNELS, Derived, Pending, Value, once
from qnas.integer.convolution import bilinear_convolution
from qnas.integer.nodes import DepthToSpace, Interpolate, Pad
from qnas.onnx.builder import GraphNodes
from qnas.onnx.graph import attributes
from qnas.onnx.interpolation import interpolation_weights
from qnas.quantization.quantizers import QuantParams

HALF_PIXEL = ("half_pixel", "pytorch_half_pixel")  # the same where images grow
# The nearest of positions, by nearest_mode.
ROUNDINGS: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def resize(graph: QdqGraph, node: NodeProto) -> Value:
    """Upscaling by a whole factor: bilinear between half pixels, or nearest where that repeats each pixel."""
    a = attributes(node)
    mode, positions = a.get("mode", "nearest"), a.get("coordinate_transformation_mode", "half_pixel")
    form = f"in mode {mode}, {positions}"
    if graph.opset < 11 or mode not in ("nearest", "linear"):
        raise refused(
            node, f"{form} is not an operation of the integer network: use linear or a pixel shuffle"
        )
    scales = (
        graph.constant(node, 2, "scales").array.reshape(-1).tolist()
        if graph.optional(node, 2) is not None
        else []
    )
    f = int(scales[3]) if len(scales) == 4 and 2 <= scales[3] <= 6 else 0
    if scales != [1, 1, f, f] or len(node.input) > 3 or a.get("antialias") or a.get("axes"):
        raise refused(node, f"has the scales {scales}: upscaling by a constant 2 .. 6 can be read")
    if mode == "linear" and positions in HALF_PIXEL:
        return _bilinear(graph, node, f)
    if mode == "nearest" and _repeats(positions, a.get("nearest_mode", "round_prefer_floor"), f):
        return _repeated(graph, node, f)
    raise refused(node, f"{form} is not an operation of the integer network: use half_pixel")


def _repeats(positions: str, rounding: str, f: int) -> bool:
    """Whether the pixel nearest to each of an upscaled row is the one that it lies in."""
    q = np.arange(6 * f)
    places = {"asymmetric": q / f} | dict.fromkeys(HALF_PIXEL, (q + 0.5) / f - 0.5)
    if positions not in places or rounding not in ROUNDINGS:
        return False
    return np.array_equal(np.clip(ROUNDINGS[rounding](places[positions]), 0, 5), q // f)


def _repeated(graph: QdqGraph, node: NodeProto, f: int) -> Value:
    """Every pixel f x f times: channels in as many copies, and a shuffle."""
    x, name = graph.tensor(node), written_name(node)

    def write(read: str) -> str:
        source = graph.draft.nodes[read]
        copies = graph.pick(f"{name}.copies", read, np.repeat(np.arange(source.channels), f**2))
        return graph.draft.put(DepthToSpace(name, (copies,), source.channels, source.output, f))

    return graph.draft.moved(x, name, write)


def _bilinear(graph: QdqGraph, node: NodeProto, f: int) -> Value:
    """Repeated edges, a 3x3 convolution to the phases, a shuffle."""
    read = graph.on_grid(node, 0)
    source, name = graph.draft.nodes[read], written_name(node)
    c = source.channels
    if c * f**2 > MOST_CHANNELS:
        raise refused(node, f"upscales {c} channels: that is more than an integer convolution can do at once")

    def write(grid: QuantParams) -> str:
        edged = graph.draft.put(Pad(f"{name}.edged", (read,), c, source.output, edge=1))
        phases = graph.draft.put(bilinear_convolution(f"{name}.phases", edged, c, f, grid))
        return graph.draft.put(DepthToSpace(name, (phases,), c, grid, f))

    return Pending(once(write))


def matmul(graph: QdqGraph, node: NodeProto) -> Value:
    """Only the product with the weights of `interpolation_weights`."""
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
    weights = interpolation_weights(form, "t", "source", "like", axis)
    values: dict[str, Value] = {name: constant(tensor) for name, tensor in form.initializers.items()}
    values |= {"source": graph.draft.levels(read), "like": graph.draft.levels(like)}
    for each in form.nodes:
        values[each.output[0]] = graph.derived(each, [values[name] for name in each.input])
    return values[weights]
