"""Budgets as a command line has them, and the files that they make."""

from collections.abc import Sequence
from pathlib import Path

from qnas.cost.allocation import Budget
from qnas.errors import UsageError
from qnas.search.runs.random_search import parse_amount

MOST = 100.0  # percent of 8 bits


def parse_budgets(texts: Sequence[str]) -> tuple[Budget, ...]:
    """Budgets out of "50%", of what 8 bits cost, or "2.3G", of units. Raises UsageError, also for equals."""
    found = tuple(map(_budget, texts))
    for index, text in enumerate(texts):
        if text in texts[:index]:
            raise UsageError(f"--budget {text} is given twice: leave one out")
    return found


def _budget(text: str) -> Budget:
    if not text.endswith("%"):
        return Budget(text, None, parse_amount("--budget", text))
    percent = parse_amount("--budget", text[:-1])
    if not 0 < percent <= MOST:
        raise UsageError(f"--budget {text}: write a share of 8 bits from 0% to 100%, or a number, as 2.3G")
    return Budget(text, percent / 100, None)


def outputs_of(target: Path, budgets: Sequence[Budget]) -> tuple[Path, ...]:
    """`target` for one budget; for several a file beside it for each: net.calibration.json becomes
    net.50pct.calibration.json."""
    if len(budgets) == 1:
        return (target,)
    stem, dot, endings = target.name.partition(".")
    words = [budget.text.replace("%", "pct") for budget in budgets]
    return tuple(target.with_name(f"{stem}.{word}{dot}{endings}") for word in words)
