"""What every command line shares: one place that turns a user's error into one line and exit code 2."""

import errno
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from importlib import import_module
from typing import Any, NoReturn

import click

from qnas.errors import QnasError, printable_lines, system_error

INTERRUPTED = 130  # 128 + SIGINT, as shells have it
OUTPUT = "standard output"
NOBODY_READS = 141  # 128 + SIGPIPE
_OF_THE_SYSTEM = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENAMETOOLONG, errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
)


class CheckedOutput(click.Command):
    """A command, or a group of them, of which nothing that it prints is lost without an error."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run it to its end, where all of its output has arrived or that it has not is an error."""
        _open_missing()
        try:
            try:
                return super().main(*args, **extra)
            finally:
                if sys.stdout is not None:
                    sys.stdout.flush()
        except OSError as error:
            _refused_by_system(error, OUTPUT)


class QnasCommand(CheckedOutput):
    """Prints a user's error as one line on stderr and exits with 2; a bug keeps its traceback.

    Ctrl-C exits with 130, a reader of its output that went away, as `head` does, with 141.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse; click's own three lines about wrong options become one."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            _fail(f"{error.format_message().rstrip('.')}: see {ctx.command_path} --help")

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except QnasError as error:
            _fail(str(error))
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            _fail(f'{ctx.command_path} needs PyTorch, which is not installed: pip install "qnas[all]"')
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)
        except OSError as error:
            _refused_by_system(error)


class LazyGroup(CheckedOutput, click.Group):
    """Subcommands that are imported when they are called: --help stays fast.

    `modules`: name -> (the module whose `main` it is, one line of help). Arguments that start with no
    subcommand belong to `default`, where there is one.
    """

    def __init__(
        self, *args: Any, modules: Mapping[str, tuple[str, str]], default: str = "", **extra: Any
    ) -> None:
        super().__init__(*args, **extra)
        self.modules, self.default = modules, default

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All of them, as they are shown."""
        return list(self.modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import it."""
        if cmd_name not in self.modules:
            return None
        command: click.Command = import_module(self.modules[cmd_name][0]).main
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """What is no subcommand and no plain --help belongs to the default."""
        if self.default and args not in ([], ["--help"]) and args[0] not in self.modules:
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find it; one that is not there is one line, with the nearest name."""
        wrong = args[0] not in self.modules and not args[0].startswith("-")
        if wrong and not ctx.resilient_parsing:  # a shell that completes words gets no error
            near = get_close_matches(args[0], self.modules, 1)
            advice = f"did you mean {near[0]}?" if near else f"see {ctx.command_path} --help"
            _fail(f"{ctx.command_path} has no command {args[0]!r}: {advice}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, said) for name, (_, said) in self.modules.items()])


@contextmanager
def printing(err: bool = False) -> Iterator[None]:
    """Around what prints: an error of the system says that it was of the standard output."""
    try:
        yield
    except OSError as error:
        error.filename = "standard error" if err else OUTPUT
        raise


def say(text: str, err: bool = False, nl: bool = True) -> None:
    """Print lines to stdout, or with `err` to stderr; without `nl` no end of the last."""
    with printing(err):
        click.echo(printable_lines(text), err=err, nl=nl)


def _refused_by_system(error: OSError, what: str = "a file") -> NoReturn:
    """End for want of space, files or memory, or of a reader of the output; anything else is a bug."""
    if error.errno not in (*_OF_THE_SYSTEM, errno.EPIPE):
        raise error
    with suppress(OSError, AttributeError):  # Python would flush at the end, and fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if error.errno == errno.EPIPE:
        sys.exit(NOBODY_READS)
    _fail(f"{error.filename or what} cannot be written or read: {system_error(error)}")


def _open_missing() -> None:
    """Let no file take the place of an input or output that the command was started without."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _fail(message: str) -> NoReturn:
    with suppress(OSError):  # nobody to tell
        say(f"error: {' '.join(message.split())}", err=True)
    sys.exit(2)
