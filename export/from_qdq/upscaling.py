"""Resizing by whole factors, to the size of another tensor too, and the interpolation of this package."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from qnas.export.from_qdq.borders import cut, every
from qnas.export.from_qdq.graph import QdqGraph, refused, written_name
from qnas.export.from_qdq.values import MOST_CHANNELS, Derived, Pending, Value, once
from qnas.integer.convolution import Conv, bilinear_convolution
from qnas.integer.crops import Nearest, nearest_places
from qnas.integer.interpolation import STEPS, interpolation_steps
from qnas.integer.nodes import DepthToSpace, Interpolate, Pad
from qnas.integer.windows import Size
from qnas.onnx.graph import attributes
from qnas.onnx.shapes import LONGEST
from qnas.quantization.quantizers import QuantParams

LARGEST_BILINEAR = 6
AXES: tuple[Literal[2], Literal[3]] = (2, 3)
HALF_PIXEL = ("half_pixel", "pytorch_half_pixel")  # the same where images grow
# The nearest of positions, by nearest_mode.
ROUNDINGS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def resize(graph: QdqGraph, node: NodeProto) -> Value:
    """Bilinear between half pixels by a whole factor, or nearest where that repeats pixels or leaves out."""
    a, x = attributes(node), graph.tensor(node)
    mode, positions = a.get("mode", "nearest"), a.get("coordinate_transformation_mode", "half_pixel")
    form, plain = f"in mode {mode}, {positions}", not (a.get("antialias") or a.get("axes"))
    if graph.opset < 11 or mode not in ("nearest", "linear") or not plain or not _stretches(a):
        raise refused(
            node, f"{form} is not an operation of the integer network: use linear or a pixel shuffle"
        )
    if mode == "linear" and positions in HALF_PIXEL:
        return _bilinear(graph, node)
    rounding = a.get("nearest_mode", "round_prefer_floor")
    if mode == "linear" or positions not in (*HALF_PIXEL, "asymmetric") or rounding not in ROUNDINGS:
        raise refused(node, f"{form} is not an operation of the integer network: use half_pixel")
    places = partial(_places, positions, rounding)
    return graph.draft.moved(x, written_name(node), partial(_nearest, graph, node, places))


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


def _places(positions: str, rounding: str, length: int, target: int, factor: float) -> NDArray[np.int64]:
    """Which of `length` pixels each of `target` ones is."""
    q = np.arange(target)
    near = q / factor if positions == "asymmetric" else (q + 0.5) / factor - 0.5
    places: NDArray[np.int64] = np.clip(ROUNDINGS[rounding](near), 0, length - 1).astype(np.int64)
    return places


def _nearest(
    graph: QdqGraph, node: NodeProto, places: Callable[[int, int, float], NDArray[np.int64]], read: str
) -> str:
    """Case 1: every pixel f x f times: channels in as many copies, and a shuffle; of these as many as another
    tensor has. Case 2: every f-th pixel. Case 3: as many as another tensor has, from the first on."""
    targets, sizes = _targets(graph, node, read), graph.draft.sizes[read]
    found = [
        (n, places(n, t, factor))
        for size, (target, factors) in zip(sizes, targets, strict=True)
        for n, t, factor in zip(size, target, factors, strict=True)
    ]
    source, name = graph.draft.nodes[read], written_name(node)
    f = max(-(-len(taken) // n) for n, taken in found)
    ends = [[target[axis] for target, _ in targets] for axis in (0, 1)]
    if all(np.array_equal(taken, np.arange(len(taken)) // f) for _, taken in found):  # Case 1
        if f > 1:
            copies = graph.pick(f"{name}.copies", read, np.repeat(np.arange(source.channels), f**2))
            read = graph.draft.put(DepthToSpace(name, (copies,), source.channels, source.output, f))
        for axis in (2, 3):
            read = cut(graph, node, read, axis, [0] * len(targets), ends[axis - 2])
        return read
    first, step = int(found[0][1][0]), max(1, int(found[0][1][1] - found[0][1][0]))
    if all(np.array_equal(taken, np.arange(n)[first::step][: n // step]) for n, taken in found):  # Case 2
        for axis in (2, 3):
            last = [(n - 1) * step + first + 1 for n in ends[axis - 2]]
            read = every(graph, node, cut(graph, node, read, axis, [first] * len(last), last), axis, step)
        return read
    likes = [graph.of_length(node, axis, ends[axis - 2]) for axis in (2, 3)]
    if None in likes or any(not np.array_equal(taken, nearest_places(n, len(taken))) for n, taken in found):
        raise refused(node, f"to {targets[0][0]} of {sizes[0]} repeats no pixels: use asymmetric and floor")
    for axis in AXES:  # Case 3
        like = str(likes[axis - 2])
        read = graph.draft.put(Nearest(name, (read, like), source.channels, source.output, axis))
    return read


def nearest_gather(graph: QdqGraph, node: NodeProto, places: Derived) -> Value:
    """Case 3 as our own files have it."""
    axis = attributes(node).get("axis", 0)

    def write(read: str) -> str:
        source, lengths = graph.draft.nodes[read], [size[axis - 2] for size in graph.draft.sizes[read]]
        targets = [each.size for each in places.values]
        known = map(nearest_places, lengths, targets)
        like = graph.of_length(node, axis, targets)
        if like is None or not all(map(np.array_equal, known, places.values)):
            raise refused(node, "takes places that no nearest pixels are: use a Resize")
        along = AXES[axis - 2]
        return graph.draft.put(
            Nearest(written_name(node), (read, like), source.channels, source.output, along)
        )

    if axis not in AXES:
        raise refused(
            node, f"takes places along axis {axis} that sizes decide: rows and columns can be taken"
        )
    return graph.draft.moved(graph.tensor(node), written_name(node), write)


def _bilinear(graph: QdqGraph, node: NodeProto) -> Value:
    """Case 1: to f times the size: repeated edges, a 3x3 convolution to the phases, a shuffle. Case 2: to an
    f-th: the mean of the pixels in the middle of each block."""
    read = graph.on_grid(node, 0)
    factors = {factors for _, factors in _targets(graph, node, read)}
    source, name, factor = graph.draft.nodes[read], written_name(node), min(min(factors))
    f, c, whole = round(max(factor, 1 / factor)), source.channels, max(factor, 1 / factor).is_integer()
    if len(factors | {(factor, factor)}) > 1 or not whole or not 2 <= f <= LARGEST_BILINEAR:
        raise refused(
            node, f"by {sorted(factors)[0]}: bilinear resizing by 2 .. {LARGEST_BILINEAR} can be read"
        )
    if c * f**2 > MOST_CHANNELS:
        raise refused(node, f"upscales {c} channels: that is more than an integer convolution can do at once")

    def write(grid: QuantParams) -> str:
        if factor < 1:  # Case 2
            return graph.draft.put(_middles(name, read, c, f, grid))
        edged = graph.draft.put(Pad(f"{name}.edged", (read,), c, source.output, (1, 1, 1, 1), "edge"))
        phases = graph.draft.put(bilinear_convolution(f"{name}.phases", edged, c, f, grid))
        return graph.draft.put(DepthToSpace(name, (phases,), c, grid, f))

    return Pending(once(write))


def _middles(name: str, read: str, channels: int, factor: int, grid: QuantParams) -> Conv:
    """The mean of the one, two or four pixels in the middle of each block: where half pixels put it."""
    line = np.zeros(factor, np.int8)
    line[(factor - 1) // 2 : factor // 2 + 1] = 1
    weight = np.tile(np.outer(line, line), (channels, 1, 1, 1))
    scale, zero = np.full(channels, 1 / line.sum() ** 2, np.float32), np.zeros(channels, np.int32)
    step = (factor, factor)
    return Conv(name, (read,), channels, grid, weight, scale, zero, 8, step, groups=channels)


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
