"""Evens the channels between two convolutions, so that one grid serves all of them.

Channel c made 1 / s[c] times as large and read s[c] times as strongly changes nothing where what stands
between is positively homogeneous, f(s x) = s f(x). Nagel et al., Data-Free Quantization through Weight
Equalization and Bias Correction, ICCV 2019, and Xiao et al., SmoothQuant, ICML 2023, equation 4:

    s[c] = a[c]^alpha / w[c]^(1 - alpha),    a: largest |value| of channel c, w: largest weight that reads it

Of several alpha, and s = 1, the one is taken with the least variance of what both roundings add behind the
second convolution: with steps delta of the grid and delta[o] of the weights of output o,

    delta^2 / 12 * sum_c s[c]^2 |W[:, c]|^2  +  sum_o delta[o]^2 / 12 * sum_c E[x[c]^2] / s[c]^2

What a rectifier with slopes reads is rounded too, and its values below zero may be far larger than what they
become: the first term counts it like x, and a[c] is the largest of both.

Each s[c] is a power of two: the float network computes the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, numpy_helper

from qnas.calibration.prepare.float_model import FloatModel, Runner
from qnas.calibration.ptq.rounding import IMAGES, one_by_one
from qnas.errors import CalibrationError
from qnas.images.evaluation import Batch
from qnas.onnx.graph import Graph, attributes

HOMOGENEOUS = frozenset({"AveragePool", "LeakyRelu", "MaxPool", "PRelu", "Relu"})
SLOPED = frozenset({"LeakyRelu", "PRelu"})  # of these, what they read is rounded as well
ALPHAS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
WORTH = 0.8  # of the variance: what gains less is left as it is
MOST = 60  # powers of two
LEVELS, WEIGHT_LEVELS = 255, 127
Equalization = Mapping[str, tuple[int, ...]]  # node of the first convolution -> log2 s of its channels
Array = NDArray[np.float64]


@dataclass(eq=False)
class _Seen:
    """The ends of the values of each channel [C] of a tensor, and their squares."""

    low: Array
    high: Array
    squares: Array
    count: int = 0

    def add(self, values: NDArray[np.float32]) -> None:
        """Take [C, H, W] in."""
        flat = values.reshape(len(values), -1).astype(np.float64)
        self.low, self.high = np.minimum(self.low, flat.min(axis=1)), np.maximum(self.high, flat.max(axis=1))
        self.squares += np.square(flat).sum(axis=1)
        self.count += flat.shape[1]


def find_equalization(network: FloatModel, batches: Iterable[Batch]) -> dict[str, tuple[int, ...]]:
    """The powers of two for `equalized`, by the first IMAGES of `batches`, grey levels [N, H, W, C].

    Pairs of convolutions that gain nothing are not in it.
    """
    graph = Graph(network.model.graph)
    pairs = {first.name: (second, rounded) for first, second, rounded in _pairs(graph)}
    names = list(dict.fromkeys(name for _, rounded in pairs.values() for name in rounded))
    if not names:
        return {}
    runner = Runner(network, names)
    seen: dict[str, _Seen] = {}
    for image in islice(one_by_one(batches), IMAGES):
        for name, values in runner.tensors(image).items():
            zeros = np.zeros(values.shape[1])
            seen.setdefault(name, _Seen(zeros, zeros.copy(), zeros.copy())).add(values[0])
    found = {}
    for name, (second, rounded) in pairs.items():
        powers = _powers(_read(graph, second), [seen[each] for each in rounded])
        if powers.any():
            found[name] = tuple(int(each) for each in powers)
    return found


def equalized(network: FloatModel, found: Equalization) -> FloatModel:
    """Return the same function, channels 2^-powers times as large; CalibrationError for another network."""
    if not found:
        return network
    model = deepcopy(network.model)
    graph = Graph(model.graph)
    pairs = {first.name: (first, second) for first, second, _ in _pairs(graph)}
    for name, powers in found.items():
        if name not in pairs:
            raise CalibrationError(f"{network.name} has no channels to even at {name!r}: calibrate it again")
        first, second = pairs[name]
        scale = np.exp2(np.asarray(powers, np.float32))
        weight, read = graph.array(first.input[1]), graph.array(second.input[1])
        if len(scale) != len(weight):
            raise CalibrationError(f"{network.name}: {name!r} has {len(weight)} channels: calibrate it again")
        _store(graph, first.input[1], weight / scale.reshape(-1, 1, 1, 1))
        if len(first.input) > 2 and first.input[2]:
            _store(graph, first.input[2], graph.array(first.input[2]) / scale)
        groups = attributes(second).get("group", 1)
        by_group = read.reshape(groups, -1, *read.shape[1:]) * scale.reshape(groups, 1, -1, 1, 1)
        _store(graph, second.input[1], by_group.reshape(read.shape))
    return replace(network, model=model)


def _store(graph: Graph, name: str, values: NDArray[np.floating[Any]]) -> None:
    graph.constants[name].CopyFrom(numpy_helper.from_array(values.astype(np.float32), name))


def _pairs(graph: Graph) -> Iterator[tuple[NodeProto, NodeProto, tuple[str, ...]]]:
    """Convolutions with constants of their own, of which the second alone reads the first.

    With the tensors that are rounded between them: what the second reads, and rectifiers with slopes.
    """
    for first in graph.nodes:
        last, sloped = first, []
        while graph.uses[last.output[0]] == 1 and (readers := graph.readers.get(last.output[0])):
            (last,) = readers
            if last.op_type not in HOMOGENEOUS:
                break
            if last.op_type in SLOPED:
                sloped.append(str(last.input[0]))
        if last is not first and _is_own(graph, first) and _is_own(graph, last):
            yield first, last, (str(last.input[0]), *sloped)


def _is_own(graph: Graph, node: NodeProto) -> bool:
    """Tell whether it is a convolution whose weights and bias are constants that no other node reads."""
    own = all(name in graph.constants and graph.uses[name] == 1 for name in node.input[1:] if name)
    return node.op_type == "Conv" and own and len(graph.constants[node.input[1]].dims) == 4


def _read(graph: Graph, node: NodeProto) -> Array:
    """The weights of a convolution as float64 [O, C, taps], 0 for channels of other groups."""
    weight = graph.array(node.input[1]).astype(np.float64)
    out, part, groups = len(weight), weight.shape[1], attributes(node).get("group", 1)
    whole = np.zeros((out, part * groups, weight[0, 0].size))
    for group in range(groups):
        rows = slice(group * out // groups, (group + 1) * out // groups)
        whole[rows, group * part : (group + 1) * part] = weight[rows].reshape(out // groups, part, -1)
    return whole


def _powers(weight: Array, seen: Sequence[_Seen]) -> NDArray[np.int64]:
    """The best powers of two for what `weight` [O, C, taps] reads; all 0 where nothing gains enough.

    `seen`: what it reads, and the other tensors that are rounded before.
    """
    largest = np.max([np.maximum(-each.low, each.high) for each in seen], axis=0)
    reading = np.abs(weight).max(axis=(0, 2))
    alive = (largest > 0) & (reading > 0)
    none = np.zeros(len(alive), np.int64)
    best, least = none, WORTH * _variance(weight, seen, none)
    for alpha in ALPHAS if alive.any() else ():
        powers = none.copy()
        wanted = alpha * np.log2(largest[alive]) - (1 - alpha) * np.log2(reading[alive])
        powers[alive] = np.clip(np.rint(wanted - np.median(wanted)), -MOST, MOST)
        if (variance := _variance(weight, seen, powers)) < least:
            best, least = powers, variance
    return best


def _variance(weight: Array, seen: Sequence[_Seen], powers: NDArray[np.int64]) -> float:
    """The variance of what all roundings add behind the convolution, summed over its outputs."""
    scale, read = np.exp2(powers), seen[0]
    steps_of_values = [((x.high / scale).max() - (x.low / scale).min()) / LEVELS for x in seen]
    scaled = weight * scale[:, None]
    of_values = np.square(steps_of_values).sum() * np.square(scaled).sum()
    steps = np.abs(scaled).max(axis=(1, 2)) / WEIGHT_LEVELS
    taps = (weight != 0).sum(axis=2)
    of_weights = float((steps[:, None] ** 2 * taps * read.squares / max(1, read.count) / scale**2).sum())
    return float(of_values) + of_weights
