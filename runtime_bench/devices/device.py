"""What the bench asks of a device, whichever runtime is behind it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from qnas.runtime_bench.executed import ExecutedNode
from qnas.runtime_bench.inputs import Feed, Input

Options = Mapping[str, str]


class Model(Protocol):
    """A model that is loaded; its methods raise ModelError with the runtime's words."""

    @property
    def inputs(self) -> tuple[Input, ...]: ...

    def feed(self, values: Feed) -> None:
        """Take the inputs of every further run."""

    def run(self) -> None:
        """One inference: what is timed."""

    def outputs(self) -> dict[str, NDArray[Any]]:
        """What the last run wrote, by name."""


@dataclass(frozen=True)
class Device:
    """`load(argument, model, threads, options)`; `argument` is what stands behind the colon of the name.

    `missing(argument)` says why the device is not there, or None. `version()` imports the runtime. `suffix`
    is that of its models. `executed(argument, model, feed, threads, options, runs)` profiles a load of its
    own.
    """

    suffix: str
    load: Callable[[str, Path, int, Options], Model]
    missing: Callable[[str], str | None]
    version: Callable[[], str]
    executed: Callable[[str, Path, Feed, int, Options, int], tuple[ExecutedNode, ...]]
    provider: Callable[[str], str]  # what it is called in executed nodes
    arguments: Callable[[], tuple[str, ...]]  # those worth listing
