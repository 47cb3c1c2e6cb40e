"""Latency of several loaded models, in interleaved rounds, A B B A ...: what disturbs one disturbs all.

In a round every model runs a burst of inferences in a row, as long as `BURST`: each lives in a process of its
own, and the first inference after another process ran finds its caches cold. The value of a round is the
median of its burst.
"""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from qnas.errors import ModelError
from qnas.runtime_bench.workers.runner import Nanoseconds, Runner

FEWEST_ROUNDS = 20
MOST_ROUNDS = 10_000  # of a timed run: what more tells is lost in the drift of the machine
BURST = 10_000_000  # ns
LONGEST_BURST = 50  # inferences
STABLE = 0.02  # two windows of the warm-up agree when their medians do so far
WINDOW = 50_000_000  # ns
LONGEST_WARMUP = 3.0  # s, and one inference more

Rounds = tuple[tuple[Nanoseconds, ...], ...]


@dataclass(frozen=True)
class Schedule:
    """`runs` inferences of each model, or as many as give every model `seconds` of run time.

    `warmup` inferences before these; None: until their times are stable.
    """

    runs: int | None = None
    seconds: float = 3.0
    warmup: int | None = None


@dataclass(frozen=True)
class Measured:
    """The rounds of one model; `failure` says why there are none."""

    rounds: Rounds
    failure: str | None = None

    @property
    def values(self) -> tuple[float, ...]:
        """One a round, in nanoseconds."""
        return tuple(map(statistics.median, self.rounds))


def measure(
    runners: Sequence[Runner], schedule: Schedule, progress: Callable[[float], None] = lambda done: None
) -> tuple[Measured, ...]:
    """Measure all; one that dies is left out from then on, the others go on.

    `progress` is told the fraction done, between rounds and never within one.
    """
    failures: dict[int, str] = {}
    bursts: dict[int, int] = {}
    rounds: dict[int, list[tuple[int, ...]]] = {index: [] for index in range(len(runners))}
    for index, runner in enumerate(runners):
        try:
            bursts[index] = burst_length(warm_up(runner, schedule.warmup))
        except ModelError as error:
            failures[index] = str(error)
    number = 0
    done = 0.0
    while done < 1 and len(failures) < len(runners):
        counts = _counts(schedule, bursts, number)
        for index in in_turn(list(bursts), number):
            try:
                rounds[index].append(tuple(runners[index].run(counts[index])))
            except ModelError as error:
                failures[index] = str(error)
                del bursts[index]
        number += 1
        done = _fraction_done(schedule, [rounds[index] for index in bursts], bursts)
        progress(done)
    return tuple(
        Measured((), failures[index]) if index in failures else Measured(tuple(rounds[index]))
        for index in range(len(runners))
    )


def in_turn(indices: list[int], number: int) -> list[int]:
    """The order of round `number`: forwards and backwards, so that no one always comes first."""
    return indices if number % 2 == 0 else indices[::-1]


def warm_up(runner: Runner, count: int | None = None) -> Nanoseconds:
    """Run `count` times, or until two windows in a row agree; the time of one inference then."""
    if count is not None:
        return round(statistics.median(runner.run(max(count, 1))))
    end = time.monotonic() + LONGEST_WARMUP
    before = runner.run(1)[0]
    while True:
        window = runner.run(max(1, min(LONGEST_BURST, WINDOW // max(before, 1))))
        now = round(statistics.median(window))
        if abs(now - before) <= STABLE * before or time.monotonic() > end:
            return now
        before = now


def burst_length(nanoseconds: Nanoseconds) -> int:
    """Inferences of so many nanoseconds that make one round."""
    return max(1, min(LONGEST_BURST, math.ceil(BURST / max(nanoseconds, 1))))


def _counts(schedule: Schedule, bursts: dict[int, int], number: int) -> dict[int, int]:
    """How often each runs in round `number`; `schedule.runs` are spread evenly over the rounds."""
    if schedule.runs is None:
        return bursts
    total = _total_rounds(schedule.runs, bursts)
    return dict.fromkeys(bursts, schedule.runs // total + (number < schedule.runs % total))


def _total_rounds(runs: int, bursts: dict[int, int]) -> int:
    """At least `FEWEST_ROUNDS` where there are so many runs."""
    return max(math.ceil(runs / min(bursts.values())), min(runs, FEWEST_ROUNDS))


def _fraction_done(schedule: Schedule, rounds: list[list[tuple[int, ...]]], bursts: dict[int, int]) -> float:
    if not rounds:
        return 1
    count = len(rounds[0])
    if schedule.runs is not None:
        return count / _total_rounds(schedule.runs, bursts)
    shortest = min(sum(map(sum, each)) for each in rounds)
    return max(min(shortest / 1e9 / schedule.seconds, count / FEWEST_ROUNDS), count / MOST_ROUNDS)
