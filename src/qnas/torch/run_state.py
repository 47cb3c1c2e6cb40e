"""The state of a run in a file: plain data that is refused once it was changed, and how a run takes it up."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qnas.documents.digest import DIGEST, digest_of
from qnas.documents.reading import Count, Document, Number
from qnas.errors import CheckpointError, UsageError
from qnas.torch.checkpoint import check_state, load_plain, save_plain

ADVICE = "begin again without --resume"
_REMEMBERED = {torch.optim.Adam: ("exp_avg", "exp_avg_sq"), torch.optim.SGD: ("momentum_buffer",)}
_POSITIVE = ("step", "exp_avg_sq")


@dataclass(frozen=True)
class Progress:
    """How far a run is: steps done, and the seconds that they took."""

    step: Count
    seconds: Number


_PROGRESS = Document(Progress, "state of a run", ADVICE, CheckpointError)


def check_interrupted(state: Path, *, resume: bool, force: bool) -> None:
    """Raise UsageError where there is a run to go on with and nobody said so, or none to resume."""
    if state.exists() and not (resume or force):
        raise UsageError(
            f"{state} is an interrupted run: continue it with --resume, or discard it with --force"
        )
    if resume and not state.exists():
        raise UsageError(f"there is no interrupted run {state}: leave --resume out to begin one")


def save_run_state(path: Path, document: Mapping[str, Any]) -> None:
    """Replace `path`, whole or not at all; the document gets a digest of itself. Raises OutputError."""
    save_plain(path, {**document, DIGEST: digest_of(document, _Hashed(None))}, force=True)


def load_run_state(path: Path, wanted_format: str, version: int, source: str) -> dict[str, Any]:
    """What `save_run_state` wrote; states of earlier versions have no digest. Raises CheckpointError."""
    document = load_plain(path, wanted_format, version, source)
    if DIGEST in document:
        digest = document.pop(DIGEST)
        try:
            same = isinstance(digest, str) and digest == digest_of(document, _Hashed(path.stat().st_size))
        except (TypeError, ValueError, RuntimeError):  # not what a run would have saved
            same = False
        if not same:
            raise CheckpointError(
                f"{path} was changed after it was written (its digest does not match): {ADVICE}"
            )
    return document


def progress_of(document: Mapping[str, Any], steps: int, where: str) -> Progress:
    """How far a state is, of a run of so many `steps`; `where` begins messages. Raises CheckpointError."""
    found = _PROGRESS.convert({key: document.get(key) for key in ("step", "seconds")}, where)
    if found.step > steps:
        raise CheckpointError(f"{where}: step is {found.step} of a run of {steps}: {ADVICE}")
    if found.seconds < 0:
        raise CheckpointError(f"{where}: seconds is {found.seconds:g}, less than 0: {ADVICE}")
    return found


def load_optimizer(optimizer: torch.optim.Optimizer, state: Any, stepped: bool, where: str) -> None:
    """Fill `optimizer` with what another of the same parameters remembered, and with its groups' shares.

    `stepped`: whether it has made a step, and remembers something of every parameter. All other options of
    its groups stay. Raises CheckpointError.
    """
    groups = optimizer.state_dict()["param_groups"]
    try:
        remembered = {(index, key): each[key] for index, each in state["state"].items() for key in each}
        for mine, its in zip(groups, state["param_groups"], strict=True):
            if "share" in mine:
                mine["share"] = float(its["share"])
                if not math.isfinite(mine["share"]):
                    raise ValueError(f"a share is {mine['share']}")
    except Exception as error:  # a tensor in place of a dictionary raises nearly anything
        raise CheckpointError(f"{where} is no state of an optimizer ({error}): {ADVICE}") from error
    expected: dict[tuple[int, str], Tensor] = {}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, parameter in enumerate(parameters if stepped else []):
        if isinstance(optimizer, torch.optim.Adam):
            expected[index, "step"] = torch.tensor(0.0)
        for key in _REMEMBERED[type(optimizer)]:
            expected[index, key] = parameter.detach()
    named = [{f"{i}.{key}": each for (i, key), each in part.items()} for part in (expected, remembered)]
    check_state(named[0], named[1], where)
    for (index, key), each in remembered.items():
        if key in _POSITIVE and bool((each < 0).any()):
            raise CheckpointError(f"{where}: {index}.{key} is negative: {ADVICE}")
    # Copies: the numbers of one in a file may lie in one place, where no step can write them.
    own = {
        index: {key: value.clone() for key, value in each.items()} for index, each in state["state"].items()
    }
    optimizer.load_state_dict({"state": own, "param_groups": groups})


class _Hashed:
    """A tensor as plain data: its type, shape and bytes, the last as a digest. No more than `most` bytes."""

    def __init__(self, most: int | None) -> None:
        self._left = most

    def __call__(self, value: Any) -> list[Any]:
        if not isinstance(value, Tensor):
            raise TypeError(f"{type(value).__name__} is no plain data")
        if self._left is not None:  # a small file can hold a tensor many times, or one number as many
            self._left -= value.numel() * value.element_size()
            if self._left < 0:
                raise ValueError("too long")
        data = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return [str(value.dtype), list(value.shape), hashlib.sha256(data).hexdigest()]
