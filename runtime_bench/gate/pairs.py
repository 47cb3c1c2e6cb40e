"""One ratio: both models in fresh processes, in interleaved bursts.

The ratio is that of their undisturbed latencies. What shares the machine only ever adds time, and often to
one of the two processes for as long as they live: medians of the same model then differ by up to 50 %, where
the fast tenth still agrees within a few percent (docs/gate.md).
"""

import os
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from qnas.processes import threads
from qnas.runtime_bench.machine_state import usable_cpus
from qnas.runtime_bench.measure import Rounds, burst_length
from qnas.runtime_bench.stats import percentile
from qnas.runtime_bench.workers.runner import Runner

FAST = 10  # percent of the inferences
FEWEST_ROUNDS = 5
SHORTEST = 0.35  # s of measuring
LONGEST = 1.0  # s, where starting a process takes as long

Cpus = tuple[int, ...]  # processors that a process may use; empty: all
Start = Callable[[Cpus], Runner]


@dataclass(frozen=True)
class Drawn:
    """Nanoseconds of every inference of models in fresh processes; `seconds`: what it took as a whole."""

    rounds: tuple[Rounds, ...]
    seconds: float

    @property
    def latencies(self) -> tuple[float, ...]:
        """Undisturbed, one a model."""
        return tuple(map(undisturbed, self.rounds))


def undisturbed(rounds: Rounds) -> float:
    """The 10th percentile of all inferences, in nanoseconds."""
    return percentile([ns for burst in rounds for ns in burst], FAST)


def shared_cpus(threads: int) -> tuple[Cpus, ...]:
    """The places here where a pair may run: as many processors as it has threads, the same for both.

    What disturbs a processor then disturbs both. Where there is no choice, it is all of them.
    """
    usable = sorted(usable_cpus())
    if threads >= len(usable) or not hasattr(os, "sched_setaffinity"):
        return ((),)
    return tuple(tuple((usable + usable)[first : first + threads]) for first in range(len(usable)))


def measure_fresh(starts: Sequence[Start], places: Sequence[Cpus], order: random.Random) -> Drawn:
    """Start all in one of `places`, run them in turns in a random order, end all.

    Raises ModelError when one dies.
    """
    begun, cpus = time.monotonic(), order.choice(places)
    with ExitStack() as running:
        runners = _start_all([partial(start, cpus) for start in starts], order, running)
        starting = time.monotonic() - begun
        rounds = _interleaved(runners, min(max(SHORTEST, starting), LONGEST), order)
    return Drawn(rounds, time.monotonic() - begun)


def _start_all(
    starts: Sequence[Callable[[], Runner]], order: random.Random, running: ExitStack
) -> list[Runner]:
    """Start all at once; `running` closes them, also when one of them fails to start."""
    sequence = order.sample(range(len(starts)), len(starts))
    with threads(len(starts)) as pool:
        begun = {index: pool.submit(starts[index]) for index in sequence}
        wait(begun.values())
    for each in begun.values():
        if each.exception() is None:
            running.callback(each.result().close)
    return [begun[index].result() for index in range(len(starts))]


def _interleaved(runners: Sequence[Runner], seconds: float, order: random.Random) -> tuple[Rounds, ...]:
    """Rounds of bursts of each, for `seconds` and `FEWEST_ROUNDS` at least; a first one is thrown away."""
    bursts = [burst_length(runner.run(1)[0]) for runner in runners]
    rounds: list[list[tuple[int, ...]]] = [[] for _ in runners]
    for runner, burst in zip(runners, bursts, strict=True):
        runner.run(burst)
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(rounds[0]) < FEWEST_ROUNDS:
        for index in order.sample(range(len(runners)), len(runners)):
            rounds[index].append(tuple(runners[index].run(bursts[index])))
    return tuple(map(tuple, rounds))
