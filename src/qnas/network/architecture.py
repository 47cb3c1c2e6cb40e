"""What a search decides: the space, and for every searched layer an operation and a bit width."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, structs

from qnas.documents.reading import Closed, Document
from qnas.errors import ArchitectureError
from qnas.quantization.quantizers import FLOAT_BITS, Arithmetic, BitWidth, Levels

Space = Literal["espcn", "srresnet", "rfdn", "basic", "rfdn_space"]
Normalization = Literal["none", "bn", "adq", "adq_linear", "adadm"]
FIXED_SPACES: tuple[Space, ...] = ("espcn", "srresnet", "rfdn")
Channels = Annotated[int, Meta(ge=1, le=512)]
Blocks = Annotated[int, Meta(ge=1, le=64)]
Scale = Literal[2, 3, 4]
FirstInput = Literal["image", "bits"]
Activation = Literal["relu", "prelu"]
Version = Literal[1, 2]
VERSION: Version = 2


@dataclass(frozen=True)
class Choice:
    """One searched layer: its operation (see `operations`), the bits of its weights, and those of its inputs.

    `input_bits` None: those of the weights. Both are 32 or none.
    """

    op: str
    bits: int
    input_bits: int | None = None

    @property
    def reads(self) -> int:
        """The bits of its inputs."""
        return self.bits if self.input_bits is None else self.input_bits

    def to_document(self) -> dict[str, Any]:
        """Plain data."""
        inputs = {} if self.input_bits is None else {"input_bits": self.input_bits}
        return {"op": self.op, "bits": self.bits, **inputs}


class Pattern(Closed, frozen=True):
    """How many layers the parts of the Basic space have, as `arch_pattern` of the released code."""

    head: Annotated[int, Meta(ge=1, le=8)] = 2
    body: Annotated[int, Meta(ge=1, le=8)] = 2  # one after the other, in each block
    skip: Annotated[int, Meta(ge=1, le=8)] = 1  # beside them
    tail: Annotated[int, Meta(ge=0, le=8)] = 2


PATTERN = Pattern()


@dataclass(frozen=True)
class Architecture:
    """A concrete network. `layers` maps the slots of the space to their choices, in the space's order.

    `normalization`: adq multiplies by `exp(w log(std) + b)`, adq_linear by `w std + b`, the paper's form.
    `first_input`: the first layer reads the image as it is, or at its own bits, as in the paper.
    `activation`: what convolutions of 32 bits read, prelu in full precision alone.
    `version` 1 has no skip over the body, no normalization around the tail, and inner widths of operations
    that follow their inputs; files that name no version have it.
    `residual_bits` quantizes what no convolution reads: inputs of adds, concatenations, multiplications.
    None keeps them float, as in the paper; such a network cannot be exported as integers. `levels` are those
    of HWGQ below 8 bits. `arithmetic` is "paper" for checkpoints of the paper's released code, computed as
    they were trained; `deployable` is their twin that can be exported.
    """

    space: Space
    channels: int
    blocks: int
    scale: int
    layers: Mapping[str, Choice]
    normalization: Normalization = "none"
    residual_bits: Literal[8] | None = 8
    levels: Levels = "uniform"
    arithmetic: Arithmetic = "short"
    pattern: Pattern = PATTERN
    first_input: FirstInput = "image"
    activation: Activation = "relu"
    version: Version = VERSION

    @property
    def inner_width(self) -> int | None:
        """The width that operations have inside, None where it follows what they read."""
        return self.channels if self.version > 1 else None

    @property
    def quantized(self) -> bool:
        """Whether any layer has fewer than 32 bits."""
        return any(choice.bits < FLOAT_BITS for choice in self.layers.values())

    def deployable(self) -> "Architecture":
        """Return the twin with these operations and bits that is integer throughout, on short scales."""
        adq = self.arithmetic == "paper" and self.normalization == "adq"
        normalization: Normalization = "adq_linear" if adq else self.normalization
        activation: Activation = "relu" if self.quantized else self.activation
        return replace(
            self, arithmetic="short", residual_bits=8, normalization=normalization, activation=activation
        )

    def with_bits(self, bits: int) -> "Architecture":
        """Return this architecture with every layer at `bits`."""
        return replace(self, layers={name: Choice(c.op, bits) for name, c in self.layers.items()})

    def to_json(self) -> str:
        """Readable JSON that `from_json` reads back to an equal architecture."""
        return json.dumps(self.to_document(), indent=2) + "\n"

    def to_document(self) -> dict[str, Any]:
        """Plain data that `from_document` reads back to an equal architecture."""
        return {
            **({} if self.version == 1 else {"version": self.version}),
            "space": self.space,
            "channels": self.channels,
            "blocks": self.blocks,
            "scale": self.scale,
            "normalization": self.normalization,
            "residual_bits": self.residual_bits,
            "levels": self.levels,
            **({} if self.arithmetic == "short" else {"arithmetic": self.arithmetic}),
            **({} if self.pattern == PATTERN else {"pattern": structs.asdict(self.pattern)}),
            **({} if self.first_input == "image" else {"first_input": self.first_input}),
            **({} if self.activation == "relu" else {"activation": self.activation}),
            "layers": {name: c.to_document() for name, c in self.layers.items()},
        }


class _Layer(Closed, frozen=True):
    op: str
    bits: BitWidth
    input_bits: BitWidth | None = None

    def __post_init__(self) -> None:
        if self.input_bits is not None and (self.bits == FLOAT_BITS) != (self.input_bits == FLOAT_BITS):
            raise ValueError("bits and input_bits are 32 together or not at all")

    @property
    def choice(self) -> Choice:
        return Choice(self.op, self.bits, None if self.input_bits == self.bits else self.input_bits)


class _Document(Closed, frozen=True):
    """The file; what has a default was not written before."""

    space: Space
    channels: Channels
    blocks: Blocks
    scale: Scale
    layers: Annotated[dict[str, _Layer], Meta(min_length=1)]
    normalization: Normalization
    residual_bits: Literal[8] | None
    levels: Levels = "uniform"
    arithmetic: Arithmetic = "short"
    pattern: Pattern = PATTERN
    first_input: FirstInput = "image"
    activation: Activation = "relu"
    version: Version = 1


_FILE = Document(_Document, "architecture", "`qnas-train --show ARCH` writes one", ArchitectureError)


def from_json(text: str, source: str) -> Architecture:
    """Parse and check; `source` names the text in messages. Raises ArchitectureError."""
    return _architecture(_FILE.parse(text, source))


def read_architecture(path: Path) -> Architecture:
    """The one in a JSON file. Raises ArchitectureError."""
    return _architecture(_FILE.read(path))


def from_document(document: object, source: str) -> Architecture:
    """An Architecture from plain data, as a checkpoint holds it. Raises ArchitectureError."""
    return _architecture(_FILE.convert(document, source))


def _architecture(found: _Document) -> Architecture:
    values = structs.asdict(found)
    return Architecture(**values | {"layers": {name: layer.choice for name, layer in found.layers.items()}})


def named_architectures() -> tuple[str, ...]:
    """The names that `find_architecture` knows besides JSON files."""
    folder = resources.files("qnas") / "architectures"
    return tuple(
        sorted(entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json"))
    )


def find_architecture(name_or_path: str) -> Architecture:
    """A named architecture, or the one in a JSON file. Raises ArchitectureError."""
    if name_or_path in named_architectures():
        entry = resources.files("qnas") / "architectures" / f"{name_or_path}.json"
        return from_json(entry.read_text(encoding="utf-8"), name_or_path)
    try:
        if Path(name_or_path).is_file():
            return read_architecture(Path(name_or_path))
    except OSError as error:  # a whole architecture given in place of its file's name is too long to be one
        raise ArchitectureError(
            f"cannot read {name_or_path[:80]!r} ({error.strerror}): name a JSON architecture file"
        ) from error
    names = ", ".join(named_architectures())
    raise ArchitectureError(f"no architecture {name_or_path!r}: name a JSON file or one of {names}")
