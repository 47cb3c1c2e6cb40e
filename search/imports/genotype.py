"""The `.gen` files of QuantNAS' released code: which operation and bits each layer of the RFDN space has.

    Genotype_SR(body=[[('simple_5x5', 4), ...], ...], tail=[('simple_3x3', 4)], skip=[...], upsample=[...])

The released code evaluates this text as Python; here it is only read. `body` and `skip` hold a list for each
block. An older `head` is read too: this space has none, and the released code does not build it either.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from qnas.errors import ArchitectureError
from qnas.files import read_input
from qnas.network.architecture import Choice

BODY_LAYERS, SKIP_LAYERS = 4, 3  # of a block
LONGEST = 1 << 20  # characters of a genotype; one of 64 blocks has ten thousand
_TOKEN = re.compile(r"""\s*(?:(\w+)|'(\w{1,64})'|"(\w{1,64})"|([][(),=])|(\S)|$)""", re.ASCII)
_PARTS = {"head": False, "body": True, "tail": False, "skip": True, "upsample": False}  # whether by block

Layers = tuple[Choice, ...]


@dataclass(frozen=True)
class Genotype:
    """The choices of each block's layers, and of the upsampling and the tail layer."""

    body: tuple[Layers, ...]
    skip: tuple[Layers, ...]
    upsample: Choice
    tail: Choice


def read_genotype(path: Path) -> Genotype:
    """The genotype in a file. Raises ArchitectureError naming line and column."""
    try:
        text = read_input(path, 4 * LONGEST).decode("utf-8")
    except OSError as error:
        raise ArchitectureError(f"cannot read {path} ({error.strerror}): name a .gen file") from error
    except UnicodeDecodeError as error:
        raise ArchitectureError(f"{path} is not UTF-8: name a .gen file") from error
    if len(text) > LONGEST:
        raise ArchitectureError(f"{path} has more than {LONGEST} characters: name a .gen file")
    return parse_genotype(text, str(path))


def parse_genotype(text: str, source: str) -> Genotype:
    """Parse and check; `source` names the text in messages. Raises ArchitectureError."""
    parts = _Reader(text, source).genotype()
    missing = [name for name in _PARTS if name not in parts and name != "head"]
    if missing:
        raise ArchitectureError(
            f"{source} has no part {missing[0]!r}: it needs body, skip, upsample and tail"
        )
    body, skip = parts["body"], parts["skip"]
    if len(body) != len(skip) or not body:
        raise ArchitectureError(
            f"{source}: body has {len(body)} blocks and skip {len(skip)}: give both one list for each block"
        )
    for name, blocks, count in (("body", body, BODY_LAYERS), ("skip", skip, SKIP_LAYERS)):
        for index, layers in enumerate(blocks):
            if len(layers) != count:
                raise ArchitectureError(
                    f"{source}: {name}[{index}] has {len(layers)} layers, a block of this space has {count}"
                )
    single = {name: parts[name][0] for name in ("upsample", "tail")}
    for name, layers in single.items():
        if len(layers) != 1:
            raise ArchitectureError(f"{source}: {name} has {len(layers)} layers, this space has one")
    return Genotype(body, skip, single["upsample"][0], single["tail"][0])


class _Reader:
    """Recursive descent over the tokens of one text; the grammar is no deeper than a list of lists."""

    def __init__(self, text: str, source: str) -> None:
        self.text, self.source, self.at = text, source, 0
        self.advance()

    def advance(self) -> None:
        """To the next token: `kind` is its first character, or one of "name", "text", "end"."""
        match = _TOKEN.match(self.text, self.at)
        assert match is not None  # every text has a next token, if only its end
        name, single, double, mark, other = match.groups()
        self.start, self.at = match.end() - len(match[0].lstrip(" \t\n\r\f\v")), match.end()
        quoted = single if single is not None else double
        self.value = name or quoted or ""
        self.kind = "name" if name else "text" if quoted is not None else mark or other or "end"

    def fail(self, wanted: str) -> NoReturn:
        line = self.text.count("\n", 0, self.start) + 1
        column = self.start - self.text.rfind("\n", 0, self.start)
        found = "the end of the file" if self.kind == "end" else repr(self.text[self.start : self.at][:40])
        raise ArchitectureError(
            f"{self.source}, line {line}, column {column}: {found} in place of {wanted}; "
            "a genotype reads Genotype_SR(body=[[('simple_3x3', 8), ...], ...], tail=[...], ...)"
        )

    def take(self, kind: str, wanted: str) -> str:
        if self.kind != kind:
            self.fail(wanted)
        value = self.value
        self.advance()
        return value

    def genotype(self) -> dict[str, tuple[Layers, ...]]:
        """Every part as a tuple of lists, a single one where it is not by block."""
        parts: dict[str, tuple[Layers, ...]] = {}
        if self.kind != "name" or self.value != "Genotype_SR":
            self.fail("Genotype_SR")
        self.advance()
        self.take("(", "'('")
        while self.kind != ")":
            name = self.value
            if self.kind != "name" or name not in _PARTS or name in parts:
                known = ", ".join(part for part in _PARTS if part not in parts)
                self.fail(f"one of the parts {known or '(none is left)'}")
            self.advance()
            self.take("=", "'='")
            parts[name] = tuple(self.blocks()) if _PARTS[name] else (tuple(self.layers()),)
            self.separator(")")
        self.advance()
        if self.kind != "end":
            self.fail("the end")
        return parts

    def separator(self, closing: str) -> None:
        if self.kind != closing:
            self.take(",", f"',' or {closing!r}")

    def blocks(self) -> list[Layers]:
        """`[[...], ...]`."""
        self.take("[", "'['")
        found: list[Layers] = []
        while self.kind != "]":
            found.append(tuple(self.layers()))
            self.separator("]")
        self.advance()
        return found

    def layers(self) -> list[Choice]:
        """`[('simple_3x3', 8), ...]`."""
        self.take("[", "'['")
        found: list[Choice] = []
        while self.kind != "]":
            self.take("(", "a pair ('simple_3x3', 8)")
            op = self.take("text", "the quoted name of an operation")
            self.take(",", "','")
            if not re.fullmatch(r"\d{1,2}", self.value):
                self.fail("a number of bits")
            found.append(Choice(op, int(self.take("name", "a number of bits"))))
            self.take(")", "')'")
            self.separator("]")
        self.advance()
        return found
