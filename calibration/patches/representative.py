"""The representative set: which patches of which photographs a network is calibrated with.

Every choice is a hash of the seed and of a file's contents: neither the order in which files are listed, nor
where they lie, nor the version of a random generator changes the set. Images are decoded one at a time.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Literal

import numpy as np

from qnas.errors import ImageError
from qnas.files import open_input
from qnas.images.evaluation import Batch, Image
from qnas.images.files import full_range_luma, list_images, read_image
from qnas.images.resize import resize_bicubic

Box = tuple[int, int, int, int]
Cause = Literal["unreadable", "small", "flat", "duplicate"]

PATCH = 96
COUNT = 256
FLAT = 2  # grey levels: a black JPEG is not all zeros
SPOKEN: dict[Cause, str] = {
    "unreadable": "cannot be read",
    "small": "smaller than a patch",
    "flat": "of a single colour",
    "duplicate": "named or stored twice",
}
EXAMPLES = 3  # names in a notice


@dataclass(frozen=True)
class Crop:
    """A patch: `box` = (left, top, width, height) in LR pixels; `file` is relative to the root."""

    file: str
    sha256: str
    box: Box


@dataclass(frozen=True)
class Skipped:
    """A file that gives no patch, and why; `reason` goes on where the file's name ends."""

    file: str
    cause: Cause
    reason: str


@dataclass(frozen=True)
class RepresentativeSet:
    """Patches of `patch` = (height, width) pixels, those of a file next to each other; `root` has the files.

    With `hr_scale` the files are HR images, and the patches come from LR images made of them by antialiased
    bicubic. With one channel a pixel is the full-range luma of BT.601, as in JPEG: gray photographs keep
    their grey levels.
    """

    root: Path
    crops: tuple[Crop, ...]
    seed: int
    patch: tuple[int, int]
    channels: Literal[1, 3]
    hr_scale: int | None
    skipped: tuple[Skipped, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """The files of the patches, in their order."""
        return tuple(dict.fromkeys(crop.file for crop in self.crops))

    def batches(self, size: int) -> Iterator[Batch]:
        """The patches as float32 [N, H, W, C] in whole grey levels 0..255; N = `size`, at last fewer.

        Holds one decoded image at a time, and decodes each once. Raises ImageError when a file is missing or
        is no longer the one that the set was chosen from.
        """
        batch: list[Image] = []
        for patch in self._patches():
            batch.append(patch)
            if len(batch) == size:
                yield np.stack(batch).astype(np.float32)
                batch = []
        if batch:
            yield np.stack(batch).astype(np.float32)

    def check(self) -> None:
        """Raise ImageError unless every file is there and has the contents that the set was chosen from."""
        for crop in {crop.file: crop for crop in self.crops}.values():
            _check(self.root / crop.file, crop.sha256)

    def split(self, share: float) -> tuple["RepresentativeSet", "RepresentativeSet"]:
        """(calibration, held out): about `share` of the patches are held out, no file is in both.

        Raises ImageError when there is but one file.
        """
        counts = {crop.file: 0 for crop in self.crops}
        for crop in self.crops:
            counts[crop.file] += 1
        if len(counts) < 2:
            raise ImageError(
                "patches to judge the calibration by must come from other images than its own, and there is "
                "only one image: name two or more"
            )
        digests = {crop.file: crop.sha256 for crop in self.crops}
        order = sorted(counts, key=lambda file: _draw(self.seed, digests[file], "held out"))
        held: set[str] = set()
        for file in order[:-1]:
            if held and sum(counts[each] for each in held) >= share * len(self.crops):
                break
            held.add(file)
        kept = tuple(crop for crop in self.crops if crop.file not in held)
        return replace(self, crops=kept), replace(self, crops=tuple(c for c in self.crops if c.file in held))

    def notices(self) -> tuple[str, ...]:
        """What to say about the files that were skipped: a line a cause, with their number and some names."""
        return _notices(self.skipped)

    def _patches(self) -> Iterator[Image]:
        for (file, sha256), crops in groupby(self.crops, key=lambda crop: (crop.file, crop.sha256)):
            path = self.root / file
            _check(path, sha256)
            image = read_image(path)
            for crop in crops:
                yield _cut(image, crop.box, self.hr_scale or 1, self.channels, path)


@dataclass(frozen=True)
class _Photo:
    """A file that gives patches: (height, width) of its LR image, and (rows, columns) of patches in it."""

    file: str
    sha256: str
    size: tuple[int, int]
    grid: tuple[int, int]

    def boxes(self, count: int, seed: int, patch: tuple[int, int]) -> list[Box]:
        """`count` cells of a grid of patches that is laid over the image at a drawn place: none overlap."""
        rows, columns = self.grid
        spare = (self.size[0] - rows * patch[0], self.size[1] - columns * patch[1])
        top, left = (
            _draw(seed, self.sha256, way) % (s + 1) for way, s in zip(("top", "left"), spare, strict=True)
        )
        cells = sorted(range(rows * columns), key=lambda cell: _draw(seed, self.sha256, f"cell {cell}"))
        return [
            (left + cell % columns * patch[1], top + cell // columns * patch[0], patch[1], patch[0])
            for cell in cells[:count]
        ]


def representative_set(
    images: Sequence[Path],
    patch: int | tuple[int, int] = PATCH,
    count: int | None = None,
    seed: int = 0,
    hr_scale: int | None = None,
    channels: Literal[1, 3] = 3,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> RepresentativeSet:
    """Choose `count` patches, as evenly over the files as their sizes allow; fewer when no more fit abreast.

    `images` are files, and folders whose own images are taken, not those of folders within, as all of qnas
    reads folders. `patch` is in LR pixels: a side, or (height, width). Without `count`: 256, and at least one
    of every image. A larger count adds patches and takes none away. Each file is decoded once; `progress`
    hears of (files done, files in all). Files that are damaged, too small, of one colour, or equal to another
    in every pixel are left out and listed in `skipped`. Raises ImageError when a path is missing, a folder
    holds no image, or none is left.
    """
    size = (patch, patch) if isinstance(patch, int) else patch
    root = common_root(images)
    names = _names(images, root)
    photos: list[_Photo] = []
    skipped: list[Skipped] = []
    known: dict[bytes, str] = {}  # digest of the pixels -> the first file that has them
    for done, name in enumerate(names):
        progress(done, len(names))
        found = _look(root / name, name, size, hr_scale or 1, known)
        if isinstance(found, Skipped):
            skipped.append(found)
        else:
            photos.append(found)
    progress(len(names), len(names))
    if not photos:
        raise ImageError(
            f"none of {len(names)} images can be used; {'; '.join(_notices(skipped))}: "
            f"name other images, or use a patch smaller than {size[1]}x{size[0]}"
        )
    photos.sort(key=lambda photo: _draw(seed, photo.sha256, "order"))
    wanted = max(COUNT, len(photos)) if count is None else count
    shares = _allot([photo.grid[0] * photo.grid[1] for photo in photos], wanted)
    crops = tuple(
        Crop(photo.file, photo.sha256, box)
        for photo, share in zip(photos, shares, strict=True)
        for box in photo.boxes(share, seed, size)
    )
    return RepresentativeSet(root, crops, seed, size, channels, hr_scale, tuple(skipped))


def common_root(images: Sequence[Path]) -> Path:
    """The innermost folder with all of `images`, files and folders: a set names its files from there."""
    folders = [path if path.is_dir() else path.parent for path in images]
    return Path(os.path.commonpath([os.path.abspath(folder) for folder in folders]))


def _names(images: Sequence[Path], root: Path) -> list[str]:
    names: set[str] = set()
    for path in images:
        if not path.exists():
            raise ImageError(f"{path} does not exist: name an image or a folder of images")
        files = list_images(path) if path.is_dir() else [path]
        names.update(Path(os.path.abspath(file)).relative_to(root).as_posix() for file in files)
    return sorted(names)


def _look(
    path: Path, name: str, patch: tuple[int, int], scale: int, known: dict[bytes, str]
) -> _Photo | Skipped:
    try:
        sha256 = _sha256(path)
        image = read_image(path)
    except ImageError as error:  # its message begins with the path, which differs from machine to machine
        return Skipped(name, "unreadable", str(error).replace(f"{path} ", "", 1).replace(str(path), name))
    height, width = (side // scale for side in image.shape[:2])
    grid = (height // patch[0], width // patch[1])
    if 0 in grid:
        shrunken = f" after shrinking by {scale}" if scale > 1 else ""
        return Skipped(name, "small", f"is {width}x{height} pixels{shrunken}")
    # One axis after the other: numpy takes 300 times as long over both.
    lowest, highest = image.min(axis=0).min(axis=0), image.max(axis=0).max(axis=0)
    if (highest - lowest).max() <= FLAT:
        return Skipped(name, "flat", f"is RGB {lowest.tolist()} everywhere")
    digest = hashlib.sha256(np.ascontiguousarray(image).data)
    digest.update(str(image.shape).encode())
    first = known.setdefault(digest.digest(), name)
    if first != name:
        return Skipped(name, "duplicate", f"has the pixels of {first}")
    return _Photo(name, sha256, (height, width), grid)


def _allot(places: Sequence[int], count: int) -> list[int]:
    """How many patches each file gives: one after the other in turn, while it has places."""
    shares = [0] * len(places)
    while count > 0:
        ready = [index for index, share in enumerate(shares) if share < places[index]][:count]
        if not ready:
            break
        for index in ready:
            shares[index] += 1
        count -= len(ready)
    return shares


def _cut(image: Image, box: Box, scale: int, channels: int, path: Path) -> Image:
    """A patch [H, W, channels] of the LR image, which is made only where the patch needs it."""
    left, top, width, height = box
    size = (image.shape[0] // scale, image.shape[1] // scale)
    if left + width > size[1] or top + height > size[0]:
        raise ImageError(
            f"the patch {box} is not inside {path}, of {size[1]}x{size[0]} pixels: choose the set again"
        )
    if scale == 1:
        patch = image[top : top + height, left : left + width]
    else:
        patch = resize_bicubic(image[: size[0] * scale, : size[1] * scale], size, box)
    return patch if channels == 3 else full_range_luma(patch)


def _draw(seed: int, sha256: str, what: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {sha256} {what}".encode()).digest()[:8], "big")


def _sha256(path: Path) -> str:
    try:
        with open_input(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ImageError(f"{path} cannot be read ({error.strerror}): check the file") from error


def _check(path: Path, sha256: str) -> None:
    if not path.is_file():
        raise ImageError(f"{path} is missing, and the set has patches of it: restore it or choose again")
    if _sha256(path) != sha256:
        raise ImageError(
            f"{path} has changed since patches of it were chosen (its SHA-256 was {sha256}): "
            "restore it or choose the set again"
        )


def _notices(skipped: Sequence[Skipped]) -> tuple[str, ...]:
    lines = []
    for cause, spoken in SPOKEN.items():
        those = [each for each in skipped if each.cause == cause]
        named = "; ".join(f"{each.file} {each.reason}" for each in those[:EXAMPLES])
        more = f"; and {len(those) - EXAMPLES} more" if len(those) > EXAMPLES else ""
        if those:
            lines.append(f"{len(those)} skipped, {spoken}: {named}{more}")
    return tuple(lines)
