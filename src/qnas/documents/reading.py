"""Reads JSON into the classes that say what it holds, strictly; a mistake is one line with its place.

A class is a frozen dataclass, of which unknown keys are left out, or a `Closed` struct, which has none. The
annotations of its fields say what is allowed; a ValueError of its `__post_init__` says what is not.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, time
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import Meta

from qnas.documents.digest import DIGEST, digest_of
from qnas.documents.mistakes import mistake, shown
from qnas.errors import QnasError, UsageError
from qnas.files import read_input

LARGEST_FILE = 1 << 28  # bytes
DEEPEST = 64  # lists and objects within each other
Text = Annotated[str, Meta(max_length=4000)]  # what people read; the name of something may be longer
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Size = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Number = Annotated[float, Meta(ge=-1e24, le=1e24)]  # more is no count and no time
Nanoseconds = Annotated[int, Meta(ge=1, le=2**53 - 1)]
Shape = Annotated[tuple[Annotated[int, Meta(ge=0, le=2**31 - 1)], ...], Meta(max_length=32)]
Share = Annotated[float, Meta(ge=0, le=1e38)]  # of a recipe
Rate = Annotated[float, Meta(gt=0, le=1e38)]  # beyond the range of its numbers PyTorch fails oddly
Positive = Annotated[float, Meta(ge=1e-6, le=1e24)]

_T = TypeVar("_T")


class Closed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An object that has no keys besides its fields."""


def decode(text: str | bytes) -> object:
    """JSON as plain data; NaN, infinities and what nests too deep are none. Raises ValueError."""
    try:
        value = msgspec.json.decode(text)
    except (ValueError, RecursionError) as problem:
        said, _, _ = str(problem).removeprefix("JSON is malformed: ").partition(" - at ")
        raise ValueError(said) from problem
    _check_depth(value)
    return value


def _decode_toml(text: str) -> object:
    """TOML as plain data that nests no deeper than JSON may. Raises ValueError, RecursionError."""
    value = tomllib.loads(text)
    _check_depth(value)
    return value


def _check_depth(value: object) -> None:
    """Raise ValueError for what nests deeper than DEEPEST: what walks it later could not come back."""
    level: list[Any] = [value]
    for _ in range(DEEPEST + 1):
        nested = [each for each in level if isinstance(each, dict | list)]
        if not nested:
            return
        level = [part for each in nested for part in (each.values() if isinstance(each, dict) else each)]
    raise ValueError(f"it nests deeper than {DEEPEST}")


@dataclass(frozen=True)
class Document(Generic[_T]):
    """A kind of JSON document: what it holds, what people call it, what to do about one that is damaged.

    Where it has a `format`, its first keys are that and the `version`; those from `oldest` on are read.
    `infinite`: what null stands for under
    some keys, as JSON has no infinities. Each method raises `error`.
    """

    holds: type[_T]
    what: str
    advice: str
    error: type[QnasError] = UsageError
    format: str = ""
    version: int = 0
    infinite: Mapping[str, float] = field(default_factory=dict)
    oldest: int | None = None

    @property
    def head(self) -> dict[str, object]:
        """The first keys of a document that is written."""
        return {"format": self.format, "version": self.version}

    def sealed(self, body: Mapping[str, object]) -> dict[str, object]:
        """The document of `body`, plain data, with a digest: who reads it notices later changes."""
        return {**self.head, DIGEST: digest_of(body), **body}

    def read(self, path: Path, toml: bool = False) -> _T:
        """What a file holds, of JSON or TOML in UTF-8."""
        try:
            text = read_input(path, LARGEST_FILE).decode("utf-8")
        except OSError as problem:
            raise self.error(f"{path} cannot be read ({problem.strerror}): check the path") from problem
        except UnicodeDecodeError as problem:
            raise self.error(f"{path} is no text in UTF-8: {self.advice}") from problem
        return self.parse(text, str(path), toml)

    def read_sound(self, path: Path) -> _T | None:
        """What a file holds, None where there is none or it is damaged: for what is only shown or kept."""
        try:
            return self.read(path)
        except self.error:
            return None

    def parse(self, text: str | bytes, where: str, toml: bool = False) -> _T:
        """What a text holds; `where` begins the message."""
        try:
            value = _decode_toml(str(text)) if toml else decode(text)
        except (ValueError, RecursionError) as problem:
            kind = "TOML" if toml else "JSON"
            raise self.error(f"{where} is not {kind} ({problem}): {self.advice}") from problem
        return self.convert(value, where)

    def convert(self, value: object, where: str) -> _T:
        """The typed value of plain data, as TOML and checkpoints hold it too."""
        if not isinstance(value, dict):
            raise self.error(f"{where} is no {self.what}: {self.advice}")
        if self.format:
            self._check_head(value, where)
            value = {name: each for name, each in value.items() if name not in ("format", "version")}
            if DIGEST in value:
                self._check_digest(value.pop(DIGEST), value, where)
        if self.infinite:
            value = _filled(value, self.infinite)
        try:
            return msgspec.convert(value, self.holds)
        except msgspec.ValidationError as problem:
            said = mistake(problem, value, self.holds)
            raise self.error(f"{where}: {said}: {self.advice}") from problem
        except Exception as problem:  # a checkpoint's tensor in place of an object raises nearly anything
            if _is_plain(value):
                raise
            raise self.error(f"{where} holds tensors where text belongs: {self.advice}") from problem

    def _check_head(self, value: dict[object, object], where: str) -> None:
        found, version = value.get("format"), value.get("version")
        if found != self.format:
            said = (
                f"format is {shown(found)}, not {self.format!r}" if "format" in value else "it has no format"
            )
            raise self.error(f"{where} is no {self.what} ({said}): {self.advice}")
        oldest = self.version if self.oldest is None else self.oldest
        if type(version) is not int or not oldest <= version <= self.version:
            raise self.error(
                f"{where} is version {shown(version)} of the format, this is {self.version}: {self.advice}"
            )

    def _check_digest(self, digest: object, body: dict[object, object], where: str) -> None:
        try:
            same = digest == digest_of(body)
        except (RecursionError, ValueError):
            same = False
        if not same:
            raise self.error(
                f"{where} was changed after it was written (its digest does not match): {self.advice}, or "
                f'take its "{DIGEST}" out if the change was meant'
            )


def _is_plain(value: object) -> bool:
    """Whether it is data as JSON and TOML have it, however often a part of it holds another."""
    waiting, seen = [value], set[int]()
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict | list | tuple):
            if id(each) not in seen:
                seen.add(id(each))
                waiting.extend(each.values() if isinstance(each, dict) else each)
        elif not isinstance(each, str | int | float | date | time | None):
            return False
    return True


def _filled(value: object, infinite: Mapping[str, float]) -> object:
    """`value` with the infinities in place of their nulls, at any depth."""
    match value:
        case dict():
            return {
                name: infinite[name] if each is None and name in infinite else _filled(each, infinite)
                for name, each in value.items()
            }
        case list():
            return [_filled(each, infinite) for each in value]
    return value
