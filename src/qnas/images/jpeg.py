"""How often a JPEG file makes a decoder walk through all of an image, which no number of pixels says."""

import mmap
import re
from pathlib import Path

from qnas.files import open_input

_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")  # between bytes of pixels stand FF 00 and D0 .. D7
_START, _END, _SCAN = 0xD8, 0xD9, 0xDA


def has_more_scans(path: Path, most: int) -> bool:
    """Whether the first image of a JPEG file has more than `most` scans. Raises OSError.

    A progressive file shows an image in about ten. A scan of fifty bytes may cover all of its blocks, so that
    a megabyte can hold hours of work. What follows the end of the image, such as a film, does not count.
    """
    with open_input(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = scans = 0
        while (marker := _MARKER.search(data, at)) and marker[1][0] != _END:
            kind, at = marker[1][0], marker.end()
            scans += kind == _SCAN
            if scans > most:
                return True
            if kind != _START:  # the length of the segment counts itself
                at += int.from_bytes(data[at : at + 2], "big")
    return False
