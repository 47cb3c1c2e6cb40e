"""The sections of the page that compare: latency, numbers, BitOps against latency."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from qnas.html_page import Markup, element, table
from qnas.runtime_bench.environment import threads_text
from qnas.runtime_bench.page.axes import si, with_interval
from qnas.runtime_bench.page.charts import Dot, Strip, interval_chart, legend, scatter_chart
from qnas.runtime_bench.page.series import Measurement
from qnas.runtime_bench.result_files import Candidate
from qnas.runtime_bench.stats import Estimate

UNKNOWN = "unknown"
NS = 1e-9  # seconds


@dataclass(frozen=True)
class Shown:
    """A measurement with its place on the page: the number of its model, and the series of its device.

    `where` names the series, `label` adds what else tells the rows of one model apart.
    """

    measurement: Measurement
    number: int
    series: int
    where: str
    label: str

    @property
    def candidate(self) -> Candidate:
        """What was measured."""
        return self.measurement.candidate

    @property
    def title(self) -> str:
        """The model and its number."""
        return f"{self.number}. {self.measurement.model}"


def shown(newest: Sequence[Measurement]) -> tuple[Shown, ...]:
    """Number the models and devices; processor, threads and shapes are said where they differ."""
    several = {name: len({of(each) for each in newest}) > 1 for name, of in _TOLD_APART.items()}
    models = list(dict.fromkeys(each.model for each in newest))
    wheres = [_words(each, several, ("cpu", "threads")) for each in newest]
    series = list(dict.fromkeys(wheres))
    return tuple(
        Shown(
            each,
            models.index(each.model) + 1,
            series.index(where),
            where,
            _words(each, several, ("cpu", "threads", "shapes")),
        )
        for each, where in zip(newest, wheres, strict=True)
    )


_TOLD_APART: dict[str, Callable[[Measurement], str]] = {
    "cpu": lambda each: each.candidate.environment.cpu,
    "threads": lambda each: threads_text(each.threads),
    "shapes": lambda each: each.candidate.shapes,
}


def latency_section(rows: Sequence[Shown]) -> tuple[Markup, ...]:
    """Dots with intervals, grouped by model, and all numbers."""
    groups: dict[str, list[Strip]] = {}
    for each in rows:
        latency = each.candidate.latency_ns
        strip = Strip(each.label, each.series, seconds(latency), in_words(latency))
        groups.setdefault(each.title, []).append(strip)
    return (
        element("h2", "Latency"),
        element("p", "Medians with their intervals; the newest measurement of each.", class_="soft"),
        interval_chart(groups.items(), "s"),
        element("h2", "Numbers"),
        element(
            "p",
            "Delegated and integer: the shares of the MACs that the device asked for ran, and that ran in "
            "integers. Memory: the peak of the whole process, with interpreter and runtime.",
            class_="soft",
        ),
        table(
            ("model", "device", "input", *_COLUMNS),
            ([each.title, each.where, each.candidate.shapes, *_cells(each)] for each in rows),
            texts=3,
        ),
        *_warnings(rows),
    )


def bitops_section(rows: Sequence[Shown]) -> tuple[Markup, ...]:
    """Latency over the BitOps of the values, and over those that the hardware executes."""
    counted = [(each, each.candidate.cost) for each in rows if each.candidate.cost]
    known = [(each, counts) for each, counts in counted if counts.bitops and counts.executed_bitops]
    heading = element("h2", "BitOps against latency")
    if not known:
        return heading, element("p", "No BitOps are known of any of these models.", class_="soft")
    value = [_dot(each, counts.bitops) for each, counts in known]
    executed = [_dot(each, counts.executed_bitops) for each, counts in known]
    names = {each.series: each.where for each in rows}
    lacking = len(rows) - len(known)
    left_out = f" Of {lacking} of the measurements no BitOps are known." if lacking else ""
    return (
        heading,
        element(
            "p",
            "Left: MACs times the bits of weights and activations. Right: the bits of the containers that "
            "the processor really multiplies. The numbers at the dots are those of the models above."
            + left_out,
            class_="soft",
        ),
        legend([names[index] for index in range(len(names))]),
        element(
            "div",
            scatter_chart(value, "BitOps of the values", "", "s"),
            scatter_chart(executed, "BitOps that are executed", "", "s"),
            class_="charts",
        ),
    )


def _words(each: Measurement, several: dict[str, bool], names: Sequence[str]) -> str:
    return ", ".join([each.device, *(_TOLD_APART[name](each) for name in names if several[name])])


def seconds(estimate: Estimate) -> Estimate:
    """Write nanoseconds with a unit."""
    return Estimate(estimate.value * NS, estimate.low * NS, estimate.high * NS)


def in_words(latency: Estimate) -> str:
    """Write an estimate in nanoseconds: "2.29 ms [2.26, 2.32]"."""
    found = seconds(latency)
    return with_interval(found.value, found.low, found.high, "s")


def _dot(each: Shown, bitops: int) -> Dot:
    latency = each.candidate.latency_ns
    title = f"{each.measurement.model}, {each.label}: {si(bitops)} BitOps, {in_words(latency)}"
    return Dot(float(bitops), latency.value * NS, each.series, str(each.number), title)


def _cells(each: Shown) -> list[str]:
    return [cell(each.candidate) for cell in _COLUMNS.values()]


def _warnings(rows: Sequence[Shown]) -> tuple[Markup, ...]:
    texts = [(each, (*each.candidate.warnings, *_not_counted(each.candidate))) for each in rows]
    lines = [
        (each.title, each.label, element("span", "; ".join(words), class_="warn"))
        for each, words in texts
        if words
    ]
    grid = table(("model", "device", "warnings"), lines, texts=3)
    return (element("h3", "Warnings"), element("div", grid, class_="wrap")) if lines else ()


def _not_counted(each: Candidate) -> tuple[str, ...]:
    found = each.cost.uncovered if each.cost else ()
    return (f"not in MACs and BitOps: {', '.join(found)}",) if found else ()


def _count(of: Callable[[Candidate], int | None], unit: str = "") -> Callable[[Candidate], str]:
    def cell(each: Candidate) -> str:
        found = of(each)
        return UNKNOWN if found is None else si(found, unit)

    return cell


def _delegated(each: Candidate) -> str:
    proof = each.delegation
    return UNKNOWN if proof is None else f"{proof.mac_share:.1%}"


def _integer(each: Candidate) -> str:
    proof = each.delegation
    return UNKNOWN if proof is None or proof.unknown_macs else f"{proof.integer_share:.1%}"


_COLUMNS: dict[str, Callable[[Candidate], str]] = {
    "median [interval]": lambda each: in_words(each.latency_ns),
    "p90": lambda each: si(each.percentiles_ns.p90 * NS, "s"),
    "p99": lambda each: si(each.percentiles_ns.p99 * NS, "s"),
    "first inference": lambda each: si(each.first_ns * NS, "s"),
    "load": lambda each: si(each.load_ns * NS, "s"),
    "memory": _count(lambda each: each.peak_memory_bytes, "B"),
    "size": _count(lambda each: each.bytes, "B"),
    "MACs": _count(lambda each: each.cost.macs if each.cost else None),
    "BitOps": _count(lambda each: each.cost.bitops if each.cost else None),
    "BitOps executed": _count(lambda each: each.cost.executed_bitops if each.cost else None),
    "delegated": _delegated,
    "integer": _integer,
}
