"""The consoles that commands print tables and progress to, to which names out of files are only text."""

from typing import Any

from rich.console import Console
from rich.text import Text

from qnas.cli import printing
from qnas.errors import printable_lines


class Terminal(Console):
    """A console to which every text is only text: no markup, no emoji, nothing that a terminal would obey."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Rich asks here for every text, alone or in a table."""
        return super().render_str(printable_lines(text), **options)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does; an error of the system says that it was of this output."""
        with printing(self.stderr):
            super().print(*objects, **options)

    def on_broken_pipe(self) -> None:
        """Rich calls it while it handles the error, which `qnas.cli` knows better what to do about."""
        raise


def stdout(width: int | None = None) -> Terminal:
    """Stdout, `width` columns wide where there is no terminal to fit."""
    console = Terminal()
    return console if console.is_terminal or width is None else Terminal(width=width)


def stderr(quiet: bool = False) -> Terminal:
    """Stderr, or nothing."""
    return Terminal(stderr=True, quiet=quiet)
