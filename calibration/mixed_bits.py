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
from qnas.cost.allocation import Allocation, BitsReport, Budget, Choices, LayerChoice, Mix, Unit, allocated
from qnas.cost.network_cost import LayerCost
from qnas.errors import UsageError
from qnas.files import check_outputs, write_file
from qnas.images.files import images_in
from qnas.one_writer import one_writer
from qnas.onnx.cost import model_cost

PATCHES = 16  # that the damage is measured on
Size = tuple[int, int]  # height and width


@dataclass(frozen=True)
class Request:
    """What is to be done with the float network `model`.

    `images` are those of `calibration`, one folder, or without one those to calibrate with, by `settings`.
    BitOps are counted for an image of `size`, or of the size that the network takes. `outputs`: the files of
    the `budgets`, in their order; `report`: one for all that was found out.
    """

    model: Path
    images: tuple[Path, ...]
    calibration: Path | None
    budgets: tuple[Budget, ...]
    outputs: tuple[Path, ...]
    settings: Settings
    unit: Unit = "bitops"
    size: Size = (32, 32)
    report: Path | None = None
    force: bool = False


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


def mix_calibration(request: Request, display: Display) -> BitsReport:
    """Choose 4 or 8 bits for the weights of each layer, and write a calibration for each budget.

    Raises QnasError, nothing written.
    """
    reads = (request.model, request.calibration, *images_in(request.images))
    files = (*request.outputs, *([request.report] if request.report else []))
    check_outputs(files, request.force, reads)
    with one_writer(*files):
        report, mixed = _chosen(request, display)
        for calibration, output in zip(mixed, request.outputs, strict=True):
            write_calibration(calibration, output, request.force)
        if request.report:
            write_file(request.report, report.to_json(), request.force)
    return report


def _chosen(request: Request, display: Display) -> tuple[BitsReport, list[Calibration]]:
    mixer = _mixer(request, display)
    choices = weighed(mixer, request.unit, mixer.network.size or request.size, display)
    allocations = allocated(choices, request.budgets)
    show, mixed = display.step("scoring the choice"), list[Calibration]()
    for allocation in allocations:
        mixed.append(mixer.mixed(request.unit, allocation))
        show(len(mixed), len(allocations))
    mixes = (
        Mix(allocation, calibration.fidelity, output)
        for allocation, calibration, output in zip(allocations, mixed, request.outputs, strict=True)
    )
    return BitsReport(choices, mixer.calibration.fidelity, tuple(mixes)), mixed


def _mixer(request: Request, display: Display) -> Mixer:
    """The network and its calibration, read or made. Raises UsageError where it has 4 bits already."""
    path, settings, images = request.calibration, request.settings, request.images
    threads = settings.threads or os.cpu_count() or 1
    if path is None:
        done = run(request.model, images, settings, display)
        return Mixer(done.best.network, done.calibration, done.patches, done.judge, threads)
    if settings != Settings(threads=settings.threads):
        raise UsageError("--calibration says how it was made: leave --hr, --count and --input-range out")
    found = read_calibration(path)
    if found.options.weight_bits != 8 or found.options.int4_layers:
        raise UsageError(f"{path} has weights of 4 bits already: name one that has 8 in all")
    if len(images) != 1 or not images[0].is_dir():
        raise UsageError(f"{path} names patches of one folder: give that folder alone as IMAGES")
    original, network = calibrated_network(request.model, found)
    mine, held_out = manifest.from_document(found.manifest, str(path), images[0]).split(found.held_out)
    patches = Patches.of(mine, Passing(display, "cutting patches", len(mine.crops)))
    return Mixer(network, found, patches, Judge(original, held_out, threads), threads)


def weighed(mixer: Mixer, unit: Unit, size: Size, display: Display) -> Choices:
    """What each layer costs and how much it hurts, in 8 bits and in 4."""
    network, images = mixer.network, mixer.patches.images
    step = max(1, len(images.crops) // PATCHES)
    judge = Judge(mixer.judge.network, replace(images, crops=images.crops[::step][:PATCHES]), mixer.threads)
    shapes = {network.input: network.shape(*size)}
    all_layers = [model_cost(mixer.model(layers), shapes).layers for layers in ((), mixer.layers)]
    eight, four = ({row.name: _units(row, unit) for row in rows} for rows in all_layers)
    show, base = display.step("measuring layers in 4 bits"), judge.error(mixer.model(()))
    found = []
    for layer in mixer.layers:
        errors = {4: judge.error(mixer.model((layer,))) - base, 8: 0.0}
        found.append(LayerChoice(layer, {4: four[layer], 8: eight[layer]}, errors))
        show(len(found), len(mixer.layers))
    fixed = sum(units for name, units in eight.items() if name not in mixer.layers)
    return Choices(unit, tuple(found), fixed, base)


def _units(row: LayerCost, unit: Unit) -> int:
    return row.bitops if unit == "bitops" else row.weight_bytes
