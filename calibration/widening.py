"""Which tensors get 16 bits, so that a target is reached with the fewest of them.

One tensor of a residual trunk in 16 bits helps little while its neighbours round to 8: what counts shows from
the other side. All have 16 bits first; each in turn gets 8, and what that adds to the squared error is its
damage. Errors of many tensors add up nearly, so those of the least damage go back to 8 bits, as many as the
target allows (docs/decisions/0028-sixteen-bits.md).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from onnx import ModelProto

from qnas.calibration.judge import DIGITS, as_bytes
from qnas.calibration.prepare.float_model import FloatModel, Runner
from qnas.calibration.ptq.grids import plan_grids
from qnas.calibration.ptq.integer_model import (
    IntegerRunner,
    Plan,
    PtqOptions,
    placed_groups,
    plan_layers,
    quantized,
)
from qnas.calibration.ptq.rounding import one_by_one
from qnas.calibration.ptq.weights import IntegerWeights
from qnas.calibration.ranges.ranges import Range
from qnas.calibration.sensitivity import mac_shares
from qnas.images.evaluation import Batch
from qnas.images.quality import psnr_of

SAID = 8  # tensors that are told one by one
IMAGES = 8  # patches that the damage is measured on
NEAREST = 0.05  # dB below all in 16 bits, where the target is beyond that

Weights = Mapping[str, IntegerWeights]
Ranges = Mapping[str, Range]


@dataclass(frozen=True)
class WideTensor:
    """A tensor of 16 bits, with those on its grid. `psnr` in dB on IMAGES patches where it has 8 bits and all
    others 16; `macs`: share of the network's in convolutions that read or write it."""

    tensor: str
    psnr: float
    macs: float


@dataclass(frozen=True)
class Widening:
    """`options` and `ranges` with what has 16 bits, of `count` tensors on grids; `psnr` in dB of the model;
    `macs`: share of the convolutions around them."""

    options: PtqOptions
    ranges: Ranges
    psnr: float
    tensors: tuple[WideTensor, ...]
    count: int
    macs: float


def widened(
    network: FloatModel, ranges: Ranges, natural: Ranges, options: PtqOptions, batches: Iterable[Batch],
    score: Callable[[ModelProto], float], target: float, weights: Weights,
) -> Widening:  # fmt: skip
    """The fewest tensors in 16 bits with which `score` reaches `target`, or all but those that bring nothing.

    `ranges` are those of 8 bits, `natural` of all values that were seen: 16 bits need cut nothing off.
    """
    plan = plan_layers(network, options)
    groups = _groups(plan, ranges)
    search = _Search(network, ranges, natural, options, weights, groups)
    narrow = score(search.model(()))
    if narrow >= target:
        return Widening(options, ranges, narrow, (), len(groups), 0.0)
    errors = _errors(search, list(islice(one_by_one(batches), IMAGES)))
    order = sorted(groups, key=lambda group: (-errors[group], group))  # the worst in 8 bits first
    best = score(search.model(order))
    goal, least, most = min(target, best - NEAREST), 0, len(order)  # least: too few
    while most - least > 1:
        middle = (least + most) // 2
        found = score(search.model(order[:middle]))
        least, most, best = (least, middle, found) if found >= goal else (middle, most, best)
    shares = mac_shares(network, options)
    around = {group: _convolutions(plan, groups[group]) for group in order[:most]}
    tensors = tuple(
        WideTensor(
            group, round(psnr_of(errors[group]), DIGITS), sum(shares.get(name, 0.0) for name in around[group])
        )
        for group in order[:most]
    )
    every = set().union(*around.values())
    chosen, found_ranges = search.of(order[:most])
    macs = sum(shares.get(name, 0.0) for name in sorted(every))
    return Widening(chosen, found_ranges, best, tensors, len(groups), macs)


@dataclass(frozen=True, eq=False)
class _Search:
    """What all models of the search share; `groups`: tensors of one grid, by the one that stands for them."""

    network: FloatModel
    ranges: Ranges
    natural: Ranges
    options: PtqOptions
    weights: Weights
    groups: Mapping[str, tuple[str, ...]]

    def of(self, wide: Collection[str]) -> tuple[PtqOptions, Ranges]:
        """The options and ranges with the groups `wide` in 16 bits."""
        names = tuple(name for group, members in self.groups.items() if group in wide for name in members)
        seen = {name: self.natural[name] for name in names if name in self.natural and name in self.ranges}
        return replace(self.options, wide=names), {**self.ranges, **seen}

    def model(self, wide: Collection[str]) -> ModelProto:
        options, ranges = self.of(wide)
        return quantized(self.network, ranges, options, self.weights)


def _groups(plan: Plan, ranges: Ranges) -> dict[str, tuple[str, ...]]:
    """The groups that may have 16 bits: on grids, and not the pixels'."""
    graph, grids = plan.graph, plan_grids(plan.graph, ranges)
    placed = placed_groups(plan, grids) - {
        grids.groups.of(n) for n in (graph.network.input, graph.network.output)
    }
    found: dict[str, list[str]] = {}
    for name in graph.floats:
        if grids.groups.of(name) in placed:
            found.setdefault(grids.groups.of(name), []).append(name)
    return {group: tuple(names) for group, names in found.items()}


def _errors(search: _Search, images: list[Batch]) -> dict[str, float]:
    """Group -> mean squared error in grey levels of the output where it alone has 8 bits."""
    runner = Runner(search.network)
    wanted = [as_bytes(runner(image)).astype(np.int32) for image in images]
    found = {}
    for group in search.groups:
        integer = IntegerRunner(search.network, search.model([g for g in search.groups if g != group]))
        pairs = zip(images, wanted, strict=True)
        squares = [np.square(as_bytes(integer(image)) - exact).mean() for image, exact in pairs]
        found[group] = float(np.mean(squares))
    return found


def _convolutions(plan: Plan, names: Collection[str]) -> set[str]:
    """The convolutions of integers that read or write one of the tensors."""
    nodes = [node for node in plan.graph.nodes if node.name in plan.weighted & plan.integer]
    return {node.name for node in nodes if not {*names}.isdisjoint(plan.graph.touched(node))}


def said_of(found: Widening | None) -> tuple[str, ...]:
    """What a target gave 16 bits and what it costs, a sentence each; nothing here is timed."""
    if found is None:
        return ()
    if not found.tensors:
        return ("no tensor needs 16 bits",)
    rows = [
        f"16 bits for {each.tensor}: {each.psnr:.2f} dB with it alone in 8, {each.macs:.1%} of the MACs"
        for each in found.tensors[:SAID]
    ]
    more = len(found.tensors) - len(rows)
    return (
        f"16 bits for {len(found.tensors)} of {found.count} tensors: {found.psnr:.2f} dB; on processors "
        f"onnxruntime computes the convolutions around them in float, {found.macs:.1%} of the MACs",
        *rows,
        *([f"and {more} more, all in the file"] if more else []),
    )
