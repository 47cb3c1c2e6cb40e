"""The command `qnas-bench`: a model's name alone measures it, anything else is a subcommand."""

from importlib import import_module

import click

from qnas.cli import CheckedOutput

COMMANDS = {
    "measure": "Measure models (what happens without a subcommand).",
    "gate": "Pass, fail or inconclusive: is a model slower than another?",
    "cost": "Count MACs, BitOps and bytes of a model.",
    "fit": "Measure this machine's kernels for `predict`.",
    "operations": "Price a search space's operations for `qnas-search run --cost latency`.",
    "predict": "Predict a model's latency without timing it.",
    "correlate": "Rank correlation of costs and latencies over a folder.",
    "report": "One HTML page of result files.",
}
DEFAULT = "measure"


class BenchGroup(CheckedOutput, click.Group):
    """Loads a subcommand when it is called: --help stays fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All of them, as they are shown."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import it."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"qnas.runtime_bench.{cmd_name}_cli").main
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """What is no subcommand and no plain --help belongs to `measure`."""
        if args not in ([], ["--help"]) and args[0] not in COMMANDS:
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=BenchGroup, no_args_is_help=True)
def main() -> None:
    """Measure models: `qnas-bench MODEL... [OPTIONS]`, of which `qnas-bench measure --help` tells all."""
