"""JSON read field by field: a value of the wrong kind is an error that says where it stands."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from qnas.errors import UsageError
from qnas.runtime_bench.formats import read_object

LONGEST_TEXT = 4000  # characters
MOST_ITEMS = 100_000  # of a list
LARGEST = 1e24  # of any number: more is no count and no time
LEAST = 1e-6  # of a positive one
ADVICE = "measure again with qnas-bench MODEL --json"


class Fields:
    """An object of a JSON file, at the place `where`; what it cannot read raises UsageError."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self._values = values
        self._where = where

    def text(self, key: str) -> str:
        """A string; what cannot be printed becomes "?"."""
        value = self._get(key)
        if not isinstance(value, str) or len(value) > LONGEST_TEXT:
            self.refuse(key, f"a text of at most {LONGEST_TEXT} characters")
        return printable(value)

    def whole(self, key: str) -> int:
        """An integer that is not negative."""
        value = self._get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LARGEST:
            self.refuse(key, f"a whole number of 0 to {LARGEST:g}")
        return value

    def number(self, key: str) -> float:
        """Any finite number."""
        value = self._get(key)
        if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= LARGEST:
            self.refuse(key, f"a number of at most {LARGEST:g}")
        return float(value)

    def positive(self, key: str) -> float:
        """A number above 0, of at least `LEAST`."""
        value = self.number(key)
        if value < LEAST:
            self.refuse(key, f"a number of at least {LEAST:g}")
        return value

    def flag(self, key: str) -> bool:
        """True or false."""
        value = self._get(key)
        if not isinstance(value, bool):
            self.refuse(key, "true or false")
        return value

    def time(self, key: str) -> datetime:
        """A moment in ISO 8601 with its time zone, in UTC."""
        try:
            moment = datetime.fromisoformat(self.text(key))
            if moment.tzinfo is not None:
                return moment.astimezone(UTC)
        except (ValueError, OverflowError):
            pass
        self.refuse(key, "a time such as 2026-01-31T12:00:00+00:00")

    def inner(self, key: str) -> Fields:
        """An object."""
        return self._inside(self._get(key), key)

    def objects(self, key: str) -> tuple[Fields, ...]:
        """A list of objects."""
        return tuple(self._inside(value, f"{key}[{index}]") for index, value in enumerate(self._list(key)))

    def named(self, key: str) -> dict[str, Fields]:
        """An object whose keys are names and whose values are objects."""
        values = self._inside(self._get(key), key)._values
        return {printable(name): self._inside(value, f"{key}.{name}") for name, value in values.items()}

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings."""
        return tuple(each.text(place) for each, place in self._items(key))

    def wholes(self, key: str) -> tuple[int, ...]:
        """A list of integers that are not negative."""
        return tuple(each.whole(place) for each, place in self._items(key))

    def options(self, key: str) -> dict[str, str]:
        """An object of strings."""
        inside = self._inside(self._get(key), key)
        return {printable(name): inside.text(name) for name in inside._values}

    def has(self, key: str) -> bool:
        """Whether there is a value that is not null; UsageError when the key itself is missing."""
        return self._get(key) is not None

    def knows(self, key: str) -> bool:
        """Whether the key is there at all: files of earlier versions of qnas lack some."""
        return key in self._values

    def refuse(self, key: str, wanted: str) -> NoReturn:
        """Raise the UsageError of a value that is not what is `wanted`."""
        found = _short(self._values[key]) if key in self._values else "missing"
        raise UsageError(f"{self._where}: {key} is {found}, not {wanted}: {ADVICE}")

    def _get(self, key: str) -> Any:
        if key not in self._values:
            self.refuse(key, "there")
        return self._values[key]

    def _list(self, key: str) -> list[Any]:
        value = self._get(key)
        if not isinstance(value, list) or len(value) > MOST_ITEMS:
            self.refuse(key, f"a list of at most {MOST_ITEMS}")
        return value

    def _items(self, key: str) -> list[tuple[Fields, str]]:
        items = {f"{key}[{index}]": value for index, value in enumerate(self._list(key))}
        inside = Fields(items, self._where)
        return [(inside, place) for place in items]

    def _inside(self, value: Any, place: str) -> Fields:
        if not isinstance(value, dict):
            raise UsageError(f"{self._where}: {place} is {_short(value)}, not an object: {ADVICE}")
        return Fields(value, f"{self._where}, {place}")


def read_fields(path: Path) -> Fields:
    """What a result file holds; UsageError when it cannot be read or is no JSON object."""
    return Fields(read_object(path, ADVICE), str(path))


def printable(text: str) -> str:
    """`text` on one line, in characters that do nothing."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text)


def _short(value: object) -> str:
    match value:
        case dict() | list():
            return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
        case float() if not math.isfinite(value):
            return "infinite"
        case int() if abs(value) > LARGEST:
            return "huge"
        case _:
            shown = repr(value)
            return shown if len(shown) <= 60 else f"{shown[:57]}..."
