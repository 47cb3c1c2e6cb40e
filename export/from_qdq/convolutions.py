"""Convolutions, and what is one: one function per operation."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from qnas.export.from_qdq.graph import QdqGraph, one_size, refused, written_name
from qnas.export.from_qdq.values import Pending, Value, once
from qnas.export.from_qdq.windows import window
from qnas.integer.convolution import LARGEST_MULTIPLIER, Conv, multiplier
from qnas.integer.network import INT32_MAX
from qnas.integer.nodes import DepthToSpace, Pad
from qnas.integer.windows import Sides
from qnas.onnx.graph import attributes
from qnas.quantization.quantizers import QuantParams


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
    w = window(node, a, weight.shape[2:])
    read, padding = _unpadded(graph, read, w.padding)

    def write(grid: QuantParams) -> str:
        conv = Conv(
            written_name(node), (read,), len(weight), grid, weight, weight_scale, bias, bits, w.stride,
            padding, groups, w.dilation,
        )  # fmt: skip
        return _put(graph, node, scale, conv)

    return Pending(once(write))


def _unpadded(graph: QdqGraph, read: str, padding: Sides) -> tuple[str, Sides]:
    """What a convolution of node `read` reads and pads, where that puts nothing but zeros around an image."""
    pad = graph.draft.nodes[read]
    if not isinstance(pad, Pad) or pad.mode != "zero" or pad.multiple != (1, 1):
        return read, padding
    if graph.draft.nodes[pad.inputs[0]].channels != pad.channels:
        return read, padding
    top, left, bottom, right = (a + b for a, b in zip(padding, pad.sides, strict=True))
    return pad.inputs[0], (top, left, bottom, right)


def transposed_convolution(graph: QdqGraph, node: NodeProto) -> Value:
    """By a stride of f to f times the size: a convolution to the phases, with the same integers at other
    places and zeros elsewhere, and a shuffle by f (docs/decisions/0004-convolutions-between-phases.md)."""
    read, name = graph.on_grid(node, 0), written_name(node)
    source = graph.draft.nodes[read]
    weight, weight_scale, bits = _weights(graph, node, axis=1)
    a = attributes(node)
    groups, f = int(a.get("group", 1)), one_size(node, a.get("strides", [1, 1]), "stride")
    if groups < 1 or len(weight) != source.channels or len(weight) % groups:
        raise refused(
            node, f"has weights {weight.shape} in {groups} groups for {source.channels} channels: "
            "export it again",
        )  # fmt: skip
    weight_scale = np.tile(weight_scale, groups)
    bias = np.repeat(_bias(graph, node, weight_scale * source.output.scale), f**2)
    weight = phase_weights(weight, groups, f, _cut(node, a, weight.shape[2:], f))
    out, padding = len(weight), (weight.shape[2] // 2, weight.shape[3] // 2)

    def write(grid: QuantParams) -> str:
        conv = Conv(
            name if f == 1 else f"{name}.phases", (read,), out, grid, weight, np.repeat(weight_scale, f**2),
            bias, bits, (1, 1), (*padding, *padding), groups,
        )  # fmt: skip
        phases = _put(graph, node, source.output.scale, conv)
        return phases if f == 1 else graph.draft.put(DepthToSpace(name, (phases,), out // f**2, grid, f))

    return Pending(once(write))


def phase_weights(weight: NDArray[np.int8], groups: int, f: int, cut: tuple[int, int]) -> NDArray[np.int8]:
    """int8 [I, O / groups, kh, kw] of a transposed convolution by stride f, whose result loses `cut` rows and
    columns in front -> [O f^2, I / groups, 2 p + 1, 2 q + 1] of a convolution padded by (p, q).

    Row t of the kernel takes input row i to output row `f i + t - cut`: phase and row are its remainder and
    quotient by f.
    """
    i, part, kh, kw = weight.shape
    rows, columns = ([divmod(t - start, f) for t in range(k)] for k, start in zip((kh, kw), cut, strict=True))
    p, q = (max(abs(d) for d, _ in taps) for taps in (rows, columns))
    phases = np.zeros((groups, part, f, f, i // groups, 2 * p + 1, 2 * q + 1), np.int8)
    grouped = weight.reshape(groups, i // groups, part, kh, kw).transpose(0, 2, 1, 3, 4)
    for t, (y, a) in enumerate(rows):
        for s, (x, b) in enumerate(columns):
            phases[:, :, a, b, :, p - y, q - x] = grouped[..., t, s]
    return phases.reshape(groups * part * f**2, i // groups, 2 * p + 1, 2 * q + 1)


def _cut(node: NodeProto, a: dict[str, Any], kernel: tuple[int, ...], f: int) -> tuple[int, int]:
    """The rows and columns that the padding of a ConvTranspose takes off in front."""
    if any(d != 1 for d in a.get("dilations", [])):
        raise refused(node, "has dilations: the integer network has none")
    pads, more = a.get("pads", [0] * 4), a.get("output_padding", [0, 0])
    fixed = a.get("output_shape") or a.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    if fixed or len(pads) != 4 or len(more) != 2 or min(pads) < 0:
        raise refused(node, "has its output's size or padding given otherwise: export it with pads")
    for k, start, end, extra in zip(kernel, pads[:2], pads[2:], more, strict=True):
        if k + extra - f != start + end:
            raise refused(node, f"does not write {f} times the size of what it reads: pad it so that it does")
    return pads[0], pads[1]


def average_pool(graph: QdqGraph, node: NodeProto) -> Value:
    """Sums times a constant: a depthwise convolution of ones. Zeros around the image have to count."""
    read, a = graph.on_grid(node, 0), attributes(node)
    source, w = graph.draft.nodes[read], window(node, a, tuple(a.get("kernel_shape", ())))
    if any(w.padding) and not a.get("count_include_pad"):
        raise refused(node, "divides by fewer pixels at the border: export it with count_include_pad")
    if a.get("ceil_mode") and w.stride != (1, 1):
        raise refused(node, "rounds its size up: export it with ceil_mode 0")
    c = source.channels
    weight = np.ones((c, 1, *w.kernel), np.int8)
    scale, zero = np.full(c, 1 / np.prod(w.kernel), np.float32), np.zeros(c, np.int32)

    def write(grid: QuantParams) -> str:
        conv = Conv(
            written_name(node), (read,), c, grid, weight, scale, zero, 8, w.stride, w.padding, c, w.dilation
        )
        return graph.draft.put(conv)

    return Pending(once(write))


def _put(graph: QdqGraph, node: NodeProto, scale: NDArray[np.float32], conv: Conv) -> str:
    if not (multiplier(scale, conv) < LARGEST_MULTIPLIER).all():
        raise refused(node, "has scales out of all proportion: calibrate it with real images")
    return graph.draft.put(conv)


def _weights(
    graph: QdqGraph, node: NodeProto, axis: int = 0
) -> tuple[NDArray[np.int8], NDArray[np.float32], int]:
    """(int8 of four axes, the scales along `axis`, bits), shifted to the zero point 0."""
    steps = graph.constant(node, 1, "weight").steps
    if steps is None:
        raise refused(node, f"has float weights {node.input[1]!r}: quantize them")
    q = steps.q
    if q.ndim != 4 or not q.size:
        raise refused(node, f"has weights {q.shape}: two-dimensional convolutions can be read")
    if steps.scale.ndim and steps.axis not in (axis, axis - 4):
        raise refused(
            node, f"has weight scales along axis {steps.axis}: quantize per output channel (axis {axis})"
        )
    if q.min() < -128 or q.max() > 127:
        raise refused(
            node, f"has weights {q.min()} .. {q.max()} steps from zero: quantize them symmetrically, in int8"
        )
    bits = steps.bits if q.min() >= -(1 << steps.bits - 1) and q.max() < 1 << steps.bits - 1 else 8
    scale = np.broadcast_to(steps.scale, q.shape[axis]).astype(np.float32)
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
