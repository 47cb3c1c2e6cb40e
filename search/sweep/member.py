"""One member of a sweep: how its architecture is found and trained. Its name spells what differs."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

from qnas import __version__
from qnas.documents.reading import Count, Document, Number
from qnas.errors import CheckpointError
from qnas.images.inputs import Digests

Method = Literal[
    "search", "full-precision", "two-fold", "random", "uniform-lsq", "uniform-hwgq", "edmips"
]  # fmt: skip
METHODS: tuple[Method, ...] = get_args(Method)
PLAIN = re.compile(r"^[A-Za-z0-9_+][A-Za-z0-9_.+-]*\Z")


@dataclass(frozen=True)
class Member:
    """`space`: of the search, or the architecture of a uniform network, by name or file. `sample`: of random.

    `search` and `train` are options of `qnas-search run` and `qnas-train`; `bitops` (least or None, most) is
    the range of random architectures; `warm_start`: trained in full precision first.
    """

    name: Annotated[str, Meta(pattern=PLAIN.pattern)]
    method: Method
    space: str
    bits: Annotated[tuple[int, ...], Meta(min_length=1)]
    seed: Count
    image: tuple[Count, Count]
    penalty: Number | None = None
    sample: Count | None = None
    bitops: tuple[Number | None, Number] | None = None
    warm_start: bool = False
    search: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for part, key in (("train", "data"), ("train", "validate"), ("search", "data")):
            folders = getattr(self, part).get(key)
            named = folders if isinstance(folders, list | tuple) else [folders]
            if (part == "train" or self.searches) and not (named and all(isinstance(f, str) for f in named)):
                raise ValueError(f"{part}.{key} names no folder of images")

    @property
    def searches(self) -> bool:
        """Whether its architecture comes of a search, which reads images."""
        return self.method not in ("random", "uniform-lsq", "uniform-hwgq")

    def to_document(self) -> dict[str, Any]:
        """Plain data that `member_from` reads back, but for the name."""
        plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))
        del plain["name"]
        return plain


@dataclass(frozen=True)
class SweepRecord:
    """sweep.json: all members; the threads of each, and the digests of their inputs, as they were begun.

    Those of earlier versions say no threads and no inputs.
    """

    members: Mapping[str, Member] = field(default_factory=dict)
    threads: int | None = None
    inputs: Digests = field(default_factory=dict)

    def to_document(self) -> dict[str, Any]:
        """What sweep.json holds."""
        members = {name: member.to_document() for name, member in self.members.items()}
        more = {"threads": self.threads, "inputs": self.inputs, "versions": {"qnas": __version__}}
        return RECORD_FILE.sealed({**more, "members": members})


@dataclass(frozen=True)
class _Record:
    members: dict[str, dict[str, Any]]
    threads: Count | None = None
    inputs: Digests = field(default_factory=dict)


_BEGIN_AGAIN = "begin in another folder"
_MEMBER = Document(Member, "member of a sweep", _BEGIN_AGAIN, CheckpointError)
RECORD_FILE = Document(_Record, "record of a sweep", _BEGIN_AGAIN, CheckpointError, "qnas-sweep", 1)


def read_record(path: Path) -> SweepRecord:
    """What a sweep.json holds. Raises CheckpointError."""
    found = RECORD_FILE.read(path)
    members = {name: member_from(name, document, str(path)) for name, document in found.members.items()}
    return SweepRecord(members, found.threads, found.inputs)


def member_from(name: str, document: Mapping[str, Any], source: str) -> Member:
    """The member in `to_document`'s data. Raises CheckpointError."""
    return _MEMBER.convert({**document, "name": name}, f"{source}, member {name[:80]!r}")


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
