"""What `qnas-inspect` finds in a file, and what it finds in an integer network."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qnas.errors import UsageError
from qnas.export.inspection.layer_rows import LayerRow, network_rows
from qnas.images.evaluation import shrink
from qnas.images.files import crop_to_multiple, list_images, read_image
from qnas.images.samples import sample_photographs
from qnas.integer.network import IntegerNetwork

MOST_IMAGES = 5


@dataclass(frozen=True)
class Request:
    """Input pixels, and a folder of HR images to count levels on; None: the sample photographs, if any."""

    height: int
    width: int
    images: Path | None = None


@dataclass(frozen=True)
class Inspection:
    """A file's layers; `size` of the input is None where the file has its own; levels counted on `images`."""

    file: str
    kind: str
    file_bytes: int
    rows: tuple[LayerRow, ...]
    size: tuple[int, int] | None = None
    images: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def macs(self) -> int:
        """Multiply-adds of one image."""
        return sum(row.macs for row in self.rows)

    @property
    def bitops(self) -> int:
        """Bit operations of one image."""
        return sum(row.bitops for row in self.rows)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights as stored."""
        return sum(row.weight_bytes for row in self.rows)

    @property
    def bias_bytes(self) -> int:
        """Bytes of all biases as stored."""
        return sum(row.bias_bytes for row in self.rows)


def missing(operations: tuple[str, ...]) -> tuple[str, ...]:
    """A note naming the operations whose cost is not known."""
    return (f"not in MACs: {', '.join(operations)}",) if operations else ()


def inspected_network(network: IntegerNetwork, kind: str, request: Request) -> Inspection:
    """The layers of an integer network, with the levels that images give their outputs."""
    images, notes = _images(request, network.scale)
    pixels = [image for _, image in images]
    rows = network_rows(network, request.height, request.width, pixels)
    names = tuple(name for name, _ in images)
    return Inspection("", kind, 0, rows, (request.height, request.width), names, notes)


def _images(request: Request, scale: int) -> tuple[list[tuple[str, NDArray[np.uint8]]], tuple[str, ...]]:
    """The middle of each HR image, shrunk by `scale` to at most the size of the request; and notes."""
    if request.images is None:
        try:
            named = sample_photographs()
        except UsageError as error:
            return [], (f"no levels of outputs: {error}",)
        notes: tuple[str, ...] = ()
    else:
        paths = list_images(request.images)
        named = [(path.name, read_image(path)) for path in paths[:MOST_IMAGES]]
        left = len(paths) - len(named)
        notes = (f"levels counted on the first {MOST_IMAGES} images, {left} left out",) if left else ()
    sides = (request.height * scale, request.width * scale)
    return [(name, shrink(_middle(crop_to_multiple(hr, scale), sides), scale)) for name, hr in named], notes


def _middle(image: NDArray[np.uint8], sides: tuple[int, int]) -> NDArray[np.uint8]:
    top, left = (max(0, (have - want) // 2) for have, want in zip(image.shape, sides, strict=False))
    return image[top : top + sides[0], left : left + sides[1]]
