"""One ratio: both models in fresh processes, in interleaved bursts.

The ratio is that of their undisturbed latencies. What shares the machine only ever adds time, and often to
one of the two processes for as long as they live: medians of the same model then differ by up to 50 %, where
the fast tenth still agrees within a few percent (docs/gate.md).
"""

import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

from qnas.runtime_bench.measure import Rounds, burst_length
from qnas.runtime_bench.stats import percentile
from qnas.runtime_bench.workers.runner import Runner

FAST = 10  # percent of the inferences
FEWEST_ROUNDS = 5
SHORTEST = 0.35  # s of measuring
LONGEST = 1.0  # s, where starting a process takes as long

Start = Callable[[], Runner]


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


def measure_fresh(starts: Sequence[Start], order: random.Random) -> Drawn:
    """Start all, run them in turns in a random order, end all. Raises ModelError when one dies."""
    begun = time.monotonic()
    with ExitStack() as running:
        runners = _start_all(starts, order, running)
        starting = time.monotonic() - begun
        rounds = _interleaved(runners, min(max(SHORTEST, starting), LONGEST), order)
    return Drawn(rounds, time.monotonic() - begun)


def _start_all(starts: Sequence[Start], order: random.Random, running: ExitStack) -> list[Runner]:
    """Start all at once; `running` closes them, also when one of them fails to start."""
    places = order.sample(range(len(starts)), len(starts))
    with ThreadPoolExecutor(len(starts)) as pool:
        begun = {place: pool.submit(starts[place]) for place in places}
    for each in begun.values():
        if each.exception() is None:
            running.callback(each.result().close)
    return [begun[place].result() for place in range(len(starts))]


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
