"""A search space as data: a network's frame, and what its layers may be.

    {"network": "basic", "channels": 36, "blocks": 3, "scale": 4, "normalization": "adq",
     "identical_blocks": true, "bits": [4, 8],
     "operations": {"head.*": ["simple_3x3", "simple_5x5"], "*": ["simple_3x3", "growth2_3x3"]}}

in JSON or TOML. `network` is a frame of `qnas.network.architecture`; its layers have the names that
`qnas-train --show` prints. Of the patterns of `operations` (shell wildcards) the first that fits the name of
a layer counts. Frames whose operations are given (espcn, srresnet, rfdn) have no `operations`: their bits
alone are searched, as EdMIPS does (Cai and Vasconcelos, CVPR 2020).
"""

import json
import reprlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from importlib import resources
from math import prod
from pathlib import Path
from typing import Any, cast, get_args

from qnas.errors import ArchitectureError, SpaceError
from qnas.network.architecture import FIXED_SPACES, Architecture, Choice, Normalization, Space
from qnas.network.lowering import lower, slot_operations
from qnas.quantization.quantizers import FLOAT_BITS

SEARCHED_BITS = (2, 3, 4, 8, FLOAT_BITS)
PLACEHOLDER = "simple_1x1"  # fits any channels
Choices = tuple[Choice, ...]


@dataclass(frozen=True)
class SearchSpace:
    """`operations`: patterns of layer names -> operations; `identical_blocks`: one choice for all blocks."""

    name: str
    network: Space
    channels: int
    blocks: int
    scale: int
    bits: tuple[int, ...]
    operations: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    normalization: Normalization = "none"
    identical_blocks: bool = False

    def frame(self, layers: Mapping[str, Choice]) -> Architecture:
        """The architecture with these layers."""
        return Architecture(
            self.network, self.channels, self.blocks, self.scale, layers, self.normalization
        )  # fmt: skip

    @cached_property
    def slots(self) -> dict[str, tuple[str, ...]]:
        """Layer name -> the operations it may be."""
        fixed = slot_operations(self.frame({}))
        return {slot: (op,) if op else self._operations(slot) for slot, op in fixed.items()}

    def _operations(self, slot: str) -> tuple[str, ...]:
        for pattern, operations in self.operations.items():
            if fnmatchcase(slot, pattern):
                return operations
        raise SpaceError(f'{self.name}: operations has no pattern for layer {slot!r}: add one, or "*"')

    @cached_property
    def variables(self) -> dict[str, tuple[str, ...]]:
        """What is decided -> the layers that get it: `body.*.conv_0` where blocks are identical."""
        tied: dict[str, list[str]] = {}
        for slot in self.slots:
            part, _, rest = slot.partition(".")
            block, _, layer = rest.partition(".")
            name = f"{part}.*.{layer}" if self.identical_blocks and layer and block.isdigit() else slot
            tied.setdefault(name, []).append(slot)
        return {name: tuple(slots) for name, slots in tied.items()}

    def candidates(self, variable: str) -> tuple[str, ...]:
        """The operations between which `variable` decides; it decides between all of `bits` as well."""
        return self.slots[self.variables[variable][0]]

    def architecture(self, choices: Mapping[str, Choice]) -> Architecture:
        """The architecture that these choices, one for each variable, make."""
        layers = {slot: choices[name] for name, slots in self.variables.items() for slot in slots}
        return self.frame({slot: layers[slot] for slot in self.slots})

    @property
    def placeholder(self) -> Architecture:
        """The frame in full precision, one convolution for each layer that is searched."""
        fixed = slot_operations(self.frame({}))
        return self.frame({slot: Choice(op or PLACEHOLDER, FLOAT_BITS) for slot, op in fixed.items()})

    def to_document(self) -> dict[str, Any]:
        """Plain data that `from_document` reads back, but for the name."""
        return {
            "network": self.network,
            "channels": self.channels,
            "blocks": self.blocks,
            "scale": self.scale,
            "normalization": self.normalization,
            "identical_blocks": self.identical_blocks,
            "bits": list(self.bits),
            "operations": {pattern: list(operations) for pattern, operations in self.operations.items()},
        }

    @property
    def size(self) -> int:
        """How many architectures it holds."""
        return prod(len(self.candidates(name)) * len(self.bits) for name in self.variables)

    def with_bits(self, bits: Sequence[int]) -> "SearchSpace":
        """Return this space at other bits. Raises SpaceError."""
        return replace(self, bits=_bits(list(bits), self.name))

    def with_operations_of(self, found: Architecture) -> "SearchSpace":
        """Only the bits of `found` left open: the second half of a two-fold search. Raises SpaceError."""
        if (found.space, found.blocks) != (self.network, self.blocks):
            raise SpaceError(
                f"the operations of {found.space} with {found.blocks} blocks do not fit {self.name}: it is "
                f"{self.network} with {self.blocks}"
            )
        if self.network in FIXED_SPACES:
            return self
        narrowed = replace(self, operations={slot: (choice.op,) for slot, choice in found.layers.items()})
        _check_operations(narrowed, self.name)
        return narrowed


def from_document(document: Any, source: str, name: str | None = None) -> SearchSpace:
    """A checked space from plain data; `source` names it in messages. Raises SpaceError."""
    if not isinstance(document, dict):
        raise SpaceError(f"{source}: a space is an object with the keys {', '.join(_KEYS)}")
    document = {"normalization": "none", "identical_blocks": False, "operations": {}, **document}
    unknown, missing = sorted(set(document) - set(_KEYS), key=str), [k for k in _KEYS if k not in document]
    if unknown or missing:
        problem = f"unknown key {unknown[0]!r}" if unknown else f"key {missing[0]!r} is missing"
        raise SpaceError(f"{source}: {problem}; a space has the keys {', '.join(_KEYS)}")
    for key, (allowed, wanted) in _ALLOWED.items():
        value = document[key]
        if type(value) not in (int, str, bool) or type(value) is not type(allowed[0]) or value not in allowed:
            raise SpaceError(f"{source}: {key} is {_shown(value)}, use {wanted}")
    space = SearchSpace(
        name=name or Path(source).stem,
        network=cast(Space, document["network"]),
        channels=document["channels"],
        blocks=document["blocks"],
        scale=document["scale"],
        bits=_bits(document["bits"], source),
        operations=_patterns(document["operations"], source),
        normalization=cast(Normalization, document["normalization"]),
        identical_blocks=document["identical_blocks"],
    )
    _check_operations(space, source)
    return space


def _bits(value: Any, source: str) -> tuple[int, ...]:
    widths = ", ".join(map(str, SEARCHED_BITS))
    if not isinstance(value, list) or not value:
        raise SpaceError(f"{source}: bits must be a list of some of {widths}")
    for each in value:
        if type(each) is not int or each not in SEARCHED_BITS:
            raise SpaceError(f"{source}: bits has {_shown(each)}, use some of {widths}")
    if len(set(value)) != len(value):
        raise SpaceError(f"{source}: bits names a width twice: name each once")
    return tuple(sorted(value))


def _shown(value: Any) -> str:
    try:
        return reprlib.repr(value)
    except ValueError:  # a hexadecimal number of TOML has no bound, its decimal digits have
        return "too long a number"


def _patterns(value: Any, source: str) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, dict):
        raise SpaceError(f'{source}: operations must map patterns to lists, as {{"*": ["simple_3x3"]}}')
    for pattern, operations in value.items():
        where = f"{source}: operations[{reprlib.repr(pattern)}]"
        if not isinstance(operations, list) or not operations:
            raise SpaceError(f'{where} must be a list of operations, as ["simple_3x3", "growth2_3x3"]')
        if any(not isinstance(each, str) for each in operations) or len(set(operations)) != len(operations):
            raise SpaceError(f"{where} must name each operation once")
    return {str(pattern): tuple(operations) for pattern, operations in value.items()}


def _check_operations(space: SearchSpace, source: str) -> None:
    """Every pattern fits a layer, every operation the channels of its layers, and identical blocks are."""
    if space.network in FIXED_SPACES and space.operations:
        raise SpaceError(f"{source}: the operations of {space.network} are given: leave `operations` out")
    try:
        lower(space.placeholder)
    except ArchitectureError as error:
        raise SpaceError(f"{source}: {error}") from None
    for pattern in space.operations:
        if not any(fnmatchcase(slot, pattern) for slot in space.slots):
            raise SpaceError(
                f"{source}: operations[{pattern!r}] fits no layer of {space.network}: they are "
                f"{', '.join(space.slots)}"
            )
    for name, (first, *others) in space.variables.items():
        for slot in others:
            if space.slots[slot] != space.slots[first]:
                raise SpaceError(
                    f"{source}: {name} is one choice, but {first} may be {', '.join(space.slots[first])} and "
                    f"{slot} may be {', '.join(space.slots[slot])}: name the same operations or set "
                    "identical_blocks to false"
                )
    for index in range(max(map(len, space.slots.values()))):
        layers = {
            slot: Choice(operations[index % len(operations)], FLOAT_BITS)
            for slot, operations in space.slots.items()
        }
        try:
            lower(space.frame(layers))
        except ArchitectureError as error:
            raise SpaceError(f"{source}: {error}") from None


_ALLOWED: dict[str, tuple[Any, str]] = {
    "network": (get_args(Space), ", ".join(get_args(Space))),
    "channels": (range(1, 513), "a whole number from 1 to 512"),
    "blocks": (range(1, 65), "a whole number from 1 to 64"),
    "scale": ((2, 3, 4), "2, 3 or 4"),
    "normalization": (get_args(Normalization), ", ".join(get_args(Normalization))),
    "identical_blocks": ((True, False), "true or false"),
}
_KEYS = (*_ALLOWED, "bits", "operations")


def named_spaces() -> tuple[str, ...]:
    """The names that `find_space` knows besides files."""
    folder = resources.files("qnas.search") / "spaces"
    return tuple(sorted(entry.name.removesuffix(".json") for entry in folder.iterdir()))


def find_space(name_or_path: str) -> SearchSpace:
    """A named space, or the one in a JSON or TOML file. Raises SpaceError."""
    if name_or_path in named_spaces():
        entry = resources.files("qnas.search") / "spaces" / f"{name_or_path}.json"
        return from_document(json.loads(entry.read_text(encoding="utf-8")), name_or_path)
    path = Path(name_or_path)
    if path.suffix not in (".json", ".toml"):
        names = ", ".join(named_spaces())
        raise SpaceError(f"no space {name_or_path[:80]!r}: name a .json or .toml file or one of {names}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise SpaceError(
            f"cannot read {name_or_path[:80]!r} ({reason}): name a .json or .toml file"
        ) from error
    try:
        document = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise SpaceError(f"{path} is no {path.suffix[1:].upper()} ({error})") from error
    return from_document(document, str(path))
