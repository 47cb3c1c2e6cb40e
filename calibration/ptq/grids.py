"""Which tensors of a float network share an integer grid, and what grid that is.

1. Operations that move values, and bounds (Relu, Clip, Min, Max with constants), read and write one grid:
   they are done on the bytes. A bound at the end of its grid is the grid's own saturation, so it vanishes.
   So do products with interpolation weights, which sum to 1, and means over the image: they keep the range.
2. A bound narrows the grid of what it reads when nothing else reads that: Conv -> Relu is a grid from 0 on.
3. Parts of a concatenation take its grid when nothing else reads them.
4. The input and the output have the grid of pixels: white / 255, zero point 0.
5. What an Add reads has simple ratios of the scale that it writes, mostly 1 (zero points may differ), and
   those leave no ties: every runtime rounds the sum alike.
6. What a Sigmoid writes has steps of 1/256 unless it stays below 1/2, or of 1/32768 where it has 16 bits: the
   grids of TFLite's LOGISTIC. Where a constant is added to that, the zero point moves, and no byte changes.
7. The scales of a product are such that every runtime rounds all products of two bytes alike: a little larger
   where they would not be.
8. A PRelu or LeakyRelu of slopes from 0 to 1 writes the scale of what it reads, where that is not much larger
   than its own: values above 0 are then not rounded again.
9. Groups of 16 bits have the zero point 32768 and a power of two as their scale, up to twice what their range
   needs: what other images hold beyond it is not cut off. Cases 5, 7 and 8 are of bytes alone: runtimes
   compute with 16 bits in float (docs/decisions/0028-sixteen-bits.md).
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from qnas.calibration.ptq.float_graph import FloatGraph
from qnas.calibration.ranges.ranges import Range
from qnas.errors import ModelError
from qnas.integer.requantization import products_agree
from qnas.onnx.graph import attributes
from qnas.quantization.quantizers import QuantParams, quantize

TOP = 255
EVEN_TOP = 254
# Scales of what is added are whole multiples of a unit: the larger ones, the closer sums come to ties.
MOST_UNITS = 255
MOST_UNITS_OF_AN_END = 63
ROUNDED_OFF = 2**-40  # of a quotient that is a whole number
SIGMOID = Range(0.0, 255 / 256)
WIDE_SIGMOID = QuantParams(np.asarray(2.0**-15, np.float32), 2**15, 0, 2**16 - 1, 16)
MOST_HALVINGS = 60  # of a step: products of two are still float32
MIDDLE = 2**15  # the zero point of 16 bits: LiteRT takes no other
GROWTH = 1 + 2**-9  # of scales whose products runtimes would round differently: other mantissas
MOST_ATTEMPTS = 24
# Of case 8: with steps s in and t out, and half of the values above 0, the variance of what roundings add
# falls by t**2 / 24 and grows by (s**2 - t**2) / 24.
WORTH = 2**0.5
NEAR_TIE = 2**-12  # of a step


@dataclass
class Sets:
    """Disjoint sets of names, joined one by one."""

    parents: dict[str, str] = field(default_factory=dict)

    def of(self, name: str) -> str:
        """The member that stands for the set of `name`."""
        while self.parents.get(name, name) != name:
            name = self.parents[name]
        return name

    def join(self, a: str, b: str) -> None:
        """Make one set of two; that of `a` stands for it."""
        self.parents[self.of(b)] = self.of(a)


@dataclass(frozen=True, eq=False)
class Grids:
    """`groups`: tensors of one grid. `params`: grid of each group, by the tensor that stands for it. `tied`:
    groups whose grids others go by."""

    groups: Sets
    params: Mapping[str, QuantParams]
    tied: frozenset[str] = frozenset()

    def of(self, tensor: str) -> QuantParams:
        """The grid of a tensor."""
        return self.params[self.groups.of(tensor)]

    def __contains__(self, tensor: str) -> bool:
        """Whether a tensor has a grid."""
        return self.groups.of(tensor) in self.params


def pixel_grid(white: float) -> QuantParams:
    """The grid of images: one step is one grey level."""
    return QuantParams(np.asarray(white / TOP, np.float32), 0, 0, TOP)


def wide_grid(span: Range) -> QuantParams:
    """The grid of 16 bits of a range, by case 9."""
    needed = max(-span.low, span.high) / (MIDDLE - 1)
    step = 2.0 ** max(math.ceil(math.log2(needed)), -MOST_HALVINGS) if needed > 0 else 1.0
    return QuantParams(np.asarray(step, np.float32), MIDDLE, 0, 2 * MIDDLE - 1, 16)


def bound_on(grid: QuantParams, low: float, high: float) -> tuple[int, int]:
    """`low` and `high` in steps of `grid`; (0, 255) says that the grid saturates there by itself."""
    ends = quantize(np.asarray([low, high], np.float32), grid)
    return int(ends[0]), int(ends[1])


def plan_grids(graph: FloatGraph, ranges: Mapping[str, Range], wide: Collection[str] = ()) -> Grids:
    """The grid of every tensor; those of `wide`, and what shares a grid with them, have 16 bits, but for the
    pixels'. Raises ModelError where `ranges` lacks a tensor."""
    groups, narrowed = _groups(graph)
    members: dict[str, list[str]] = {}
    for name in graph.floats:
        members.setdefault(groups.of(name), []).append(name)
    pinned = {groups.of(name) for name in (graph.network.input, graph.network.output)}
    spans = {
        group: _span([name for name in names if name not in narrowed], ranges)
        for group, names in members.items()
        if group not in pinned
    }
    large = {group: wide_grid(spans[group]) for name in wide if (group := groups.of(name)) in spans}
    for node in graph.nodes:
        group = groups.of(node.output[0])
        if node.op_type != "Sigmoid" or group not in spans or spans[group].high > 1:
            continue
        if group in large:
            large[group] = WIDE_SIGMOID
        elif spans[group].high > 0.5:
            spans[group] = SIGMOID
    spans = {group: span for group, span in spans.items() if group not in large}
    pixels = pixel_grid(graph.network.white)
    needed = {group: float(span.params().scale) * TOP / EVEN_TOP for group, span in spans.items()}
    needed |= dict.fromkeys(pinned, float(pixels.scale))
    known = dict.fromkeys(pinned, pixels)
    families = _families(graph, groups, known, large)
    known |= {group: span.params() for group, span in spans.items() if span == SIGMOID}
    known |= _shifted(graph, groups, spans)
    for family in families:
        known = {
            group: grid for group, grid in known.items() if group in pinned or group not in family.groups
        }
    params = {group: span.params() for group, span in spans.items()} | known
    for family in families:
        params |= _family_grids(family, needed, spans, known)
    products = [each for each in _products(graph, groups) if large.keys().isdisjoint(each)]
    tied = {group for family in families for group in family.groups}.union(*products, known, large)
    params |= _kept_above_zero(graph, groups, spans, params, tied)
    agreeing = _agreeing(products, families, needed, spans, params, known)
    return Grids(groups, {**agreeing, **large}, frozenset(tied))


def _groups(graph: FloatGraph) -> tuple[Sets, set[str]]:
    """Tensors that share a grid, and those whose range a bound behind them makes smaller."""
    groups = Sets()
    for node in graph.nodes:
        if graph.interpolates(node) or (node.op_type == "GlobalAveragePool" and graph.data(node)):
            groups.join(graph.data(node)[0], node.output[0])
        if not (graph.data(node) and graph.moves(node)):
            continue
        for name in graph.data(node):
            if node.op_type != "Concat" or _joins(graph, node, name):
                for output in node.output:
                    groups.join(name, output)
    return groups, _narrowed(graph)


def _narrowed(graph: FloatGraph) -> set[str]:
    """What a bound reads and nothing else, and what that was before it was moved."""
    found: set[str] = set()
    for node in reversed(graph.nodes):
        if graph.bound(node) is not None:
            found |= graph.exclusive.intersection(graph.data(node))
        if graph.moves(node) and not found.isdisjoint(node.output):
            found.update(graph.data(node))
    return found


def _joins(graph: FloatGraph, node: NodeProto, part: str) -> bool:
    """Case 3; and one tensor several times is on one grid with all of itself."""
    return graph.alone(part) or len(set(node.input)) == 1


def _span(names: list[str], ranges: Mapping[str, Range]) -> Range:
    found = [ranges[name] for name in names if name in ranges]
    if not found:
        raise ModelError(
            f"the calibration has no range of the tensor {names[0]!r}: calibrate this model again"
        )
    return Range(min(r.low for r in found), max(r.high for r in found)).with_zero()


def _shifted(graph: FloatGraph, groups: Sets, spans: Mapping[str, Range]) -> dict[str, QuantParams]:
    """The grids of sums of a Sigmoid on its own grid and a constant of whole steps."""
    found = {}
    for node in graph.nodes:
        data, group = graph.data(node), groups.of(node.output[0])
        number = next((x for x in map(graph.number, node.input) if x is not None), None)
        if (
            node.op_type != "Add"
            or len(data) != 1
            or number is None
            or spans.get(groups.of(data[0])) != SIGMOID
        ):
            continue
        grid = SIGMOID.params()
        zero_point = -number / float(grid.scale)
        if group in spans and zero_point.is_integer() and 0 <= zero_point <= TOP:
            found[group] = replace(grid, zero_point=int(zero_point))
    return found


# Case 5 ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Family:
    """Groups that additions bring together. `added`: one that only additions read -> what they write.

    `sums` are what additions write; `pinned` is the scale of the pixels, where the family has it.
    """

    groups: tuple[str, ...]
    sums: frozenset[str]
    added: Mapping[str, tuple[str, ...]]
    pinned: float | None


def _families(
    graph: FloatGraph, groups: Sets, pinned: Mapping[str, QuantParams], wide: Collection[str]
) -> list[Family]:
    sets, sums, exact = Sets(), set[str](), set[str]()
    readers: dict[str, list[NodeProto]] = {}
    for node in graph.nodes:
        for name in graph.data(node) if not graph.moves(node) else ():
            readers.setdefault(groups.of(name), []).append(node)
        if node.op_type != "Add" or any(groups.of(name) in wide for name in graph.touched(node)):
            continue
        exact.add(node.name)
        if len(graph.data(node)) == 2:
            sums.add(groups.of(node.output[0]))
            for name in graph.data(node):
                sets.join(groups.of(node.output[0]), groups.of(name))
    added = {
        group: tuple(groups.of(node.output[0]) for node in nodes)
        for group, nodes in readers.items()
        if exact.issuperset(node.name for node in nodes) and group not in pinned
    }
    families: dict[str, list[str]] = {}
    for group in dict.fromkeys(groups.of(name) for name in graph.floats):
        families.setdefault(sets.of(group), []).append(group)
    return [
        Family(
            tuple(family), frozenset(sums.intersection(family)), added,
            next((float(pinned[group].scale) for group in family if group in pinned), None),
        )
        for family in families.values() if len(family) > 1
    ]  # fmt: skip


def _family_grids(
    family: Family, needed: Mapping[str, float], spans: Mapping[str, Range], pinned: Mapping[str, QuantParams]
) -> dict[str, QuantParams]:
    """The grid of each of its groups that may follow the others."""
    alone = len(family.groups) == 1
    scales = {g: needed[g] for g in family.groups} if alone else _family_scales(family, needed)
    return {group: grid_of_step(spans[group], s) for group, s in scales.items() if group not in pinned}


def _family_scales(family: Family, needed: Mapping[str, float]) -> dict[str, float]:
    """The scale of each group that may follow the others; `needed` is the least that its range allows.

    1. All are whole multiples of a unit. Those of sums and of the pixels are odd ones: then no sum is a
       tie or close to one, and every runtime rounds it alike, in float or in fixed point.
    2. What is only added has the scale of the sum: then the sum rounds nothing.
    3. Of the units that an end of the sums proposes the one is taken that coarsens the family least.
    """
    sums = [needed[group] for group in family.groups if group in family.sums]
    ends = {min(sums), max(sums)} if family.pinned is None else {family.pinned}
    least = max(needed[group] for group in family.groups) / MOST_UNITS
    odd = range(1, MOST_UNITS_OF_AN_END + 1, 2)
    units = [end / n for end in ends for n in odd if n == 1 or end >= n * least]
    found = [_scales_of_unit(family, needed, unit) for unit in units]
    return min(found, key=lambda scales: sum((scales[g] / needed[g]) ** 2 for g in family.groups))


def _scales_of_unit(family: Family, needed: Mapping[str, float], unit: float) -> dict[str, float]:
    found: dict[str, float] = {}

    def scale(group: str) -> float:
        if group not in found:
            units = math.ceil(needed[group] / unit * (1 - ROUNDED_OFF))
            found[group] = own = unit * (units | 1 if group in family.sums else units)  # Case 1
            sums = [scale(each) for each in family.added.get(group, ()) if each != group]
            found[group] = max([own, min(sums)]) if sums else own  # Case 2
        return found[group]

    for group in family.groups:
        scale(group)
    return found


def grid_of_step(span: Range, step: float) -> QuantParams:
    """The grid of that step which holds `span`, with an even zero point.

    onnxruntime adds the zero point of a sum before it rounds: ties go the same way only if it is even.
    """
    zero_point = min(2 * max(round(-span.low / step / 2), 0), EVEN_TOP)
    return QuantParams(np.asarray(step, np.float32), zero_point, 0, TOP)


# Case 7 ------------------------------------------------------------------------------------------------


def _products(graph: FloatGraph, groups: Sets) -> list[tuple[str, ...]]:
    """The groups that each product of two tensors reads, and the one that it writes."""
    nodes = [node for node in graph.nodes if node.op_type == "Mul" and len(graph.data(node)) == 2]
    return [tuple(groups.of(name) for name in (*graph.data(node), node.output[0])) for node in nodes]


def _agreeing(
    products: Sequence[tuple[str, ...]], families: Sequence[Family], needed: Mapping[str, float],
    spans: Mapping[str, Range], params: Mapping[str, QuantParams], pinned: Mapping[str, QuantParams],
) -> Mapping[str, QuantParams]:  # fmt: skip
    """`params` with larger scales around the products that runtimes would round differently.

    What a product writes grows first, with its family; then, where that is the pixels' grid or does not help,
    what it reads.
    """
    found, least, home = dict(params), dict(needed), {g: family for family in families for g in family.groups}
    for attempt in range(MOST_ATTEMPTS):
        apart = [each for each in products if not products_agree(*(found[group] for group in each))]
        for each in apart:
            group = each[-1 - attempt % 3]
            alone = Family((group,), frozenset(), {}, None)
            family = home.get(group, alone)
            least |= {g: least[g] * GROWTH for g in family.groups if g not in pinned}
            found |= _family_grids(family, least, spans, pinned)
        if not apart:
            break
    return found


# Case 8 ------------------------------------------------------------------------------------------------


def _kept_above_zero(
    graph: FloatGraph, groups: Sets, spans: Mapping[str, Range], params: Mapping[str, QuantParams],
    tied: Collection[str],
) -> dict[str, QuantParams]:  # fmt: skip
    """The grids of what rectifiers with slopes write, but for the groups `tied` to others."""
    found: dict[str, QuantParams] = {}
    for node in graph.nodes:
        if node.op_type not in ("LeakyRelu", "PRelu") or not graph.data(node):
            continue
        group = groups.of(node.output[0])
        source, slopes = groups.of(node.input[0]), _slopes(graph, node)
        read = found.get(source, params.get(source))  # none of 16 bits
        if read is None or slopes is None or slopes.min() < 0 or slopes.max() > 1 or group in tied:
            continue
        if node.op_type == "LeakyRelu" and _near_ties(float(slopes)):
            continue
        own, step = float(params[group].scale), float(read.scale)
        if own <= step <= WORTH * own:
            found[group] = grid_of_step(spans[group], step)
    return found


def _near_ties(slope: float) -> bool:
    """Whether a whole number of steps times `slope` is a tie or close to one, which runtimes round freely."""
    return bool((np.abs(np.arange(TOP + 1) * slope % 1 - 0.5) < NEAR_TIE).any())


def _slopes(graph: FloatGraph, node: NodeProto) -> NDArray[np.float32] | None:
    """The slopes below 0 of a rectifier; None where they are not constant."""
    if node.op_type == "LeakyRelu":
        return np.asarray(attributes(node).get("alpha", 0.01), np.float32)
    name = node.input[1]
    return graph.array(name) if name in graph.constants else None
