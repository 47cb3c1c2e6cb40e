"""What every command line shares: one place that turns a user's error into one line and exit code 2."""

import sys
from typing import Any

import click

from qnas.errors import QnasError


class QnasCommand(click.Command):
    """A command that prints a `QnasError` as one line on stderr and exits with 2; bugs keep their traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except QnasError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(2)
