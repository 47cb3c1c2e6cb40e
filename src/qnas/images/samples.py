"""The photographs that ship inside the scikit-image wheel: examples and tests that run on a fresh machine."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qnas.errors import UsageError
from qnas.images.files import read_image

FILES = {
    "astronaut": "astronaut.png",
    "chelsea": "chelsea.png",
    "coffee": "coffee.png",
    "rocket": "rocket.jpg",
    "motorcycle": "motorcycle_left.png",
}


def sample_photographs() -> list[tuple[str, NDArray[np.uint8]]]:
    """Return five photographs as (name, uint8 [H, W, 3]), 300 to 512 pixels high, always in the same order.

    Raises UsageError when scikit-image is not installed.
    """
    folder = _scikit_image_folder() / "data"
    return [(name, read_image(folder / file)) for name, file in FILES.items()]


def _scikit_image_folder() -> Path:
    found = find_spec("skimage")  # finds without importing: the import takes a second
    if found is None or found.origin is None:
        raise UsageError("the sample photographs are in scikit-image: pip install scikit-image")
    return Path(found.origin).parent
