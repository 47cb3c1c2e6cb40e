"""Whether a ratio lies above a threshold, decided as soon as the ratios at hand allow it.

Every ratio comes from a pair of fresh processes, so that what a process draws once and keeps (where its
memory lies, which core it is on) is drawn anew. The interval of their median has two of them as its ends,
chosen by binomial probabilities: it holds for any distribution, and a few disturbed pairs do not move it.
Repeated looks at growing data would inflate its error. `LEVEL` is that of one look and one side; over all of
`LOOKS` together an end is on the wrong side of the true median with 1.8 %
(tests/runtime_bench/gate/test_gate_sequential.py computes it). A fail needs a second sample, of its
own looks, to agree: both are wrong with 0.3 % at most.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from qnas.runtime_bench.stats import Estimate, median


class Status(StrEnum):
    """What became of one gate."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Looks:
    """At which numbers of ratios the interval is looked at, and the error of either end at each."""

    counts: tuple[int, ...]
    level: float


FIRST = Looks((8, 12, 15, 18, 21, 27, 35, 46, 60, 78, 101), 0.004)
CONFIRMING = Looks((5, 8, 11, 13, 16, 21, 27, 35, 46, 60), 0.05)

Bounds = Callable[[Sequence[float], float], Estimate]


@dataclass(frozen=True)
class Sample:
    """The ratios of one sample, the interval at its last look, and what it says by itself."""

    ratios: tuple[float, ...]
    interval: Estimate
    status: Status


@dataclass(frozen=True)
class Decision:
    """`confirmation` is there when the first sample failed and there was time for another ratio."""

    status: Status
    first: Sample
    confirmation: Sample | None = None


def rank(count: int, level: float) -> int:
    """Which smallest of `count` values the median lies below with a probability of at most `level`; 0: none.

    The median is below the r-th smallest when fewer than r values are below it: Binomial(count, 1/2) < r.
    """
    found, below = 0, 0
    for values in range(count + 1):
        below += math.comb(count, values)
        if below > level * 2**count:
            break
        found = values + 1
    return found


def median_bounds(values: Sequence[float], level: float) -> Estimate:
    """The median of `values`; the true one is below `low`, and above `high`, with at most `level` each.

    Too few values have infinite bounds. Raises ValueError when there are none.
    """
    ordered = sorted(values)
    position = rank(len(ordered), level)
    if position == 0:
        return Estimate(median(ordered), -math.inf, math.inf)
    return Estimate(median(ordered), ordered[position - 1], ordered[-position])


def decide(
    draw: Callable[[], float],
    time_is_left: Callable[[], bool],
    threshold: float,
    bounds: Bounds = median_bounds,
) -> Decision:
    """Draw ratios until they are surely above or below `threshold`, or no time is left.

    Above it, a second sample decides whether it is a fail. Where that one disagrees or does not come to an
    end, the decision is inconclusive.
    """
    first = _sample(draw, time_is_left, threshold, bounds, FIRST)
    if first.status is not Status.FAIL or not time_is_left():
        status = Status.INCONCLUSIVE if first.status is Status.FAIL else first.status
        return Decision(status, first)
    second = _sample(draw, time_is_left, threshold, bounds, CONFIRMING)
    agreed = second.status is Status.FAIL
    return Decision(Status.FAIL if agreed else Status.INCONCLUSIVE, first, second)


def _sample(
    draw: Callable[[], float],
    time_is_left: Callable[[], bool],
    threshold: float,
    bounds: Bounds,
    looks: Looks,
) -> Sample:
    ratios: list[float] = []
    for count in looks.counts:
        while len(ratios) < count:
            if ratios and not time_is_left():
                return Sample(tuple(ratios), bounds(ratios, looks.level), Status.INCONCLUSIVE)
            ratios.append(draw())
        interval = bounds(ratios, looks.level)
        if interval.low > threshold:
            return Sample(tuple(ratios), interval, Status.FAIL)
        if interval.high < threshold:
            return Sample(tuple(ratios), interval, Status.PASS)
    return Sample(tuple(ratios), interval, Status.INCONCLUSIVE)
