"""What a flatbuffer says several times is stored once, where alignments allow, and reads as before."""

import struct

from flatbuffers import Builder
from flatbuffers.table import Table

from qnas.export.to_tflite.sharing import sharing_builder


def written(builder: Builder, numbers: list[int], alignment: int = 4) -> int:
    builder.StartVector(4, len(numbers), alignment)
    for number in reversed(numbers):
        builder.PrependInt32(number)
    return int(builder.EndVector())


def test_equal_vectors_and_names_share_a_place() -> None:
    builder = sharing_builder(64)
    first, name = written(builder, [1, 2, 3]), builder.CreateString("weight")
    others = [written(builder, [1, 2, 4]), builder.CreateString("bias")]
    size = builder.Offset()
    assert (written(builder, [1, 2, 3]), builder.CreateString("weight")) == (first, name)
    assert builder.Offset() == size
    assert len({first, name, *others}) == 4


def test_a_vector_is_not_shared_with_one_that_need_not_be_aligned_as_well() -> None:
    builder = sharing_builder(64)
    assert written(builder, [1, 2, 3]) != (place := written(builder, [1, 2, 3], alignment=16))
    assert (place - 4) % 16 == 0


def test_vectors_of_places_are_not_shared_though_their_bytes_are_equal() -> None:
    """Each leads to the string right behind it."""
    builder = sharing_builder(64)
    places = []
    for text in ("left", "rite"):
        string = builder.CreateString(text)
        builder.StartVector(4, 1, 4)
        builder.PrependUOffsetTRelative(string)
        places.append(builder.EndVector())
    builder.StartObject(2)
    for slot, place in enumerate(places):
        builder.PrependUOffsetTRelativeSlot(slot, place, 0)
    builder.Finish(builder.EndObject())
    data = bytes(builder.Output())
    root = Table(data, struct.unpack_from("<I", data)[0])
    vectors = [root.Vector(root.Offset(4 + 2 * slot)) for slot in (0, 1)]
    assert [root.String(vector) for vector in vectors] == [b"left", b"rite"]
