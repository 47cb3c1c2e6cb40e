"""The members of a plan: its methods, each on its part of the grid."""

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any, assert_never

from qnas.errors import UsageError
from qnas.network.architecture import FIXED_SPACES
from qnas.quantization.quantizers import FLOAT_BITS
from qnas.search.runs.random_search import giga
from qnas.search.space.search_space import find_space
from qnas.search.space.space_options import SPACE_KEYS
from qnas.search.sweep.member import Member, Method, spelled
from qnas.search.sweep.plan import SweepPlan, search_keys, train_keys


def members(plan: SweepPlan) -> dict[str, Member]:
    """Name -> member, in the order of methods and grid. Raises UsageError, SpaceError."""
    found: dict[str, Member] = {}
    for method in plan.methods:
        if method == "random" and plan.bitops is None:
            raise UsageError("random architectures need a cost: pass --max-bitops, such as 2.4G")
        for space, bits in _networks(plan, method):
            for member in _variants(plan, method, space, bits):
                if member.name in found:
                    raise UsageError(f"two members are named {member.name}: give their files other names")
                found[member.name] = member
    return found


def _networks(plan: SweepPlan, method: Method) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(space or architecture, bits) that the method is tried on."""
    grid = product(plan.grid["space"], plan.grid["bits"])
    spaces = [(space, bits or find_space(space).bits) for space, bits in grid]
    match method:
        case "search" | "two-fold" | "random":
            yield from spaces
        case "full-precision":
            yield from ((space, (FLOAT_BITS,)) for space in plan.grid["space"])
        case "edmips":
            for name in plan.architectures:
                if name not in FIXED_SPACES:
                    raise UsageError(f"edmips searches the bits of {', '.join(FIXED_SPACES)}: not of {name}")
                yield from ((f"edmips-{name}", bits) for bits in dict.fromkeys(bits for _, bits in spaces))
        case "uniform-lsq" | "uniform-hwgq":
            widths = sorted({width for _, bits in spaces for width in bits})
            for name, width in product(plan.architectures, widths):
                if method == "uniform-lsq" or width != FLOAT_BITS:
                    yield name, (width,)
        case _:
            assert_never(method)


def _matters(method: Method, key: str) -> bool:
    """Whether this option of `qnas-search run` changes what the method finds."""
    match method:
        case "search" | "two-fold" | "full-precision":
            return True
        case "edmips":
            return key not in SPACE_KEYS
        case "random":
            return key in SPACE_KEYS
        case "uniform-lsq" | "uniform-hwgq":
            return False
        case _:
            assert_never(method)


def _variants(plan: SweepPlan, method: Method, space: str, bits: tuple[int, ...]) -> Iterator[Member]:
    """All members that differ in the rest of the grid."""
    keys = [key for key in plan.extra if key.startswith("train.") or _matters(method, key)]
    penalties = plan.grid["penalty"] if _matters(method, "penalty") else (None,)
    samples = range(plan.samples) if method == "random" else (None,)
    values = product(penalties, samples, *(plan.grid[key] for key in keys), plan.grid["seed"])
    for penalty, sample, *extra, seed in values:
        yield _member(plan, method, space, bits, penalty, sample, dict(zip(keys, extra, strict=True)), seed)


def _member(
    plan: SweepPlan, method: Method, space: str, bits: tuple[int, ...], penalty: float | None,
    sample: int | None, extra: Mapping[str, Any], seed: int,
) -> Member:  # fmt: skip
    bitops = plan.bitops if method == "random" else None
    spelling = {
        "b": None if method == "full-precision" else bits,
        "p": penalty,
        "": giga(bitops[1]) if bitops else None,
        "n": sample,
        **{f"{key}.": value for key, value in extra.items()},
        "s": seed,
    }
    return Member(
        name=spelled(method, space, spelling),
        method=method,
        space=space,
        bits=bits,
        seed=seed,
        image=plan.image,
        penalty=penalty,
        sample=sample,
        bitops=bitops,
        warm_start=plan.warm_start,
        search={key: v for key, v in {**plan.search, **search_keys(extra)}.items() if _matters(method, key)},
        train={**plan.train, **train_keys(extra)},
    )
