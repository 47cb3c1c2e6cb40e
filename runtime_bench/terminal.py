"""The bar of the commands that measure."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from qnas.terminal import stderr

REFRESH = 0.2  # seconds


@contextmanager
def progress_bar() -> Iterator[Callable[[float], None]]:
    """Yield what takes the fraction done; draws on stderr, only on a terminal and only when called.

    A bar that refreshes itself from a thread of its own would take its time from what is measured.
    """
    console = stderr()
    columns = (TextColumn("measuring"), BarColumn(), TimeRemainingColumn())
    bar = Progress(
        *columns, console=console, auto_refresh=False, transient=True, disable=not console.is_terminal
    )
    with bar:
        task, drawn = bar.add_task("measuring", total=1.0), 0.0

        def show(done: float) -> None:
            nonlocal drawn
            if time.monotonic() - drawn > REFRESH:
                drawn = time.monotonic()
                bar.update(task, completed=done, refresh=True)

        yield show
