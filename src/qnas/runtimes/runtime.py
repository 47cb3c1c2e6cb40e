"""What a runtime has to tell: its devices for the bench, and how a written file is checked in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qnas.errors import ModelError
from qnas.onnx.session import first_line
from qnas.runtimes.executed import ExecutedNode
from qnas.runtimes.inputs import Feed, Input

if TYPE_CHECKING:
    from qnas.images.evaluation import Image
    from qnas.integer.nodes import IntegerNode

Options = Mapping[str, str]
Planes = NDArray[np.unsignedinteger[Any]]  # [1, C, H, W]: uint8, or uint16 of tensors inside a network


class Model(Protocol):
    """A model that is loaded; its methods raise ModelError with the runtime's words."""

    @property
    def inputs(self) -> tuple[Input, ...]: ...

    def feed(self, values: Feed) -> None:
        """Take the inputs of every further run."""

    def run(self) -> None:
        """Run one inference: what is timed."""

    def outputs(self) -> dict[str, NDArray[Any]]:
        """Return what the last run wrote, by name."""


@dataclass(frozen=True)
class Device:
    """`load(argument, model, threads, options)`; `argument` is what stands behind the colon of the name.

    `form`: how the name is written; an argument is needed, or not there, where it says so without brackets.
    `missing(argument)` says why the device is not there, or None. `version()` imports the runtime. `suffix`
    is that of its models. `executed(argument, model, feed, threads, options, runs)` profiles a load of its
    own.
    """

    form: str
    suffix: str
    load: Callable[[str, Path, int, Options], Model]
    missing: Callable[[str], str | None]
    version: Callable[[], str]
    executed: Callable[[str, Path, Feed, int, Options, int], tuple[ExecutedNode, ...]]
    provider: Callable[[str], str]  # what it is called in executed nodes
    arguments: Callable[[], tuple[str, ...]]  # those worth listing
    elsewhere: bool = False  # the model is in another process, whose memory nobody counts

    def takes(self, argument: str) -> bool:
        """Whether a name may have this `argument`, empty for none."""
        return "[" in self.form or (":" in self.form) == bool(argument)


@dataclass(frozen=True)
class Runner:
    """A model in a runtime: `upscale` maps uint8 [H, W, C] to uint8 [s H, s W, C], or raises ModelError.

    `size` is the only (H, W) that it takes, None for any; `slow` ones are given less to do. `trace` gives, of
    the nodes that it is asked for, the name and tensor of those that the runtime lets out; None when it lets
    out none, and `no_trace` says why. `delegated`: nodes that XNNPACK runs, of how many.
    """

    upscale: Callable[[Image], Image]
    size: tuple[int, int] | None = None
    slow: bool = False
    trace: Callable[[Image, Sequence[IntegerNode]], Mapping[str, Planes]] | None = None
    no_trace: str = ""
    delegated: tuple[int, int] | None = None


@dataclass(frozen=True)
class Check:
    """How files that end in `suffix` are checked: `open` makes a Runner of their bytes, or raises ModelError.

    `package` has to be importable. `exact`: whether it rounds as the integer network does
    (docs/runtime-differences.md). One that does not is reported and decides no verdict, unless it is named.
    """

    name: str
    suffix: str
    package: str
    open: Callable[[bytes], Runner]
    exact: bool = True

    @property
    def installed(self) -> bool:
        """Whether its package can be imported."""
        return find_spec(self.package) is not None

    @property
    def version(self) -> str:
        """The version of the installed package."""
        try:
            return version(self.package)
        except PackageNotFoundError:  # a build under another name, such as onnxruntime-gpu
            return "of unknown version"


@dataclass(frozen=True)
class Runtime:
    """All of one runtime: `devices` by their kind, `checks` by the ids that --gate takes.

    `default`: the device that runs files of its suffix unless one is named, empty where another runtime does.
    """

    checks: Mapping[str, Check]
    devices: Mapping[str, Device]
    default: str = ""


def planes(image: Image) -> Planes:
    """uint8 [H, W, C] -> [1, C, H, W]."""
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None])


def pixels(result: Planes) -> Image:
    """uint8 [1, C, H, W] -> [H, W, C]."""
    image: Image = result[0].transpose(1, 2, 0)
    return image


@contextmanager
def asking() -> Iterator[None]:
    """Turn what a runtime raises inside into a ModelError: its exceptions share no base but Exception."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"cannot run it ({type(error).__name__}: {first_line(error)})") from error
