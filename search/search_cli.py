"""The command `qnas-search`: subcommands, each in a `*_cli.py` of its own."""

import click

from qnas.cli import LazyGroup

COMMANDS = {
    "spaces": ("qnas.search.spaces_cli", "List search spaces: how many networks, and their costs."),
    "run": ("qnas.search.run_cli", "Search one space and write arch.json."),
    "random": ("qnas.search.random_cli", "Draw architectures of a space at a number of BitOps."),
    "bits": ("qnas.search.bits_cli", "Choose 4 or 8 bits for each layer of a network, under a budget."),
    "sweep": ("qnas.search.sweep_cli", "Many searches and their trainings: a Pareto front."),
    "report": ("qnas.search.report_cli", "One HTML page of a run or a sweep."),
}


@click.group(cls=LazyGroup, modules=COMMANDS, no_args_is_help=True)
def main() -> None:
    """Search mixed-precision super-resolution networks: space -> supernet -> arch.json."""
