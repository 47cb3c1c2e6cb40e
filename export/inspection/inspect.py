"""`qnas-inspect`: a found.pt, ONNX or TFLite file -> a row for each of its layers.

1. found.pt: the integer network that every export holds, or of a float network its layers;
2. ONNX: the same network when the file is within its operations, otherwise what the graph alone says;
3. TFLite: what the file says, at its own size.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qnas.errors import ModelError, UsageError
from qnas.export.inspection.layer_rows import LayerRow, layer_rows, network_rows
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


def inspect(path: Path, request: Request) -> Inspection:
    """Read `path` by its ending. Raises QnasError; nothing of the file is executed."""
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise UsageError(f"{path} is of no known kind: name a {', '.join(_READERS)} file")
    if not path.is_file():
        raise UsageError(f"{path} is not a file: check the path")
    inspection = replace(read(path, request), file=path.name, file_bytes=path.stat().st_size)
    if not inspection.rows:
        raise ModelError(f"{path} holds no operation: export it again")
    return inspection


def _found(path: Path, request: Request) -> Inspection:  # Case 1
    from qnas.export.integers import integer_network
    from qnas.torch.checkpoint import load_found  # torch, which the other kinds do without

    found = load_found(path)
    try:
        network = integer_network(found)
    except ModelError as error:
        rows = layer_rows(found.network.layers, request.height, request.width)
        notes = (f"no integer network, so only what its layers cost: {error}",)
        return Inspection("", "found.pt", 0, rows, (request.height, request.width), notes=notes)
    return _of_network(network, "found.pt", request)


def _onnx(path: Path, request: Request) -> Inspection:  # Case 2
    from qnas.export.from_qdq.reader import read_qdq
    from qnas.export.inspection.onnx_rows import onnx_rows

    try:
        network = read_qdq(path)
    except ModelError as error:
        rows, uncovered = onnx_rows(path, request.height, request.width)
        notes = (f"no integer network of ours, so only what the graph says: {error}", *_missing(uncovered))
        return Inspection("", "ONNX", 0, rows, (request.height, request.width), notes=notes)
    return _of_network(network, "ONNX", request)


def _tflite(path: Path, request: Request) -> Inspection:  # Case 3
    from qnas.export.inspection.tflite_rows import tflite_rows
    from qnas.tflite.reader import read_tflite

    model = read_tflite(path)
    try:
        rows, uncounted = tflite_rows(model)
    except ModelError as error:
        raise ModelError(f"{path}: {error}; export it again") from error
    first = [f"only the first of {model.subgraphs} graphs"] * (model.subgraphs > 1)
    return Inspection("", "TFLite", 0, rows, notes=(*first, *_missing(uncounted)))


_READERS: dict[str, Callable[[Path, Request], Inspection]] = {
    ".pt": _found,
    ".onnx": _onnx,
    ".tflite": _tflite,
}


def _missing(operations: tuple[str, ...]) -> tuple[str, ...]:
    return (f"not in MACs: {', '.join(operations)}",) if operations else ()


def _of_network(network: IntegerNetwork, kind: str, request: Request) -> Inspection:
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
