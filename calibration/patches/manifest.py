"""The manifest: a representative set as plain data that says which patches of which bytes it has."""

import re
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any, cast, get_args

from qnas.calibration.patches.representative import Box, Cause, Crop, RepresentativeSet, Skipped
from qnas.errors import ImageError

KEYS = ("seed", "patch", "channels", "hr_scale", "files", "skipped")


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


def from_document(document: Any, source: str, root: Path) -> RepresentativeSet:
    """The set that `document` describes, with its files under `root`; `source` names it in messages.

    Its patches are those of the set that was written, bit for bit. Raises ImageError when the document is no
    manifest, or a file is missing or has other contents.
    """
    whole = isinstance(document, dict) and set(document) == set(KEYS)
    _require(whole, source, f"has the keys {', '.join(KEYS)}")
    seed, patch, channels, scale, files, skipped = (document[key] for key in KEYS)
    _require(_are_whole([seed], 1), source, "has a whole number as seed")
    _require(_are_whole(patch, 2) and min(patch) > 0, source, "has a patch [height, width]")
    _require(_are_whole([channels], 1) and channels in (1, 3), source, "has 1 or 3 channels")
    enlarges = scale is None or (_are_whole([scale], 1) and scale > 0)
    _require(enlarges, source, "has an hr_scale above 0 or null")
    _require(isinstance(files, list), source, "has a list of files")
    _require(isinstance(skipped, list), source, "has a list of skipped files")
    images = RepresentativeSet(
        root=root,
        crops=tuple(crop for each in files for crop in _crops(each, patch, source)),
        seed=seed,
        patch=(patch[0], patch[1]),
        channels=channels,
        hr_scale=scale,
        skipped=tuple(_skipped(each, source) for each in skipped),
    )
    images.check()
    return images


def _crops(document: Any, patch: list[int], source: str) -> list[Crop]:
    keys = ("file", "sha256", "boxes")
    whole = isinstance(document, dict) and set(document) == set(keys)
    _require(whole, source, "has file, sha256 and boxes of each file")
    file, sha256, boxes = (document[key] for key in keys)
    hashed = isinstance(sha256, str) and re.fullmatch("[0-9a-f]{64}", sha256)
    _require(hashed, source, "has the SHA-256 of each file")
    _require(isinstance(file, str) and _stays_below(file), source, "names files below its folder")
    _require(isinstance(boxes, list), source, "has a list of boxes of each file")
    for box in boxes:
        fits = _are_whole(box, 4) and min(box) >= 0 and box[2:] == patch[::-1]
        _require(fits, source, f"has boxes [left, top, {patch[1]}, {patch[0]}]")
    return [Crop(file, sha256, cast(Box, tuple(box))) for box in boxes]


def _skipped(document: Any, source: str) -> Skipped:
    texts = isinstance(document, list) and [type(each) for each in document] == [str] * 3
    _require(texts and document[1] in get_args(Cause), source, "has [file, cause, reason] of skipped files")
    return Skipped(*document)


def _stays_below(file: str) -> bool:
    path = PurePosixPath(file)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def _are_whole(values: Any, count: int) -> bool:
    """Whether it is a list of `count` whole numbers: True and 8.0 are none."""
    return isinstance(values, list) and [type(value) for value in values] == [int] * count


def _require(holds: object, source: str, rule: str) -> None:
    if not holds:
        raise ImageError(f"{source}: a manifest of images {rule}; write it again with qnas-calibrate")
