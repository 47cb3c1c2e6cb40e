"""The records of log.jsonl, one a line: what a search writes, its resumption and its page read."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from qnas.documents.reading import Count, Document, Number
from qnas.errors import UsageError
from qnas.search.runs.result import WRITE_AGAIN


@dataclass(frozen=True)
class StepRecord:
    """Losses in grey levels, that of the alphas None in the warm-up; costs as the search counts them."""

    kind: ClassVar[str] = "step"
    epoch: Count
    step: Count
    loss: Number
    alpha_loss: Number | None
    expected_cost: Number
    best_cost: Number
    entropy: Number
    entropy_weight: Number
    images_per_second: Number
    seconds: Number
    penalty: Number | None = None  # of the cost; logs of earlier versions say none


@dataclass(frozen=True)
class EpochRecord:
    """What an epoch ended with, after `step` steps. `alphas`: [O, B] of each variable, before the softmax."""

    kind: ClassVar[str] = "epoch"
    epoch: Count
    step: Count
    loss: Number
    alphas: Mapping[str, tuple[tuple[Number, ...], ...]]
    choices: Mapping[str, Any]
    certainty: Mapping[str, Number]
    cost: Number
    expected_cost: Number
    seconds: Number


LogRecord = StepRecord | EpochRecord


@dataclass(frozen=True)
class _Kind:
    kind: str


_WHAT = "record of a search"
_KIND = Document(_Kind, _WHAT, WRITE_AGAIN)
_RECORDS: dict[str, Document[StepRecord] | Document[EpochRecord]] = {
    "step": Document(StepRecord, _WHAT, WRITE_AGAIN),
    "epoch": Document(EpochRecord, _WHAT, WRITE_AGAIN),
}


def record_from(value: object, where: str) -> LogRecord:
    """The record in a line that is JSON; `where` begins the message. Raises UsageError."""
    kind = _KIND.convert(value, where).kind
    if kind not in _RECORDS:
        raise UsageError(f"{where}: kind is {kind!r}, not one of {', '.join(_RECORDS)}: {WRITE_AGAIN}")
    return _RECORDS[kind].convert(value, where)


def plain(record: LogRecord) -> dict[str, Any]:
    """What is written of it."""
    return {"kind": record.kind, **asdict(record)}
