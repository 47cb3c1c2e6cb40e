"""Damage that knows the formats of images: chunks, segments and tags whose sizes and sums still fit.

See `mutations` for what a mutation is.
"""

import io
import struct
import zlib
from random import Random

from PIL import Image

from qnas.testing.mutations import ANY_BYTES, NUMBERS, Spoiled

Parts = list[tuple[bytes, bytes]]  # (kind, content)
PNG, JPEG, TIFF = b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"II*\0"
SIDES = (0, 1, 2, 7, 255, 4096, 5793, 8192, 65535, 2**16, 2**20, 2**25, 2**31 - 1, 2**31, 2**32 - 1)


def change_image(data: bytes, other: bytes, random: Random) -> bytes:
    """A part of the format changed, lost, repeated, moved or planted; else a number of the head changed."""
    if data.startswith(PNG):
        return _change_png(data, random)
    if data.startswith(JPEG):
        return _change_jpeg(data, random)
    if data.startswith(TIFF) and random.random() < 0.8:
        return _change_tiff(data, random)
    return change_head(data, other, random)


def change_head(data: bytes, other: bytes, random: Random) -> bytes:
    """A number among the first bytes, where sizes and depths stand."""
    code = random.choice(("B", "<H", ">H", "<I", ">I"))
    size = struct.calcsize(code)
    at = random.randrange(max(1, min(len(data), 64) - size))
    number = random.choice((*SIDES, *NUMBERS, random.randrange(256)))
    return data[:at] + struct.pack(code, number % (1 << 8 * size)) + data[at + size :]


def _rearranged(parts: Parts, random: Random) -> Parts:
    i, j = random.randrange(len(parts)), random.randrange(len(parts))
    match random.randrange(5):
        case 0:
            del parts[i]
        case 1:
            parts[i], parts[j] = parts[j], parts[i]
        case 2:
            parts.insert(j, parts[i])
        case 3:
            parts[i] = (parts[j][0], parts[i][1])
        case _:
            kind, content = parts[i]
            parts[i] = (kind, random.choice(ANY_BYTES)(content, parts[j][1], random))
    return parts


# PNG ------------------------------------------------------------------------------------------------------


def _change_png(data: bytes, random: Random) -> bytes:
    chunks: Parts = []
    at = len(PNG)
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        chunks.append((kind, data[at + 8 : at + 8 + length]))
        at += 12 + length
    if not chunks:
        raise Spoiled
    match random.randrange(4):
        case 0:
            chunks = [
                (kind, _other_head(content, random) if kind == b"IHDR" else content)
                for kind, content in chunks
            ]
        case 1:
            chunks.insert(random.randrange(1, len(chunks) + 1), _planted(random))
        case _:
            chunks = _rearranged(chunks, random)
    return png_of(chunks)


def png_of(chunks: Parts) -> bytes:
    """The file of (kind, content): lengths and sums are right."""
    whole = (struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks)
    return PNG + b"".join(whole)


def _other_head(content: bytes, random: Random) -> bytes:
    """Width, height, depth, kind of colours, compression, filter, interlacing."""
    if len(content) != 13:
        raise Spoiled
    values = list(struct.unpack(">IIBBBBB", content))
    field = random.randrange(7)
    depths = (1, 2, 4, 8, 16, 0, 3, 32, 255)
    values[field] = random.choice(
        SIDES if field < 2 else depths if field == 2 else (0, 1, 2, 3, 4, 6, 7, 255)
    )
    return struct.pack(">IIBBBBB", *values)


def _planted(random: Random) -> tuple[bytes, bytes]:
    """A chunk that is far larger unpacked than packed, or says what no image can be."""
    bomb = zlib.compress(bytes(random.choice((100, 10**5, 3 * 10**7))), 9)
    return random.choice((
        (b"IDAT", bomb), (b"iCCP", b"x\0\0" + bomb), (b"zTXt", b"x\0\0" + bomb),
        (b"iTXt", b"x\0\1\0\0\0" + bomb), (b"tEXt", b"x\0" + bytes(10**5)), (b"PLTE", random.randbytes(768)),
        (b"tRNS", random.randbytes(random.choice((1, 2, 6, 256, 300)))), (b"gAMA", bytes(4)),
        (b"acTL", struct.pack(">II", random.choice(SIDES), 0)), (b"pHYs", bytes(9)),
        (b"fcTL", struct.pack(">IIIIIHHBB", 0, *(random.choice(SIDES) for _ in range(4)), 1, 1, 2, 1)),
        (b"eXIf", b"MM\0*" + struct.pack(">IHHHIHH", random.choice(SIDES), 1, 274, 3, 1, 6, 0)),
    ))  # fmt: skip


# JPEG -----------------------------------------------------------------------------------------------------


def _change_jpeg(data: bytes, random: Random) -> bytes:
    """Segments up to the first scan; what follows that stays with it."""
    segments: Parts = []
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        last = data[at + 1] == 0xDA
        segments.append((data[at + 1 : at + 2], data[at + 4 :] if last else data[at + 4 : at + 2 + length]))
        if last:
            break
        at += 2 + length
    if not segments:
        raise Spoiled
    frames = [i for i, (kind, _) in enumerate(segments) if kind in b"\xc0\xc1\xc2" and kind]
    match random.randrange(3):
        case 0 if frames:  # depth, height, width, components with their sampling
            kind, content = segments[frames[0]]
            if random.random() < 0.6:
                at = random.choice((1, 3))
                content = content[:at] + struct.pack(">H", random.choice(SIDES) % 2**16) + content[at + 2 :]
            else:
                content = change_head(content, b"", random)
            segments[frames[0]] = (kind, content)
        case 1 if frames:  # sequential for progressive, Huffman for arithmetic
            segments[frames[0]] = (
                random.choice((b"\xc0", b"\xc2", b"\xc9", b"\xca", b"\xc3")),
                segments[frames[0]][1],
            )
        case _:
            segments = _rearranged(segments, random)
    return JPEG + b"".join(_segment(kind, content) for kind, content in segments)


def _segment(kind: bytes, content: bytes) -> bytes:
    if kind == b"\xda":  # a header, and pixels without a length
        return b"\xff\xda" + struct.pack(">H", 6 + 2 * (content[0] if content else 0)) + content
    return b"\xff" + kind + struct.pack(">H", (len(content) + 2) % 2**16) + content


def many_scans(side: int, size: int) -> bytes:
    """A progressive JPEG file of `side` x `side` pixels and about `size` bytes: scans that say nothing new.

    Each says in a few bytes that all blocks of 8x8 pixels stay as they are, and walks through all of them.
    """
    blocks = (-(-side // 8)) ** 2
    segments = (
        (b"\xdb", b"\0" + b"\1" * 64),  # all steps are 1
        (b"\xc2", struct.pack(">BHHB", 8, side, side, 1) + b"\1\x11\0"),
        (b"\xc4", b"\0" + b"\1" + bytes(15) + b"\0"),  # "0": no difference to the block before
        (b"\xc4", b"\x10" + b"\1" + bytes(15) + b"\xe0"),  # "0" and 14 bits: so many blocks, and 16 384, end
    )
    head = JPEG + b"".join(_segment(*each) for each in segments)
    first = _segment(b"\xda", b"\1\1\0\0\0\0" + bytes(blocks // 8 + 1))
    scan = _segment(b"\xda", b"\1\1\0\1\x3f\0" + bytes(-(-blocks // 16384) * 15 // 8 + 1))
    return head + first + scan * ((size - len(head) - len(first)) // len(scan)) + b"\xff\xd9"


# TIFF -----------------------------------------------------------------------------------------------------


def _change_tiff(data: bytes, random: Random) -> bytes:
    """An entry of the first directory: its tag, type, count or value."""
    if len(data) < 8:
        raise Spoiled
    (start,) = struct.unpack_from("<I", data, 4)
    if start + 2 > len(data):
        raise Spoiled
    (count,) = struct.unpack_from("<H", data, start)
    at = start + 2 + 12 * random.randrange(max(count, 1))
    if at + 12 > len(data):
        raise Spoiled
    tag, kind, number, value = struct.unpack_from("<HHII", data, at)
    match random.randrange(6):
        case 0:  # tiles, strips, depths, compression
            tag = random.choice(
                (256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 322, 323, 324, 325, 330)
            )
        case 1:
            kind = random.choice((1, 2, 3, 4, 5, 6, 11, 12, 13, 16, 99))
        case 2:
            number = random.choice((*SIDES, number + 1, number * 2))
        case 3:
            value = random.choice((*SIDES, len(data), start))
        case _:
            value = random.choice(
                (value + 1, value * 2, 1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 32773, 32946, 34712, 50000)
            )
    entry = struct.pack("<HHII", tag % 2**16, kind, number % 2**32, value % 2**32)
    return data[:at] + entry + data[at + 12 :]


# Valid ones -----------------------------------------------------------------------------------------------


def saved(image: Image.Image, file_format: str, **options: object) -> bytes:
    """The bytes of a file as Pillow writes it."""
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()
