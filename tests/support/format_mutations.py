"""Damage that knows protobuf and flatbuffers: what comes out still parses, but its numbers do not fit.

See `mutations` for what a mutation is.
"""

import struct
from collections.abc import Iterator
from random import Random
from typing import Any

import flatbuffers
import numpy as np
from google.protobuf.message import DecodeError, Message
from onnx import ModelProto, TensorProto

from qnas.testing.mutations import COMMAND, NUMBERS, REALS, TEXTS, Spoiled
from qnas.tflite.reader import IDENTIFIER, load_schema

# Protobuf: ONNX -------------------------------------------------------------------------------------------


def change_protobuf(data: bytes, other: bytes, random: Random) -> bytes:
    """One field of one message changed, through the classes of the schema."""
    try:
        model = ModelProto.FromString(data)
        messages = list(_messages(model))
        _change_field(random.choice(messages), messages, random)
        return model.SerializeToString()
    except (DecodeError, ValueError, TypeError, UnicodeError):  # a value that the field does not take
        raise Spoiled from None


def _messages(message: Message) -> Iterator[Message]:
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for each in value if _is_repeated(field) else [value]:
                yield from _messages(each)


def _is_repeated(field: Any) -> bool:
    return field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED


def _change_field(message: Message, messages: list[Message], random: Random) -> None:
    present = [field for field, _ in message.ListFields()]
    field = random.choice(present if present and random.random() < 0.8 else message.DESCRIPTOR.fields)
    value = getattr(message, field.name)
    if _is_repeated(field):
        _change_repeated(value, field, messages, random)
    elif field.message_type is None:
        setattr(message, field.name, _odd(field, value, messages, random))
    elif random.random() < 0.3:
        message.ClearField(field.name)
    else:
        value.ParseFromString(_like(value.DESCRIPTOR, messages, random))


def _change_repeated(values: Any, field: Any, messages: list[Message], random: Random) -> None:
    i, j = (random.randrange(len(values)) if values else 0 for _ in range(2))
    kind = random.randrange(5)
    if field.message_type is not None:
        if values and kind == 0:
            del values[i]
        elif values and kind == 1:
            held, other = values[i].SerializeToString(), values[j].SerializeToString()
            values[i].ParseFromString(other)
            values[j].ParseFromString(held)
        else:
            values.add().ParseFromString(_like(field.message_type, messages, random))
    elif values and kind == 0:
        del values[i]
    elif values and kind < 4:
        values[i] = values[j] if kind == 1 else _odd(field, values[i], messages, random)
    else:
        values.append(_odd(field, 0, messages, random))


def _like(descriptor: Any, messages: list[Message], random: Random) -> bytes:
    """A message of that type, which may be one that the place to fill is a part of."""
    same = [message for message in messages if message.DESCRIPTOR is descriptor]
    if not same:
        raise Spoiled
    return random.choice(same).SerializeToString()


def _odd(field: Any, value: Any, messages: list[Message], random: Random) -> Any:
    """Another value of the field's type: an odd one, a near one, or one from elsewhere in the model."""
    if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return random.choice(REALS)
    if field.type == field.TYPE_BYTES:
        zeros, noise = bytes(len(value)), random.randbytes(len(value))
        return random.choice((value[:-1], value + b"\0", b"", value * 2, zeros, noise))
    if field.type == field.TYPE_STRING:
        names = [text for message in messages for text in _texts(message)]
        return random.choice((random.choice(names or ["x"]), random.choice((*TEXTS, *_OPERATIONS))))
    bits = 31 if field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_ENUM) else 63
    near = (value + 1, value - 1, -value, value * 2)
    number = random.choice((*near, random.randrange(30), random.choice(NUMBERS), -1))
    return (number + (1 << bits)) % (1 << bits + 1) - (1 << bits)


_OPERATIONS = (
    "Relu", "Loop", "If", "Constant", "Conv", "Reshape", "Expand", "Tile", "ConstantOfShape", "Range",
    "Gather", "QLinearConv", "Resize", "Slice", "Shape", "Identity", "Transpose", "Pad", "Einsum", "TopK",
    "com.microsoft",
)  # fmt: skip


def _texts(message: Message) -> Iterator[str]:
    for field, value in message.ListFields():
        if field.type == field.TYPE_STRING:
            yield from value if _is_repeated(field) else [value]


_PLACES = (
    "weights.bin", "below/weights.bin", "model.onnx", "../above.bin", "below/../../above.bin",
    "folder/above.bin", "/dev/zero", "/dev/stdin", "/proc/self/mem", "pipe", "link", "below", ".", "..",
    "none.bin", "./weights.bin", "below//weights.bin", "weights.bin/", "*", "file:weights.bin",
    "..\\above.bin",
)  # fmt: skip


def change_location(data: bytes, other: bytes, random: Random) -> bytes:
    """A tensor said to lie in another file, or elsewhere in it; or in several, or in none."""
    try:
        model = ModelProto.FromString(data)
        tensor = random.choice([each for each in _messages(model) if isinstance(each, TensorProto)])
        known = {entry.key: entry.value for entry in tensor.external_data}
        tensor.data_location = TensorProto.EXTERNAL
        sizes = (*NUMBERS, len(data), -1, 1.5)
        match random.randrange(4):
            case 0 | 1:
                known["location"] = random.choice((*_PLACES, *TEXTS))
            case 2:
                known[random.choice(("offset", "length"))] = str(random.choice(sizes))
            case _:
                known.pop(random.choice(("location", "offset", "length", "checksum")), None)
        del tensor.external_data[:]
        for key, value in known.items():
            tensor.external_data.add(key=key, value=value)
        return model.SerializeToString()
    except (DecodeError, IndexError, ValueError, UnicodeError):  # no model any more, or none with tensors
        raise Spoiled from None


def change_wire(data: bytes, other: bytes, random: Random) -> bytes:
    """One varint replaced: a field's number and type, a length, or a value."""
    places = list(_varints(data, 0, len(data), 5))
    if not places:
        raise Spoiled
    start, end, value = random.choice(places)
    near = (value + 1, value - 1, value + 8, value ^ 7)
    changed = random.choice((*near, random.choice(NUMBERS), len(data))) % (1 << 64)
    raw = bytearray()
    while changed > 127:
        raw.append(changed & 127 | 128)
        changed >>= 7
    raw.append(changed)
    if random.random() < 0.1:  # longer than it has to be, or than it may be
        raw[-1] |= 128
        raw += b"\x80" * random.randrange(12) + b"\0"
    return data[:start] + bytes(raw) + data[end:]


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """(value, where it ends)."""
    value = shift = 0
    while at < end and shift < 64:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return value, at
    raise Spoiled


def _varints(data: bytes, at: int, end: int, depth: int) -> list[tuple[int, int, int]]:
    """(start, end, value) of the varints of a message and of those inside; empty when it is none."""
    found: list[tuple[int, int, int]] = []
    try:
        while at < end:
            key, after = _varint(data, at, end)
            found.append((at, after, key))
            at, kind = after, key & 7
            if kind in (1, 5):
                at += 8 if kind == 1 else 4
                continue
            if kind not in (0, 2):
                return []
            value, after = _varint(data, at, end)
            found.append((at, after, value))
            at = after
            if kind == 2 and at + value > end:
                return []
            if kind == 2:
                if depth and value < 100_000:
                    found += _varints(data, at, at + value, depth - 1)
                at += value
    except Spoiled:
        return []
    return found if at == end else []


# Flatbuffers: TFLite --------------------------------------------------------------------------------------


def change_flatbuffer(data: bytes, other: bytes, random: Random) -> bytes:
    """One field of one table changed, through the classes of the schema."""
    try:
        model = load_schema().ModelT.InitFromPackedBuf(data, 0)
        fields = list(_fields(model))
        holder, name, value = random.choice(fields)
        setattr(holder, name, _odd_field(value, fields, random))
        builder = flatbuffers.Builder(1 << 14)
        builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
        return bytes(builder.Output())
    except Exception:  # the schema's code raises whatever it meets
        raise Spoiled from None


def _fields(table: Any) -> Iterator[tuple[Any, str, Any]]:
    for name, value in sorted(vars(table).items()):
        yield table, name, value
        for each in value if isinstance(value, list) else [value]:
            if hasattr(each, "Pack"):
                yield from _fields(each)


def _odd_field(value: Any, fields: list[tuple[Any, str, Any]], random: Random) -> Any:
    same = [other for _, _, other in fields if type(other) is type(value)]
    if random.random() < 0.25:
        return random.choice(same)
    match value:
        case bool():
            return not value
        case int():
            near = (value + 1, value - 1, -value)
            return random.choice((*near, random.randrange(200), random.choice(NUMBERS), -1))
        case float():
            return random.choice(REALS)
        case bytes():
            return random.choice((b"", value * 2, value[:-1], COMMAND.encode()))
        case np.ndarray() if value.size:
            return _odd_array(value, random)
        case list() if value:
            return random.choice((value[:-1], value[::-1], value * 2, [random.choice(value)], []))
    return random.choice((None, random.choice(same)))


def _odd_array(value: Any, random: Random) -> Any:
    changed = value.copy()
    at = random.randrange(value.size)
    match random.randrange(5):
        case 0:
            return changed[:-1]
        case 1:
            return np.concatenate([changed, changed[-1:]])
        case 2 if value.dtype.kind == "f":
            changed[at] = random.choice(REALS)
        case 2:
            bits = 8 * value.dtype.itemsize
            number = random.choice((*NUMBERS, -1, int(changed[at]) + 1, int(changed[at]) - 1)) % (1 << bits)
            changed[at] = np.frombuffer(number.to_bytes(bits // 8, "little"), value.dtype)[0]
        case 3:
            changed[at] = changed[random.randrange(value.size)]
        case _:
            changed = changed[::-1].copy()
    return changed


def change_offset(data: bytes, other: bytes, random: Random) -> bytes:
    """One of the words that point into the file made to point elsewhere."""
    words = np.frombuffer(data[: len(data) // 4 * 4], "<u4").astype(np.int64)
    places = np.flatnonzero((words > 0) & (words < len(data)))
    if not places.size:
        raise Spoiled
    at = 4 * int(random.choice(places.tolist()))
    word = int(words[at // 4])
    near = (word + 4, word - 4, word + 1, word * 2, -word)
    changed = random.choice((*near, len(data) - at, len(data), 0, 2**31, random.randrange(len(data))))
    return data[:at] + struct.pack("<I", changed % 2**32) + data[at + 4 :]
