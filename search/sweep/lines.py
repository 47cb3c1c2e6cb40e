"""The command lines of a member's stages, and their checks before anything runs."""

from functools import cache
from pathlib import Path
from typing import Any

from qnas.errors import UsageError
from qnas.images.files import list_images
from qnas.network.architecture import FIXED_SPACES, Architecture, find_architecture
from qnas.network.lowering import lower
from qnas.quantization.quantizers import FLOAT_BITS
from qnas.search.runs.random_search import random_architectures
from qnas.search.space.search_space import find_space
from qnas.search.space.space_options import changed_space
from qnas.search.sweep.member import Member
from qnas.search.sweep.options import arguments, check_names, parsed


def search_line(member: Member, folder: Path, *, bits: tuple[int, ...], **more: str) -> list[str]:
    """Arguments of `qnas-search run` into `folder`."""
    height, width = member.image
    own = {
        "space": member.space,
        "bits": ",".join(map(str, bits)),
        "penalty": member.penalty,
        "seed": member.seed,
        "image": f"{height}x{width}",
        "output": str(folder),
    }
    found = dict(member.search)
    if member.method == "two-fold" and bits == (FLOAT_BITS,):
        found.pop("target-bitops", None)  # it is a cost at the bits that are searched then
    return arguments("run", {**found, **own, **more})


def train_line(member: Member, architecture: Path, output: Path, **more: str | int) -> list[str]:
    """Arguments of `qnas-train` into `output`."""
    options: dict[str, Any] = {**member.train, "seed": member.seed, "output": str(output), **more}
    if more.get("bits") == FLOAT_BITS:
        options.pop("levels", None)
    elif member.method == "uniform-hwgq":
        options["activation-steps"] = "hwgq"
    return [str(architecture), *arguments("train", options)]


def uniform_architecture(member: Member) -> Architecture:
    """That of a uniform member, at its bits. Raises ArchitectureError."""
    name = f"{member.space}-w{FLOAT_BITS}" if member.space in FIXED_SPACES else member.space
    return find_architecture(name).with_bits(member.bits[0])


def random_architecture(member: Member) -> Architecture:
    """That of a random member. Raises UsageError when its space holds none at this cost."""
    if member.bitops is None or member.sample is None:
        raise UsageError(f"{member.name} has no BitOps to draw at: begin the sweep again")
    changes = {**member.search, "bits": ",".join(map(str, member.bits))}
    space = changed_space(find_space(member.space), changes)
    return random_architectures(space, member.sample + 1, *member.bitops, member.image, member.seed)[-1]


def inputs_of(member: Member) -> set[Path]:
    """The files, and folders of images, that decide what becomes of it."""
    found = [*_listed(member.train["data"]), member.train["validate"]]
    if member.searches:
        found += _listed(member.search["data"])
        if "latency-table" in member.search:
            found.append(member.search["latency-table"])
    if member.space.endswith((".json", ".toml")):
        found.append(member.space)
    return {Path(str(each)) for each in found}


def check(member: Member) -> None:
    """Raise QnasError when it could only fail."""
    check_names("train", member.train, member.name)
    check_names("run", member.search, member.name)
    for folder in (*_listed(member.train["data"]), member.train["validate"]):
        _check_images(str(folder))
    parsed("train", train_line(member, Path("arch.json"), Path("found.pt")))
    match member.method:
        case "random":
            if member.sample == 0:  # the others only differ in their draws
                random_architecture(member)
        case "uniform-lsq" | "uniform-hwgq":
            lower(uniform_architecture(member))
        case _:
            _check_search(member)


def _check_search(member: Member) -> None:
    from qnas.search.runs.plan_checks import check_plan
    from qnas.search.runs.search_options import search_plan

    for folder in _listed(member.search["data"]):
        _check_images(str(folder))
    given = parsed("run", search_line(member, Path("folder"), bits=member.bits))
    check_plan(search_plan({key: value for key, value in given.items() if value not in (None, ())}))


@cache
def _check_images(folder: str) -> None:
    list_images(Path(folder))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
