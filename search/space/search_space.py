"""A search space as data: a network's frame, and what its layers may be.

    {"version": 2, "network": "basic", "channels": 36, "blocks": 3, "scale": 4, "normalization": "adq",
     "identical_blocks": true, "bits": [4, 8],
     "operations": {"head.*": ["simple_3x3", "simple_5x5"], "*": ["simple_3x3", "growth2_3x3"]}}

in JSON or TOML. `network` is a frame of `qnas.network.architecture`; its layers have the names that
`qnas-train --show` prints. Of the patterns of `operations` (shell wildcards) the first that fits the name of
a layer counts. Frames whose operations are given (espcn, srresnet, rfdn) have no `operations`: their bits
alone are searched, as EdMIPS does (Cai and Vasconcelos, CVPR 2020).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import translate
from functools import cached_property
from importlib import resources
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, structs

from qnas.documents.reading import Closed, Document
from qnas.errors import ArchitectureError, SpaceError
from qnas.network.architecture import (
    FIXED_SPACES,
    PATTERN,
    VERSION,
    Activation,
    Architecture,
    Blocks,
    Channels,
    Choice,
    FirstInput,
    Normalization,
    Pattern,
    Scale,
    Space,
    Version,
)
from qnas.network.lowering import lower, slot_operations
from qnas.quantization.quantizers import FLOAT_BITS

SearchedBits = Literal[2, 3, 4, 8, 32]
PLACEHOLDER = "simple_1x1"  # fits any channels
Choices = tuple[Choice, ...]
Name = Annotated[str, Meta(max_length=100)]
Operations = Annotated[tuple[Name, ...], Meta(min_length=1, max_length=32)]


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
    pattern: Pattern = PATTERN
    first_input: FirstInput = "image"
    activation: Activation = "relu"
    version: Version = VERSION

    def frame(self, layers: Mapping[str, Choice]) -> Architecture:
        """The architecture with these layers."""
        return Architecture(
            self.network, self.channels, self.blocks, self.scale, layers, self.normalization,
            pattern=self.pattern, first_input=self.first_input,
            activation=self.activation, version=self.version,
        )  # fmt: skip

    @cached_property
    def slots(self) -> dict[str, tuple[str, ...]]:
        """Layer name -> the operations it may be."""
        fixed = slot_operations(self.frame({}))
        return {slot: (op,) if op else self._operations(slot) for slot, op in fixed.items()}

    @cached_property
    def patterns(self) -> dict[str, re.Pattern[str]]:
        """What `operations` names its layers by, as regular expressions."""
        return {pattern: re.compile(translate(pattern)) for pattern in self.operations}

    def _operations(self, slot: str) -> tuple[str, ...]:
        for pattern, operations in self.operations.items():
            if self.patterns[pattern].match(slot):
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
            **({} if self.version == 1 else {"version": self.version}),
            "network": self.network,
            "channels": self.channels,
            "blocks": self.blocks,
            "scale": self.scale,
            "normalization": self.normalization,
            "identical_blocks": self.identical_blocks,
            "bits": list(self.bits),
            **({} if self.pattern == PATTERN else {"pattern": structs.asdict(self.pattern)}),
            **({} if self.first_input == "image" else {"first_input": self.first_input}),
            **({} if self.activation == "relu" else {"activation": self.activation}),
            "operations": {pattern: list(operations) for pattern, operations in self.operations.items()},
        }

    @property
    def size(self) -> int:
        """How many architectures it holds."""
        return prod(len(self.candidates(name)) * len(self.bits) for name in self.variables)

    def with_bits(self, bits: Sequence[int]) -> "SearchSpace":
        """Return this space at other bits. Raises SpaceError."""
        return from_document({**self.to_document(), "bits": list(bits)}, self.name, self.name)

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


class _Document(Closed, frozen=True):
    network: Space
    channels: Channels
    blocks: Blocks
    scale: Scale
    bits: Annotated[tuple[SearchedBits, ...], Meta(min_length=1)]
    operations: Annotated[dict[Name, Operations], Meta(max_length=1024)] = msgspec.field(default_factory=dict)
    normalization: Normalization = "none"
    identical_blocks: bool = False
    pattern: Pattern = PATTERN
    first_input: FirstInput = "image"
    activation: Activation = "relu"
    version: Version = 1

    def __post_init__(self) -> None:
        if len(set(self.bits)) < len(self.bits):
            raise ValueError("bits names a width twice")
        if self.activation == "prelu" and self.bits != (FLOAT_BITS,):
            raise ValueError("activation prelu is for bits [32] alone")
        for pattern, operations in self.operations.items():
            if len(set(operations)) < len(operations):
                raise ValueError(f"operations[{pattern!r}] names an operation twice")


_FILE = Document(_Document, "search space", "`qnas-search spaces` shows some", SpaceError)


def from_document(document: object, source: str, name: str | None = None) -> SearchSpace:
    """A checked space from plain data; `source` names it in messages. Raises SpaceError."""
    return _space(_FILE.convert(document, source), source, name)


def _space(found: _Document, source: str, name: str | None = None) -> SearchSpace:
    values = structs.asdict(found) | {"bits": tuple(sorted(found.bits))}
    space = SearchSpace(name or Path(source).stem, **values)
    _check_operations(space, source)
    return space


def _check_operations(space: SearchSpace, source: str) -> None:
    """Every pattern fits a layer, every operation the channels of its layers, and identical blocks are."""
    if space.network in FIXED_SPACES and space.operations:
        raise SpaceError(f"{source}: the operations of {space.network} are given: leave `operations` out")
    try:
        lower(space.placeholder)
    except ArchitectureError as error:
        raise SpaceError(f"{source}: {error}") from None
    for pattern in space.operations:
        if not any(map(space.patterns[pattern].match, space.slots)):
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


def named_spaces() -> tuple[str, ...]:
    """The names that `find_space` knows besides files."""
    folder = resources.files("qnas.search") / "spaces"
    return tuple(sorted(entry.name.removesuffix(".json") for entry in folder.iterdir()))


def find_space(name_or_path: str) -> SearchSpace:
    """A named space, or the one in a JSON or TOML file. Raises SpaceError."""
    if name_or_path in named_spaces():
        entry = resources.files("qnas.search") / "spaces" / f"{name_or_path}.json"
        return _space(_FILE.parse(entry.read_bytes(), name_or_path), name_or_path)
    path = Path(name_or_path)
    if path.suffix not in (".json", ".toml"):
        names = ", ".join(named_spaces())
        raise SpaceError(f"no space {name_or_path[:80]!r}: name a .json or .toml file or one of {names}")
    return _space(_FILE.read(path, toml=path.suffix == ".toml"), str(path))
