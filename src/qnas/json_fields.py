"""JSON files read field by field: a value of the wrong kind is an error that says where it stands."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from qnas.errors import QnasError, UsageError

LARGEST_FILE = 1 << 28  # bytes
LONGEST_TEXT = 4000  # characters
MOST_ITEMS = 100_000  # of a list
LARGEST = 1e24  # of any number: more is no count and no time
LEAST = 1e-6  # of a positive one


class Fields:
    """The object `values` at the place `where`; what it cannot read raises `error`, with `advice`."""

    def __init__(
        self, values: Mapping[str, Any], where: str, advice: str, error: type[QnasError] = UsageError
    ) -> None:
        self.values, self.where, self.advice, self.error = values, where, advice, error

    def text(self, key: str) -> str:
        """A string; what cannot be printed becomes "?"."""
        value = self.value(key)
        if not isinstance(value, str) or len(value) > LONGEST_TEXT:
            self.refuse(key, f"a text of at most {LONGEST_TEXT} characters")
        return printable(value)

    def name(self, key: str) -> str:
        """A string as it is, to be looked up and never shown."""
        value = self.value(key)
        if not isinstance(value, str):
            self.refuse(key, "a text")
        return value

    def whole(self, key: str) -> int:
        """An integer that is not negative."""
        value = self.value(key)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LARGEST:
            self.refuse(key, f"a whole number of 0 to {LARGEST:g}")
        return value

    def number(self, key: str) -> float:
        """Any finite number."""
        value = self.value(key)
        if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= LARGEST:
            self.refuse(key, f"a number of at most {LARGEST:g}")
        return float(value)

    def positive(self, key: str) -> float:
        """A number above 0, of at least `LEAST`."""
        value = self.number(key)
        if value < LEAST:
            self.refuse(key, f"a number of at least {LEAST:g}")
        return value

    def known(self, key: str) -> float | None:
        """A number, None where it is null or missing."""
        return self.number(key) if self.given(key) else None

    def flag(self, key: str) -> bool:
        """True or false."""
        value = self.value(key)
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
        return self._inside(self.value(key), key)

    def objects(self, key: str) -> tuple[Fields, ...]:
        """A list of objects."""
        return tuple(self._inside(value, f"{key}[{index}]") for index, value in enumerate(self._list(key)))

    def named(self, key: str) -> dict[str, Fields]:
        """An object whose keys are names and whose values are objects."""
        values = self._inside(self.value(key), key).values
        return {printable(name): self._inside(value, f"{key}.{name}") for name, value in values.items()}

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings."""
        return tuple(each.text(place) for each, place in self._items(key))

    def wholes(self, key: str) -> tuple[int, ...]:
        """A list of integers that are not negative."""
        return tuple(each.whole(place) for each, place in self._items(key))

    def names(self, key: str) -> tuple[str, ...]:
        """A list of strings as they are."""
        return tuple(each.name(place) for each, place in self._items(key))

    def pair(self, key: str) -> tuple[float, float]:
        """A list of two numbers."""
        items = self._items(key)
        if len(items) != 2:
            self.refuse(key, "a list of two numbers")
        first, second = (each.number(place) for each, place in items)
        return first, second

    def check(self, wanted_format: str, version: int) -> Fields:
        """Itself, when it is of this format and version."""
        for key, wanted in (("format", wanted_format), ("version", version)):
            if self.value(key) != wanted or isinstance(self.value(key), bool):
                self.refuse(key, repr(wanted))
        return self

    def options(self, key: str) -> dict[str, str]:
        """An object of strings."""
        inside = self._inside(self.value(key), key)
        return {printable(name): inside.text(name) for name in inside.values}

    def given(self, key: str) -> bool:
        """Whether there is a value that is not null."""
        return self.values.get(key) is not None

    def has(self, key: str) -> bool:
        """Whether there is a value that is not null; refused when the key itself is missing."""
        return self.value(key) is not None

    def knows(self, key: str) -> bool:
        """Whether the key is there at all: files of earlier versions of qnas lack some."""
        return key in self.values

    def refuse(self, key: str, wanted: str) -> NoReturn:
        """Raise the error of a value that is not what is `wanted`."""
        found = _short(self.values[key]) if key in self.values else "missing"
        raise self.error(f"{self.where}: {key} is {found}, not {wanted}: {self.advice}")

    def value(self, key: str) -> Any:
        """Whatever stands there."""
        if key not in self.values:
            self.refuse(key, "there")
        return self.values[key]

    def _list(self, key: str) -> list[Any]:
        value = self.value(key)
        if not isinstance(value, list) or len(value) > MOST_ITEMS:
            self.refuse(key, f"a list of at most {MOST_ITEMS}")
        return value

    def _items(self, key: str) -> list[tuple[Fields, str]]:
        items = {f"{key}[{index}]": value for index, value in enumerate(self._list(key))}
        inside = Fields(items, self.where, self.advice, self.error)
        return [(inside, place) for place in items]

    def _inside(self, value: Any, place: str) -> Fields:
        if not isinstance(value, dict):
            raise self.error(f"{self.where}: {place} is {_short(value)}, not an object: {self.advice}")
        return Fields(value, f"{self.where}, {place}", self.advice, self.error)


def read_fields(path: Path, what: str, advice: str, error: type[QnasError] = UsageError) -> Fields:
    """The object that a file holds, which is to be `what`. Raises `error`."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise error(f"{path} is larger than any {what}: {advice}")
        return parsed(path.read_text(encoding="utf-8"), str(path), what, advice, error)
    except OSError as problem:
        raise error(f"{path} cannot be read ({problem.strerror}): check the path") from problem
    except UnicodeDecodeError as problem:
        raise error(f"{path} is no text in UTF-8: {advice}") from problem


def parsed(text: str, where: str, what: str, advice: str, error: type[QnasError] = UsageError) -> Fields:
    """Read the object that a text holds; `where` is for messages."""
    try:
        value = parse(text)
    except (ValueError, RecursionError) as problem:
        raise error(f"{where} is not JSON ({problem}): {advice}") from problem
    return as_fields(value, where, what, advice, error)


def as_fields(
    value: object, where: str, what: str, advice: str, error: type[QnasError] = UsageError
) -> Fields:
    """A JSON value that is to be an object."""
    if not isinstance(value, dict):
        raise error(f"{where} is no {what}: {advice}")
    return Fields(value, where, advice, error)


def parse(text: str) -> Any:
    """JSON without NaN and infinities. Raises ValueError, RecursionError."""
    return json.loads(text, parse_constant=_no_number)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def printable(text: str, longest: int = LONGEST_TEXT) -> str:
    """`text` on one line, in characters that do nothing, cut where it is longer."""
    shown = "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text[: longest + 1])
    return shown if len(shown) <= longest else f"{shown[:longest]}..."


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
