"""What a sweep is asked for: the tables of a TOML file, or the options of the command in their shape."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from qnas.documents.reading import Closed, Count, Document
from qnas.errors import UsageError
from qnas.search.runs.random_search import parse_amount
from qnas.search.space.space_options import parse_bits, parse_image
from qnas.search.sweep.member import METHODS, Method
from qnas.search.sweep.options import absolute, check_names

AXES: dict[str, tuple[Any, ...]] = {"space": ("basic",), "bits": (None,), "penalty": (1e-4,), "seed": (0,)}
Bits = tuple[int, ...] | None  # None: those of the space
_T = TypeVar("_T")
OneOrMore = Annotated[tuple[_T, ...], Meta(min_length=1)]
Amount = str | int | float


@dataclass(frozen=True)
class SweepPlan:
    """`grid`: AXES, and options of which every value is tried, those of the training as "train.lr"."""

    methods: tuple[Method, ...]
    grid: Mapping[str, tuple[Any, ...]]
    search: Mapping[str, Any]
    train: Mapping[str, Any]
    architectures: tuple[str, ...] = ("espcn",)
    samples: int = 8
    bitops: tuple[float | None, float] | None = None
    warm_start: bool = False
    image: tuple[int, int] = (32, 32)

    @property
    def extra(self) -> tuple[str, ...]:
        """The keys of the grid besides AXES."""
        return tuple(key for key in self.grid if key not in AXES)


class _Sweep(Closed, frozen=True, rename="kebab"):
    methods: OneOrMore[Method] = ("search",)
    architectures: OneOrMore[str] = ("espcn",)
    samples: Annotated[int, Meta(ge=1, le=10**6)] = 8
    max_bitops: Amount | None = None
    min_bitops: Amount | None = None
    train_warm_start: bool = False
    image: str = "32x32"


class _Tables(Closed, frozen=True):
    sweep: _Sweep = _Sweep()
    search: dict[str, Any] = msgspec.field(default_factory=dict)
    train: dict[str, Any] = msgspec.field(default_factory=dict)
    grid: dict[str, OneOrMore[Any]] = msgspec.field(default_factory=dict)


@dataclass(frozen=True)
class _Axes:
    space: tuple[str, ...]
    bits: tuple[Any, ...]
    penalty: tuple[Annotated[float, Meta(ge=0, le=1e24)], ...]
    seed: tuple[Count, ...]


_ADVICE = "docs/sweep.md has an example"
_TABLES = Document(_Tables, "plan of a sweep", _ADVICE)
_AXES = Document(_Axes, "plan of a sweep", _ADVICE)


def read_tables(path: Path) -> dict[str, Any]:
    """The tables of a TOML file, not checked yet. Raises UsageError."""
    return Document(dict[str, Any], "plan of a sweep", _ADVICE).read(path, toml=True)


def plan_from(document: Mapping[str, Any], source: str) -> SweepPlan:
    """A checked plan from the tables of a TOML file; `source` names it in messages. Raises UsageError."""
    tables = _TABLES.convert(document, source)
    sweep, search, train, grid = tables.sweep, dict(tables.search), dict(tables.train), dict(tables.grid)
    for key in AXES:
        if key in search:
            value = search.pop(key)
            grid.setdefault(key, (tuple(value) if isinstance(value, list) else value,))
    check_names("run", {**search, **dict.fromkeys(search_keys(grid))}, f"{source} [search]")
    check_names("train", {**train, **dict.fromkeys(train_keys(grid))}, f"{source} [train]")
    for here, there in ((search, train), (train, search)):
        if "data" in there:
            here.setdefault("data", there["data"])
    if "data" not in search:
        raise UsageError(f"{source}: no training images: pass --data FOLDER (repeatable)")
    if "validate" not in train:
        raise UsageError(f"{source}: nothing to measure quality on: pass --validate FOLDER of HR images")
    return SweepPlan(
        methods=tuple(method for method in METHODS if method in sweep.methods),
        grid=_read_grid({**AXES, **grid}, source),
        search=absolute("run", search),
        train=absolute("train", train),
        architectures=tuple(map(_place, sweep.architectures)),
        samples=sweep.samples,
        bitops=_bitops(sweep),
        warm_start=sweep.train_warm_start,
        image=parse_image(sweep.image),
    )


def search_keys(grid: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a grid that are options of the search."""
    return {key: v for key, v in grid.items() if key not in AXES and not key.startswith("train.")}


def train_keys(grid: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a grid that are options of the training, without "train."."""
    return {key.removeprefix("train."): v for key, v in grid.items() if key.startswith("train.")}


# Reading ----------------------------------------------------------------------------------------------------


def _read_grid(grid: dict[str, tuple[Any, ...]], source: str) -> dict[str, tuple[Any, ...]]:
    axes = _AXES.convert(grid, f"{source}, grid")
    read = {
        **grid,
        "space": tuple(map(_place, axes.space)),
        "bits": tuple(map(_bits, axes.bits)),
        "penalty": axes.penalty,
        "seed": axes.seed,
    }
    for key, values in read.items():
        if any(each in values[:index] for index, each in enumerate(values)):
            raise UsageError(f"{source}: {key} names a value twice: name each once")
    return read


def _bits(value: Any) -> Bits:
    if value is None:
        return None
    widths = value if isinstance(value, list | tuple) else [value]
    return tuple(sorted(parse_bits(",".join(map(str, widths)))))


def _place(name: str) -> str:
    """A name stays; a file's path becomes absolute, so that a sweep can be resumed from another folder."""
    return str(Path(name).absolute()) if name.endswith((".json", ".toml")) else name


def _bitops(sweep: _Sweep) -> tuple[float | None, float] | None:
    most, least = sweep.max_bitops, sweep.min_bitops
    if most is None:
        return None
    fewest = None if least is None else parse_amount("--min-bitops", str(least))
    return fewest, parse_amount("--max-bitops", str(most))
