"""Which layers integers hurt, and what it costs to leave these in float32.

SQNR = 10 log10(sum of squares of the float values / sum of squares of the differences), in dB, over all
values of all images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from qnas.calibration.prepare.float_model import FloatModel, Runner
from qnas.calibration.ptq.float_graph import FloatGraph
from qnas.calibration.ptq.grids import Grids, plan_grids
from qnas.calibration.ptq.integer_model import (
    IntegerRunner,
    PtqOptions,
    plan_layers,
    quantized,
    write_layers,
    write_one,
)
from qnas.calibration.ptq.rounding import one_by_one
from qnas.calibration.ptq.trunks import trunks
from qnas.calibration.ptq.weights import IntegerWeights
from qnas.calibration.ranges.ranges import Range
from qnas.images.evaluation import Batch
from qnas.onnx.cost import model_cost
from qnas.quantization.quantizers import dequantize

IMAGES = 8  # patches that are looked at
TRIED = 3  # layers for each that is left in float
SIDE = 48  # of the image whose MACs are counted, where sizes are free; shares do not depend on it

Weights = Mapping[str, IntegerWeights]


@dataclass(frozen=True)
class TensorError:
    """What integers do to a tensor, and through it to the output; SQNR in dB.

    `layer` is the node that computes `tensor`. `everything`: of this tensor, with all layers quantized.
    `alone`: of the network's output, with only this layer's weights and output quantized.
    """

    tensor: str
    layer: str
    everything: float
    alone: float


@dataclass(frozen=True)
class Step:
    """One more layer, or trunk, in float32: `score` of the model then, its size in bytes, `macs` its share.

    `nodes`: the layer, or the sums of the trunk; `layer` names them.
    """

    layer: str
    nodes: tuple[str, ...]
    score: float
    macs: float
    bytes: int


@dataclass
class _Errors:
    """Sums of squares of tensors and of their differences."""

    signal: dict[str, float] = field(default_factory=dict)
    noise: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, wanted: NDArray[Any], found: NDArray[Any]) -> None:
        exact = np.asarray(wanted, np.float64)
        self.signal[name] = self.signal.get(name, 0.0) + float(np.square(exact).sum())
        self.noise[name] = self.noise.get(name, 0.0) + float(np.square(exact - found).sum())

    def sqnr(self, name: str) -> float:
        if not self.noise[name]:
            return math.inf
        return 10 * math.log10(self.signal[name] / self.noise[name]) if self.signal[name] else -math.inf


def sensitivity(
    network: FloatModel, ranges: Mapping[str, Range], options: PtqOptions, batches: Iterable[Batch],
    weights: Weights | None = None,
) -> tuple[TensorError, ...]:  # fmt: skip
    """Every layer of integers, worst `alone` first. The first IMAGES of `batches` [N, H, W, C] are run."""
    plan = plan_layers(network, options)
    grids, images = plan_grids(plan.graph, ranges), list(islice(one_by_one(batches), IMAGES))
    model = write_layers(plan, grids, options, weights or {})
    written = {name for node in model.graph.node for name in node.output}
    layers = [layer for layer in plan.layers if layer in plan.integer]
    tensors = {layer: _visible(plan.graph, layer, written) for layer in layers}
    everything = _all_quantized(plan.graph, grids, model, list(tensors.values()), images)
    runner = Runner(plan.graph.network)
    wanted = [runner(image) for image in images]
    found = []
    for layer, tensor in tensors.items():
        one = write_one(plan, grids, layer, options, weights or {})
        alone = _alone(plan.graph.network, one, images, wanted)
        found.append(TensorError(tensor, layer, everything[tensor], alone))
    return tuple(sorted(found, key=lambda each: (each.alone, each.layer)))


def fallback(
    network: FloatModel,
    ranges: Mapping[str, Range],
    options: PtqOptions,
    batches: Iterable[Batch],
    score: Callable[[ModelProto], float],
    layers: int | None = None,
    target: float | None = None,
    weights: Weights | None = None,
) -> tuple[PtqOptions, tuple[Step, ...]]:
    """`options` with convolutions in float: `layers` of them, or as many as `score` needs to reach `target`.

    With both it is whichever comes first, and nothing changes where the target is reached already. Each step
    takes, of the TRIED most sensitive ones that are left and the TRIED longest trunks, what has the best
    score: the tensors of a trunk round alike, and one layer beside it in float gains little.
    """

    def scored(nodes: tuple[str, ...]) -> tuple[float, PtqOptions, Step]:
        tried = replace(options, float_layers=(*options.float_layers, *nodes))
        model = quantized(network, ranges, tried, weights)
        found, macs = score(model), sum(shares.get(node, 0.0) for node in nodes)
        named = nodes[0] if len(nodes) == 1 else f"{nodes[0]} and {len(nodes) - 1} more sums"
        return found, tried, Step(named, nodes, found, macs, model.ByteSize())

    steps: list[Step] = []
    if target is not None and score(quantized(network, ranges, options, weights)) >= target:
        return options, ()
    plan, shares = plan_layers(network, options), mac_shares(network, options)
    order = [each.layer for each in sensitivity(network, ranges, options, batches, weights)]
    left: list[tuple[str, ...]] = [(layer,) for layer in order if layer in plan.weighted]
    whole = list(trunks(plan))
    while (left or whole) and (layers is None or len(steps) < layers):
        tried = [scored(nodes) for nodes in (*left[:TRIED], *whole[:TRIED])]
        found, options, step = max(tried, key=lambda each: each[0])
        steps.append(step)
        for choices in (left, whole):
            if step.nodes in choices:
                choices.remove(step.nodes)
        if target is not None and found >= target:
            break
    return options, tuple(steps)


def mac_shares(network: FloatModel, options: PtqOptions) -> dict[str, float]:
    """Layer -> its part of the network's MACs, 0 to 1."""
    rewritten = plan_layers(network, options).graph.network
    rows = model_cost(rewritten.model, {network.input: network.shape(SIDE, SIDE)}).layers
    total = sum(row.macs for row in rows)
    return {row.name: row.macs / total for row in rows} if total else {}


def _visible(graph: FloatGraph, layer: str, written: Container[str]) -> str:
    """The tensor of bytes that `layer` makes, behind the bounds that its quantizer takes over."""
    node = next(node for node in graph.nodes if node.name == layer)
    name = found = str(node.output[0])
    while graph.alone(name) or name not in written:
        readers = graph.value_readers[name]
        movers = [node for node in readers if graph.moves(node) and node.op_type != "Concat"]
        if not movers:
            break
        name = movers[0].output[0]
        found = name if graph.bound(movers[0]) is not None else found
    return found


def _all_quantized(
    graph: FloatGraph, grids: Grids, model: ModelProto, tensors: Sequence[str], images: Sequence[Batch]
) -> dict[str, float]:
    """Tensor -> SQNR in `model`."""
    integer, real = IntegerRunner(graph.network, model, tensors), Runner(graph.network, tensors)
    errors = _Errors()
    for image in images:
        wanted, found = real.tensors(image), integer.tensors(image)
        for name in tensors:
            errors.add(name, wanted[name], dequantize(found[name].astype(np.int32), grids.of(name)))
    return {name: errors.sqnr(name) for name in tensors}


def _alone(network: FloatModel, model: ModelProto, images: Sequence[Batch], wanted: Sequence[Batch]) -> float:
    """SQNR of the output of `model`, float in and out."""
    runner, errors = Runner(replace(network, model=model)), _Errors()
    for image, exact in zip(images, wanted, strict=True):
        errors.add("output", exact, runner(image))
    return errors.sqnr("output")
