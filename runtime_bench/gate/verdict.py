"""What a gate found: one row for each thing that was gated, and the verdict over all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qnas.runtime_bench.environment import Environment
from qnas.runtime_bench.gate.sequential import Status
from qnas.runtime_bench.gate.timing import Timed

EXIT_CODES = {Status.PASS: 0, Status.FAIL: 1, Status.INCONCLUSIVE: 3, Status.SKIPPED: 0}


@dataclass(frozen=True)
class Row:
    """One gate. Numbers in `unit`; of `limit` the sign in `kind` says which side is allowed ("<=" or ">=").

    `detail`: how sure the number is, or why there is none.
    """

    gate: str
    status: Status
    unit: str
    new: float | None
    old: float | None
    limit: float
    kind: str = "<="
    detail: str = ""


@dataclass(frozen=True)
class GateReport:
    """`against`: the old model or the baseline file, None: nothing is compared. `timed`: of the latency."""

    model: Path
    against: Path | None
    device: str
    threads: int
    environment: Environment
    rows: tuple[Row, ...]
    timed: Timed | None
    seed: int
    budget: float
    notes: tuple[str, ...] = ()

    @property
    def status(self) -> Status:
        """That of all rows together."""
        return overall([row.status for row in self.rows])

    @property
    def exit_code(self) -> int:
        """0 pass, 1 fail, 3 inconclusive."""
        return EXIT_CODES[self.status]


def overall(statuses: Sequence[Status]) -> Status:
    """One fail fails all, one inconclusive leaves all open; what was skipped has no say."""
    for decisive in (Status.FAIL, Status.INCONCLUSIVE, Status.PASS):
        if decisive in statuses:
            return decisive
    return Status.SKIPPED


def at_most(gate: str, unit: str, new: float, old: float | None, limit: float, detail: str = "") -> Row:
    """A row that passes when `new` is not above `limit`."""
    status = Status.PASS if new <= limit else Status.FAIL
    return Row(gate, status, unit, new, old, limit, "<=", detail)


def at_least(gate: str, unit: str, new: float, old: float | None, limit: float, detail: str = "") -> Row:
    """A row that passes when `new` is not below `limit`."""
    status = Status.PASS if new >= limit else Status.FAIL
    return Row(gate, status, unit, new, old, limit, ">=", detail)
