"""What the commands of the bench write to a terminal with."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

REFRESH = 0.2  # seconds


def wide_console(width: int) -> Console:
    """Stdout, `width` columns wide where there is no terminal to fit."""
    console = Console()
    return console if console.is_terminal else Console(width=width)


@contextmanager
def progress_bar() -> Iterator[Callable[[float], None]]:
    """Yield what takes the fraction done; draws on stderr, only on a terminal and only when called.

    A bar that refreshes itself from a thread of its own would take its time from what is measured.
    """
    console = Console(stderr=True)
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
