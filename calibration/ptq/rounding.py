"""Rounds the weights of a layer so that their errors cancel in what the layer computes.

With the second moments M = E[x x'] of what a filter reads, x with a last element 1 for the bias, an error d
of its weights costs d' M d. M = R R' with R upper triangular makes that the sum over k of the squares of
R[k, k] d[k] + sum over j < k of R[j, k] d[j], so weights are rounded in their order, each to the level that
makes its own square least given the ones before it (Babai's nearest plane; GPTQ, Frantar et al., ICLR 2023,
is the same). The bias is last and almost continuous: it takes what is left, the mean error, so that no bias
correction has to follow.

Images are smooth and features are not negative: rounding each weight by itself changes the sum of a filter,
which all of them see. Where no images are at hand, moments are assumed that say just this.

Sums of M are sums of integers, and all that follows is elementwise: the same weights on any number of
threads.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from qnas.calibration.prepare.float_model import FloatModel, Runner
from qnas.calibration.ptq.float_graph import FloatGraph
from qnas.calibration.ptq.grids import Grids, plan_grids
from qnas.calibration.ptq.weights import BYTE, ENDS, Floats, IntegerWeights, WeightRange, largest_scale
from qnas.calibration.ranges.ranges import Range
from qnas.onnx.graph import attributes
from qnas.quantization.quantizers import quantize

IMAGES = 48  # patches whose moments are taken
PLACES = 1024  # of each tensor of a patch, about
EXACT = 256  # places whose sums of products of bytes float32 holds: 255**2 * 256 < 2**24
SHARES = {8: np.linspace(1.15, 0.95, 9), 4: np.linspace(1.1, 0.5, 25)}  # of the scale that clips nothing
DAMPING = 0.003  # of the mean square, added to every square
# Assumed moments: neighbouring pixels correlate by CORRELATION, channels share a mean, NOISE is the rest.
CORRELATION, MEAN, NOISE = 0.9, 0.2, 0.3

Moments = NDArray[np.float64]  # [groups, K + 1, K + 1]


def fitted(
    network: FloatModel, ranges: Mapping[str, Range], bits_of: Callable[[str], int], rule: WeightRange,
    batches: Iterable[Floats], wide: Collection[str] = (), threads: int = 1,
) -> dict[str, IntegerWeights]:  # fmt: skip
    """Integer weights of every convolution of `network`, for the images of `batches`, [N, H, W, C] each.

    The first IMAGES of them are looked at, `threads` at a time, in grey levels. `bits_of`: of the weights of
    a node. Tensors of `wide` have 16 bits.
    """
    graph = FloatGraph(network)
    convolutions = [node for node in graph.nodes if is_fittable(graph, node)]
    moments = _measured(graph, plan_grids(graph, ranges, wide), convolutions, batches, threads)

    def fit(node: NodeProto) -> IntegerWeights:
        bias = graph.array(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        weight = graph.array(node.input[1])
        zeros = np.zeros(len(weight), np.float32)
        return rounded(weight, zeros if bias is None else bias, moments[node.name], bits_of(node.name), rule)

    with ThreadPoolExecutor(threads) as pool:
        return dict(zip((node.name for node in convolutions), pool.map(fit, convolutions), strict=True))


def is_fittable(graph: FloatGraph, node: NodeProto) -> bool:
    """Whether `node` is a two-dimensional convolution with constant weights and bias."""
    if node.op_type != "Conv" or not all(name in graph.constants for name in node.input[1:] if name):
        return False
    return bool(graph.data(node)) and len(graph.constants[node.input[1]].dims) == 4


def rounded(
    weight: Floats, bias: Floats | None, moments: Moments, bits: int, rule: WeightRange
) -> IntegerWeights:
    """weight [O, I / groups, ...], moments [groups, K, K] or, with a bias, [groups, K + 1, K + 1]."""
    groups = len(moments)
    rows = weight.reshape(groups, len(weight) // groups, -1).astype(np.float64)
    offsets = None if bias is None else bias.reshape(groups, -1).astype(np.float64)
    parts = [
        _best(rows[g], None if offsets is None else offsets[g], upper_root(moments[g]), bits, rule)
        for g in range(groups)
    ]
    q = np.concatenate([part[0] for part in parts]).reshape(weight.shape).astype(np.int8)
    scale = np.concatenate([part[1] for part in parts])
    new_bias = None if bias is None else np.concatenate([part[2] for part in parts]).astype(np.float32)
    return IntegerWeights(q, scale, 0, new_bias)


def _best(
    rows: NDArray[np.float64], bias: NDArray[np.float64] | None, root: NDArray[np.float64], bits: int,
    rule: WeightRange,
) -> tuple[NDArray[np.float64], Floats, NDArray[np.float64]]:  # fmt: skip
    """(q [O, K], scale [O], bias [O]) of the share of the largest scale with the least error."""
    shares = SHARES[bits] if rule == "mse" else np.ones(1)
    count, out = len(shares), len(rows)
    scales = (shares[:, None] * largest_scale(rows.astype(np.float32), bits)).astype(np.float32)
    offsets = np.zeros(out) if bias is None else bias
    q, offset, error = successive(
        np.tile(rows, (count, 1)), np.tile(offsets, count), root, scales.reshape(-1), bits
    )
    best, each = error.reshape(count, out).argmin(axis=0), np.arange(out)
    return q.reshape(count, out, -1)[best, each], scales[best, each], offset.reshape(count, out)[best, each]


def successive(
    rows: NDArray[np.float64], bias: NDArray[np.float64], root: NDArray[np.float64], scale: Floats, bits: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Round rows [O, K] in steps of scale [O]: (q [O, K], the bias that goes with q [O], squared error [O]).

    `root` is [K, K], or [K + 1, K + 1] where the last input is the 1 that the bias multiplies.
    """
    step, (low, high) = scale.astype(np.float64), ENDS[bits]
    inherited = np.zeros((len(rows), len(root)))  # sum over j < k of R[j, k] d[j]
    q, error = np.zeros_like(rows), np.zeros(len(rows))
    for k in range(rows.shape[1]):
        wanted = rows[:, k] + inherited[:, k] / root[k, k]
        q[:, k] = np.clip(np.rint(wanted / step), low, high)
        difference = rows[:, k] - q[:, k] * step
        error += np.square(root[k, k] * difference + inherited[:, k])
        inherited[:, k + 1 :] += difference[:, None] * root[k, k + 1 :]
    if len(root) > rows.shape[1]:
        bias = bias + inherited[:, -1] / root[-1, -1]
    return q, bias, error


def upper_root(moments: NDArray[np.float64]) -> NDArray[np.float64]:
    """R upper triangular with R R' = moments [K, K], positive definite; the same on any number of threads."""
    rest = np.array(moments[::-1, ::-1], np.float64)
    root = np.zeros_like(rest)
    for k in range(len(rest)):
        root[k:, k] = rest[k:, k] / np.sqrt(rest[k, k])
        rest[k + 1 :, k + 1 :] -= root[k + 1 :, k, None] * root[k + 1 :, k]
    return root[::-1, ::-1]


def assumed(weight: Floats, groups: int) -> Moments:
    """Moments [groups, K, K] of smooth features that share a mean, for weight [O, I / groups, ...]."""
    places = np.indices(weight.shape[2:]).reshape(weight.ndim - 2, -1).T
    distance = np.sqrt(np.square(places[:, None] - places).sum(axis=2))
    one = np.kron(np.eye(weight.shape[1]), CORRELATION**distance) + MEAN
    return np.broadcast_to(one + NOISE * np.eye(len(one)), (groups, *one.shape))


# Moments of images -------------------------------------------------------------------------------------


def _measured(
    graph: FloatGraph, grids: Grids, convolutions: list[NodeProto], batches: Iterable[Floats], threads: int
) -> dict[str, Moments]:
    """Node -> [groups, K + 1, K + 1], the last input being 1, damped."""
    names = list(dict.fromkeys(node.input[0] for node in convolutions))
    runner, adding = Runner(graph.network, names), Lock()
    sums: dict[str, Moments] = {}

    def take(image: Floats) -> None:
        values = runner.tensors(image)
        steps = {
            name: quantize(values[name][0], grids.of(name)) - grids.of(name).zero_point for name in names
        }
        for node in convolutions:
            windows = _windows(steps[node.input[0]], node, graph.array(node.input[1]).shape)
            products = _products(windows)
            with adding:  # whole numbers: in any order
                sums[node.name] = sums.get(node.name, 0) + products

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(take, islice(one_by_one(batches), IMAGES)))
    return {
        node.name: _damped(sums[node.name], float(grids.of(node.input[0]).scale)) for node in convolutions
    }


def one_by_one(batches: Iterable[Floats]) -> Iterator[Floats]:
    """The images [1, H, W, C] of batches [N, H, W, C]."""
    return (batch[i : i + 1] for batch in batches for i in range(len(batch)))


def _products(windows: Floats) -> Moments:
    """Sums over the places of windows [groups, places, K] of whole numbers: float64 [groups, K, K], exact."""
    found = np.zeros((len(windows), windows.shape[2], windows.shape[2]))
    wide = bool(np.abs(windows).max(initial=0) > BYTE)  # float64 holds the sums of 16 bits
    for start in range(0, windows.shape[1], EXACT):
        part: NDArray[np.floating[Any]] = windows[:, start : start + EXACT]
        part = part.astype(np.float64) if wide else part
        found += part.transpose(0, 2, 1) @ part
    return found


def _windows(x: NDArray[np.int32], node: NodeProto, shape: tuple[int, ...]) -> Floats:
    """What filters of weights `shape` read of x [C, H, W] at about PLACES places: [groups, places, K + 1].

    Whole numbers; the last of each window is 1.
    """
    a = attributes(node)
    groups, dilations, strides = a.get("group", 1), a.get("dilations", [1, 1]), a.get("strides", [1, 1])
    reach = [(size - 1) * d + 1 for size, d in zip(shape[2:], dilations, strict=True)]
    same = [(r - 1) // 2 if a.get("auto_pad", "").startswith("SAME") else 0 for r in reach]
    top, left, bottom, right = a.get("pads", [*same, *same])
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right)))
    views = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=(1, 2))
    views = views[:, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]
    sparse = max(1, math.ceil(math.sqrt(views.shape[1] * views.shape[2] / PLACES)))
    views = views[:, ::sparse, ::sparse]  # [C, rows, columns, kh, kw]
    places, kernel = views.shape[1] * views.shape[2], shape[2] * shape[3]
    read = views.reshape(groups, shape[1], places, kernel).transpose(0, 2, 1, 3).reshape(groups, places, -1)
    ones = np.ones((groups, places, 1), np.float32)
    return np.concatenate([read.astype(np.float32), ones], axis=2)


def _damped(sums: Moments, scale: float) -> Moments:
    """Means of products of values, a little larger on the diagonal, so that they have a root."""
    units = np.append(np.full(sums.shape[1] - 1, scale), 1.0)
    moments: Moments = sums / sums[:, -1:, -1:] * units[:, None] * units
    weights = np.arange(sums.shape[1] - 1)
    squares = moments[:, weights, weights]
    mean = squares.mean(axis=1, keepdims=True)
    moments[:, weights, weights] += np.where(mean > 0, DAMPING * mean, 1.0)
    return moments
