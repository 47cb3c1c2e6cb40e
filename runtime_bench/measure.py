"""Latency of several models, in interleaved rounds: A B A B ..., so that what disturbs one disturbs all."""

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qnas.errors import ModelError, UsageError
from qnas.runtime_bench.inputs import Feed, Shape, ShapeRequest, random_inputs, resolve_shapes
from qnas.session import first_line, open_session

FEWEST_ROUNDS = 20
MOST_ROUNDS = 10_000  # of a timed run: what more tells is lost in the drift of the machine

Samples = tuple[int, ...]  # nanoseconds, one a round


@dataclass(frozen=True)
class Plan:
    """`rounds` of one run each, or as many as give every model `seconds` of run time, after `warmup` runs."""

    rounds: int | None = None
    seconds: float = 3.0
    warmup: int = 5

    def fraction_done(self, rounds: int, nanoseconds: int) -> float:
        """At least 1 when `rounds`, in which every model ran `nanoseconds` or longer, are enough."""
        if self.rounds is not None:
            return rounds / self.rounds
        return max(min(nanoseconds / 1e9 / self.seconds, rounds / FEWEST_ROUNDS), rounds / MOST_ROUNDS)


@dataclass(frozen=True)
class Candidate:
    """A loaded model, what it is fed, and the shapes of what it was seen to make of it, by name.

    `session` is an onnxruntime.InferenceSession, which has no types.
    """

    path: Path
    session: Any
    feed: Feed
    output_shapes: dict[str, Shape]


def load_candidate(path: Path, threads: int, requests: Sequence[ShapeRequest], seed: int) -> Candidate:
    """Open a model, make up its inputs and run it once; ModelError or UsageError when any of it fails."""
    session = open_session(path, threads)
    try:
        feed = random_inputs(session, resolve_shapes(session, requests), seed)
        outputs = run_once(session, feed)
    except (ModelError, UsageError) as error:
        raise type(error)(f"{path}: {error}") from error
    names = [each.name for each in session.get_outputs()]
    shapes = {name: np.shape(value) for name, value in zip(names, outputs, strict=True)}
    return Candidate(path, session, feed, shapes)


def run_once(session: Any, feed: Feed) -> list[Any]:
    """The outputs of one run; ModelError when the model fails."""
    try:
        outputs: list[Any] = session.run(None, feed)
    except Exception as error:  # onnxruntime's exception types share no base but Exception
        shown = ", ".join(f"{name} of {'x'.join(map(str, value.shape))}" for name, value in feed.items())
        raise ModelError(f"it cannot run on {shown}: {first_line(error)}; choose another --shape") from error
    return outputs


def measure(
    candidates: Sequence[Candidate], plan: Plan, progress: Callable[[float], None] = lambda done: None
) -> tuple[Samples, ...]:
    """Nanoseconds of every round for each candidate.

    `progress` is told the fraction done, between rounds and never within one.
    """
    for candidate in candidates:
        for _ in range(plan.warmup):
            candidate.session.run(None, candidate.feed)
    samples: list[list[int]] = [[] for _ in candidates]
    totals = [0] * len(candidates)
    done = 0.0
    collecting = gc.isenabled()
    gc.disable()
    try:
        while done < 1:
            for index, candidate in enumerate(candidates):
                start = time.perf_counter_ns()
                candidate.session.run(None, candidate.feed)
                elapsed = time.perf_counter_ns() - start
                samples[index].append(elapsed)
                totals[index] += elapsed
            done = plan.fraction_done(len(samples[0]), min(totals))
            progress(done)
    finally:
        if collecting:
            gc.enable()
    return tuple(map(tuple, samples))
