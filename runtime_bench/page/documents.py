"""Result files as typed values: only what the page shows, checked before anything is drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from qnas.errors import UsageError
from qnas.json_fields import Fields, read_fields
from qnas.runtime_bench.environment import Environment
from qnas.runtime_bench.formats import BENCH, GATE
from qnas.runtime_bench.profile.delegation import Delegation
from qnas.runtime_bench.profile.peak import Peak
from qnas.runtime_bench.profile.table import Profile, ProfileRow
from qnas.runtime_bench.stats import Estimate
from qnas.runtimes.inputs import shape_text

RESULT = "result of qnas-bench"
ADVICE = "measure again with qnas-bench MODEL --json"


@dataclass(frozen=True)
class NodeCounts:
    """Analytic cost of one node."""

    name: str
    op: str
    macs: int
    bitops: int
    executed_bitops: int


@dataclass(frozen=True)
class Counts:
    """Analytic cost of a model: `uncovered` operations are in none of the numbers."""

    macs: int
    bitops: int
    executed_bitops: int
    uncovered: tuple[str, ...]
    nodes: tuple[NodeCounts, ...]


@dataclass(frozen=True)
class Candidate:
    """A model on a device. Times in nanoseconds, sizes in bytes; `device` with its options, if it has any."""

    path: Path
    device: str
    sha256: str
    size: int
    shapes: str
    threads: int
    environment: Environment
    latency: Estimate
    p90: float
    p99: float
    first: float
    load: float
    memory: int | None
    counts: Counts | None
    delegation: Delegation | None
    profile: Profile | None
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Failed:
    """A candidate that could not be measured."""

    path: Path
    device: str
    reason: str


@dataclass(frozen=True)
class BenchFile:
    """What one `qnas-bench MODEL --json` wrote."""

    file: Path
    taken: datetime
    confidence: float
    candidates: tuple[Candidate, ...]
    failures: tuple[Failed, ...]


@dataclass(frozen=True)
class GateRow:
    """One gate: `new` and `old` in `unit`; `sign` says on which side of `limit` it may be."""

    gate: str
    status: str
    unit: str
    new: float | None
    old: float | None
    limit: float | None
    sign: str
    detail: str


@dataclass(frozen=True)
class GateFile:
    """What one `qnas-bench gate --json` wrote.

    `taken`: None in files of before it was written. `ratio`: of the latencies, None when they were not timed;
    of too few pairs its ends are infinite.
    """

    file: Path
    taken: datetime | None
    status: str
    model: str
    against: str | None
    device: str
    threads: int
    environment: Environment
    rows: tuple[GateRow, ...]
    ratio: Estimate | None
    seconds: float | None


def read_document(path: Path) -> BenchFile | GateFile:
    """Read a result file of the bench or of its gate.

    Raises UsageError, naming the file and the field, when it is neither, of another version, or damaged.
    """
    fields = read_fields(path, RESULT, ADVICE)
    kind = fields.text("format")
    versions = {each.name: each.version for each in (BENCH, GATE)}
    if kind not in versions:
        raise UsageError(f"{path}: format is {kind[:60]!r}, not one of {', '.join(versions)}: {ADVICE}")
    if fields.whole("version") != versions[kind]:
        fields.refuse("version", f"{versions[kind]}, which this qnas reads")
    return _bench(path, fields) if kind == BENCH.name else _gate(path, fields)


def _bench(path: Path, fields: Fields) -> BenchFile:
    settings = fields.inner("settings")
    threads = settings.whole("threads")
    cpus = settings.wholes("cpus")
    chosen = [f"{key}={value}" for key, value in settings.options("device_options").items()]
    chosen += ["cpus " + ",".join(map(str, cpus))] if cpus else []
    options = f" ({', '.join(chosen)})" if chosen else ""
    return BenchFile(
        file=path,
        taken=fields.time("taken"),
        confidence=fields.inner("interval").positive("confidence"),
        candidates=tuple(_candidate(each, threads, options) for each in fields.objects("models")),
        failures=tuple(
            Failed(Path(each.text("path")), each.text("device"), each.text("reason"))
            for each in fields.objects("failures")
        ),
    )


def _candidate(fields: Fields, threads: int, options: str) -> Candidate:
    percentiles = fields.inner("percentiles_ns")
    shapes = (each.wholes("shape") for each in fields.named("inputs").values())
    return Candidate(
        path=Path(fields.text("path")),
        device=fields.text("device") + options,
        sha256=fields.text("sha256"),
        size=fields.whole("bytes"),
        shapes=", ".join(map(shape_text, shapes)),
        threads=threads,
        environment=_environment(fields.inner("environment")),
        latency=_estimate(fields.inner("latency_ns")),
        p90=percentiles.positive("p90"),
        p99=percentiles.positive("p99"),
        first=fields.positive("first_ns"),
        load=fields.positive("load_ns"),
        memory=fields.whole("peak_memory_bytes") if fields.has("peak_memory_bytes") else None,
        counts=_counts(fields.inner("cost")) if fields.has("cost") else None,
        delegation=_delegation(fields.inner("delegation")) if fields.has("delegation") else None,
        profile=_profile(fields.inner("profile")) if fields.has("profile") else None,
        warnings=fields.texts("warnings"),
    )


def _estimate(fields: Fields) -> Estimate:
    found = Estimate(fields.positive("value"), fields.positive("low"), fields.positive("high"))
    if found.low > found.high:
        fields.refuse("low", f"below high, {found.high:g}")
    return found


def _environment(fields: Fields) -> Environment:
    return Environment(
        cpu=fields.text("cpu"),
        machine=fields.text("machine"),
        system=fields.text("system"),
        cores=fields.whole("cores"),
        usable_cores=fields.whole("usable_cores"),
        governor=fields.text("governor") if fields.has("governor") else None,
        runtime=fields.text("runtime"),
        python=fields.text("python"),
        numpy=fields.text("numpy"),
        qnas=fields.text("qnas"),
    )


def _counts(fields: Fields) -> Counts:
    nodes = tuple(
        NodeCounts(
            each.text("name"),
            each.text("op"),
            each.whole("macs"),
            each.whole("bitops"),
            each.whole("executed_bitops"),
        )
        for each in fields.objects("nodes")
    )
    return Counts(
        macs=fields.whole("macs"),
        bitops=fields.whole("bitops"),
        executed_bitops=fields.whole("executed_bitops"),
        uncovered=fields.texts("uncovered"),
        nodes=nodes,
    )


def _delegation(fields: Fields) -> Delegation:
    return Delegation(
        provider=fields.text("provider"),
        nodes=fields.whole("nodes"),
        delegated_nodes=fields.whole("delegated_nodes"),
        macs=fields.whole("macs"),
        delegated_macs=fields.whole("delegated_macs"),
        integer_macs=fields.whole("integer_macs"),
        unknown_macs=fields.whole("unknown_macs"),
    )


def _profile(fields: Fields) -> Profile:
    return Profile(
        rows=tuple(map(_profile_row, fields.objects("rows"))),
        operations=(),
        total=_profile_row(fields.inner("total")),
        peak=_peak(fields.inner("peak")) if fields.has("peak") else None,
    )


def _profile_row(fields: Fields) -> ProfileRow:
    return ProfileRow(
        name=fields.text("name"),
        op=fields.text("op"),
        provider=fields.text("provider"),
        nodes=fields.whole("nodes"),
        integer=fields.flag("integer") if fields.has("integer") else None,
        microseconds=fields.known("microseconds"),
        share=fields.known("share"),
        macs=fields.whole("macs"),
        gops=fields.known("gops"),
        peak_share=fields.known("peak_share"),
        gigabytes=fields.known("gigabytes"),
    )


def _peak(fields: Fields) -> Peak:
    return Peak(
        integer_gops=fields.positive("integer_gops"),
        float_gflops=fields.positive("float_gflops"),
        gigabytes=fields.positive("gigabytes"),
        threads=fields.whole("threads"),
        runtime=fields.text("runtime"),
    )


def _gate(path: Path, fields: Fields) -> GateFile:
    timing = fields.inner("timing") if fields.has("timing") else None
    return GateFile(
        file=path,
        taken=fields.time("taken") if fields.knows("taken") else None,
        status=fields.text("status"),
        model=fields.text("model"),
        against=fields.text("against") if fields.has("against") else None,
        device=fields.text("device"),
        threads=fields.whole("threads"),
        environment=_environment(fields.inner("environment")),
        rows=tuple(map(_gate_row, fields.objects("rows"))),
        ratio=_ratio(timing) if timing else None,
        seconds=timing.number("seconds") if timing else None,
    )


def _ratio(timing: Fields) -> Estimate:
    """That of the sample that decided, as the gate's own table has it; JSON's null stands for infinite."""
    fields = timing.inner("confirmation" if timing.has("confirmation") else "first").inner("ratio")
    if fields.has("low") and fields.has("high"):
        return _estimate(fields)
    return Estimate(fields.positive("value"), -math.inf, math.inf)


def _gate_row(fields: Fields) -> GateRow:
    return GateRow(
        gate=fields.text("gate"),
        status=fields.text("status"),
        unit=fields.text("unit"),
        new=fields.known("new"),
        old=fields.known("old"),
        limit=fields.known("limit"),
        sign=fields.text("kind"),
        detail=fields.text("detail"),
    )
