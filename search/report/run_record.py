"""The folder of one search as it is now: what is not there yet is None or empty."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from qnas.documents.reading import decode
from qnas.errors import UsageError
from qnas.network.architecture import Architecture, Choice, read_architecture
from qnas.search.runs.log_records import EpochRecord, StepRecord, record_from
from qnas.search.runs.result import RESULT_FILE, WRITE_AGAIN, Result
from qnas.search.runs.run_folder import ARCHITECTURE, LOG, PLAN, RESULT, SearchPlan, read_plan
from qnas.search.space.search_space import SearchSpace
from qnas.search.supernet.alphas import softmax

FOUND = "found.pt"
USUAL_IMAGE = (32, 32)  # of the paper's tables


@dataclass(frozen=True)
class Epoch:
    """After `step` steps: the probability of each candidate, [O, B], for each variable."""

    step: int
    probabilities: Mapping[str, Tensor]


@dataclass(frozen=True)
class RunRecord:
    """`unreadable`: lines of the log that are none, as a machine that went down leaves them."""

    folder: Path
    plan: SearchPlan | None
    steps: tuple[StepRecord, ...]
    epochs: tuple[Epoch, ...]
    unreadable: int
    decided: Architecture | None  # arch.json
    result: Result | None

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.resolve().name

    @property
    def image(self) -> tuple[int, int]:
        """(height, width) whose cost counts."""
        if self.plan:
            return self.plan.image
        return self.result.image if self.result else USUAL_IMAGE

    @property
    def found(self) -> Path | None:
        """The trained network, where there is one."""
        path = self.folder / FOUND
        return path if path.is_file() else None

    @cached_property
    def architecture(self) -> Architecture | None:
        """arch.json, or while the search is under way what the alphas say."""
        if self.decided or not (self.plan and self.epochs):
            return self.decided
        space = self.plan.space
        likeliest = {name: winner(space, name, p) for name, p in self.epochs[-1].probabilities.items()}
        return space.architecture({name: choice for name, (choice, _) in likeliest.items()})


def winner(space: SearchSpace, variable: str, probabilities: Tensor) -> tuple[Choice, float]:
    """The likeliest candidate of a variable, and its probability."""
    return space.choices(variable)[int(probabilities.flatten().argmax())], float(probabilities.max())


def is_run(folder: Path) -> bool:
    """Whether a search, or a competitor that leaves an architecture alone, has written there."""
    return any((folder / name).is_file() for name in (PLAN, ARCHITECTURE, RESULT))


def read_run(folder: Path) -> RunRecord:
    """What the folder holds. Raises UsageError, CheckpointError, ArchitectureError for wrong files."""
    plan = read_plan(folder) if (folder / PLAN).is_file() else None
    steps, epochs, unreadable = _log(folder / LOG, plan)
    architecture, result = folder / ARCHITECTURE, folder / RESULT
    return RunRecord(
        folder,
        plan,
        steps,
        epochs,
        unreadable,
        read_architecture(architecture) if architecture.is_file() else None,
        RESULT_FILE.read(result) if result.is_file() else None,
    )


def _log(path: Path, plan: SearchPlan | None) -> tuple[tuple[StepRecord, ...], tuple[Epoch, ...], int]:
    """Records in the order of their steps; of a step that was made twice the later one."""
    steps: dict[int, StepRecord] = {}
    epochs: dict[int, Epoch] = {}
    unreadable = 0
    for place, line in _lines(path) if plan and path.is_file() else ():
        try:
            value = decode(line)
        except ValueError:
            unreadable += 1
            continue
        entry = record_from(value, place)
        if isinstance(entry, StepRecord):
            steps[entry.step] = entry
        elif plan:
            epochs[entry.step] = _epoch(entry, plan.space, place)
    by_step = tuple(steps[key] for key in sorted(steps))
    return by_step, tuple(epochs[key] for key in sorted(epochs)), unreadable


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """(place, text) of every line that is not empty."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"{path}:{number}", line
    except OSError as error:
        raise UsageError(f"cannot read {path} ({error.strerror}): check the path") from error


def _epoch(entry: EpochRecord, space: SearchSpace, place: str) -> Epoch:
    found = {}
    for name in space.variables:
        shape, rows = (len(space.candidates(name)), len(space.widths)), entry.alphas.get(name, ())
        if [len(row) for row in rows] != [shape[1]] * shape[0]:
            raise UsageError(
                f"{place}: alphas.{name} is not {shape[0]} x {shape[1]} numbers, one for each operation and "
                f"bit width: {WRITE_AGAIN}"
            )
        found[name] = softmax(torch.tensor(rows, dtype=torch.float64))
    return Epoch(entry.step, found)
