"""Bits for each layer under a budget: what there is to choose from, and what an exact choice gives."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from qnas.cost.knapsack import Chosen, Front, Option
from qnas.errors import UsageError
from qnas.images.quality import psnr_of

Unit = Literal["bitops", "bytes"]
UNIT_NAMES: Mapping[Unit, str] = {"bitops": "BitOps", "bytes": "bytes of weights"}


@dataclass(frozen=True)
class Budget:
    """The most that a network may cost: `value` units, or that `share` of what it costs with all in 8 bits.

    `text` is how it was written; one of the other two is None.
    """

    text: str
    share: float | None
    value: float | None

    def of(self, eight_bits: int) -> float:
        """In units."""
        return self.value if self.value is not None else (self.share or 0.0) * eight_bits


@dataclass(frozen=True)
class LayerChoice:
    """A layer whose bits are free: bits -> the network's units in it, and what it adds to the squared error.

    The error is the mean over the values of the output, in squared grey levels.
    """

    name: str
    costs: Mapping[int, int]
    errors: Mapping[int, float]


@dataclass(frozen=True)
class Choices:
    """A network whose layers may have other bits; `fixed` units are in what has no choice.

    `error` is the mean squared error with all in 8 bits.
    """

    unit: Unit
    layers: tuple[LayerChoice, ...]
    fixed: int
    error: float

    @property
    def eight_bits(self) -> int:
        """Units of the network with all layers in 8 bits."""
        return self.fixed + sum(layer.costs[8] for layer in self.layers)


@dataclass(frozen=True)
class Allocation:
    """Bits of each layer by name, for a budget; the network's units and its predicted squared error."""

    budget: Budget
    bits: Mapping[str, int]
    cost: int
    error: float


def allocated(choices: Choices, budgets: Sequence[Budget]) -> tuple[Allocation, ...]:
    """For each budget the bits with the least sum of errors.

    Raises UsageError, naming the least that is possible, for a budget that no choice keeps.
    """
    widths = [tuple(layer.costs) for layer in choices.layers]
    front = Front(
        [
            [Option(layer.costs[bits], layer.errors[bits]) for bits in own]
            for layer, own in zip(choices.layers, widths, strict=True)
        ]
    )
    least = choices.fixed + front.least_cost
    found = []
    for budget in budgets:
        chosen = front.within(budget.of(choices.eight_bits) - choices.fixed)
        if chosen is None:
            raise UsageError(
                f"--budget {budget.text} is below the {least} {UNIT_NAMES[choices.unit]} "
                f"({least / choices.eight_bits:.1%} of 8 bits) that the fewest bits take: allow more"
            )
        found.append(_allocation(choices, widths, budget, chosen))
    return tuple(found)


def _allocation(
    choices: Choices, widths: Sequence[Sequence[int]], budget: Budget, chosen: Chosen
) -> Allocation:
    named = zip(choices.layers, widths, chosen.options, strict=True)
    bits = {layer.name: own[option] for layer, own, option in named}
    return Allocation(budget, bits, choices.fixed + chosen.cost, choices.error + chosen.loss)


@dataclass(frozen=True)
class Mix:
    """A network with the bits of `allocation`, in `file`.

    `measured`: its PSNR in dB against full precision, on patches that the choice has not seen.
    """

    allocation: Allocation
    measured: float
    file: Path

    @property
    def predicted(self) -> float:
        """The PSNR in dB that the errors of its layers, one by one, add up to."""
        return psnr_of(self.allocation.error)


@dataclass(frozen=True)
class BitsReport:
    """What `qnas-search bits` found out: the choices that there are, the PSNR in dB that 8 bits have against
    full precision, measured as that of each of `mixes`, one for each budget."""

    choices: Choices
    eight_bits: float
    mixes: tuple[Mix, ...]

    def to_json(self) -> str:
        """A document of all of it; a PSNR without any difference is null."""
        document = {
            "format": "qnas-bits",
            "version": 1,
            "unit": self.choices.unit,
            "eight_bits": {"cost": self.choices.eight_bits, "psnr": _decibels(self.eight_bits)},
            "layers": [asdict(layer) for layer in self.choices.layers],
            "mixes": [_mix(each) for each in self.mixes],
        }
        return json.dumps(document, indent=1, allow_nan=False) + "\n"


def _mix(mix: Mix) -> dict[str, Any]:
    allocation = mix.allocation
    return {
        "budget": allocation.budget.text,
        "cost": allocation.cost,
        "predicted": _decibels(mix.predicted),
        "measured": _decibels(mix.measured),
        "file": mix.file.name,
        "bits": dict(allocation.bits),
    }


def _decibels(psnr: float) -> float | None:
    return psnr if math.isfinite(psnr) else None
