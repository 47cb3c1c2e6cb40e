"""The command `qnas-bench`: a model's name alone measures it, anything else is a subcommand."""

import click

from qnas.cli import LazyGroup

COMMANDS = {
    "measure": ("qnas.runtime_bench.measure_cli", "Measure models (what happens without a subcommand)."),
    "gate": ("qnas.runtime_bench.gate_cli", "Pass, fail or inconclusive: is a model slower than another?"),
    "cost": ("qnas.runtime_bench.cost_cli", "Count MACs, BitOps and bytes of a model."),
    "fit": ("qnas.runtime_bench.fit_cli", "Measure this machine's kernels for `predict`."),
    "operations": (
        "qnas.runtime_bench.operations_cli",
        "Price a search space's operations for `qnas-search run --cost latency`.",
    ),
    "predict": ("qnas.runtime_bench.predict_cli", "Predict a model's latency without timing it."),
    "correlate": (
        "qnas.runtime_bench.correlate_cli",
        "Rank correlation of costs and latencies over a folder.",
    ),
    "report": ("qnas.runtime_bench.report_cli", "One HTML page of result files."),
}


@click.group(cls=LazyGroup, modules=COMMANDS, default="measure", no_args_is_help=True)
def main() -> None:
    """Measure models: `qnas-bench MODEL... [OPTIONS]`, of which `qnas-bench measure --help` tells all."""
