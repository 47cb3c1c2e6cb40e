"""Damage for files: to bytes of any kind, and to the fields of the formats that qnas reads.

A mutation takes (bytes, bytes of another valid file, random numbers) and returns bytes; the same random
numbers make the same damage. One that finds nothing to do in what an earlier one left raises `Spoiled`.
"""

import io
import json
import pickletools
import struct
import zipfile
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

Mutation = Callable[[bytes, bytes, Random], bytes]
SENTINEL = "EXECUTED"  # a file that exists when something of a mutated file was run
COMMAND = f"touch {SENTINEL}"
NUMBERS = (
    0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 127, 128, 255, 256, 1024, 65535, 65536, 2**20, 2**24, 2**30,
    2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**48, 2**62, 2**63 - 1, 2**63, 2**64 - 1,
)  # fmt: skip
REALS = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e-10, 1e10, 3.4e38, float("inf"), float("-inf"), float("nan"))
TEXTS = ("", "x", "0", "\n", "\0", "é", "a" * 3000, "../x", "__class__", "%s%n", COMMAND)


class Spoiled(Exception):
    """There is nothing that a mutation could change."""


def mutated(data: bytes, other: bytes, fields: tuple[Mutation, ...], random: Random) -> bytes:
    """`data` with 1 .. 4 mutations: mostly of the format's own `fields`, which leave a file that parses."""
    fields_only = random.random() < 0.7
    for _ in range(random.choice((1, 1, 1, 2, 2, 3, 4))):
        change = random.choice(fields if fields_only or random.random() < 0.2 else ANY_BYTES)
        try:
            data = change(data, other, random)
        except Spoiled:
            data = random.choice(ANY_BYTES)(data, other, random)
    return data


# Any bytes ------------------------------------------------------------------------------------------------


def _place(data: bytes, random: Random) -> int:
    return random.randrange(len(data) + 1)


def _chunk(data: bytes, random: Random) -> tuple[int, int]:
    start = _place(data, random)
    return start, min(len(data), start + int(2 ** random.uniform(0, 12)))


def flip_bits(data: bytes, other: bytes, random: Random) -> bytes:
    result = bytearray(data)
    for _ in range(random.randint(1, 8) if data else 0):
        result[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return bytes(result)


def overwrite(data: bytes, other: bytes, random: Random) -> bytes:
    start, count = _place(data, random), random.randint(1, 16)
    fill = random.choice((b"\0", b"\xff", b"\x80", b"\x7f", b"\x01", b"", b"")) * count
    return data[:start] + (fill or random.randbytes(count)) + data[start + count :]


def overwrite_number(data: bytes, other: bytes, random: Random) -> bytes:
    size, code = random.choice(((2, "<H"), (4, "<I"), (4, "<I"), (8, "<Q")))
    start = _place(data, random) // size * size
    number = random.choice((*NUMBERS, len(data), len(data) - 1, start, -start, -1, -2)) % (1 << 8 * size)
    return data[:start] + struct.pack(code, number) + data[start + size :]


def overwrite_real(data: bytes, other: bytes, random: Random) -> bytes:
    start = _place(data, random) // 4 * 4
    return data[:start] + struct.pack("<f", random.choice(REALS)) + data[start + 4 :]


def truncate(data: bytes, other: bytes, random: Random) -> bytes:
    return data[: _place(data, random)]


def remove(data: bytes, other: bytes, random: Random) -> bytes:
    start, end = _chunk(data, random)
    return data[:start] + data[end:]


def insert(data: bytes, other: bytes, random: Random) -> bytes:
    start, end = _chunk(data, random)
    at = _place(data, random)
    more = data[start:end] if random.random() < 0.5 else random.randbytes(end - start)
    return data[:at] + more + data[at:]


def swap(data: bytes, other: bytes, random: Random) -> bytes:
    a, b, c, d = sorted(_place(data, random) for _ in range(4))
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def splice(data: bytes, other: bytes, random: Random) -> bytes:
    if random.random() < 0.5:
        return data[: _place(data, random)] + other[_place(other, random) :]
    start, end = _chunk(other, random)
    at = _place(data, random)
    return data[:at] + other[start:end] + data[at + end - start :]


ANY_BYTES: tuple[Mutation, ...] = (
    flip_bits, flip_bits, overwrite, overwrite, overwrite_number, overwrite_number, overwrite_real, truncate,
    remove, insert, swap, splice,
)  # fmt: skip

# Text -----------------------------------------------------------------------------------------------------

_PIECES = (
    "(", ")", "[", "]", "{", "}", ",", "=", ":", "'", '"', "8", "-1", "1e400", "9" * 5000, "null", "NaN",
    "true", "Genotype_SR", "body", "'simple_3x3'", "'growth4_9x9'", "'decenc_9x9_2_via_999_999'",
    "[" * 3000, "{" * 3000,
    '"paper"', '"adq"', "512", "64", f"__import__('os').system('{COMMAND}')",
    f"(lambda: open('{SENTINEL}', 'w'))()",
)  # fmt: skip


def change_tokens(data: bytes, other: bytes, random: Random) -> bytes:
    """A word, a number or a mark replaced, removed, repeated, or exchanged for another of the text."""
    tokens = _tokens(data.decode("latin-1"))
    if not tokens:
        raise Spoiled
    i, j = random.randrange(len(tokens)), random.randrange(len(tokens))
    match random.randrange(8):
        case 0:
            tokens[i] = random.choice(_PIECES)
        case 1:
            del tokens[i]
        case 2:
            tokens[i] *= random.choice((2, 3, 100))
        case 3:
            tokens[i], tokens[j] = tokens[j], tokens[i]
        case 4:
            tokens[i] = str(random.choice((*NUMBERS, -1, 6, 3.5)))
        case _:  # another one of its kind
            words = [k for k, token in enumerate(tokens) if token[0].isalnum()]
            i = random.choice(words or [i])
            tokens[i] = random.choice([token for token in tokens if token.isdigit() == tokens[i].isdigit()])
    return "".join(tokens).encode("latin-1", "replace")


def _tokens(text: str) -> list[str]:
    found, word = [], ""
    for c in text:
        if c.isalnum() or c == "_":
            word += c
            continue
        found += [word, c] if word else [c]
        word = ""
    return [*found, word] if word else found


def change_json(data: bytes, other: bytes, random: Random) -> bytes:
    """One value of the document replaced, removed or repeated."""
    try:
        return json.dumps(
            changed_tree(json.loads(data), random, lambda value: _odd_value(value, random))
        ).encode()
    except (ValueError, RecursionError):  # no JSON any more, or a part of itself
        raise Spoiled from None


def _odd_value(value: Any, random: Random) -> Any:
    """Another value, often one of the same type."""
    if random.random() < 0.5 and not isinstance(value, bool):
        match value:
            case int():
                return random.choice(
                    (*NUMBERS, value + 1, value - 1, -value, 2 * value, random.randrange(200))
                )
            case float():
                return random.choice((*REALS, -value, 2 * value, value / 2))
            case str():
                return random.choice((*TEXTS, value[:-1], value * 2, value.upper()))
    kinds: tuple[Any, ...] = (
        *NUMBERS, *REALS, *TEXTS, None, True, [], {}, [[]], -1, 512, 64, 3, "paper", "short", "adq", "bn",
        "rfdn_space", "basic", "espcn", "srresnet", "rfdn", "lloyd", "growth4_9x9",
        "simple_9x9_grouped_99", 12, 24, 2,
    )  # fmt: skip
    return random.choice(kinds)


def changed_tree(document: Any, random: Random, odd: Callable[[Any], Any]) -> Any:
    """The plain data `document` with one value, anywhere in it, replaced by `odd` of it, removed or moved."""
    holders = list(_holders(document))
    if not holders:
        return odd(document)
    holder, key = random.choice(holders)
    match random.randrange(6):
        case 0:
            del holder[key]
        case 1:
            source, place = random.choice(holders)
            holder[key] = source[place] if key in holder or isinstance(holder, list) else None
        case 2 if isinstance(holder, dict):
            holder[random.choice(("x", f"{key}.", "", "weight"))] = holder[key]
        case _:
            holder[key] = odd(holder[key])
    return document


def _holders(document: Any) -> Iterator[tuple[Any, Any]]:
    if not isinstance(document, dict | list):
        return
    for key in list(document) if isinstance(document, dict) else range(len(document)):
        yield document, key
        yield from _holders(document[key])


# Zip files with a pickle inside: PyTorch's ----------------------------------------------------------------

_GLOBALS = (
    b"os\nsystem", b"posix\nsystem", b"builtins\nexec", b"builtins\neval", b"subprocess\ngetoutput",
    b"__builtin__\ngetattr", b"torch.serialization\nload", b"torch\nload", b"numpy\nload", b"torch.hub\nload",
    b"builtins\nbytearray", b"torch\nzeros", b"torch._utils\n_rebuild_tensor_v2", b"torch\nUntypedStorage",
    b"collections\nCounter", b"torch._utils\n_rebuild_sparse_tensor", b"torch\nFloatStorage",
)  # fmt: skip


def change_entry(data: bytes, other: bytes, random: Random) -> bytes:
    """The bytes of one entry damaged, and the archive made whole around them: all sums are right."""
    entries = _entries(data)
    name = random.choice(sorted(entries))
    entries[name] = random.choice(ANY_BYTES)(entries[name], random.choice(sorted(entries.values())), random)
    return _archive(entries)


def change_archive(data: bytes, other: bytes, random: Random) -> bytes:
    """Entries lost, renamed, exchanged, compressed."""
    entries = _entries(data)
    a, b = random.choice(sorted(entries)), random.choice(sorted(entries))
    match random.randrange(5):
        case 0:
            del entries[a]
        case 1:
            entries[random.choice(("x", "", "archive/data.pkl", a[:-1] + "9", f"../{a}"))] = entries.pop(a)
        case 2:
            entries[a], entries[b] = entries[b], entries[a]
        case 3:
            return _archive(entries, zipfile.ZIP_DEFLATED)
        case _:
            entries[a] = bytes(random.choice((0, 1, 10, 10**6)))
            return _archive(entries, zipfile.ZIP_DEFLATED if random.random() < 0.5 else zipfile.ZIP_STORED)
    return _archive(entries)


def change_pickle(data: bytes, other: bytes, random: Random) -> bytes:
    """Instructions of the pickle changed, moved, or planted."""
    entries = _entries(data)
    name = next((name for name in sorted(entries) if name.endswith("data.pkl")), None)
    if name is None:
        raise Spoiled
    try:
        starts = [at for _, _, at in pickletools.genops(entries[name]) if at is not None]
    except Exception:
        raise Spoiled from None
    code = entries[name]
    parts = [code[a:b] for a, b in zip(starts, [*starts[1:], len(code)], strict=True)]
    i, j = random.randrange(len(parts)), random.randrange(len(parts))
    match random.randrange(6):
        case 0:
            del parts[i]
        case 1:
            parts[i], parts[j] = parts[j], parts[i]
        case 2:
            parts[i] = parts[j]
        case 3:
            parts[i] = random.choice(pickletools.opcodes).code.encode("latin-1") + parts[i][1:]
        case 4:
            numbers = [k for k, part in enumerate(parts) if part[:1] in (b"K", b"M", b"J", b"\x8a")]
            parts[random.choice(numbers or [i])] = _integer(random.choice((*NUMBERS, -1, -(2**31))))
        case _:
            parts.insert(i, _planted(random))
    entries[name] = b"".join(parts)
    return _archive(entries)


def _integer(value: int) -> bytes:
    """LONG1."""
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def _text(raw: bytes) -> bytes:
    """BINUNICODE."""
    return b"X" + struct.pack("<I", len(raw)) + raw


def _planted(random: Random) -> bytes:
    """A call that a pickle can hold. `0` throws its result away, so that the rest may load."""
    name = random.choice(_GLOBALS)
    argument = random.choice((_text(COMMAND.encode()), _integer(random.choice(NUMBERS))))
    texts = b"".join(map(_text, name.split(b"\n")))
    return random.choice((
        b"c" + name + b"\n" + argument + b"\x85R0",  # GLOBAL, TUPLE1, REDUCE, POP
        texts + b"\x93" + argument + b"\x85R0",  # STACK_GLOBAL
        b"(" + argument + b"i" + name + b"\n0",  # INST
        b"(c" + name + b"\n" + argument + b"o0",  # OBJ
        b"c" + name + b"\n" + argument + b"\x85\x810",  # NEWOBJ
        b"c" + name + b"\n)\x81}X\x01\0\0\0a" + argument + b"sb0",  # BUILD
    ))  # fmt: skip


def _entries(data: bytes) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
    except Exception:  # earlier damage: zipfile raises a dozen types
        raise Spoiled from None
    if not entries:
        raise Spoiled
    return entries


def plain_archive(data: bytes) -> bytes:
    """A checkpoint without what makes it another file every time: its folder's name and a number."""
    parts = ((name.partition("/")[2], content) for name, content in _entries(data).items())
    return _archive({f"archive/{name}": content for name, content in parts if "serialization_id" not in name})


def _archive(entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return buffer.getvalue()
