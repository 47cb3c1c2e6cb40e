"""What the bench needs of a process that holds a model, wherever it runs."""

from typing import Protocol

Nanoseconds = int


class Runner(Protocol):
    """A loaded and warm model on one device; `name` says both, as tables show them."""

    @property
    def name(self) -> str: ...

    def run(self, count: int) -> list[Nanoseconds]:
        """Time `count` inferences in a row; ModelError when the process dies or does not answer."""

    def close(self) -> None:
        """End the process; harmless when it has ended."""
