"""Bits for each layer under a budget: what there is to choose from, and what an exact choice gives."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from qnas.cost.knapsack import Chosen, Front, Option
from qnas.cost.network_cost import LayerCost
from qnas.errors import UsageError
from qnas.images.quality import psnr_of

# Bits of a layer, those of its weights and of what it reads: one number where both are equal, else "4/8".
Bits = str
EIGHT: Bits = "8"
Unit = Literal["bitops", "bytes", "ms"]
UNIT_NAMES: Mapping[Unit, str] = {"bitops": "BitOps", "bytes": "bytes of weights", "ms": "ms"}
PARTS: Mapping[Unit, int] = {"bitops": 1, "bytes": 1, "ms": 10**6}  # costs are whole numbers of such a part


def units_of(row: LayerCost, unit: Unit) -> int:
    """What a layer costs: its bit operations, or the bytes of its weights. No layer says its milliseconds."""
    return row.bitops if unit == "bitops" else row.weight_bytes


@dataclass(frozen=True)
class Budget:
    """The most that a network may cost: `value` units, or that `share` of what it costs with all in 8 bits.

    `text` is how it was written; one of the other two is None.
    """

    text: str
    share: float | None
    value: float | None

    def of(self, choices: Choices) -> float:
        """In whole parts of the unit of `choices`."""
        if self.value is not None:
            return self.value * PARTS[choices.unit]
        return (self.share or 0.0) * choices.eight_bits


@dataclass(frozen=True)
class Task:
    """What `qnas-search bits` is to do: on which `images`, files and folders, for which `budgets`.

    Costs are those of an image of `size`, height and width. `outputs`: the files of the budgets, in their
    order; `report`: one for all that was found out. `threads`: 0 for one per core.
    """

    images: tuple[Path, ...]
    budgets: tuple[Budget, ...]
    outputs: tuple[Path, ...]
    unit: Unit = "bitops"
    size: tuple[int, int] = (32, 32)
    report: Path | None = None
    force: bool = False
    threads: int = 0

    @property
    def files(self) -> tuple[Path, ...]:
        """All that it writes."""
        return (*self.outputs, *([self.report] if self.report else []))


@dataclass(frozen=True)
class LayerChoice:
    """A layer whose bits are free: bits -> what it costs, and what it adds to the squared error. Of options
    that cost and lose alike the first is taken.

    The error is the mean over the values of the output, in squared grey levels.
    """

    name: str
    costs: Mapping[Bits, int]
    errors: Mapping[Bits, float]


@dataclass(frozen=True)
class Choices:
    """A network whose layers may have other bits; `fixed`: what the rest of it costs.

    Costs are whole numbers of PARTS of the unit. `error` is the mean squared error with all in 8 bits.
    """

    unit: Unit
    layers: tuple[LayerChoice, ...]
    fixed: int
    error: float

    @property
    def eight_bits(self) -> int:
        """The cost of the network with all layers in 8 bits."""
        return self.fixed + sum(layer.costs[EIGHT] for layer in self.layers)

    def words(self, cost: int) -> str:
        """A cost in its unit: "1,482,686,464", or milliseconds with their fraction."""
        return f"{cost:,}" if PARTS[self.unit] == 1 else f"{cost / PARTS[self.unit]:.4g}"


@dataclass(frozen=True)
class Allocation:
    """Bits of each layer by name, for a budget; the network's cost and its predicted squared error."""

    budget: Budget
    bits: Mapping[str, Bits]
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
        chosen = front.within(budget.of(choices) - choices.fixed)
        if chosen is None:
            raise UsageError(
                f"--budget {budget.text} is below the {choices.words(least)} {UNIT_NAMES[choices.unit]} "
                f"({least / choices.eight_bits:.1%} of 8 bits) that the fewest bits take: allow more"
            )
        found.append(_allocation(choices, widths, budget, chosen))
    return tuple(found)


def _allocation(
    choices: Choices, widths: Sequence[Sequence[Bits]], budget: Budget, chosen: Chosen
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
