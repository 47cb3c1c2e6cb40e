"""Upscaling by a whole factor, to the size of another tensor too, and the interpolation of this package."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from qnas.export.from_qdq.borders import cut
from qnas.export.from_qdq.graph import QdqGraph, refused, written_name
from qnas.export.from_qdq.values import MOST_CHANNELS, Derived, Pending, Value, once
from qnas.integer.convolution import bilinear_convolution
from qnas.integer.interpolation import STEPS, interpolation_steps
from qnas.integer.nodes import DepthToSpace, Interpolate, Pad
from qnas.integer.windows import Size
from qnas.onnx.graph import attributes
from qnas.onnx.shapes import LONGEST
from qnas.quantization.quantizers import QuantParams

LARGEST_BILINEAR = 6
HALF_PIXEL = ("half_pixel", "pytorch_half_pixel")  # the same where images grow
# The nearest of positions, by nearest_mode.
ROUNDINGS: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def resize(graph: QdqGraph, node: NodeProto) -> Value:
    """Upscaling: bilinear between half pixels by a whole factor, or nearest where that repeats each pixel,
    to the size of another tensor too."""
    a, x = attributes(node), graph.tensor(node)
    mode, positions = a.get("mode", "nearest"), a.get("coordinate_transformation_mode", "half_pixel")
    form, plain = f"in mode {mode}, {positions}", not (a.get("antialias") or a.get("axes"))
    if graph.opset < 11 or mode not in ("nearest", "linear") or not plain or not _stretches(a):
        raise refused(
            node, f"{form} is not an operation of the integer network: use linear or a pixel shuffle"
        )
    if mode == "linear":
        if positions not in HALF_PIXEL:
            raise refused(node, f"{form} is not an operation of the integer network: use half_pixel")
        return _bilinear(graph, node)
    nearest = partial(_nearest, positions, a.get("nearest_mode", "round_prefer_floor"))
    return graph.draft.moved(x, written_name(node), partial(_repeated, graph, node, nearest))


def _stretches(a: dict[str, Any]) -> bool:
    return bool(a.get("keep_aspect_ratio_policy", "stretch") == "stretch")


def _targets(graph: QdqGraph, node: NodeProto, read: str) -> list[tuple[Size, tuple[float, float]]]:
    """For images of each size tried what the resized tensor has, and the factors that it is resized by."""
    index, what = (3, "sizes") if graph.optional(node, 3) is not None else (2, "scales")
    found = graph.value(node, index)
    values = found.values if isinstance(found, Derived) else [graph.constant(node, index, what).array]
    sizes = graph.draft.sizes[read]
    targets = []
    for (height, width), each in zip(sizes, values * (len(sizes) // len(values)), strict=True):
        numbers = [float(n) for n in each.reshape(-1)]
        if len(numbers) != 4 or not all(0 < n < LONGEST for n in numbers):
            raise refused(node, f"has the {what} {numbers}: height and width can be resized")
        *_, rows, columns = numbers
        if what == "scales":
            rows, columns = (math.floor(n * f) for n, f in ((height, rows), (width, columns)))
            factors = numbers[2], numbers[3]
        else:
            factors = rows / height, columns / width
        targets.append(((int(rows), int(columns)), factors))
    return targets


def _factor(graph: QdqGraph, node: NodeProto, read: str) -> int | None:
    """The whole factor of upscaling, the same along both axes and for images of all sizes; None otherwise."""
    pairs = zip(graph.draft.sizes[read], _targets(graph, node, read), strict=True)
    factors = {(h / height, w / width) for (height, width), ((h, w), _) in pairs}
    (rows, columns), *others = factors
    return int(rows) if not others and rows == columns == int(rows) else None


def _nearest(
    positions: str, rounding: str, length: int, target: int, factor: float
) -> NDArray[np.int64] | None:
    """The places that `target` pixels are taken from, of `length`; None in a form that is not known."""
    q = np.arange(target)
    places = {"asymmetric": q / factor} | dict.fromkeys(HALF_PIXEL, (q + 0.5) / factor - 0.5)
    if positions not in places or rounding not in ROUNDINGS:
        return None
    return np.clip(ROUNDINGS[rounding](places[positions]), 0, length - 1).astype(np.int64)


def _repeated(
    graph: QdqGraph,
    node: NodeProto,
    nearest: Callable[[int, int, float], NDArray[np.int64] | None],
    read: str,
) -> str:
    """Every pixel f x f times: channels in as many copies, and a shuffle; then a part of it where need be."""
    targets, sizes = _targets(graph, node, read), graph.draft.sizes[read]
    f = max(math.ceil(t / n) for size, (target, _) in zip(sizes, targets, strict=True)
            for n, t in zip(size, target, strict=True))  # fmt: skip
    for size, (target, factors) in zip(sizes, targets, strict=True):
        for n, t, factor in zip(size, target, factors, strict=True):
            if not np.array_equal(nearest(n, t, factor), np.arange(t) // f):
                raise refused(node, f"to {target} of {size} repeats no pixels: use asymmetric and floor")
    source, name = graph.draft.nodes[read], written_name(node)
    if f > 1:
        copies = graph.pick(f"{name}.copies", read, np.repeat(np.arange(source.channels), f**2))
        read = graph.draft.put(DepthToSpace(name, (copies,), source.channels, source.output, f))
    for axis in (2, 3):
        ends = [target[axis - 2] for target, _ in targets]
        read = cut(graph, node, read, axis, [0] * len(ends), ends)
    return read


def _bilinear(graph: QdqGraph, node: NodeProto) -> Value:
    """Repeated edges, a 3x3 convolution to the phases, a shuffle."""
    read = graph.on_grid(node, 0)
    source, name, f = graph.draft.nodes[read], written_name(node), _factor(graph, node, read)
    if f is None or not 2 <= f <= LARGEST_BILINEAR:
        size, (target, _) = graph.draft.sizes[read][0], _targets(graph, node, read)[0]
        raise refused(
            node, f"to {target} of {size}: bilinear upscaling by 2 .. {LARGEST_BILINEAR} can be read"
        )
    c = source.channels
    if c * f**2 > MOST_CHANNELS:
        raise refused(node, f"upscales {c} channels: that is more than an integer convolution can do at once")

    def write(grid: QuantParams) -> str:
        edged = graph.draft.put(Pad(f"{name}.edged", (read,), c, source.output, (1, 1, 1, 1), "edge"))
        phases = graph.draft.put(bilinear_convolution(f"{name}.phases", edged, c, f, grid))
        return graph.draft.put(DepthToSpace(name, (phases,), c, grid, f))

    return Pending(once(write))


def matmul(graph: QdqGraph, node: NodeProto) -> Value:
    """Only the product with weights of 64ths that interpolate to the size of another tensor."""
    forms: tuple[tuple[int, Literal[2, 3]], ...] = (
        (1, 2),
        (0, 3),
    )  # where the tensor stands, what is resized
    for index, axis in forms:
        matrix = graph.value(node, 1 - index)
        if isinstance(matrix, Derived):
            read = graph.on_grid(node, index)
            like = _measured(graph, node, read, matrix.values, axis)
            if like is not None:
                name, channels = written_name(node), graph.draft.nodes[read].channels
                return Pending(once(partial(_put_interpolate, graph, name, (read, like), channels, axis)))
    raise refused(node, "is only an operation of the integer network as qnas interpolates: use a 1x1 Conv")


def _measured(
    graph: QdqGraph, node: NodeProto, read: str, matrices: Sequence[NDArray[Any]], axis: Literal[2, 3]
) -> str | None:
    """The first tensor whose size `matrices` interpolate to, from that of `read`, in images of all sizes."""
    lengths = [size[axis - 2] for size in graph.draft.sizes[read]]
    weights = [each if axis == 2 else np.swapaxes(each, -1, -2) for each in matrices]
    targets = [each.shape[0] if each.ndim == 2 else -1 for each in weights]
    for n, target, each in zip(lengths, targets, weights, strict=True):
        if target < 1 or each.shape != (target, n) or (each * STEPS != interpolation_steps(n, target)).any():
            return None
    return graph.of_length(node, axis, targets)


def _put_interpolate(
    graph: QdqGraph, name: str, inputs: tuple[str, ...], channels: int, axis: Literal[2, 3], grid: QuantParams
) -> str:
    return graph.draft.put(Interpolate(name, inputs, channels, grid, axis))
