"""What in a measurement, or around it, makes its result less trustworthy, with advice: one line each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from qnas.runtime_bench.machine_state import Conditions
from qnas.runtime_bench.stats import percentile

FEWEST_ROUNDS = 20  # with fewer, the ends of a 95 % bootstrap interval hang on two or three of them
SPREAD = 0.05  # of the median; a quiet machine shows 1 to 2 %
DRIFT = 0.03  # of the median, from the first to the last third: more than a step in a thermal or turbo limit
TAIL = 1.5  # p99 over p50: one run in a hundred was interrupted for half of its length
FEWEST_FOR_TAIL = 100  # a 99th percentile of fewer is their maximum
SEPARATION = 5.0  # Ashman's D: a normal distribution cut in two at its mean has 2.7, a uniform one 3.5
SMALLEST_MODE = 0.1  # of the rounds: fewer are outliers
CORRELATION = 0.3  # of neighbours: an interval that takes them as independent is then too narrow by a third
STEAL = 0.01  # of the processors' time: a hypervisor takes it in pieces of whole milliseconds
OTHERS = 0.05  # of the processors' time: half a core of ten
WAITED = 0.01  # of the time: the same as steal, by the system's own scheduler
SLOWED = 0.05  # of the frequency
_FROM_IQR = 1.349  # standard deviations between the quartiles of a normal distribution
_OF_MEDIAN = 1.253  # standard error of a median over that of a mean


def noise(rounds: Sequence[Sequence[int]], conditions: Conditions | None = None) -> tuple[str, ...]:
    """Warnings about samples [rounds][burst] in nanoseconds and the conditions that they were taken in."""
    rounds = [burst for burst in rounds if len(burst)]
    if not rounds:
        return ()
    values = np.asarray([np.median(burst) for burst in rounds], np.float64)
    every = np.concatenate([np.asarray(burst, np.float64) for burst in rounds])
    found = [*_of_samples(values, every)]
    if conditions is not None:
        found += [*_of_load(conditions), *_of_frequency(conditions)]
    return tuple(found)


def _of_samples(values: NDArray[np.float64], every: NDArray[np.float64]) -> Iterator[str]:
    count = len(values)
    if count < FEWEST_ROUNDS:
        yield f"only {count} round{'s' * (count > 1)}: measure {FEWEST_ROUNDS} or more (--min-time, --runs)"
    middle = percentile(values, 50)
    if count < 4 or middle <= 0:
        return
    spread = (percentile(values, 75) - percentile(values, 25)) / middle
    modes = two_modes(values)
    if modes is not None:
        low, high = modes
        yield (
            f"two speeds, {low / 1e6:.3f} and {high / 1e6:.3f} ms: "
            "bind it to processors of one kind (--cpus), or fix the frequency"
        )
    elif spread > SPREAD:
        yield f"half of the rounds spread by {spread:.1%}: measure longer, or on a quieter machine"
    moved = drift(values)
    if abs(moved) > DRIFT:
        way = "slower" if moved > 0 else "faster"
        advice = "let it cool down or lower the frequency" if moved > 0 else "warm up longer (--warmup)"
        yield f"the last third ran {abs(moved):.1%} {way} than the first: {advice}"
    elif autocorrelation(values) > max(CORRELATION, 2 / math.sqrt(count)):
        yield "neighbouring rounds are alike, so the interval is too narrow: measure longer (--min-time)"
    if len(every) >= FEWEST_FOR_TAIL and (tail := percentile(every, 99) / percentile(every, 50)) > TAIL:
        yield f"one run in a hundred takes {tail:.1f} times the median: end what interrupts it"


def _of_load(seen: Conditions) -> Iterator[str]:
    if _above(seen.steal_share, STEAL):
        yield f"the host took {seen.steal_share:.1%} of the processors' time: measure on a machine of its own"
    if _above(seen.others_share, OTHERS):
        yield f"other processes took {seen.others_share:.1%} of the processors' time: end them"
    if _above(seen.waited_share, WAITED):
        yield f"it waited for a processor {seen.waited_share:.1%} of its time: end other programs"
    if _above(seen.quota_share, 0):
        yield f"the container's quota stopped it for {seen.quota_share:.1%} of the time: raise its CPU limit"


def _of_frequency(seen: Conditions) -> Iterator[str]:
    if seen.throttle_events or seen.cooling:
        heat = f" at {seen.hottest:.0f} °C" if seen.hottest is not None else ""
        yield f"the processor was slowed down{heat}: cool it, or pause between measurements"
    if seen.governor is not None and seen.governor != "performance":
        yield f"the frequency governor is {seen.governor}: run cpupower frequency-set -g performance"
    if seen.frequency_change is not None and seen.frequency_change < -SLOWED:
        yield f"the frequency fell by {-seen.frequency_change:.0%}: fix it, or let the machine cool down"


def _above(share: float | None, limit: float) -> bool:
    return share is not None and share > limit


def drift(values: NDArray[np.float64]) -> float:
    """How much larger the median of the last third is than that of the first, over the median of all.

    0 when two standard errors of such a difference would explain it.
    """
    third = len(values) // 3
    if third < 2:
        return 0.0
    moved = percentile(values[-third:], 50) - percentile(values[:third], 50)
    spread = max(percentile(part, 75) - percentile(part, 25) for part in (values[:third], values[-third:]))
    explained = 2 * _OF_MEDIAN * spread / _FROM_IQR * math.sqrt(2 / third)
    return moved / percentile(values, 50) if abs(moved) > explained else 0.0


def autocorrelation(values: NDArray[np.float64]) -> float:
    """Correlation of the ranks of neighbours, which single outliers do not change; 0 when all are equal."""
    ranks = np.unique(values, return_inverse=True)[1].astype(np.float64)
    ranks -= ranks.mean()
    power = float(ranks @ ranks)
    return float(ranks[1:] @ ranks[:-1]) / power if power else 0.0


def two_modes(values: NDArray[np.float64]) -> tuple[float, float] | None:
    """The means of two groups, where values fall into two that lie apart.

    They are cut where the variance within is least, and count as two when Ashman's D = sqrt(2) |a - b| /
    sqrt(var_a + var_b) (Ashman, Bird and Zepf, 1994) passes `SEPARATION` and the means differ by more than
    `SPREAD`.
    """
    ordered = np.sort(values)
    count = len(ordered)
    least = max(3, math.ceil(SMALLEST_MODE * count))
    if count < 2 * least:
        return None
    sizes = np.arange(least, count - least + 1)
    sums = np.cumsum(ordered)[sizes - 1]
    between = sizes * (count - sizes) * (sums / sizes - (ordered.sum() - sums) / (count - sizes)) ** 2
    cut = int(sizes[np.argmax(between)])  # most variance between the groups is least within
    low, high = ordered[:cut], ordered[cut:]
    gap = float(high.mean() - low.mean())
    if gap <= SPREAD * low.mean() or gap * math.sqrt(2) <= SEPARATION * math.sqrt(low.var() + high.var()):
        return None
    return float(low.mean()), float(high.mean())
