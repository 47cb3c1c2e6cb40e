"""What a search decides: the space, and for every searched layer an operation and a bit width."""

import json
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal, cast, get_args

from qnas.errors import ArchitectureError
from qnas.quantization.quantizers import BIT_WIDTHS, FLOAT_BITS, Arithmetic, Levels

Space = Literal["espcn", "srresnet", "rfdn", "basic", "rfdn_space"]
Normalization = Literal["none", "bn", "adq", "adadm"]
FIXED_SPACES: tuple[Space, ...] = ("espcn", "srresnet", "rfdn")


@dataclass(frozen=True)
class Choice:
    """One searched layer: its operation (see `operations`) and the bits of its weights and inputs."""

    op: str
    bits: int


@dataclass(frozen=True)
class Architecture:
    """A concrete network. `layers` maps the slots of the space to their choices, in the space's order.

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

    @property
    def quantized(self) -> bool:
        """Whether any layer has fewer than 32 bits."""
        return any(choice.bits < FLOAT_BITS for choice in self.layers.values())

    def deployable(self) -> "Architecture":
        """Return the twin with these operations and bits that is integer throughout, on short scales."""
        return replace(self, arithmetic="short", residual_bits=8)

    def with_bits(self, bits: int) -> "Architecture":
        """Return this architecture with every layer at `bits`."""
        return replace(self, layers={name: replace(c, bits=bits) for name, c in self.layers.items()})

    def to_json(self) -> str:
        """Readable JSON that `from_json` reads back to an equal architecture."""
        return json.dumps(self.to_document(), indent=2) + "\n"

    def to_document(self) -> dict[str, Any]:
        """Plain data that `from_document` reads back to an equal architecture."""
        return {
            "space": self.space,
            "channels": self.channels,
            "blocks": self.blocks,
            "scale": self.scale,
            "normalization": self.normalization,
            "residual_bits": self.residual_bits,
            "levels": self.levels,
            **({} if self.arithmetic == "short" else {"arithmetic": self.arithmetic}),
            "layers": {name: {"op": c.op, "bits": c.bits} for name, c in self.layers.items()},
        }


def from_json(text: str, source: str) -> Architecture:
    """Parse and check; `source` names the text in messages. Raises ArchitectureError."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also a number of 4301 digits
        raise ArchitectureError(
            f"{source} is not JSON ({error}): write it with `qnas-train --show ARCH`"
        ) from error
    return from_document(document, source)


def from_document(document: Any, source: str) -> Architecture:
    """An Architecture from plain data, as parsed JSON or a checkpoint holds it. Raises ArchitectureError."""
    if not isinstance(document, dict):
        raise ArchitectureError(f"{source}: an architecture is an object with the keys {', '.join(_KEYS)}")
    document = {"levels": "uniform", "arithmetic": "short", **document}  # version 0.1 did not write these
    unknown, missing = sorted(set(document) - set(_KEYS), key=str), sorted(set(_KEYS) - set(document))
    if unknown or missing:
        raise ArchitectureError(
            f"{source}: {f'unknown key {unknown[0]!r}' if unknown else f'key {missing[0]!r} is missing'}; "
            f"an architecture has the keys {', '.join(_KEYS)}"
        )
    for key, allowed in _ALLOWED.items():
        value = document[key]
        if not _is_one_of(value, allowed):
            raise ArchitectureError(f"{source}: {key} is {reprlib.repr(value)}, use {_listing(allowed)}")
    layers = document["layers"]
    if not isinstance(layers, dict) or not layers:
        raise ArchitectureError(f'{source}: layers must map names to {{"op": ..., "bits": ...}}')
    return Architecture(
        space=cast(Space, document["space"]),
        channels=document["channels"],
        blocks=document["blocks"],
        scale=document["scale"],
        layers={str(name): _choice(value, f"{source}: layer {name!r}") for name, value in layers.items()},
        normalization=cast(Normalization, document["normalization"]),
        residual_bits=document["residual_bits"],
        levels=cast(Levels, document["levels"]),
        arithmetic=cast(Arithmetic, document["arithmetic"]),
    )


def _choice(value: Any, where: str) -> Choice:
    if not isinstance(value, dict) or set(value) != {"op", "bits"} or not isinstance(value["op"], str):
        raise ArchitectureError(f'{where} must be {{"op": "simple_3x3", "bits": 8}}')
    if not _is_one_of(value["bits"], BIT_WIDTHS):
        raise ArchitectureError(f"{where} has {reprlib.repr(value['bits'])} bits, use {_listing(BIT_WIDTHS)}")
    return Choice(value["op"], value["bits"])


_ALLOWED: dict[str, Any] = {
    "space": get_args(Space),
    "channels": range(1, 513),
    "blocks": range(1, 65),
    "scale": (2, 3, 4),
    "normalization": get_args(Normalization),
    "residual_bits": (8, None),
    "levels": get_args(Levels),
    "arithmetic": get_args(Arithmetic),
}
_KEYS = (*_ALLOWED, "layers")


def _is_one_of(value: Any, allowed: Any) -> bool:
    """Equal in value and in kind: 8.0 and True are no whole numbers."""
    return type(value) in (int, str, type(None)) and value in allowed


def _listing(allowed: Any) -> str:
    if isinstance(allowed, range):
        return f"a whole number from {allowed.start} to {allowed.stop - 1}"
    return ", ".join("null" if value is None else str(value) for value in allowed)


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
    path = Path(name_or_path)
    try:
        if path.is_file():
            return from_json(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        shown = name_or_path[
            :80
        ]  # a whole architecture given in place of its file's name is too long to be one
        raise ArchitectureError(f"cannot read {shown!r} ({reason}): name a JSON architecture file") from error
    names = ", ".join(named_architectures())
    raise ArchitectureError(f"no architecture {name_or_path!r}: name a JSON file or one of {names}")
