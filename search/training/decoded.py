"""Decoded images of a training: in memory where they fit a bound, else mapped from one file of a cache.

The file is named by the digest of the images and of what decodes and shrinks them. It holds the pixels of all
of them, LR and HR by turns, then their sizes as JSON, and in its last 8 bytes the length of that.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import IO

import numpy as np

from qnas.files import atomic_write, made_folder
from qnas.images.evaluation import Image, shrink
from qnas.images.files import crop_to_multiple, file_sha256, read_image
from qnas.one_writer import remove_leftovers

CACHE_BYTES = 32 * 2**30  # of all files; those that were used last stay
SUFFIX = ".pixels"
Pair = tuple[Image, Image]  # LR [h, w, 3] and HR [s h, s w, 3]


def decoded(paths: Sequence[Path], scale: int, most_bytes: int) -> list[Pair]:
    """(LR, HR) of all images that are not smaller than `scale`, cut to a multiple of it.

    What is held in memory is at most `most_bytes` and one image. Raises ImageError, and OutputError where the
    cache cannot be written.
    """
    held: list[Pair] = []
    size = 0
    for pair in _decode(paths, scale):
        size += pair[0].nbytes + pair[1].nbytes
        if size > most_bytes:
            return _mapped(paths, scale)
        held.append(pair)
    return held


def cache_folder() -> Path:
    """The folder of decoded images, in XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qnas" / "decoded"


def _decode(paths: Sequence[Path], scale: int) -> Iterator[Pair]:
    for path in paths:
        image = read_image(path)
        if min(image.shape[:2]) >= scale:
            hr = np.ascontiguousarray(crop_to_multiple(image, scale))
            yield shrink(hr, scale), hr


def _mapped(paths: Sequence[Path], scale: int) -> list[Pair]:
    folder = made_folder(cache_folder())
    file = folder / f"{_key(paths, scale)}{SUFFIX}"
    with _turn(folder, file.stem):
        pairs = _read(file)
        if pairs is None:
            remove_leftovers(folder)
            with atomic_write(file, force=True) as temporary, temporary.open("wb") as out:
                _write(out, _decode(paths, scale))
            _clean(folder, file)
            pairs = _read(file)
        assert pairs is not None
        os.utime(file)
    return pairs


def _key(paths: Sequence[Path], scale: int) -> str:
    parts = [version("qnas"), version("pillow"), version("numpy"), str(scale), *map(file_sha256, paths)]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


@contextmanager
def _turn(folder: Path, name: str) -> Iterator[None]:
    """Wait while another process decodes the same; locks of processes that were killed are gone."""
    with (folder / f"{name}.lock").open("ab") as file:
        with suppress(
            ModuleNotFoundError, OSError
        ):  # a system or a disk without: both write, the last one stays
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write(out: IO[bytes], pairs: Iterator[Pair]) -> None:
    sizes = []
    for pair in pairs:
        for image in pair:
            out.write(image.data)
            sizes.append(image.shape)
    index = json.dumps(sizes).encode()
    out.write(index + len(index).to_bytes(8, "little"))


def _read(path: Path) -> list[Pair] | None:
    """The images of a file, none of them in memory yet; None where there is no whole one."""
    try:
        data = np.memmap(path, np.uint8, "r")
        length = int.from_bytes(data[-8:].tobytes(), "little")
        sizes = json.loads(data[-8 - length : -8].tobytes())
        ends = np.cumsum([prod(size) for size in sizes]).tolist()
        if len(data) != ends[-1] + length + 8:
            return None
        images = [data[end - prod(size) : end].reshape(size) for end, size in zip(ends, sizes, strict=True)]
    except (OSError, ValueError, TypeError, IndexError):
        return None
    return list(zip(images[::2], images[1::2], strict=True))


def _clean(folder: Path, new: Path) -> None:
    """Remove the files that were used longest ago, until all take CACHE_BYTES; what is mapped stays."""
    files = sorted(folder.glob(f"*{SUFFIX}"), key=lambda each: (each == new, each.stat().st_mtime))
    size = sum(each.stat().st_size for each in files)
    for each in files[:-1]:
        if size <= CACHE_BYTES:
            return
        size -= each.stat().st_size
        with suppress(OSError):
            each.unlink()
            each.with_suffix(".lock").unlink()
