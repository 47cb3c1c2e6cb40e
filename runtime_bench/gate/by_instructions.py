"""Rows that count instructions: a gate of their own, and the judge of a latency that time leaves open.

Other load makes a pair of processes slow to start and their ratio uncertain; it changes no instruction. That
instructions stand for time is an assumption: it is made between models that run the same kinds of operations
in the same places on one thread, and with `MARGIN` to either side of the limit.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

from qnas.errors import ModelError
from qnas.runtime_bench.gate.contender import Contender
from qnas.runtime_bench.gate.instructions import count_instructions, missing
from qnas.runtime_bench.gate.sequential import Status
from qnas.runtime_bench.gate.timing import Timed
from qnas.runtime_bench.gate.verdict import Row
from qnas.runtime_bench.stats import Estimate
from qnas.runtime_bench.workers.process import LoadOptions

MARGIN = 0.5  # of the allowed slowdown


def instructions_row(limit: float, new: Contender, old: Contender, load: LoadOptions) -> Row:
    """The gate `--instructions`: inconclusive where the noise of the counts reaches over the limit."""
    most = 1 + limit
    if reason := missing(new.device):
        return Row("instructions", Status.SKIPPED, "ratio", None, None, most, detail=reason)
    ratio, detail = _ratio(new, old, load)
    return Row("instructions", _status(ratio, most, most), "ratio", ratio.value, 1.0, most, detail=detail)


def undecided(row: Row, timed: Timed, new: Contender, old: Contender, load: LoadOptions) -> Sequence[Row]:
    """The inconclusive `row` of a latency, and beside it, where they may, the one that instructions decide.

    They never pass what a first sample of times found too slow.
    """
    slowdown = row.limit - 1
    try:
        reason = _unfit(new, old, load)
        counted = None if reason else _ratio(new, old, load)
    except ModelError as error:
        reason, counted = str(error), None
    if counted is None:
        return (replace(row, detail=f"{row.detail}; instructions do not decide it: {reason}"),)
    ratio, detail = counted
    status = _status(ratio, 1 + (1 - MARGIN) * slowdown, 1 + (1 + MARGIN) * slowdown)
    if status is Status.PASS and timed.decision.first.status is Status.FAIL:
        status, detail = Status.INCONCLUSIVE, f"{detail}; a sample of times says the opposite"
    return (
        replace(row, status=Status.SKIPPED, detail=f"{row.detail}; instructions decide it"),
        Row("latency, by instructions", status, "ratio", ratio.value, 1.0, row.limit, detail=detail),
    )


def _unfit(new: Contender, old: Contender, load: LoadOptions) -> str | None:
    """Why instructions do not stand for time here, or None."""
    if reason := missing(new.device):
        return reason
    if load.threads != 1:
        return "they are those of one thread"
    if _kinds(new, load) != _kinds(old, load):
        return "the models run different kinds of operations"
    return None


def _kinds(model: Contender, load: LoadOptions) -> frozenset[tuple[str, str, bool | None]]:
    with closing(model.start(load, load.cpus)) as runner:
        nodes, _ = runner.executed(1)
    return frozenset((node.op, node.provider, node.integer) for node in nodes)


def _ratio(new: Contender, old: Contender, load: LoadOptions) -> tuple[Estimate, str]:
    """Instructions of `new` over those of `old`, and what they are."""
    models = [(each.files.path, each.device, each.latency) for each in (new, old)]
    above, below = count_instructions(models, load)
    ratio = above.value / below.value
    error = ratio * (above.error / above.value + below.error / below.value)
    detail = f"{above.value:.4g} against {below.value:.4g} per inference, ± {error:.2%}"
    return Estimate(ratio, ratio - error, ratio + error), detail


def _status(ratio: Estimate, passing: float, failing: float) -> Status:
    if ratio.low > failing:
        return Status.FAIL
    return Status.PASS if ratio.high <= passing else Status.INCONCLUSIVE
