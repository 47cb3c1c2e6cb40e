"""4 or 8 bits for the weights of each layer of a float network, so that a budget is kept and least is lost.

1. How much a layer hurts is measured: the integer model with this layer alone in 4 bits, against the float
   model, on PATCHES of those that made the ranges. What it adds to the squared error is its damage.
2. Damages of several layers add up nearly, so the choice is a knapsack, solved exactly (`cost/knapsack.py`).
3. The claim is measured, not predicted: the chosen model on the patches held out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from onnx import ModelProto

from qnas.calibration.calibrate import Settings, calibrated_network, run
from qnas.calibration.document import Calibration, Mixed, read_calibration, write_calibration
from qnas.calibration.judge import Judge
from qnas.calibration.patches import manifest
from qnas.calibration.patches.patches import Patches
from qnas.calibration.prepare.float_model import FloatModel
from qnas.calibration.progress import Display, Passing
from qnas.calibration.ptq import weights as weights_document
from qnas.calibration.ptq.grids import plan_grids
from qnas.calibration.ptq.int4_inputs import Int4Input
from qnas.calibration.ptq.integer_model import (
    Plan,
    PtqOptions,
    fitted_weights,
    plan_layers,
    quantized,
)
from qnas.calibration.ptq.weights import IntegerWeights
from qnas.calibration.ranges.collection import collect
from qnas.calibration.ranges.histogram import Histogram
from qnas.calibration.ranges.range_rules import least_error
from qnas.calibration.ranges.ranges import Range
from qnas.cost.allocation import (
    EIGHT,
    Allocation,
    Bits,
    BitsReport,
    Choices,
    LayerChoice,
    Mix,
    Task,
    Unit,
    allocated,
    units_of,
)
from qnas.errors import ModelError, UsageError
from qnas.files import check_outputs, write_file
from qnas.images.files import images_in
from qnas.one_writer import one_writer
from qnas.onnx.cost import model_cost

PATCHES = 16  # that the damage is measured on
FOUR: Bits = "4"
FOUR_EIGHT: Bits = "4/8"
Size = tuple[int, int]  # height and width


@dataclass(frozen=True, eq=False)
class Mixer:
    """Makes integer models of `network` whose layers have other bits than the 8 of `calibration`.

    `judge` scores them against the network as it was, on images held out of `patches`. `widths`: what each
    layer may have; one that reads the pixels has those in 8 bits.
    """

    network: FloatModel
    calibration: Calibration
    patches: Patches
    judge: Judge
    threads: int = 1
    widths: tuple[Bits, ...] = (EIGHT, FOUR_EIGHT)

    @cached_property
    def plan(self) -> Plan:
        """The network with all layers in 8 bits."""
        return plan_layers(self.network, self.calibration.options)

    @cached_property
    def layers(self) -> dict[str, str]:
        """The convolutions in integers, in order, and what they read: those whose bits are free."""
        chosen = self.plan.weighted & self.plan.integer
        return {node.name: node.input[0] for node in self.plan.graph.nodes if node.name in chosen}

    def widths_of(self, layer: str) -> tuple[Bits, ...]:
        """What a layer may have."""
        return tuple(bits for bits in self.widths if bits != FOUR or layer not in self._on_pixels)

    def options(self, bits: Mapping[str, Bits]) -> PtqOptions:
        """Those of the calibration, with the `bits` of layers that have not 8."""
        inputs = [layer for layer, each in bits.items() if each == FOUR]
        ranges = {layer: self._ranges[self.layers[layer]] for layer in inputs}
        return replace(
            self.calibration.options,
            int4_layers=tuple(layer for layer, each in bits.items() if each != EIGHT),
            int4_inputs=tuple(Int4Input(layer, each.low, each.high) for layer, each in ranges.items()),
        )

    def weights(self, bits: Mapping[str, Bits]) -> dict[str, IntegerWeights]:
        """The calibration's, but those of 4 bits, which are rounded to these for the same images."""
        narrow = {name: each for name, each in self._four.items() if bits.get(name, EIGHT) != EIGHT}
        return self._eight | narrow

    def model(self, bits: Mapping[str, Bits]) -> ModelProto:
        """The integer model with these bits."""
        return quantized(self.network, self.calibration.ranges, self.options(bits), self.weights(bits))

    def mixed(self, unit: Unit, allocation: Allocation) -> Calibration:
        """The calibration with these bits, and the PSNR that they have on the patches held out."""
        bits = allocation.bits
        psnr = self.judge.psnr(self.model(bits))
        return replace(
            self.calibration,
            options=self.options(bits),
            weights=weights_document.to_document(self.weights(bits)),
            mixed=Mixed(psnr, unit, allocation.budget.text, allocation.cost),
        )

    @cached_property
    def _on_pixels(self) -> frozenset[str]:
        """The layers that read the image, or what has its levels."""
        graph = self.plan.graph
        groups = plan_grids(graph, self.calibration.ranges).groups
        pixels = {groups.of(name) for name in (self.network.input, self.network.output)}
        return frozenset(layer for layer, read in self.layers.items() if groups.of(read) in pixels)

    @cached_property
    def _eight(self) -> dict[str, IntegerWeights]:
        return weights_document.from_document(self.calibration.weights, "the calibration")

    @cached_property
    def _four(self) -> dict[str, IntegerWeights]:
        options, ranges = replace(self.calibration.options, weight_bits=4), self.calibration.ranges
        return fitted_weights(self.network, ranges, options, self.patches.batches(), self.threads)

    @cached_property
    def _ranges(self) -> dict[str, Range]:
        """The ranges of what layers read with which 16 levels have the least squared error."""
        names = tuple({read: None for layer, read in self.layers.items() if layer not in self._on_pixels})
        network, batches = self.plan.graph.network, self.patches.batches()
        seen = collect(network, batches, names, Histogram, self.threads)
        return {name: least_error(histogram, 4) for name, histogram in seen.items()}


def mix_calibration(
    model: Path, task: Task, calibration: Path | None, settings: Settings, inputs: bool, display: Display
) -> BitsReport:
    """Choose 4 or 8 bits for the weights of each layer of a float network, a calibration for each budget.

    The images are those of `calibration`, one folder, or without one those to calibrate with, by `settings`.
    With `inputs` layers may read 4 bits as well. A network of one size is counted at that. Raises QnasError,
    nothing written.
    """
    if task.unit == "ms":
        raise UsageError(
            "--unit ms: runtimes take as long for weights of 4 bits as of 8: use bitops or bytes"
        )
    check_outputs(task.files, task.force, (model, calibration, *images_in(task.images)))
    with one_writer(*task.files):
        mixer = mixer_of(model, task, calibration, settings, inputs, display)
        choices = weighed(mixer, task.unit, mixer.network.size or task.size, display)
        found, mixed = allocated(choices, task.budgets), list[Calibration]()
        show = display.step("scoring the choice")
        for allocation in found:
            mixed.append(mixer.mixed(task.unit, allocation))
            show(len(mixed), len(found))
        mixes = tuple(
            Mix(allocation, each.fidelity, output)
            for allocation, each, output in zip(found, mixed, task.outputs, strict=True)
        )
        report = BitsReport(choices, mixer.calibration.fidelity, mixes)
        for mix, each in zip(mixes, mixed, strict=True):
            write_calibration(each, mix.file, task.force)
        if task.report:
            write_file(task.report, report.to_json(), task.force)
    return report


def mixer_of(
    model: Path, task: Task, calibration: Path | None, settings: Settings, inputs: bool, display: Display
) -> Mixer:
    """The network and its calibration, read or made. Raises UsageError where it has 4 bits already."""
    threads, images = task.threads or os.cpu_count() or 1, task.images
    inputs = inputs and task.unit == "bitops"  # they save no bytes
    widths = (EIGHT, FOUR_EIGHT, FOUR) if inputs else (EIGHT, FOUR_EIGHT)
    if calibration is None:
        done = run(model, images, replace(settings, threads=threads), display)
        return Mixer(done.best.network, done.calibration, done.patches, done.judge, threads, widths)
    if settings != Settings():
        raise UsageError(
            "--calibration says how it was made: leave --hr, --count, --patch, --input-range out"
        )
    found = read_calibration(calibration)
    if found.options.weight_bits != 8 or found.options.int4_layers:
        raise UsageError(f"{calibration} has weights of 4 bits already: name one that has 8 in all")
    if len(images) != 1 or not images[0].is_dir():
        raise UsageError(f"{calibration} names patches of one folder: give that folder alone as IMAGES")
    original, network = calibrated_network(model, found)
    chosen = manifest.from_document(found.manifest, str(calibration), images[0])
    mine, held_out = chosen.split(found.held_out)
    patches = Patches.of(mine, Passing(display, "cutting patches", len(mine.crops)))
    return Mixer(network, found, patches, Judge(original, held_out, threads), threads, widths)


def weighed(mixer: Mixer, unit: Unit, size: Size, display: Display) -> Choices:
    """What each layer costs and how much it hurts, in 8 bits and in fewer. Raises ModelError without any."""
    network, images = mixer.network, mixer.patches.images
    if not mixer.layers:
        raise ModelError(f"{network.name} has no convolution in integers: there are no bits to choose")
    step = max(1, len(images.crops) // PATCHES)
    judge = Judge(mixer.judge.network, replace(images, crops=images.crops[::step][:PATCHES]), mixer.threads)
    shapes = {network.input: network.shape(*size)}
    costs = {
        bits: {
            row.name: units_of(row, unit)
            for row in model_cost(mixer.model(_where_possible(mixer, bits)), shapes).layers
        }
        for bits in mixer.widths
    }
    show, base = display.step("measuring layers in 4 bits"), judge.error(mixer.model({}))
    found = []
    for layer in mixer.layers:
        widths = mixer.widths_of(layer)
        errors = {
            bits: 0.0 if bits == EIGHT else judge.error(mixer.model({layer: bits})) - base for bits in widths
        }
        found.append(LayerChoice(layer, {bits: costs[bits][layer] for bits in widths}, errors))
        show(len(found), len(mixer.layers))
    fixed = sum(units for name, units in costs[EIGHT].items() if name not in mixer.layers)
    return Choices(unit, tuple(found), fixed, base)


def _where_possible(mixer: Mixer, bits: Bits) -> dict[str, Bits]:
    """All layers that may have these `bits` with them."""
    return {layer: bits for layer in mixer.layers if bits in mixer.widths_of(layer)}
