"""The folder of one search as it is now: what is not there yet is None or empty."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qnas.errors import UsageError
from qnas.json_fields import Fields, parse, printable
from qnas.network.architecture import Architecture, Choice, from_json
from qnas.search.report.files import ADVICE, read_record, record
from qnas.search.runs.result import FORMAT, VERSION
from qnas.search.runs.run_folder import ARCHITECTURE, LOG, PLAN, RESULT, SearchPlan, read_plan
from qnas.search.space.search_space import SearchSpace
from qnas.search.supernet.alphas import softmax

FOUND = "found.pt"
USUAL_IMAGE = (32, 32)  # of the paper's tables


@dataclass(frozen=True)
class Step:
    """Losses in grey levels, that of the alphas None in the warm-up; costs as `qnas.search` counts them."""

    step: int
    loss: float
    alpha_loss: float | None
    expected_cost: float
    best_cost: float
    entropy: float
    entropy_weight: float


@dataclass(frozen=True)
class Epoch:
    """After `step` steps: the probability of each candidate, [O, B], for each variable."""

    step: int
    probabilities: Mapping[str, Tensor]


@dataclass(frozen=True)
class Result:
    """What the search ended with; MACs and BitOps for its image."""

    space_name: str
    method: str
    macs: float
    bitops: float
    image: tuple[int, int]
    seconds: float | None


@dataclass(frozen=True)
class RunRecord:
    """`unreadable`: lines of the log that are none, as a machine that went down leaves them."""

    folder: Path
    plan: SearchPlan | None
    steps: tuple[Step, ...]
    epochs: tuple[Epoch, ...]
    unreadable: int
    decided: Architecture | None  # arch.json
    result: Result | None

    @property
    def name(self) -> str:
        """The name of the folder, in characters that can be shown."""
        return printable(self.folder.resolve().name)

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
    op, bits = divmod(int(probabilities.flatten().argmax()), len(space.bits))
    return Choice(space.candidates(variable)[op], space.bits[bits]), float(probabilities.max())


def is_run(folder: Path) -> bool:
    """Whether a search, or a competitor that leaves an architecture alone, has written there."""
    return any((folder / name).is_file() for name in (PLAN, ARCHITECTURE, RESULT))


def read_run(folder: Path) -> RunRecord:
    """What the folder holds. Raises UsageError, CheckpointError, ArchitectureError for wrong files."""
    plan = read_plan(folder) if (folder / PLAN).is_file() else None
    steps, epochs, unreadable = _log(folder / LOG, plan)
    decided, result = _architecture(folder / ARCHITECTURE), _result(folder / RESULT)
    return RunRecord(folder, plan, steps, epochs, unreadable, decided, result)


def _log(path: Path, plan: SearchPlan | None) -> tuple[tuple[Step, ...], tuple[Epoch, ...], int]:
    """Records in the order of their steps; of a step that was made twice the later one."""
    steps: dict[int, Step] = {}
    epochs: dict[int, Epoch] = {}
    unreadable = 0
    for place, values in _lines(path) if plan and path.is_file() else ():
        if values is None:
            unreadable += 1
            continue
        entry = record(values, place)
        match entry.text("kind"):
            case "step":
                steps[entry.whole("step")] = _step(entry)
            case "epoch" if plan:
                epochs[entry.whole("step")] = _epoch(entry, plan.space)
    by_step = tuple(steps[key] for key in sorted(steps))
    return by_step, tuple(epochs[key] for key in sorted(epochs)), unreadable


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    """(place, JSON or None) of every line that is not empty."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    try:
                        yield f"{path}:{number}", parse(line)
                    except (ValueError, RecursionError):
                        yield f"{path}:{number}", None
    except OSError as error:
        raise UsageError(f"cannot read {path} ({error.strerror}): check the path") from error


def _step(entry: Fields) -> Step:
    return Step(
        step=entry.whole("step"),
        loss=entry.number("loss"),
        alpha_loss=entry.known("alpha_loss"),
        expected_cost=entry.number("expected_cost"),
        best_cost=entry.number("best_cost"),
        entropy=entry.number("entropy"),
        entropy_weight=entry.number("entropy_weight"),
    )


def _epoch(entry: Fields, space: SearchSpace) -> Epoch:
    alphas, found = entry.inner("alphas"), {}
    for name in space.variables:
        shape = len(space.candidates(name)), len(space.bits)
        try:
            alpha = torch.tensor(alphas.value(name), dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError, OverflowError):  # of no numbers, or of uneven rows
            alpha = torch.zeros(0)
        if alpha.shape != shape or not bool(alpha.isfinite().all()):
            raise UsageError(
                f"{alphas.where}: {name} is not {shape[0]} x {shape[1]} finite numbers, one for each "
                f"operation and bit width: {ADVICE}"
            )
        found[name] = softmax(alpha)
    return Epoch(entry.whole("step"), found)


def _architecture(path: Path) -> Architecture | None:
    if not path.is_file():
        return None
    try:
        return from_json(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UsageError(f"cannot read {path} ({reason}): {ADVICE}") from error


def _result(path: Path) -> Result | None:
    if not path.is_file():
        return None
    entry = read_record(path).check(FORMAT, VERSION)
    return Result(
        space_name=entry.text("space_name"),
        method=entry.text("method"),
        macs=entry.number("macs"),
        bitops=entry.number("bitops"),
        image=_image(entry),
        seconds=entry.known("seconds"),
    )


def _image(entry: Fields) -> tuple[int, int]:
    if not entry.given("image"):
        return USUAL_IMAGE
    sides = entry.wholes("image")
    if len(sides) != 2:
        entry.refuse("image", "a height and a width")
    height, width = sides
    return height, width
