"""How a benchmark is shown to people: a table with one column a candidate."""

import math
from collections.abc import Callable

from rich.table import Table

from qnas.cost.file_cost import FileCost
from qnas.cost.network_cost import CONVENTIONS, NetworkCost
from qnas.runtime_bench.benchmark import BenchReport, CandidateReport
from qnas.runtime_bench.cost_report import UNKNOWN, count_text
from qnas.runtime_bench.environment import threads_text
from qnas.runtime_bench.profile.table import node_table, operation_table, peak_line
from qnas.runtime_bench.stats import CONFIDENCE, Estimate
from qnas.runtime_bench.workers.adb import BURST
from qnas.runtimes.inputs import shape_text
from qnas.runtimes.names import parse_device
from qnas.terminal import stdout

PROFILE_WIDTH = 200


def print_table(report: BenchReport, convention: str) -> None:
    """Print to stdout, wide enough for its numbers where there is no terminal to fit."""
    console = stdout(60 + 40 * len(report.models))
    console.print(table(report, convention))
    threads, rounds = report.settings.load.threads, len(report.models[0].measured.rounds)
    for shown in dict.fromkeys(_taken_on(each) for each in report.models):
        console.print(
            f"{shown}, {threads_text(threads)}, {rounds} rounds; in brackets: {CONFIDENCE:.0%} intervals"
        )


def print_profiles(report: BenchReport) -> None:
    """Print where the time of every candidate goes."""
    console = stdout(PROFILE_WIDTH)
    for each in report.models:
        if each.profile is None:
            continue
        console.print(f"\n{each.facts.files.path.name} on {each.device}")
        console.print(node_table(each.profile), operation_table(each.profile), sep="\n")
        if each.profile.peak is not None:
            console.print(peak_line(each.profile.peak))


def _taken_on(each: CandidateReport) -> str:
    environment = each.loaded.environment
    return f"{environment.cpu}, {environment.runtime}"


def table(report: BenchReport, convention: str = "decimal") -> Table:
    """One column a candidate; G is 10^9, or the paper's 2^30 by `convention`."""
    giga, shown = CONVENTIONS[convention]
    grid = Table()
    grid.add_column("")
    paths = {model.facts.files.path for model in report.models}
    for model in report.models:
        path = model.facts.files.path
        unique = sum(other.name == path.name for other in paths) == 1
        grid.add_column(path.name if unique else str(path), justify="right", overflow="fold")
    for label, cell in _ROWS.items():
        grid.add_row(label, *(cell(model) for model in report.models))
    for label, count in _COUNTS.items():
        cells = (count_text(model.facts.cost, count, giga) for model in report.models)
        grid.add_row(f"{label} (G = {shown})", *cells)
    if any(model.facts.architecture_cost for model in report.models):
        for label, of_network in _ARCHITECTURE_COUNTS.items():
            cells = (count_text(model.facts.architecture_cost, of_network, giga) for model in report.models)
            grid.add_row(f"{label} (G = {shown})", *cells)
    if any(model.facts.cost is not None and model.facts.cost.uncovered for model in report.models):
        grid.add_row("not in MACs", *(_uncovered(model.facts.cost) for model in report.models))
    return grid


def remarks(report: BenchReport) -> list[str]:
    """What a reader of the table should know, one line each."""
    lines = [f"{each.path} on {each.device} failed: {each.reason}" for each in report.failures]
    if len({_work(each) for each in report.models}) > 1:
        lines.append("the inputs differ in size: the ratios compare different work; name a --shape")
    for each in report.models:
        where = f"{each.facts.files.path} on {each.device}"
        if report.settings.schedule.runs is not None and parse_device(each.device).transport == "adb":
            made, least = sum(map(len, each.measured.rounds)), round(BURST / 1e6)
            lines.append(
                f"{where}: --runs is a lower bound there: {made} runs, in bursts of {least} ms or more"
            )
        if each.facts.cost_problem:
            lines.append(f"{where}: cost unknown: {each.facts.cost_problem}")
        lines += [f"{where}: {warning}" for warning in each.warnings]
    return lines


def missed(report: BenchReport, delegated: float | None, integer: float | None) -> list[str]:
    """Requirements on the shares of MACs that are not met, or not known to be, one line each."""
    lines = []
    for each in report.models:
        proof = each.delegation
        for name, share, least in (
            ("on the device asked for", proof.mac_share if proof else None, delegated),
            ("in integers", proof.integer_share if proof else None, integer),
        ):
            if least is not None and (share is None or share < least):
                found = "unknown" if share is None else f"{share:.4f}"
                lines.append(
                    f"{each.facts.files.path} on {each.device}: {found} of the MACs run {name}, not {least:g}"
                )
    return lines


def _work(each: CandidateReport) -> tuple[int, ...]:
    """Values of every input, whatever their order in memory."""
    return tuple(math.prod(shape) for shape in each.loaded.input_shapes.values())


def _interval(estimate: Estimate, unit: float = 1, digits: int = 3) -> str:
    value, low, high = (f"{x / unit:.{digits}f}" for x in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]"


def _fusion(model: CandidateReport) -> str:
    fusion = model.facts.fusion
    return f"{fusion.integer} of {fusion.total}" if fusion else ""


def _float_operations(model: CandidateReport) -> str:
    fusion = model.facts.fusion
    return (", ".join(fusion.float_ops) or "none") if fusion else ""


def _shapes(model: CandidateReport) -> str:
    return ", ".join(map(shape_text, model.loaded.input_shapes.values()))


def _weights(model: CandidateReport) -> str:
    return f"{model.facts.cost.weight_bytes:,}" if model.facts.cost else UNKNOWN


def _activations(model: CandidateReport) -> str:
    peak = model.facts.cost.peak_activation_bytes if model.facts.cost else None
    return UNKNOWN if peak is None else f"{peak:,}"


def _uncovered(cost: FileCost | None) -> str:
    return ", ".join(cost.uncovered) if cost else UNKNOWN


def _speed(model: CandidateReport) -> str:
    speed = model.megapixels_per_second
    return "no image" if speed is None else f"{speed:.3f}"


def _memory(model: CandidateReport) -> str:
    return f"{model.loaded.peak_memory / 2**20:.1f}" if model.loaded.peak_memory else UNKNOWN


def _tail(model: CandidateReport) -> str:
    return ", ".join(f"{model.percentiles[percent] / 1e6:.3f}" for percent in (90, 99))


def _start(model: CandidateReport) -> str:
    return f"{model.loaded.first_ns / 1e6:.2f}, {model.loaded.load_ns / 1e6:.1f}"


def _delegated(model: CandidateReport) -> str:
    proof = model.delegation
    if proof is None:
        return UNKNOWN
    return f"{proof.delegated_nodes} of {proof.nodes} nodes, {proof.mac_share:.1%} of MACs"


def _integer(model: CandidateReport) -> str:
    proof = model.delegation
    return UNKNOWN if proof is None or proof.unknown_macs else f"{proof.integer_share:.1%}"


_ROWS: dict[str, Callable[[CandidateReport], str]] = {
    "device": lambda model: model.device,
    "input": _shapes,
    "median latency (ms)": lambda model: _interval(model.latency, 1e6),
    "ratio to the first": lambda model: _interval(model.ratio) if model.ratio else "1",
    "90th, 99th percentile (ms)": _tail,
    "first inference, load (ms)": _start,
    "output megapixels/s": _speed,
    "peak memory (MiB)": _memory,
    "model size (bytes)": lambda model: f"{model.facts.files.size:,}",
    "weights (bytes)": _weights,
    "largest activations (bytes)": _activations,
    "run by the device": _delegated,
    "MACs in integers": _integer,
    "integer convolutions": _fusion,
    "other float operations": _float_operations,
}
_COUNTS: dict[str, Callable[[FileCost], int]] = {
    "MACs": lambda cost: cost.macs,
    "BitOps": lambda cost: cost.bitops,
    "BitOps that are executed": lambda cost: cost.executed_bitops,
}
_ARCHITECTURE_COUNTS: dict[str, Callable[[NetworkCost], int]] = {
    "MACs of the architecture": lambda cost: cost.macs,
    "BitOps of the architecture": lambda cost: cost.bitops,
}
