"""The gate on latency: fresh processes until the decision, or until the budget ends."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from qnas.runtime_bench.gate.baseline import Baseline, unpaired_bounds
from qnas.runtime_bench.gate.pairs import Cpus, Drawn, Start, measure_fresh
from qnas.runtime_bench.gate.sequential import Bounds, Decision, decide, median_bounds
from qnas.runtime_bench.machine_state import load_average

Progress = Callable[[float], None]


@dataclass(frozen=True)
class Timed:
    """A decision and what its ratios come from, in order: both models, or the new one beside a baseline.

    `load`: processes that ran or waited for a processor here, its own two among them, as a mean over the last
    minute; None where the system does not tell.
    """

    decision: Decision
    drawn: tuple[Drawn, ...]
    seconds: float
    load: float | None


@dataclass
class Clock:
    """Tells whether another draw, as long as the longest so far, still fits into `budget` seconds."""

    budget: float
    progress: Progress
    begun: float = field(default_factory=time.monotonic)
    longest: float = 0.0

    @property
    def elapsed(self) -> float:
        """Seconds since the gate began."""
        return time.monotonic() - self.begun

    def time_is_left(self) -> bool:
        """Called between draws: it shows the progress."""
        self.progress(min(self.elapsed / self.budget, 1.0))
        return self.elapsed + self.longest <= self.budget


def time_against(
    old: Start, new: Start, places: Sequence[Cpus], threshold: float, clock: Clock, seed: int
) -> Timed:
    """Pairs of fresh processes of both, each in one of `places`; raises ModelError when one dies."""
    measure = partial(measure_fresh, (old, new), places)
    return _timed(measure, lambda each: each[1] / each[0], threshold, median_bounds, clock, seed)


def time_against_baseline(
    baseline: Baseline, new: Start, cpus: Cpus, threshold: float, clock: Clock, seed: int
) -> Timed:
    """Fresh processes of the new model alone, where the baseline ran; raises ModelError as above."""
    before = baseline.latency
    bounds = unpaired_bounds(baseline, seed)
    measure = partial(measure_fresh, (new,), (cpus,))
    return _timed(measure, lambda each: each[0] / before, threshold, bounds, clock, seed)


def _timed(
    measure: Callable[[random.Random], Drawn],
    ratio: Callable[[Sequence[float]], float],
    threshold: float,
    bounds: Bounds,
    clock: Clock,
    seed: int,
) -> Timed:
    order = random.Random(seed)
    drawn: list[Drawn] = []

    def draw() -> float:
        drawn.append(measure(order))
        clock.longest = max(clock.longest, drawn[-1].seconds)
        return ratio(drawn[-1].latencies)

    decision = decide(draw, clock.time_is_left, threshold, bounds)
    return Timed(decision, tuple(drawn), clock.elapsed, load_average())
