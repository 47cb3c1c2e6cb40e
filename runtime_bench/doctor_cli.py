"""The command `qnas doctor`."""

import click

from qnas.cli import QnasCommand


@click.command(cls=QnasCommand)
def main() -> None:
    """Say what is installed here, which commands and devices work, and what to install for the rest."""
    from rich.table import Table

    from qnas.runtime_bench.doctor import findings
    from qnas.terminal import stdout

    for title, rows in findings().items():
        table = Table(title=title, title_justify="left", box=None, show_header=False, padding=(0, 2, 0, 0))
        for name, found in rows:
            table.add_row(name, found)
        stdout(100).print(table)
