"""`found.pt`: an architecture and its trained weights as plain data, never as code."""

import io
import json
import math
import pickle  # only for the name of its error
import re
import reprlib
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qnas.cost.network_cost import network_cost
from qnas.errors import ArchitectureError, CheckpointError, OutputError
from qnas.files import atomic_write
from qnas.network.architecture import Architecture, from_document
from qnas.network.lowering import lower
from qnas.torch.network import Network

FORMAT = "qnas-found"
VERSION = 1
FLOAT_BYTES = 4
HARMLESS = 1 << 26  # bytes that may be allocated before anything is compared


@dataclass(frozen=True)
class Found:
    """A trained network and how it came about; `network` is in `eval()`."""

    architecture: Architecture
    network: Network
    training: Mapping[str, Any]


def save_found(
    path: Path, architecture: Architecture, network: Network, training: Mapping[str, Any], force: bool = False
) -> None:
    """Write `found.pt` whole or not at all. Raises OutputError."""
    document = {
        "format": FORMAT,
        "version": VERSION,
        "architecture": architecture.to_document(),
        "state_dict": {name: value.detach().cpu().clone() for name, value in network.state_dict().items()},
        "training": json.loads(
            json.dumps(dict(training))
        ),  # no subclass of str, which `load_found` would refuse
    }
    save_plain(path, document, force)


def save_plain(path: Path, document: Mapping[str, Any], force: bool) -> None:
    """`torch.save` of plain data, renamed into place. Raises OutputError."""
    with atomic_write(path, force) as temporary:
        try:
            torch.save(document, temporary)
        except RuntimeError as error:  # how torch reports a full disk
            raise OutputError(f"cannot write {path}: free space or choose another folder") from error


def read_plain(path: Path, source: str = "qnas-train") -> Any:
    """Read plain data from `source`; nothing in the file is executed. Raises CheckpointError."""
    if not path.is_file():
        raise CheckpointError(f"no checkpoint {path}: check the path, or train one with qnas-train")
    try:
        data = path.read_bytes()  # once: what is checked is what is loaded
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}): check the file") from error
    _check_archive(path, data, source)
    try:
        with warnings.catch_warnings(action="ignore"):  # a damaged file makes torch say much
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f" ({named[1]})" if named else ""
        raise CheckpointError(
            f"{path} holds more than plain data{what} and was not executed: use a file of {source}"
        ) from error
    except Exception as error:  # torch reports damage in a dozen types
        raise CheckpointError(
            f"{path} is damaged ({type(error).__name__}): write it again with {source}"
        ) from error


def _check_archive(path: Path, data: bytes, source: str) -> None:
    """Compare the checksums, which PyTorch writes and does not read. Raises CheckpointError.

    PyTorch compresses nothing: no checkpoint holds more than its own size.
    """
    again = f"write it again with {source}"
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > len(data) or any(
                entry.compress_type != zipfile.ZIP_STORED for entry in entries
            ):
                raise CheckpointError(f"{path} is compressed, which no checkpoint is: {again}")
            damaged = archive.testzip()
    except CheckpointError:
        raise
    except Exception as error:  # BadZipFile, NotImplementedError, ValueError and others of damaged archives
        raise CheckpointError(f"{path} is truncated or no PyTorch checkpoint: {again}") from error
    if damaged is not None:
        raise CheckpointError(f"{path} is damaged (a checksum does not match): {again}")


def load_plain(path: Path, wanted_format: str, version: int, source: str = "qnas-train") -> dict[str, Any]:
    """The document that `save_plain` wrote. Raises CheckpointError."""
    document = read_plain(path, source)
    if not isinstance(document, dict) or not _is(document.get("format"), wanted_format):
        raise CheckpointError(f"{path} is not a {wanted_format} file: make one with {source}")
    if not _is(document.get("version"), version):
        raise CheckpointError(
            f"{path} has version {reprlib.repr(document.get('version'))}, this qnas reads {version}: "
            "use the qnas that wrote it"
        )
    return document


def _is(value: Any, wanted: str | int) -> bool:
    """Equality alone would not do: a tensor of several values is neither equal nor unequal to a number."""
    return type(value) is type(wanted) and bool(value == wanted)


def load_found(path: Path) -> Found:
    """Read `found.pt`; its state must fit its architecture and be finite. Raises CheckpointError."""
    document = load_plain(path, FORMAT, VERSION)
    architecture, network = network_in(document, path)
    training = document.get("training")
    return Found(architecture, network.eval(), training if isinstance(training, dict) else {})


def network_in(document: dict[str, Any], path: Path) -> tuple[Architecture, Network]:
    """The architecture and the trained network of a checkpoint's `document`. Raises CheckpointError."""
    try:
        architecture = from_document(document.get("architecture"), str(path))
        layers = lower(architecture)
    except ArchitectureError as error:
        raise CheckpointError(f"the architecture in {path} is wrong: {error}") from error
    check_size(network_cost(layers, 1, 1).parameters, path)
    network = Network(layers)
    load_state(network, document.get("state_dict"), str(path))
    return architecture, network


def check_size(weights: int, path: Path) -> None:
    """Before so many weights are allocated: the file has room for them. Raises CheckpointError."""
    if FLOAT_BYTES * weights > max(path.stat().st_size, HARMLESS):
        raise CheckpointError(
            f"{path} is too short for the {weights} weights of its architecture: use another"
        )


def load_state(network: Network, state: Any, source: str) -> None:
    """Fill `network` after checking every name, shape, type and value. Raises CheckpointError."""
    if not isinstance(state, dict):
        raise CheckpointError(f"{source} has no state_dict: write it again with qnas-train")
    check_state(network.state_dict(), state, source)
    network.load_state_dict(state)


def check_state(expected: Mapping[str, Tensor], state: Mapping[Any, Any], source: str) -> None:
    """Compare names, shapes and types, and look for values that are not finite. Raises CheckpointError."""
    for name in (*expected, *state):
        if name not in state or name not in expected:
            word = "lacks" if name not in state else "has an unknown"
            raise CheckpointError(f"{source} {word} tensor {name!r}: its state does not fit its architecture")
    for name, want in expected.items():
        value = state[name]
        if _kind(value) != _kind(want):
            raise CheckpointError(f"{source}: {name} is {_kind(value)}, its architecture needs {_kind(want)}")
        if not math.isfinite(float(value.detach().double().abs().sum())):
            raise CheckpointError(
                f"{source}: {name} holds NaN or infinite values: resume from an earlier checkpoint"
            )


def _kind(value: Any) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    special = (
        "" if value.layout is torch.strided and not value.is_meta else f" {value.layout} on {value.device}"
    )
    return f"{tuple(value.shape)} {value.dtype}{special}"
