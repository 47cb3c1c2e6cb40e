"""ONNX files: read within bounds, with the weights that lie in other files.

A file may come from anyone. Before any of its weights is read, and before a runtime sees it:

1. what it keeps elsewhere lies in regular files beside or below it: above, behind a link, or a device is
   refused. A bench sends these files to other machines, and reading some devices never ends;
2. it has at most MOST_NODES nodes, with those of graphs inside nodes, and with a copy of each function for
   each of its calls, however few bytes say so.
"""

from __future__ import annotations

import re
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path, PurePosixPath
from typing import Any

from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto

from qnas.errors import ModelError, QnasError
from qnas.files import open_input, read_input
from qnas.onnx.other_files import what_it_is

MOST_NODES = 20_000  # a large network has ten thousand, before anything is simplified
_Call = tuple[str, str, str]  # domain, name, overload of a function
_Holder = ModelProto | GraphProto | FunctionProto | AttributeProto  # of nodes and tensors


@contextmanager
def damage_refused(path: Path) -> Iterator[None]:
    """Around code that walks the graph of `path`: one tampered with breaks it anywhere. Raises ModelError."""
    try:
        yield
    except QnasError:
        raise
    except Exception as error:
        raise ModelError(f"{path} is damaged ({type(error).__name__}): export it again") from error


def read_model(path: Path, external_data: bool = True) -> ModelProto:
    """Read a model by the rules of the module's docstring, with the weights of other files.

    Without `external_data` these files are looked at, but not read. Raises ModelError.
    """
    model, stored = _checked(path)
    if external_data:
        for each in stored:
            each.load()
    return model


def external_files(path: Path) -> list[Path]:
    """The files that hold weights of the model at `path`, in the order of their names. Raises ModelError."""
    return sorted({each.file for each in _checked(path)[1]}, key=str)


def model_bytes(path: Path) -> bytes:
    """The file's bytes, or those of the model with the weights of other files in it. Raises ModelError."""
    model, stored = _checked(path)
    if not stored:
        return read_input(path)
    for each in stored:
        each.load()
    with damage_refused(path):  # protobuf writes at most 2 GiB
        data: bytes = model.SerializeToString()
    return data


@dataclass(frozen=True)
class _Stored:
    """A tensor whose values are `length` bytes from `offset` on of `file`."""

    tensor: TensorProto
    file: Path
    offset: int
    length: int

    def load(self) -> None:
        with open_input(self.file) as stream:
            stream.seek(self.offset)
            self.tensor.raw_data = stream.read(self.length)
        self.tensor.data_location = TensorProto.DEFAULT
        del self.tensor.external_data[:]


def _checked(path: Path) -> tuple[ModelProto, list[_Stored]]:
    """The model and its tensors in other files."""
    if not path.is_file():
        raise ModelError(f"{path} is not a file: name an .onnx model")
    try:
        model = ModelProto.FromString(read_input(path))
    except Exception as error:  # protobuf and the file system each raise their own
        if what := what_it_is(path):
            raise ModelError(f"{path} is no ONNX model but {what}") from error
        kind = type(error).__name__
        raise ModelError(f"{path} is no readable ONNX model ({kind}): export it again") from error
    nodes, tensors = parts(model)
    for node in nodes:  # what is no UTF-8, protobuf hands out as bytes
        if not all(isinstance(text, str) for text in (node.op_type, node.domain, *node.input, *node.output)):
            raise ModelError(f"{path} is no readable ONNX model (names that are no text): export it again")
    if max(len(nodes), _inlined(model, path)) > MOST_NODES:
        raise ModelError(f"{path} has more than {MOST_NODES} operations: export a smaller network")
    stored = [_stored(t, path) for t in tensors if t.data_location == TensorProto.EXTERNAL]
    sizes = {each.file: each.file.stat().st_size for each in stored}
    if sum(each.length for each in stored) > sum(sizes.values()):
        raise ModelError(f"{path} reads other files several times over: export it again")
    return model, stored


def parts(root: _Holder) -> tuple[list[NodeProto], list[TensorProto]]:
    """All nodes and all tensors of `root`, wherever they stand in it."""
    nodes, tensors = [], []
    waiting: list[Any] = [root]
    while waiting:
        message = waiting.pop()
        if isinstance(message, TensorProto):
            tensors.append(message)
            continue
        if isinstance(message, NodeProto):
            nodes.append(message)
        for field, value in message.ListFields():
            if field.message_type is not None:
                waiting.extend([value] if hasattr(value, "ListFields") else value)
    return nodes, tensors


def _inlined(model: ModelProto, path: Path) -> int:
    """The number of nodes with a copy of its function in place of each call, as far as MOST_NODES + 1."""
    if not model.functions:
        return 0
    bodies = {(f.domain, f.name, f.overload): _calls(f) for f in model.functions}
    sizes: dict[_Call, int] = {}

    def size(calls: Iterable[_Call]) -> int:
        return min(sum(sizes.get(call, 1) for call in calls), MOST_NODES + 1)

    try:
        for key in TopologicalSorter({k: bodies.keys() & set(v) for k, v in bodies.items()}).static_order():
            sizes[key] = size(bodies[key])
    except CycleError as error:
        raise ModelError(f"{path} has functions that call each other in a circle: export it again") from error
    return size(_calls(model.graph))


def _calls(root: _Holder) -> list[_Call]:
    return [(node.domain, node.op_type, node.overload) for node in parts(root)[0]]


def _stored(tensor: TensorProto, path: Path) -> _Stored:
    """Where the values of `tensor` are. Raises ModelError where that may not be read."""
    known = {entry.key: entry.value for entry in tensor.external_data}
    location = known.get("location", "")
    where = f"{path} keeps its weights in {location!r}"
    parts = PurePosixPath(location).parts
    if not parts or location.startswith("/") or ".." in parts or "\0" in location:
        raise ModelError(f"{where}, which is not beside or below it: export it again")
    file = path.parent
    for part in parts:
        file = file / part
        try:
            mode = file.lstat().st_mode
        except OSError as error:
            raise ModelError(f"{where}, which is not beside it: copy that file there too") from error
        if stat.S_ISLNK(mode):
            raise ModelError(f"{where}, where {file} is a link: put the file itself there")
    if not stat.S_ISREG(mode):
        raise ModelError(f"{where}, which is no regular file: export it again")
    size = file.stat().st_size
    offset = _number(known.get("offset"), 0)
    length = _number(known.get("length"), max(size - offset, 0))
    if offset + length > size:
        raise ModelError(f"{where}, beyond its {size} bytes: copy that file again")
    return _Stored(tensor, file, offset, length)


def _number(text: str | None, default: int) -> int:
    """`default` without a text; what has more digits than the size of any file is beyond its end."""
    if not text:
        return default
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else sys.maxsize
