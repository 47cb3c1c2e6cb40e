"""What every command line shares: one place that turns a user's error into one line and exit code 2."""

import sys
from typing import Any, NoReturn

import click

from qnas.errors import QnasError

INTERRUPTED = 130  # 128 + SIGINT, as shells have it


class QnasCommand(click.Command):
    """Prints a user's error as one line on stderr and exits with 2; a bug keeps its traceback.

    Ctrl-C exits with 130.
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


def _fail(message: str) -> NoReturn:
    click.echo(f"error: {' '.join(message.split())}", err=True)
    sys.exit(2)
