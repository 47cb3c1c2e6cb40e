"""4 or 8 bits for the weights of each layer of a float network, so that a budget is kept and least is lost.

1. How much a layer hurts is measured: the integer model with this layer alone in 4 bits, against the float
   model, on PATCHES of those that made the ranges. What it adds to the squared error is its damage.
2. Damages of several layers add up nearly, so the choice is a knapsack, solved exactly (`cost/knapsack.py`).
3. The claim is measured, not predicted: the chosen model on the patches held out.
"""

from __future__ import annotations

import os
from collections.abc import Collection
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
from qnas.calibration.ptq.integer_model import PtqOptions, fitted_weights, plan_layers, quantized
from qnas.calibration.ptq.weights import IntegerWeights
from qnas.cost.allocation import (
    Allocation,
    BitsReport,
    Choices,
    LayerChoice,
    Mix,
    Task,
    Unit,
    allocated,
    units_of,
)
from qnas.errors import UsageError
from qnas.files import check_outputs, write_file
from qnas.images.files import images_in
from qnas.one_writer import one_writer
from qnas.onnx.cost import model_cost

PATCHES = 16  # that the damage is measured on
Size = tuple[int, int]  # height and width


@dataclass(frozen=True, eq=False)
class Mixer:
    """Makes integer models of `network` with 4-bit weights in some layers, 8 bits in the others.

    `judge` scores them against the network as it was, on `patches` held out.
    """

    network: FloatModel
    calibration: Calibration
    patches: Patches
    judge: Judge
    threads: int = 1

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """The convolutions in integers, in order: those whose bits are free."""
        plan = plan_layers(self.network, self.options(()))
        chosen = plan.weighted & plan.integer
        return tuple(layer for layer in plan.layers if layer in chosen)

    def options(self, layers: Collection[str]) -> PtqOptions:
        """Those of the calibration, with 4 bits in `layers`."""
        return replace(self.calibration.options, int4_layers=tuple(layers))

    def weights(self, layers: Collection[str]) -> dict[str, IntegerWeights]:
        """The calibration's, but those of `layers`, which are rounded to 4 bits for the same images."""
        return self._eight | {name: each for name, each in self._four.items() if name in layers}

    def model(self, layers: Collection[str]) -> ModelProto:
        """The integer model with 4 bits in `layers`."""
        ranges = self.calibration.ranges
        return quantized(self.network, ranges, self.options(layers), self.weights(layers))

    def mixed(self, unit: Unit, allocation: Allocation) -> Calibration:
        """The calibration with these bits, and the PSNR that they have on the patches held out."""
        layers = tuple(layer for layer in self.layers if allocation.bits[layer] == 4)
        return replace(
            self.calibration,
            options=self.options(layers),
            weights=weights_document.to_document(self.weights(layers)),
            mixed=Mixed(self.judge.psnr(self.model(layers)), unit, allocation.budget.text, allocation.cost),
        )

    @cached_property
    def _eight(self) -> dict[str, IntegerWeights]:
        return weights_document.from_document(self.calibration.weights, "the calibration")

    @cached_property
    def _four(self) -> dict[str, IntegerWeights]:
        options, ranges = replace(self.options(()), weight_bits=4), self.calibration.ranges
        return fitted_weights(self.network, ranges, options, self.patches.batches(), self.threads)


def mix_calibration(
    model: Path, task: Task, calibration: Path | None, settings: Settings, display: Display
) -> BitsReport:
    """Choose 4 or 8 bits for the weights of each layer of a float network, a calibration for each budget.

    The images are those of `calibration`, one folder, or without one those to calibrate with, by `settings`.
    A network of one size is counted at that. Raises QnasError, nothing written.
    """
    if task.unit == "ms":
        raise UsageError(
            "--unit ms: runtimes take as long for weights of 4 bits as of 8: use bitops or bytes"
        )
    check_outputs(task.files, task.force, (model, calibration, *images_in(task.images)))
    with one_writer(*task.files):
        mixer = _mixer(model, task, calibration, settings, display)
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


def _mixer(model: Path, task: Task, calibration: Path | None, settings: Settings, display: Display) -> Mixer:
    """The network and its calibration, read or made. Raises UsageError where it has 4 bits already."""
    threads, images = task.threads or os.cpu_count() or 1, task.images
    if calibration is None:
        done = run(model, images, replace(settings, threads=threads), display)
        return Mixer(done.best.network, done.calibration, done.patches, done.judge, threads)
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
    return Mixer(network, found, patches, Judge(original, held_out, threads), threads)


def weighed(mixer: Mixer, unit: Unit, size: Size, display: Display) -> Choices:
    """What each layer costs and how much it hurts, in 8 bits and in 4."""
    network, images = mixer.network, mixer.patches.images
    step = max(1, len(images.crops) // PATCHES)
    judge = Judge(mixer.judge.network, replace(images, crops=images.crops[::step][:PATCHES]), mixer.threads)
    shapes = {network.input: network.shape(*size)}
    all_layers = [model_cost(mixer.model(layers), shapes).layers for layers in ((), mixer.layers)]
    eight, four = ({row.name: units_of(row, unit) for row in rows} for rows in all_layers)
    show, base = display.step("measuring layers in 4 bits"), judge.error(mixer.model(()))
    found = []
    for layer in mixer.layers:
        errors = {4: judge.error(mixer.model((layer,))) - base, 8: 0.0}
        found.append(LayerChoice(layer, {4: four[layer], 8: eight[layer]}, errors))
        show(len(found), len(mixer.layers))
    fixed = sum(units for name, units in eight.items() if name not in mixer.layers)
    return Choices(unit, tuple(found), fixed, base)
