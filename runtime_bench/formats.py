"""The result files that one part of the bench writes and another reads: their names, versions and times."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True)
class Format:
    """What a kind of JSON file begins with; another `version` is not read."""

    name: str
    version: int

    def head(self) -> dict[str, Any]:
        """The first keys of a file that is written now: `taken` is its time, UTC in ISO 8601."""
        taken = datetime.now(UTC).isoformat(timespec="seconds")
        return {"format": self.name, "version": self.version, "taken": taken}


BENCH = Format("qnas-bench", 2)
GATE = Format("qnas-gate", 1)
