"""The size of patches, where nobody chose one."""

import warnings
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from qnas.calibration.patches.representative import PATCH
from qnas.images.files import FORMATS, list_images

LEAST = 24
MULTIPLE = 8


def default_side(images: Sequence[Path], shrunken: int = 1) -> int:
    """96, or the largest multiple of 8 that half of the images hold, `shrunken` so many times; at least 24.

    `images`: files, and folders of them. Reads the heads of the files alone, and leaves out what it cannot
    read.
    """
    files = [file for path in images for file in (list_images(path) if path.is_dir() else [path])]
    sides = sorted(filter(None, map(_short_side, files)), reverse=True)
    if not sides:
        return PATCH
    held = sides[(len(sides) - 1) // 2] // shrunken
    return min(PATCH, max(LEAST, held // MULTIPLE * MULTIPLE))


def _short_side(path: Path) -> int:
    """In pixels; 0 of what is no image."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is too large is refused when it is read
            with Image.open(path, formats=FORMATS) as image:
                return min(image.size)
    except Exception:  # a damaged head makes Pillow's plugins raise nearly anything
        return 0
