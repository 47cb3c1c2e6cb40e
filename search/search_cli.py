"""The command `qnas-search`: subcommands, each in a `*_cli.py` of its own."""

from importlib import import_module

import click

from qnas.cli import CheckedOutput

COMMANDS = {
    "spaces": "List search spaces: how many networks, and their costs.",
    "run": "Search one space and write arch.json.",
    "random": "Draw architectures of a space at a number of BitOps.",
    "sweep": "Many searches and their trainings: a Pareto front.",
    "report": "One HTML page of a run or a sweep.",
}


class SearchGroup(CheckedOutput, click.Group):
    """Loads a subcommand when it is called: --help stays fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All of them, as they are shown."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import it."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"qnas.search.{cmd_name}_cli").main
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=SearchGroup, no_args_is_help=True)
def main() -> None:
    """Search mixed-precision super-resolution networks: space -> supernet -> arch.json."""
