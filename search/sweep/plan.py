"""What a sweep is asked for: the tables of a TOML file, or the options of the command in their shape."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qnas.errors import UsageError
from qnas.search.runs.random_search import parse_amount
from qnas.search.space.space_options import parse_bits, parse_image
from qnas.search.sweep.member import METHODS, Method
from qnas.search.sweep.options import absolute, check_names

TABLES = ("sweep", "search", "train", "grid")
SWEEP_KEYS = (
    "methods", "architectures", "samples", "max-bitops", "min-bitops", "train-warm-start", "image",
)  # fmt: skip
AXES: dict[str, tuple[Any, ...]] = {"space": ("basic",), "bits": (None,), "penalty": (1e-4,), "seed": (0,)}
Bits = tuple[int, ...] | None  # None: those of the space


@dataclass(frozen=True)
class Plan:
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


def read_tables(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises UsageError."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UsageError(f"cannot read {path} ({reason}): name a TOML file") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no TOML ({error})") from error


def plan_from(document: Mapping[str, Any], source: str) -> Plan:
    """A checked plan from the tables of a TOML file; `source` names it in messages. Raises UsageError."""
    _known(document, TABLES, source, "table")
    tables = {name: document.get(name, {}) for name in TABLES}
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise UsageError(f"{source}: {name} is a table: write [{name}]")
    sweep, search, train = tables["sweep"], dict(tables["search"]), dict(tables["train"])
    _known(sweep, SWEEP_KEYS, f"{source} [sweep]", "key")
    grid = {key: _list(tables["grid"][key], f"{source} [grid] {key}") for key in tables["grid"]}
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
    return Plan(
        methods=_methods(_list(sweep.get("methods", ["search"]), f"{source} [sweep] methods")),
        grid=_axes({**AXES, **grid}, source),
        search=absolute("run", search),
        train=absolute("train", train),
        architectures=tuple(map(_place, _list(sweep.get("architectures", ["espcn"]), f"{source} [sweep]"))),
        samples=_whole(sweep.get("samples", 8), f"{source} [sweep] samples"),
        bitops=_bitops(sweep),
        warm_start=_switch(sweep.get("train-warm-start", False), f"{source} [sweep] train-warm-start"),
        image=parse_image(str(sweep.get("image", "32x32"))),
    )


def search_keys(grid: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a grid that are options of the search."""
    return {key: v for key, v in grid.items() if key not in AXES and not key.startswith("train.")}


def train_keys(grid: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a grid that are options of the training, without "train."."""
    return {key.removeprefix("train."): v for key, v in grid.items() if key.startswith("train.")}


# Reading ----------------------------------------------------------------------------------------------------


def _known(given: Mapping[str, Any], allowed: Sequence[str], where: str, what: str) -> None:
    for key in given:
        if key not in allowed:
            raise UsageError(f"{where}: unknown {what} {key[:40]!r}, use {', '.join(allowed)}")


def _list(value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise UsageError(f"{where} is a list of one value or more")
    return tuple(value)


def _axes(grid: Mapping[str, tuple[Any, ...]], source: str) -> dict[str, tuple[Any, ...]]:
    readers = {
        "space": _place,
        "bits": _bits,
        "penalty": lambda value: _penalty(value, source),
        "seed": lambda value: _whole(value, f"{source}: seed", least=0),
    }
    read = {key: tuple(map(readers.get(key, lambda value: value), values)) for key, values in grid.items()}
    for key, values in read.items():
        if any(each in values[:index] for index, each in enumerate(values)):
            raise UsageError(f"{source}: {key} names a value twice: name each once")
    return read


def _bits(value: Any) -> Bits:
    if value is None:
        return None
    widths = value if isinstance(value, list | tuple) else [value]
    return tuple(sorted(parse_bits(",".join(map(str, widths)))))


def _penalty(value: Any, source: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise UsageError(f"{source}: a penalty is a number of at least 0, not {str(value)[:40]!r}")
    return float(value)


def _whole(value: Any, where: str, least: int = 1) -> int:
    if type(value) is not int or value < least:
        raise UsageError(f"{where} is a whole number of at least {least}, not {str(value)[:40]!r}")
    return value


def _switch(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{where} is true or false, not {str(value)[:40]!r}")
    return value


def _methods(values: Sequence[Any]) -> tuple[Method, ...]:
    for value in values:
        if value not in METHODS:
            raise UsageError(f"no method {str(value)[:40]!r}: use {', '.join(METHODS)}")
    return tuple(method for method in METHODS if method in values)


def _place(value: Any) -> str:
    """A name stays; a file's path becomes absolute, so that a sweep can be resumed from another folder."""
    if not isinstance(value, str):
        raise UsageError(f"a space or an architecture is a name or a file, not {str(value)[:40]!r}")
    return str(Path(value).absolute()) if value.endswith((".json", ".toml")) else value


def _bitops(sweep: Mapping[str, Any]) -> tuple[float | None, float] | None:
    read = {
        key: parse_amount(f"--{key}", str(sweep[key])) for key in ("max-bitops", "min-bitops") if key in sweep
    }
    return (read.get("min-bitops"), read["max-bitops"]) if "max-bitops" in read else None
