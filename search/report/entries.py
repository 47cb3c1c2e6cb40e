"""JSON files of a search, read value by value: what is not as it should be is named with its place."""

import json
import math
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from qnas.errors import UsageError

LARGEST_FILE = 1 << 28  # bytes
LARGEST = 1e24  # of any number
LONGEST = 300  # characters of a text
ADVICE = "let qnas-search write it again"


class Entry:
    """The object `values` at the place `where`; what it cannot read raises UsageError."""

    def __init__(self, values: object, where: str) -> None:
        if not isinstance(values, dict):
            raise UsageError(f"{where} is {reprlib.repr(values)}, not an object: {ADVICE}")
        self.values: Mapping[str, Any] = values
        self.where = where

    def value(self, key: str) -> Any:
        """Whatever stands there."""
        if key not in self.values:
            raise UsageError(f"{self.where}: {key} is missing: {ADVICE}")
        return self.values[key]

    def has(self, key: str) -> bool:
        """Whether something other than null stands there."""
        return self.values.get(key) is not None

    def inner(self, key: str) -> "Entry":
        """An object."""
        return Entry(self.value(key), f"{self.where}: {key}")

    def text(self, key: str) -> str:
        """A string, in characters that can be shown, and cut where it is very long."""
        value = self.value(key)
        if not isinstance(value, str):
            self.refuse(key, "a text")
        return printable(value)

    def number(self, key: str) -> float:
        """A finite number."""
        value = self.value(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST:
            self.refuse(key, f"a number of at most {LARGEST:g}")
        return float(value)

    def known(self, key: str) -> float | None:
        """A number, None where it is null or missing."""
        return self.number(key) if self.has(key) else None

    def whole(self, key: str) -> int:
        """An integer that is not negative."""
        value = self.value(key)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST:
            self.refuse(key, "a whole number of at least 0")
        return value

    def check(self, wanted_format: str, version: int) -> "Entry":
        """Itself, when it is of this format and version."""
        for key, wanted in (("format", wanted_format), ("version", version)):
            if self.value(key) != wanted or isinstance(self.value(key), bool):
                self.refuse(key, repr(wanted))
        return self

    def refuse(self, key: str, wanted: str) -> NoReturn:
        """Raise the UsageError of a value that is not what is `wanted`."""
        value = self.values[key]
        huge = isinstance(value, int) and not isinstance(value, bool) and abs(value) > LARGEST
        shown = "huge" if huge else reprlib.repr(value)
        raise UsageError(f"{self.where}: {key} is {shown}, not {wanted}: {ADVICE}")


def read_entry(path: Path) -> Entry:
    """The object that a JSON file holds. Raises UsageError."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise UsageError(f"{path} is larger than any file of a search: {ADVICE}")
        return Entry(parse(path.read_text(encoding="utf-8")), str(path))
    except OSError as error:
        raise UsageError(f"cannot read {path} ({error.strerror}): check the path") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON ({error}): {ADVICE}") from error


def parse(text: str) -> Any:
    """JSON without NaN and infinities. Raises ValueError, RecursionError."""
    return json.loads(text, parse_constant=_no_number)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def printable(text: str) -> str:
    """`text` on one line, in characters that do nothing."""
    shown = "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text[: LONGEST + 1])
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}..."


MOST_DIGITS = 9  # after the point
PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def si(value: float, unit: str = "") -> str:
    """Three digits and a prefix: "2.43 GMACs"."""
    if value == 0:
        return f"0 {unit}".strip()
    rounded = float(f"{value:.3g}")
    scale, prefix = next((each for each in PREFIXES if abs(rounded) >= each[0]), (1.0, ""))
    digits = min(max(0, 2 - math.floor(math.log10(abs(rounded) / scale))), MOST_DIGITS)
    return f"{rounded / scale:.{digits}f} {prefix}{unit}".strip()


def percent(share: float) -> str:
    """Two digits: "42%", "4.2%", "0.4%", "<0.1%"."""
    hundred = 100 * share
    if 0 < hundred < 0.05:
        return "<0.1%"
    return f"{hundred:.{0 if hundred >= 9.95 or hundred == 0 else 1}f}%"


def short(value: float) -> str:
    """As people write it: "1e-5", "0.001"."""
    return f"{value:g}".replace("e-0", "e-")
