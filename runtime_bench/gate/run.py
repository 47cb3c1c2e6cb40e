"""A gate, step by step: what can be counted is decided first, and only what is left is timed."""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import assert_never

from qnas.errors import UsageError
from qnas.runtime_bench.benchmark import candidates
from qnas.runtime_bench.environment import EMULATED
from qnas.runtime_bench.gate.baseline import Baseline, check_same, read_baseline
from qnas.runtime_bench.gate.by_instructions import instructions_row, undecided
from qnas.runtime_bench.gate.contender import Contender
from qnas.runtime_bench.gate.deterministic import Subject, deterministic_rows
from qnas.runtime_bench.gate.pairs import Cpus, shared_cpus
from qnas.runtime_bench.gate.request import Request, check_request
from qnas.runtime_bench.gate.sequential import FIRST, Status
from qnas.runtime_bench.gate.timing import Clock, Progress, Timed, time_against, time_against_baseline
from qnas.runtime_bench.gate.verdict import GateReport, Row, overall
from qnas.runtime_bench.machine_state import usable_cpus
from qnas.runtime_bench.model_files import model_files
from qnas.runtime_bench.stats import median
from qnas.runtime_bench.workers.start import start_runner
from qnas.runtimes.inputs import shape_text
from qnas.runtimes.names import DeviceName

AVX512 = "instructions are those of code without AVX-512, which valgrind does not show to programs"
UNPAIRED = "a baseline was measured at another time: --against, interleaved on one machine, is stronger"
SAME = "both models are the same file"


def run_gate(request: Request, progress: Progress = lambda done: None) -> GateReport:
    """Decide all that was asked for.

    Raises UsageError for what does not fit together, ModelError when a model cannot be read or run,
    ImageError for images.
    """
    check_request(request)
    baseline = None
    with ExitStack() as running:
        new, old = _load(request, running)
        if request.baseline is not None:
            baseline = read_baseline(request.baseline, str(new.device), request.model.name)
            check_same(baseline, new.subject.loaded, request.load)
        rows = list(deterministic_rows(request, new.subject, old.subject if old else None))
    if request.max_instructions is not None and old is not None:
        rows.append(instructions_row(request.max_instructions, new, old, request.load))
    timed = None
    if request.max_slowdown is not None:
        if overall([row.status for row in rows]) is not Status.FAIL:
            timed = _timed(request, request.max_slowdown, new, old, baseline, progress)
            if new.device.transport:  # the load that was seen is that of this machine
                timed = replace(timed, load=None)
        row = _latency_row(timed, 1 + request.max_slowdown)
        if timed and old is not None and row.status is Status.INCONCLUSIVE:
            rows += undecided(row, timed, new, old, request.load)
        else:
            rows.append(row)
    return GateReport(
        model=request.model,
        against=request.against or request.baseline,
        device=str(new.device),
        threads=request.load.threads,
        environment=new.subject.loaded.environment,
        rows=tuple(rows),
        timed=timed,
        seed=request.load.seed,
        budget=request.budget,
        notes=_notes(request, new, old, rows),
    )


def _load(request: Request, running: ExitStack) -> tuple[Contender, Contender | None]:
    """Each in a process that `running` ends; it tells what the model is fed, and what it runs."""
    paths = [request.model] + ([request.against] if request.against is not None else [])
    made = []
    for path, device in candidates(paths, [] if request.device is None else [request.device]):
        runner = start_runner(model_files(path), device, request.load)
        running.callback(runner.close)
        subject = Subject(model_files(path), runner.loaded, partial(runner.executed, 1))
        made.append(Contender(device, subject, float(min(runner.run(3)))))
    new, old = made[0], made[1] if len(made) > 1 else None
    if old is not None:
        shapes = [list(each.subject.loaded.input_shapes.values()) for each in (new, old)]
        if shapes[0] != shapes[1]:
            shown = [" and ".join(map(shape_text, each)) for each in shapes]
            raise UsageError(
                f"{new.files.path} takes {shown[0]}, {old.files.path} takes {shown[1]}: their latencies "
                "cannot be compared; choose models of the same input, or give --shape"
            )
    return new, old


def _timed(
    request: Request,
    slowdown: float,
    new: Contender,
    old: Contender | None,
    baseline: Baseline | None,
    progress: Progress,
) -> Timed:
    cpu = new.subject.loaded.environment.cpu
    if EMULATED in cpu:
        raise UsageError(f"{cpu}: times under emulation say nothing; gate the slowdown on a real one")
    clock = Clock(request.budget, progress)
    begin = partial(new.start, request.load)
    if old is not None:
        before = partial(old.start, request.load)
        places = _places(request, (new.device, old.device))
        return time_against(before, begin, places, 1 + slowdown, clock, request.load.seed)
    if baseline is None:
        raise UsageError("--max-slowdown compares: give --against OLD or --baseline FILE")
    cpus = request.load.cpus
    return time_against_baseline(baseline, begin, cpus, 1 + slowdown, clock, request.load.seed)


def _places(request: Request, devices: Sequence[DeviceName]) -> Sequence[Cpus]:
    """The processors asked for, or chosen where this machine may; of another one they are unknown."""
    if request.load.cpus or any(device.transport for device in devices):
        return (request.load.cpus,)
    return shared_cpus(request.load.threads)


def _latency_row(timed: Timed | None, limit: float) -> Row:
    if timed is None:
        detail = "not timed: another gate failed"
        return Row("latency", Status.SKIPPED, "ratio", None, None, limit, detail=detail)
    decision = timed.decision
    shown = decision.confirmation or decision.first
    low, high = shown.interval.low, shown.interval.high
    latencies = zip(*(drawn.latencies for drawn in timed.drawn), strict=True)
    milliseconds = [median(each) / 1e6 for each in latencies]
    fresh = "pairs" if len(milliseconds) > 1 else "processes"
    parts = [
        f"{low:.3f} to {high:.3f}" if math.isfinite(high - low) else "no interval yet",
        f"{' / '.join(f'{each:.3f}' for each in reversed(milliseconds))} ms",
        f"{len(timed.drawn)} fresh {fresh} in {timed.seconds:.1f} s{_load_seen(timed)}",
        _explained(timed),
    ]
    detail = "; ".join(part for part in parts if part)
    return Row("latency", decision.status, "ratio", shown.interval.value, 1.0, limit, detail=detail)


def _load_seen(timed: Timed) -> str:
    return "" if timed.load is None else f" at a load of {timed.load:.1f} on {len(usable_cpus())} processors"


def _explained(timed: Timed) -> str:
    """Why it is not decided, or how sure a fail is."""
    decision = timed.decision
    match decision.status:
        case Status.FAIL:
            return "confirmed by a second sample"
        case Status.PASS | Status.SKIPPED:
            return ""
        case Status.INCONCLUSIVE:
            if decision.first.status is not Status.FAIL:
                few = len(decision.first.ratios) < FIRST.counts[0]
                return "too slow for this budget: raise --budget" if few else "undecided: raise --budget"
            if decision.confirmation is not None and decision.confirmation.status is Status.PASS:
                return "a second sample disagrees with the first"
            return "no time to confirm: raise --budget"
    assert_never(decision.status)


def _notes(request: Request, new: Contender, old: Contender | None, rows: Sequence[Row]) -> tuple[str, ...]:
    notes = {
        SAME: old is not None and new.files.digest == old.files.digest,
        UNPAIRED: request.baseline is not None,
        AVX512: any(row.unit == "ratio" and row.gate != "latency" for row in rows),
    }
    return tuple(note for note, holds in notes.items() if holds)
