"""What the bench needs of a process that holds a model, wherever it runs."""

from typing import Any, Protocol

from numpy.typing import NDArray

from qnas.runtime_bench.machine_state import State
from qnas.runtime_bench.profile.peak import Peak
from qnas.runtime_bench.workers.protocol import Loaded
from qnas.runtimes.executed import ExecutedNode

Nanoseconds = int


class Runner(Protocol):
    """A loaded and warm model on one device; `name` says both, as tables show them."""

    @property
    def name(self) -> str: ...

    def run(self, count: int) -> list[Nanoseconds]:
        """Time `count` inferences in a row; ModelError when the process dies or does not answer."""

    def close(self) -> None:
        """End the process; harmless when it has ended."""


class LoadedRunner(Runner, Protocol):
    """A runner that can say more; each method raises ModelError or UsageError when it cannot."""

    @property
    def loaded(self) -> Loaded: ...

    def executed(self, runs: int) -> tuple[tuple[ExecutedNode, ...], str]:
        """What ran, profiled over `runs` inferences, and what the device is called there."""

    def outputs(self) -> dict[str, NDArray[Any]]:
        """What the last run wrote."""

    def state(self) -> State:
        """The machine as it is now."""

    def peak(self, threads: int) -> Peak:
        """How fast its machine can be."""
