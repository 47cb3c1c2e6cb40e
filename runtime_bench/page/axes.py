"""From values to places on an axis, and the round numbers that are written along it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

WIDE = 20.0  # times: values that spread further are drawn on a logarithmic axis
STEPS = (1, 2, 5)
MOST_TICKS = 7
PREFIXES = ((1e24, "Y"), (1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"),
            (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))  # fmt: skip


@dataclass(frozen=True)
class Axis:
    """From `low` to `high`, with numbers at `ticks`."""

    low: float
    high: float
    logarithmic: bool
    ticks: tuple[float, ...]

    def place(self, value: float) -> float:
        """Percent of the way from `low` to `high`."""
        low, high, at = self.low, self.high, value
        if self.logarithmic:
            low, high, at = map(math.log, (low, high, at))
        return 100 * (at - low) / (high - low)


def spread_axis(values: Sequence[float], zero: bool = False) -> Axis:
    """Logarithmic where positive `values` spread widely; else linear, and with `zero` from there on."""
    if max(values) > WIDE * min(values):
        return log_axis(values)
    return linear_axis(0.0 if zero else min(values), max(values))


def log_axis(values: Sequence[float]) -> Axis:
    """Between the nearest of ..., 1, 2, 5, 10, ... around `values`, which are positive."""
    low, high = min(values), max(values)
    ladder = list(_ladder(low / 10, high * 10))
    first = max(step for step in ladder if step <= low)
    last = min(step for step in ladder if step >= high and step > first)
    ticks = [step for step in ladder if first <= step <= last]
    if len(ticks) > MOST_TICKS:
        ticks = [10.0**e for e in range(math.floor(math.log10(first)), math.ceil(math.log10(last)) + 1)]
        ticks = [tick for tick in ticks if first * 0.999 <= tick <= last * 1.001]
    return Axis(first, last, True, _thinned(ticks))


def linear_axis(low: float, high: float) -> Axis:
    """Between round numbers around both."""
    width = (high - low) or abs(high) or 1.0
    size = 10.0 ** math.floor(math.log10(width / 4))
    step = next(size * s for s in (*STEPS, 10) if width / (size * s) <= MOST_TICKS - 3)
    first, last = math.floor(low / step), math.ceil(high / step)
    last = max(last, first + 1)
    return Axis(first * step, last * step, False, tuple(n * step for n in range(first, last + 1)))


def si(value: float, unit: str = "", digits: int = 3) -> str:
    """With a prefix, to `digits` digits: "1.50 GB"."""
    if value == 0:
        return f"0 {unit}".strip()
    rounded = float(f"{value:.{digits}g}")
    scale, prefix = _prefix(abs(rounded))
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(rounded) / scale) + 1e-9))
    return f"{rounded / scale:.{decimals}f} {prefix}{unit}".strip()


def tick_text(value: float, unit: str = "") -> str:
    """The text of a tick, which has few digits by itself: "500 µs"."""
    if value == 0:
        return "0"
    scale, prefix = _prefix(float(f"{abs(value):.6g}"))
    return f"{value / scale:.4g} {prefix}{unit}".strip()


def with_interval(value: float, low: float, high: float, unit: str) -> str:
    """All three in the unit of the first: "2.29 ms [2.26, 2.32]"."""
    rounded = float(f"{value:.3g}")
    scale, prefix = _prefix(rounded)
    decimals = max(0, 2 - math.floor(math.log10(rounded / scale) + 1e-9))
    first, second, third = (f"{each / scale:.{decimals}f}" for each in (value, low, high))
    return f"{first} {prefix}{unit} [{second}, {third}]"


def _prefix(value: float) -> tuple[float, str]:
    return next((each for each in PREFIXES if value >= each[0] * (1 - 1e-9)), PREFIXES[-1])


def _ladder(low: float, high: float) -> Iterator[float]:
    for exponent in range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1):
        for step in STEPS:
            yield float(f"{step}e{exponent}")


def _thinned(ticks: Sequence[float]) -> tuple[float, ...]:
    return tuple(ticks[:: -(-len(ticks) // MOST_TICKS) or 1])
