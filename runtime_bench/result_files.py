"""The files of `qnas-bench MODEL --json` and `qnas-bench gate --json`, as far as the bench reads them again.

Times are nanoseconds, sizes bytes; what is infinite is null.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from qnas.documents.reading import Count, Document, Nanoseconds, Number, Positive, Text
from qnas.errors import UsageError
from qnas.runtime_bench.environment import Environment
from qnas.runtime_bench.profile.delegation import Delegation
from qnas.runtime_bench.profile.table import Profile
from qnas.runtime_bench.stats import Estimate
from qnas.runtimes.inputs import shape_text

RESULT = "result of qnas-bench"
ADVICE = "measure again with qnas-bench MODEL --json"
Time = Annotated[datetime, Meta(tz=True)]


@dataclass(frozen=True)
class NodeCounts:
    """Analytic cost of one node."""

    name: Text
    op: Text
    macs: Count
    bitops: Count
    executed_bitops: Count


@dataclass(frozen=True)
class Counts:
    """Analytic cost of a model: `uncovered` operations are in none of the numbers."""

    macs: Count
    bitops: Count
    executed_bitops: Count
    uncovered: tuple[Text, ...]
    nodes: tuple[NodeCounts, ...]


@dataclass(frozen=True)
class Interval(Estimate):
    """An estimate above 0 whose ends are in order."""

    value: Positive
    low: Positive
    high: Positive

    def __post_init__(self) -> None:
        _check_order(self.low, self.high)


@dataclass(frozen=True)
class Percentiles:
    """The percentiles of the latency."""

    p90: Positive
    p99: Positive


@dataclass(frozen=True)
class ModelInput:
    """`type` by numpy's name."""

    type: Text
    shape: tuple[Count, ...]


@dataclass(frozen=True)
class Candidate:
    """A model on a device; `rounds_ns` has every sample."""

    path: Text
    device: Text
    sha256: Text
    bytes: Count
    inputs: dict[str, ModelInput]
    environment: Environment
    latency_ns: Interval
    percentiles_ns: Percentiles
    first_ns: Positive
    load_ns: Positive
    peak_memory_bytes: Count | None
    cost: Counts | None
    delegation: Delegation | None
    profile: Profile | None
    warnings: tuple[Text, ...]
    rounds_ns: tuple[tuple[Nanoseconds, ...], ...] = ()

    @property
    def shapes(self) -> str:
        """The shapes of all inputs: "1x3x64x48"."""
        return ", ".join(shape_text(each.shape) for each in self.inputs.values())


@dataclass(frozen=True)
class Failed:
    """A candidate that could not be measured."""

    path: Text
    device: Text
    reason: Text


@dataclass(frozen=True)
class Settings:
    """What all candidates of a file were measured with."""

    threads: Count
    cpus: tuple[Count, ...]
    device_options: dict[str, Text]

    @property
    def chosen(self) -> str:
        """What was chosen besides the threads, as it stands behind a device's name: " (cpus 0,1)"."""
        words = [f"{key}={value}" for key, value in self.device_options.items()]
        words += ["cpus " + ",".join(map(str, self.cpus))] if self.cpus else []
        return f" ({', '.join(words)})" if words else ""


@dataclass(frozen=True)
class Confidence:
    """How sure the intervals are, of 1."""

    confidence: Positive


@dataclass(frozen=True)
class BenchFile:
    """What one `qnas-bench MODEL --json` wrote; `taken` in UTC."""

    taken: Time
    settings: Settings
    interval: Confidence
    models: tuple[Candidate, ...]
    failures: tuple[Failed, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "taken", _in_utc(self.taken))


@dataclass(frozen=True)
class GateRow:
    """One gate: `new` and `old` in `unit`; `kind` says on which side of `limit` it may be."""

    gate: Text
    status: Text
    unit: Text
    new: Number | None
    old: Number | None
    limit: Number | None
    kind: Text
    detail: Text


@dataclass(frozen=True)
class Ratio:
    """The ratio of the latencies; of too few pairs its ends are null."""

    value: Positive
    low: Positive | None
    high: Positive | None

    def __post_init__(self) -> None:
        _check_order(self.low or 0.0, self.high or math.inf)

    @property
    def estimate(self) -> Estimate:
        """With infinite ends where one is not known."""
        if self.low is None or self.high is None:
            return Estimate(self.value, -math.inf, math.inf)
        return Estimate(self.value, self.low, self.high)


@dataclass(frozen=True)
class GateSample:
    """Pairs of runs."""

    ratio: Ratio


@dataclass(frozen=True)
class GateTiming:
    """The second sample confirms the first, where that was needed."""

    seconds: Number
    first: GateSample
    confirmation: GateSample | None

    @property
    def ratio(self) -> Estimate:
        """That of the sample that decided, as the gate's own table has it."""
        return (self.confirmation or self.first).ratio.estimate


@dataclass(frozen=True)
class GateFile:
    """What one `qnas-bench gate --json` wrote. `taken` in UTC, None in files of before it was written.

    `timing`: None when the latencies were not timed.
    """

    status: Text
    model: Text
    against: Text | None
    device: Text
    threads: Count
    environment: Environment
    rows: tuple[GateRow, ...]
    timing: GateTiming | None
    taken: Time | None = None

    def __post_init__(self) -> None:
        if self.taken is not None:
            object.__setattr__(self, "taken", _in_utc(self.taken))


BENCH = Document(BenchFile, RESULT, ADVICE, format="qnas-bench", version=2)
GATE = Document(GateFile, RESULT, ADVICE, format="qnas-gate", version=1)


@dataclass(frozen=True)
class _Any:
    format: Text


_ANY = Document(_Any, RESULT, ADVICE)


def read_result(path: Path) -> BenchFile | GateFile:
    """Read a result file of the bench or of its gate.

    Raises UsageError, naming the file and the place, when it is neither, of another version, or damaged.
    """
    found = _ANY.read(path).format
    for kind in (BENCH, GATE):
        if found == kind.format:
            return kind.read(path)
    raise UsageError(f"{path}: format is {found[:60]!r}, not {BENCH.format} or {GATE.format}: {ADVICE}")


def head(kind: Document[Any]) -> dict[str, object]:
    """The first keys of a file that is written now: `taken` is its time, UTC in ISO 8601."""
    return kind.head | {"taken": datetime.now(UTC).isoformat(timespec="seconds")}


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"taken is {moment}, which is no year in UTC") from None


def _check_order(low: float, high: float) -> None:
    if low > high:
        raise ValueError(f"low is {low:g}, not below high, {high:g}")
