"""What a file is that is no ONNX model, and what to do with it. Nothing of it is run, and little is read."""

from __future__ import annotations

import zipfile
from pathlib import Path

from qnas.files import open_input

HEAD = 1 << 16  # bytes that are looked at
FOUND, CALIBRATION = b"qnas-found", b'"qnas-calibration"'
MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x89HDF", "a Keras (HDF5) file: convert the network to ONNX or TFLite first"),
    (b"\x89PNG", "an image: name the network first, then the images"),
    (b"\xff\xd8\xff", "an image: name the network first, then the images"),
    (b"\x80", "a Python pickle, which is never opened: export the network with torch.onnx.export"),
)


def what_it_is(path: Path) -> str:
    """A phrase that says what the file is and what to do; empty where nothing is known of it."""
    if not path.is_file():
        return ""
    try:
        with open_input(path) as stream:
            head = stream.read(HEAD)
        if zipfile.is_zipfile(path):
            return _archive(path)
    except Exception:  # a damaged archive makes zipfile raise nearly anything
        return ""
    if head[4:8] == b"TFL3":
        return "a TFLite file: let its name end in .tflite"
    if CALIBRATION in head:
        return "the calibration of a network: name the network, and this file with --calibration"
    if head.lstrip()[:1] in (b"{", b"["):
        return "a JSON document: name the file of a network"
    return next((what for magic, what in MAGIC if head.startswith(magic)), "")


def is_found(path: Path) -> bool:
    """Whether it is a found.pt of qnas-train, as far as its text says so."""
    try:
        return path.is_file() and zipfile.is_zipfile(path) and FOUND in _pickled(path)
    except Exception:  # a damaged archive makes zipfile raise nearly anything
        return False


def _archive(path: Path) -> str:
    """What a zip archive is: PyTorch and Keras write these."""
    if FOUND in (pickled := _pickled(path)):
        return "a found.pt of qnas-train: qnas-export takes it as it is"
    if pickled:
        return "a PyTorch file: export the network with torch.onnx.export"
    with zipfile.ZipFile(path) as archive:
        keras = "model.weights.h5" in archive.namelist()
    if keras:
        return "a Keras file: convert the network to ONNX or TFLite first"
    return "a zip archive: name the file of a network"


def _pickled(path: Path) -> bytes:
    """The first bytes of what PyTorch pickled in a zip archive, which nobody unpickles; empty without."""
    with zipfile.ZipFile(path) as archive:
        name = next((name for name in archive.namelist() if name.endswith("data.pkl")), None)
        if name is None:
            return b""
        with archive.open(name) as stream:
            return stream.read(HEAD)
