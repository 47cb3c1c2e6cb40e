"""The result files that one part of the bench writes and another reads: their names, versions and times."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from qnas.errors import UsageError

LARGEST_FILE = 1 << 28  # bytes


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


def read_object(path: Path, advice: str) -> dict[str, Any]:
    """What a result file holds; UsageError, with `advice`, when it cannot be read or is no JSON object."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise UsageError(f"{path} is larger than any result of qnas-bench: {advice}")
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}): check the path") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no JSON file of qnas-bench ({error}): {advice}") from error
    if not isinstance(value, dict):
        raise UsageError(f"{path} is no result of qnas-bench: {advice}")
    return value


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
