"""The manifest: a representative set as plain data that says which patches of which bytes it has."""

from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from msgspec import Meta

from qnas.calibration.patches.representative import Cause, Crop, RepresentativeSet, Skipped
from qnas.documents.reading import Closed, Count, Document, Size
from qnas.errors import ImageError


def to_document(images: RepresentativeSet) -> dict[str, Any]:
    """Plain data that `from_document` reads back to an equal set; the same wherever the files lie."""
    groups = groupby(images.crops, key=lambda crop: (crop.file, crop.sha256))
    return {
        "seed": images.seed,
        "patch": list(images.patch),
        "channels": images.channels,
        "hr_scale": images.hr_scale,
        "files": [
            {"file": file, "sha256": sha256, "boxes": [list(crop.box) for crop in crops]}
            for (file, sha256), crops in groups
        ],
        "skipped": [[each.file, each.cause, each.reason] for each in images.skipped],
    }


class _File(Closed, frozen=True):
    file: str
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    boxes: tuple[tuple[Count, Count, Count, Count], ...]

    def __post_init__(self) -> None:
        path = PurePosixPath(self.file)
        if not path.parts or path.is_absolute() or ".." in path.parts:
            raise ValueError(f"file is {self.file!r}, not below its folder")


class _Manifest(Closed, frozen=True):
    seed: int
    patch: tuple[Size, Size]
    channels: Literal[1, 3]
    hr_scale: Size | None
    files: tuple[_File, ...]
    skipped: tuple[tuple[str, Cause, str], ...]

    def __post_init__(self) -> None:
        for file, box in ((each.file, box) for each in self.files for box in each.boxes):
            if box[2:] != self.patch[::-1]:
                raise ValueError(
                    f"a box of {file} is {list(box)}, not [left, top, width, height] of the patch"
                )


_DOCUMENT = Document(_Manifest, "manifest of images", "write it again with qnas-calibrate", ImageError)


def from_document(document: object, source: str, root: Path) -> RepresentativeSet:
    """The set that `document` describes, with its files under `root`; `source` names it in messages.

    Its patches are those of the set that was written, bit for bit. Raises ImageError when the document is no
    manifest, or a file is missing or has other contents.
    """
    found = _DOCUMENT.convert(document, source)
    images = RepresentativeSet(
        root=root,
        crops=tuple(Crop(each.file, each.sha256, box) for each in found.files for box in each.boxes),
        seed=found.seed,
        patch=found.patch,
        channels=found.channels,
        hr_scale=found.hr_scale,
        skipped=tuple(Skipped(*each) for each in found.skipped),
    )
    images.check()
    return images
