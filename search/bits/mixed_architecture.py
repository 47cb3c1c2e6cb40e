"""4 or 8 bits for each layer of an architecture, weights and inputs, so that a budget is kept.

1. Full precision is the network of a found.pt as it is. Its twin with other bits starts as a training from it
   would: weights rounded, the steps of activations from one batch of crops.
2. How much a layer hurts is measured: the twin of 8 bits with this layer alone in 4. What that adds to the
   squared error is its damage; damages add up nearly, and the choice is exact (`qnas.cost.allocation`).
3. The claim is measured, not predicted: the chosen twin on crops of other images.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from qnas.cost.allocation import EIGHT, Bits, BitsReport, Choices, LayerChoice, Mix, Task, Unit, allocated
from qnas.files import check_outputs, write_file
from qnas.images.evaluation import Image
from qnas.images.files import images_in
from qnas.images.quality import psnr_of
from qnas.network.architecture import Architecture, Choice
from qnas.network.lowering import lower
from qnas.one_writer import one_writer
from qnas.search.bits.slot_costs import FOUR, SlotCosts, slot_costs
from qnas.search.training.data import Crops, check_patch, load_crops
from qnas.search.training.warm_start import calibrate, warm_start
from qnas.torch.checkpoint import load_found
from qnas.torch.inference import to_pixels
from qnas.torch.network import Network
from qnas.torch.threads import torch_threads

CROPS = 12  # that the damage is measured on
PATCH = 48  # their side in LR pixels, where nobody said another
SEED, CACHE_MIB = 0, 512

Told = Callable[[int, int], None]  # (done, in all)


def mix_architecture(
    found: Path, task: Task, architecture: Architecture | None, latency_table: Path | None,
    patch: int | None, tell: Told,
) -> BitsReport:  # fmt: skip
    """Choose 4 or 8 bits for each layer of the network of `found`, a found.pt; an arch.json for each budget.

    `architecture` is another of the same operations. The images are folders of HR ones, of which crops of
    `patch` LR pixels are measured; milliseconds are those of `latency_table`. Raises QnasError, nothing
    written.
    """
    check_outputs(task.files, task.force, (found, latency_table, *images_in(task.images)))
    threads = task.threads or os.cpu_count() or 1
    with one_writer(*task.files), torch_threads(threads), torch.no_grad():
        twins = _Twins.of(found, architecture, task.images, patch or PATCH)
        costs = slot_costs(twins.architecture, task.unit, task.size, latency_table)
        choices = twins.choices(costs, task.unit, tell)
        mixes = tuple(
            Mix(allocation, psnr_of(twins.error(allocation.bits, twins.held_out)), output)
            for allocation, output in zip(allocated(choices, task.budgets), task.outputs, strict=True)
        )
        report = BitsReport(choices, psnr_of(twins.error({}, twins.held_out)), mixes)
        for mix in mixes:
            write_file(mix.file, twins.mixed(mix.allocation.bits).to_json(), task.force)
        if task.report:
            write_file(task.report, report.to_json(), task.force)
    return report


@dataclass(frozen=True, eq=False)
class _Seen:
    """LR crops [N, 3, H, W], and what the network in full precision makes of them: uint8 [N, s H, s W, 3]."""

    crops: Tensor
    wanted: Image

    @classmethod
    def of(cls, crops: Crops, network: Network, patch: int) -> _Seen:
        batch = crops.batch(SEED, 0, CROPS, patch)[0]
        return cls(batch, _pixels(network, batch))


@dataclass(frozen=True, eq=False)
class _Twins:
    """Networks with the weights of `found`, the `architecture` at other bits.

    `seen` sets the steps of activations and measures layers, `held_out` is of other images.
    """

    found: Path
    architecture: Architecture
    seen: _Seen
    held_out: _Seen

    @classmethod
    def of(cls, path: Path, architecture: Architecture | None, images: Sequence[Path], patch: int) -> _Twins:
        found = load_found(path)
        architecture = architecture or found.architecture
        check_patch(architecture, patch)
        crops = load_crops(images, architecture.scale, patch, CACHE_MIB, architecture.arithmetic)
        seen, held_out = (_Seen.of(half, found.network, patch) for half in crops.halves(SEED))
        return cls(path, architecture, seen, held_out)

    def mixed(self, bits: Mapping[str, Bits]) -> Architecture:
        """The architecture with these bits, and 8 where none are named."""
        layers = {
            name: Choice(c.op, int(bits.get(name, EIGHT))) for name, c in self.architecture.layers.items()
        }
        return replace(self.architecture, layers=layers)

    def error(self, bits: Mapping[str, Bits], on: _Seen) -> float:
        """The mean squared error of the twin with these bits, in squared grey levels."""
        twin = Network(lower(self.mixed(bits)))
        warm_start(twin, self.found)
        _calibrated(twin, self.seen.crops)
        return float(np.square(on.wanted.astype(np.float64) - _pixels(twin, on.crops)).mean())

    def choices(self, costs: SlotCosts, unit: Unit, tell: Told) -> Choices:
        """What there is to choose from: `costs`, and how much each layer hurts."""
        base, layers = self.error({}, self.seen), []
        for name, own in costs.layers.items():
            errors = {EIGHT: 0.0, FOUR: self.error({name: FOUR}, self.seen) - base}
            layers.append(LayerChoice(name, own, errors))
            tell(len(layers), len(costs.layers))
        return Choices(unit, tuple(layers), costs.fixed, base)


def _pixels(network: Network, crops: Tensor) -> Image:
    """uint8 [N, s H, s W, 3] of LR `crops` [N, 3, H, W]."""
    network.eval()
    return to_pixels(network(crops), network.arithmetic)


def _calibrated(network: Network, crops: Tensor) -> None:
    """Set the steps of activations from LR `crops`; all else, as the moments of norms, stays as it is.

    The paper's arithmetic has constants for them.
    """
    if network.arithmetic == "paper":
        return
    before = {name: value.clone() for name, value in network.state_dict().items()}
    calibrate(network, crops)
    steps = {name: value for name, value in network.state_dict().items() if name.endswith(".step")}
    network.load_state_dict(before | steps)
