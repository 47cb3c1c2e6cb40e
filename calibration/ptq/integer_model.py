"""Post-training quantization: float network and ranges -> QDQ ONNX, uint8 pixels in, uint8 pixels out.

1. `rewrites.py`: the same function in operations that integer kernels have;
2. `grids.py`: which tensors share a grid, and the grids;
3. `rounding.py`: integer weights, rounded for what the filters read;
4. `qdq_writer.py`: the graph. At the output the quantizer's saturation is the clip, and its bytes the pixels.

Why onnxruntime.quantization does not write it: docs/decisions/0017-own-qdq-graphs.md.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto

from qnas.calibration.prepare.float_model import FloatModel, Runner
from qnas.calibration.prepare.rewrites import rewritten
from qnas.calibration.prepare.sr_shape import from_layout, to_layout
from qnas.calibration.ptq.float_graph import FloatGraph
from qnas.calibration.ptq.grids import Grids, plan_grids
from qnas.calibration.ptq.int4_inputs import Int4Input, on_int4_grids
from qnas.calibration.ptq.qdq_writer import WEIGHTED, QdqWriter
from qnas.calibration.ptq.rounding import fitted
from qnas.calibration.ptq.weights import IntegerWeights, WeightBits, WeightRange
from qnas.calibration.ranges.ranges import Range
from qnas.errors import ModelError, UsageError
from qnas.images.evaluation import Batch, Image
from qnas.onnx.operations import ELEMENTWISE, FLOAT_ONLY, ON_GRIDS
from qnas.quantization.quantizers import QuantParams


@dataclass(frozen=True)
class PtqOptions:
    """How a network becomes integers. Names are those of nodes.

    `weight_bits` 8 or 4; `weight_range`: the scale of a channel reaches its largest weight (max), or is the
    one with the least squared error of what the filter computes (mse). `float_layers` compute in float32.
    `kept_clips` stay operations, behind a quantizer with the range that they cut. `wide` tensors, and what
    shares a grid with one, have 16 bits; the pixels have 8. Weights of `int4_layers` have 4 bits in any case,
    and the layers of `int4_inputs` read 4 bits.
    """

    weight_bits: WeightBits = 8
    weight_range: WeightRange = "mse"
    float_layers: tuple[str, ...] = ()
    kept_clips: tuple[str, ...] = ()
    wide: tuple[str, ...] = ()
    int4_layers: tuple[str, ...] = ()
    int4_inputs: tuple[Int4Input, ...] = ()

    def __post_init__(self) -> None:
        """Raises UsageError for weights of other than 4 or 8 bits."""
        if self.weight_bits not in (4, 8):
            raise UsageError(f"--weight-bits {self.weight_bits}: weights have 4 or 8 bits")

    def bits_of(self, layer: str) -> WeightBits:
        """The bits of a layer's weights."""
        return 4 if layer in self.int4_layers else self.weight_bits


def quantized(
    network: FloatModel,
    ranges: Mapping[str, Range],
    options: PtqOptions = PtqOptions(),
    weights: Mapping[str, IntegerWeights] | None = None,
) -> ModelProto:
    """The integer model of `network`: uint8 pixels in, uint8 pixels out, layout and names as they were.

    `ranges` has every activation tensor, in the network's units; what they say of input and output is left
    aside for the pixels' own grid. `weights` are those of `fitted_weights`; a convolution that is not among
    them is rounded for assumed images. Raises ModelError where a range is missing, or a node of `options`.
    """
    plan = plan_layers(network, options)
    grids = plan_grids(plan.graph, ranges, options.wide)
    grids, read = on_int4_grids(plan.graph, plan.integer, grids, options.int4_inputs)
    return write_layers(plan, grids, options, weights or {}, read)


def fitted_weights(
    network: FloatModel,
    ranges: Mapping[str, Range],
    options: PtqOptions,
    batches: Iterable[Batch],
    threads: int = 1,
) -> dict[str, IntegerWeights]:
    """Integer weights of the convolutions, rounded for the images of `batches`, grey levels [N, H, W, C].

    The first `rounding.IMAGES` are looked at. Node -> weights; exact and the same on any number of threads.
    """
    rule, wide = options.weight_range, options.wide
    return fitted(rewritten(network), ranges, options.bits_of, rule, batches, wide, threads)


@dataclass(frozen=True, eq=False)
class Plan:
    """`layers`: the nodes that compute, in order. `floating`: those of them that do it in float, and why."""

    graph: FloatGraph
    layers: tuple[str, ...]
    floating: Mapping[str, str]

    @cached_property
    def integer(self) -> frozenset[str]:
        """The layers that are to compute on grids."""
        return frozenset(self.layers) - self.floating.keys()

    @cached_property
    def weighted(self) -> frozenset[str]:
        """The convolutions among the layers."""
        return frozenset(n.name for n in self.graph.nodes if n.op_type in WEIGHTED) & {*self.layers}


def plan_layers(network: FloatModel, options: PtqOptions) -> Plan:
    """Which nodes compute, and which of them in integers. Raises ModelError for a node that is not there.

    Float layers are those of `options` and

    1. operations that are not known to bear grids, and those that no runtime computes in integers;
    2. what reads or writes a tensor whose values depend on the size of the image, and what joins functions of
       one tensor by other than a sum or product, as Max(x, x / 5) does;
    3. functions of one tensor, value by value, that these alone read;
    4. what has no weights and reads the results of float layers alone;
    5. what computes value by value with such results and the one tensor that they are a function of, value by
       value: x * f(x) is one function of x.
    """
    graph = FloatGraph(rewritten(network), frozenset(options.kept_clips))
    layers = tuple(node.name for node in graph.nodes if graph.data(node) and not graph.moves(node))
    unknown = {*options.float_layers, *options.int4_layers, *(each.layer for each in options.int4_inputs)} - {
        *layers
    }
    if unknown:
        raise ModelError(f"{network.name} has no layer {sorted(unknown)[0]!r}: name a node that computes")
    computing = [node for node in graph.nodes if graph.data(node)]
    floating = dict.fromkeys(_joins(graph, computing), "it joins functions of one tensor")  # Case 2
    for node in computing:
        if node.op_type not in ON_GRIDS - FLOAT_ONLY:  # Case 1
            floating[node.name] = "no runtime computes it in integers"
        elif not network.size_dependent.isdisjoint(graph.touched(node)):  # Case 2
            floating[node.name] = "its values depend on the size of the image"
    for node in reversed(computing):  # Case 3
        readers = [reader for name in node.output for reader in graph.value_readers.get(name, ())]
        alone = bool(readers) and all(r.name in floating and r.op_type not in WEIGHTED for r in readers)
        if alone and node.op_type in ELEMENTWISE and len(graph.data(node)) == 1:
            floating.setdefault(node.name, "only layers in float read it")
    floating |= dict.fromkeys(options.float_layers, "it was told to")
    sources: dict[str, str | None] = {}  # tensor of a float layer -> the one that it is a function of
    for node in computing:
        data = set(graph.data(node))
        made_of = {sources.get(name, name) for name in data}
        by_value = node.op_type in ELEMENTWISE and len(made_of) == 1
        of_floats = sources.keys() >= data or (by_value and not sources.keys().isdisjoint(data))
        if node.name in floating or (of_floats and node.op_type not in WEIGHTED):  # Cases 4 and 5
            floating.setdefault(node.name, "it reads results of layers in float")
            sources |= dict.fromkeys(node.output, made_of.pop() if by_value else None)
    return Plan(graph, layers, floating)


def _joins(graph: FloatGraph, computing: Sequence[NodeProto]) -> set[str]:
    """The nodes without an integer kernel that are functions of one tensor, though they read several."""
    sources: dict[str, str] = {}  # tensor -> the one that it is a function of, value by value
    found = set[str]()
    for node in computing:
        made_of = {sources.get(name, name) for name in graph.data(node)}
        if node.op_type in ELEMENTWISE and len(made_of) == 1:
            sources |= dict.fromkeys(node.output, made_of.pop())
            if len(graph.data(node)) > 1 and node.op_type not in ("Add", "Mul"):
                found.add(node.name)
    return found


def write_layers(
    plan: Plan, grids: Grids, options: PtqOptions, weights: Mapping[str, IntegerWeights],
    read: Mapping[str, QuantParams] | None = None,
) -> ModelProto:  # fmt: skip
    """The model, uint8 in and out, whose integer layers compute on grids; those of `read` on their own."""
    placed = placed_groups(plan, grids)
    return QdqWriter(
        graph=plan.graph, grids=grids, placed=placed, integer=plan.integer, weights=weights,
        bits_of=options.bits_of, weight_range=options.weight_range, read=read or {},
        io=TensorProto.UINT8,
    ).written()  # fmt: skip


def placed_groups(plan: Plan, grids: Grids) -> frozenset[str]:
    """The groups whose tensors are integers: the pixels', and those that integer layers touch."""
    graph = plan.graph
    placed = {grids.groups.of(name) for name in (graph.network.input, graph.network.output)}
    for node in graph.nodes:
        if node.name in plan.integer:
            placed.update(grids.groups.of(name) for name in graph.touched(node))
    return frozenset(placed)


def write_one(
    plan: Plan, grids: Grids, layer: str, options: PtqOptions, weights: Mapping[str, IntegerWeights]
) -> ModelProto:
    """The float model, float in and out; node `layer` alone has integer weights and writes on a grid."""
    graph = plan.graph
    node = next(node for node in graph.nodes if node.name == layer)
    placed = frozenset(grids.groups.of(name) for name in node.output if name in graph.floats)
    return QdqWriter(
        graph=graph, grids=grids, placed=placed, integer=frozenset({layer}), weights=weights,
        bits_of=options.bits_of, weight_range=options.weight_range, read={}, io=TensorProto.FLOAT,
    ).written()  # fmt: skip


class IntegerRunner(Runner):
    """The model that `quantized` made of `network`: pixels are rounded, and `tensors` are bytes in it."""

    kind = TensorProto.UINT8

    def __init__(
        self, network: FloatModel, model: ModelProto, tensors: Sequence[str] = (), threads: int = 1,
        optimized: bool = True,
    ) -> None:  # fmt: skip
        """Open the session; ModelError when the model has no such tensor."""
        super().__init__(replace(network, model=model), tensors, threads, optimized)

    def feed(self, pixels: NDArray[Any]) -> Image:
        """The nearest bytes, in the network's layout."""
        return to_layout(np.clip(np.rint(pixels), 0, 255).astype(np.uint8), self.network.layout)

    def shown(self, output: Image) -> Batch:
        """The bytes themselves."""
        return from_layout(output, self.network.layout).astype(np.float32)
