"""Writes once what a flatbuffer says several times: equal vectors of numbers, such as weights, and names."""

from typing import Any


def sharing_builder(size: int) -> Any:
    """A flatbuffers.Builder that begins with room for `size` bytes."""
    from flatbuffers import Builder

    class SharingBuilder(Builder):  # type: ignore[misc]
        """Takes a vector of numbers back that it has written before, and gives the place of the first one."""

        head: int  # of the bytes that are written, from their end

        def __init__(self) -> None:
            super().__init__(size)
            self.written: dict[tuple[int, int, bytes], int] = {}
            self.named: dict[str | bytes, int] = {}
            self.begun: tuple[int, int, int] | None = None  # what was written before, size and alignment

        def StartVector(self, elemSize: int, numElems: int, alignment: int) -> int:
            begun = (self.Offset(), elemSize, alignment)
            place: int = super().StartVector(elemSize, numElems, alignment)
            self.begun = begun
            return place

        def PrependUOffsetTRelative(self, off: int) -> None:
            self.begun = None  # equal distances lead to different places
            super().PrependUOffsetTRelative(off)

        def EndVector(self, numElems: int | None = None) -> int:
            begun, count = self.begun, self.vectorNumElems
            place: int = super().EndVector(numElems)
            self.begun = None
            if begun is None:
                return place
            before, element, alignment = begun
            head = self.head
            key = (element, alignment, bytes(self.Bytes[head : head + 4 + element * count]))
            known = self.written.setdefault(key, place)
            if known != place:
                self.head = len(self.Bytes) - before
            return known

        def CreateString(self, s: Any, encoding: str = "utf-8", errors: str = "strict") -> int:
            if s not in self.named:
                self.named[s] = super().CreateString(s, encoding, errors)
            return self.named[s]

    return SharingBuilder()
