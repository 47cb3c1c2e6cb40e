"""One member of a sweep: how its architecture is found and trained. Its name spells what differs."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from qnas.errors import CheckpointError

Method = Literal[
    "search", "full-precision", "two-fold", "random", "uniform-lsq", "uniform-hwgq", "edmips"
]  # fmt: skip
METHODS: tuple[Method, ...] = get_args(Method)
PLAIN = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9_.+-]*")


@dataclass(frozen=True)
class Member:
    """`space`: of the search, or the architecture of a uniform network, by name or file. `sample`: of random.

    `search` and `train` are options of `qnas-search run` and `qnas-train`; `bitops` (least or None, most) is
    the range of random architectures; `warm_start`: trained in full precision first.
    """

    name: str
    method: Method
    space: str
    bits: tuple[int, ...]
    seed: int
    image: tuple[int, int]
    penalty: float | None = None
    sample: int | None = None
    bitops: tuple[float | None, float] | None = None
    warm_start: bool = False
    search: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)

    def to_document(self) -> dict[str, Any]:
        """Plain data that `member_from` reads back, but for the name."""
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "name"}
        plain: dict[str, Any] = json.loads(json.dumps(values))
        return plain


def member_from(name: str, document: Any, source: str) -> Member:
    """The member in `to_document`'s data. Raises CheckpointError."""
    try:
        if not PLAIN.fullmatch(name):
            raise ValueError("its name is no plain one")
        values = {key: document[key] for key in (each.name for each in fields(Member)) if key != "name"}
        if values["method"] not in METHODS:
            raise ValueError(f"its method is {values['method']!r}")
        if type(values["seed"]) is not int or type(values["space"]) is not str:
            raise ValueError("its seed is no whole number, or its space no name")
        for key in ("bits", "image", "bitops"):
            values[key] = None if values[key] is None else tuple(values[key])
        return Member(name, **{**values, "search": dict(values["search"]), "train": dict(values["train"])})
    except (KeyError, TypeError, ValueError) as error:
        what = f"no key {error}" if isinstance(error, KeyError) else error
        raise CheckpointError(f"{source}: member {name[:80]!r} cannot be used ({what})") from error


def spelled(method: Method, space: str, parts: Mapping[str, Any]) -> str:
    """A member's name: "basic-b4.8-p1e-4-s0", the method before it where that is not the joint search."""
    words = [_plain(space.replace("\\", "/").rpartition("/")[2].removesuffix(".json").removesuffix(".toml"))]
    if method not in ("search", "edmips"):  # the spaces of EdMIPS say so themselves
        words.insert(0, method)
    words += [_plain(f"{key}{_shown(value)}") for key, value in parts.items() if value is not None]
    return "-".join(words)


def _shown(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case float():
            return _number(value)
        case list() | tuple():
            return ".".join(map(_shown, value))
    return str(value)


def _number(value: float) -> str:
    """Write a number as people do: 1e-4, 0.01, 2.5e-5."""
    if value == 0 or abs(value) >= 0.01:
        return f"{value:g}"
    mantissa, exponent = f"{value:e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.+-]", "_", text).lstrip(".-") or "_"
