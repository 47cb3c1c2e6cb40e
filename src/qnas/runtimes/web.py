"""onnxruntime-web: onnxruntime as WebAssembly, what browsers run, here in Node.

The package comes from npm. It is looked for where the user says, or among Node's global ones, and never
beside a model: what lies there is not executed.
"""

from __future__ import annotations

import base64
import os
import shutil
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from qnas.documents.reading import Shape, Text
from qnas.errors import ModelError, UsageError
from qnas.processes import Program, TooMuch
from qnas.runtimes.executed import ExecutedNode
from qnas.runtimes.inputs import Feed, Input, shape_text
from qnas.runtimes.onnx_runner import Session, onnx_runner
from qnas.runtimes.onnxruntime import CPU, profiled_nodes
from qnas.runtimes.runtime import Check, Device, Options, Runner, Runtime
from qnas.temporary import temporary_folder

SCRIPT = Path(__file__).with_name("web_session.mjs")
MODULES = "QNAS_NODE_MODULES"  # a folder node_modules
OLDEST_NODE = 18
INSTALL = f"npm install -g onnxruntime-web, or set {MODULES} to the folder node_modules that has it"
PATIENCE = 600.0  # seconds that an answer may take
LONGEST = 1 << 30  # bytes of an answer
UNSEEN = 5  # runs before a profile


class _Reply(Struct, frozen=True, kw_only=True):
    """`error`: why there is no answer."""

    error: Annotated[str, Meta(max_length=1 << 16)] = ""


class _Version(_Reply, frozen=True):
    node: Text = ""
    web: Text = ""


class _Named(Struct, frozen=True):
    name: Text
    type: Text = ""
    shape: tuple[int | str, ...] = ()


class _Opened(_Reply, frozen=True):
    inputs: tuple[_Named, ...] = ()
    threads: int = 1


class _Tensor(Struct, frozen=True):
    name: Text
    type: Text
    dims: Shape
    data: str


class _Written(_Reply, frozen=True):
    outputs: tuple[_Tensor, ...] = ()


class _Profile(_Reply, frozen=True):
    profile: str = ""


_AnyReply = TypeVar("_AnyReply", bound=_Reply)


class _Node:
    """A process of Node that holds one session."""

    def __init__(self) -> None:
        node = shutil.which("node")
        if node is None:
            raise UsageError(
                "the device web needs Node, and there is no program 'node': install Node 18 or newer"
            )
        try:
            self._program = Program([node, str(SCRIPT), os.environ.get(MODULES, "")])
        except OSError as error:
            raise UsageError(f"cannot start {node}: {error.strerror}") from error
        weakref.finalize(self, self._program.close)

    def ask(self, do: str, reply: type[_AnyReply], **arguments: Any) -> _AnyReply:
        """Its answer. Raises ModelError with what it says went wrong."""
        line = msgspec.json.encode({"do": do, **arguments})
        try:
            answer = msgspec.json.decode(self._program.ask(line, PATIENCE, LONGEST), type=reply)
        except (TimeoutError, EOFError, TooMuch, msgspec.DecodeError) as error:
            last = self._program.errors.strip().splitlines()[-1:] or [type(error).__name__]
            raise ModelError(
                f"onnxruntime-web in Node gave no answer ({last[0]}): try another version"
            ) from error
        if answer.error:
            raise ModelError(f"onnxruntime-web: {answer.error.splitlines()[0]}")
        return answer

    def close(self) -> None:
        """End it."""
        self._program.close()


@cache
def _found(modules: str) -> _Version | str:
    """The versions, or why there are none; `modules` is what the environment says."""
    try:
        node = _Node()
        try:
            return node.ask("version", _Version)
        finally:
            node.close()
    except (ModelError, UsageError) as error:
        return str(error)


def _missing(argument: str = "") -> str | None:
    found = _found(os.environ.get(MODULES, ""))
    if isinstance(found, str):
        return f"the device web needs onnxruntime-web: {INSTALL}" if "cannot load" in found else found
    if int(found.node.split(".")[0]) < OLDEST_NODE:
        return f"Node {found.node} is too old for onnxruntime-web: install Node {OLDEST_NODE} or newer"
    return None


def _version() -> str:
    found = _found(os.environ.get(MODULES, ""))
    return f"onnxruntime-web {found.web} in Node {found.node}" if isinstance(found, _Version) else "none"


class WebModel:
    """A model in a session of its own process."""

    def __init__(
        self, argument: str, model: Path, threads: int, options: Options, *, profile: bool = False,
        packed: bool = True,
    ) -> None:  # fmt: skip
        if options:
            raise UsageError(f"the device web has no option {next(iter(options))!r}")
        self._node = _Node()
        try:
            asked = {"model": str(model.resolve()), "threads": threads, "profile": profile, "packed": packed}
            opened = self._node.ask("open", _Opened, **asked)
            if opened.threads != threads:
                raise UsageError(
                    f"onnxruntime-web runs with {opened.threads} thread here: choose --threads 1"
                )
        except BaseException:
            self.close()
            raise
        self.inputs = tuple(
            Input(each.name, each.type, tuple(size if size != "" else None for size in each.shape))
            for each in opened.inputs
        )
        self._shown = ""

    def feed(self, values: Feed) -> None:
        """Take the inputs of every further run."""
        self._shown = ", ".join(f"{name} of {shape_text(value.shape)}" for name, value in values.items())
        inputs = [
            {"name": name, "type": value.dtype.name, "dims": value.shape, "data": _text(value)}
            for name, value in values.items()
        ]
        self._node.ask("feed", _Reply, inputs=inputs)

    def run(self) -> None:
        """One inference; ModelError when it fails."""
        try:
            self._node.ask("run", _Reply)
        except ModelError as error:
            raise ModelError(f"it cannot run on {self._shown}: {error}; choose another --shape") from error

    def outputs(self) -> dict[str, NDArray[Any]]:
        """What the last run wrote."""
        written = self._node.ask("outputs", _Written).outputs
        return {each.name: _array(each) for each in written}

    def profile(self) -> str:
        """The profile of all runs so far."""
        return self._node.ask("profile", _Profile).profile

    def close(self) -> None:
        """End its process."""
        self._node.close()


def _text(value: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()


def _array(tensor: _Tensor) -> NDArray[Any]:
    """Raises ModelError where the numbers do not fill the shape."""
    try:
        return np.frombuffer(base64.b64decode(tensor.data), tensor.type).reshape(tensor.dims)
    except (TypeError, ValueError) as error:
        raise ModelError(f"onnxruntime-web wrote a damaged output {tensor.name!r}") from error


def _profiled(model: Path, feed: Feed, threads: int, runs: int, packed: bool) -> tuple[ExecutedNode, ...]:
    opened = WebModel("", model, threads, {}, profile=True, packed=packed)
    try:
        opened.feed(feed)
        for _ in range(UNSEEN + runs):
            opened.run()
        return profiled_nodes(opened.profile(), model, runs)
    finally:
        opened.close()


def executed(
    argument: str, model: Path, feed: Feed, threads: int, options: Options, runs: int
) -> tuple[ExecutedNode, ...]:
    """What ran. A second session packs no weights: it shows their shapes, which packed ones hide."""
    shown = _profiled(model, feed, threads, 1, packed=False)
    times = {node.name: node.nanoseconds for node in _profiled(model, feed, threads, runs, packed=True)}
    return tuple(replace(node, nanoseconds=times[node.name]) for node in shown if node.name in times)


def _checked(data: bytes) -> Runner:
    """Every model that is asked for is a session of its own; the last one stays open."""

    def session(model: bytes) -> Session:
        with temporary_folder() as folder:
            path = folder / "model.onnx"
            path.write_bytes(model)
            opened = WebModel("", path, 1, {})

        def run(feed: Feed) -> Sequence[Any]:
            opened.feed(feed)
            opened.run()
            return list(opened.outputs().values())

        return run

    return onnx_runner(data, session)


@dataclass(frozen=True)
class _WebCheck(Check):
    """Node and an npm package stand for the Python package."""

    @property
    def installed(self) -> bool:
        """Whether Node runs onnxruntime-web."""
        return _missing() is None

    @property
    def version(self) -> str:
        """The version of the npm package."""
        found = _found(os.environ.get(MODULES, ""))
        return found.web if isinstance(found, _Version) else "of unknown version"


DEVICE = Device(
    "web",
    ".onnx",
    WebModel,
    _missing,
    _version,
    executed,
    lambda argument: CPU,
    lambda: ("",),
    elsewhere=True,
)
WEB = Runtime(
    checks={"onnxruntime-web": _WebCheck("onnxruntime-web", ".onnx", "onnxruntime-web", _checked)},
    devices={"web": DEVICE},
)
