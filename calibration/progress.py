"""Bars for the passes of a calibration: on stderr, and on a terminal only."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from qnas.errors import printable
from qnas.images.evaluation import Batch
from qnas.terminal import stderr

Show = Callable[[int, int], None]  # (done, in all)
Wrap = Callable[[Iterable[Batch]], Iterator[Batch]]  # gives batches on


class Display:
    """Shows nothing."""

    def step(self, what: str) -> Show:
        """A new line; the result is told how far it is."""
        return lambda done, total: None


class Bars(Display):
    """A line with a bar for each step."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._steps: list[TaskID] = []

    def step(self, what: str) -> Show:
        """Begin a line with a bar."""
        for before in self._steps:
            if self._progress.tasks[before].total is None:  # nothing was counted, and it is over
                self._progress.update(before, total=1, completed=1)
        line = self._progress.add_task(printable(what), total=None)
        self._steps.append(line)
        return lambda done, total: self._progress.update(line, completed=done, total=total)


class Passing:
    """Gives batches on, and shows how many patches of `total` are done, over all that pass through it."""

    def __init__(self, display: Display, what: str, total: int) -> None:
        self._show, self._done, self._total = display.step(what), 0, total

    def __call__(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches, unchanged."""
        for batch in batches:
            yield batch
            self._done += len(batch)
            self._show(self._done, self._total)


@contextmanager
def bars() -> Iterator[Display]:
    """Bars that vanish when all is done."""
    console = stderr()
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Bars(progress)
