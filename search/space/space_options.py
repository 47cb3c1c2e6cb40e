"""Options of the command lines about search spaces: widths, sizes, and changes of a space."""

from collections.abc import Mapping
from typing import Any

from qnas.errors import UsageError
from qnas.network.architecture import find_architecture
from qnas.search.space.search_space import SearchSpace, from_document

# Options of a search that change its space.
SPACE_KEYS = ("channels", "blocks", "normalization", "activation", "separate_bits")


def parse_bits(text: str) -> tuple[int, ...]:
    """Bit widths out of "4,8". Raises UsageError."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--bits {text[:40]!r} is no list of bit widths: write them as 4,8") from None


def parse_image(text: str) -> tuple[int, int]:
    """(height, width) out of "180x320". Raises UsageError."""
    sides = text.split("x")
    if len(sides) != 2 or not all(side.isdecimal() and 0 < len(side) < 6 and int(side) for side in sides):
        raise UsageError(f"--image {text[:40]!r} is no size: write HEIGHTxWIDTH in pixels, as 180x320")
    return int(sides[0]), int(sides[1])


def changed_space(space: SearchSpace, options: Mapping[str, Any]) -> SearchSpace:
    """The space with the channels, blocks, normalization, activation, bits and operations of `options`.

    `operations` is an architecture's name or file: only bits are searched then. Raises SpaceError,
    ArchitectureError, UsageError.
    """
    changes = {key: options[key] for key in SPACE_KEYS if key in options}
    if "bits" in options:
        changes["bits"] = list(parse_bits(options["bits"]))
    if changes:
        space = from_document({**space.to_document(), **changes}, space.name, space.name)
    if "operations" in options:
        fixed = space.with_operations_of(find_architecture(options["operations"]))
        space = from_document(fixed.to_document(), options["operations"], space.name)
    return space
