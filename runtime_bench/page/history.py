"""The section of the page that follows measurements over a series of files, and the chart that it shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from qnas.html_page import Markup, element
from qnas.runtime_bench.environment import threads_text
from qnas.runtime_bench.page.charts import Moment, history_chart
from qnas.runtime_bench.page.sections import in_words, seconds
from qnas.runtime_bench.page.series import Change, Measurement, change
from qnas.runtime_bench.stats import Estimate

TIME = "%Y-%m-%d %H:%M"


@dataclass(frozen=True)
class Result:
    """One of a series: `words` say its `estimate`, `change` what differs from the one before."""

    file: Path
    taken: datetime
    estimate: Estimate
    words: str
    change: Change | None


def history_section(histories: Sequence[Sequence[Measurement]]) -> tuple[Markup, ...]:
    """One chart a series of measurements, and in words what changed within it."""
    if not histories:
        return ()
    words = (
        "Medians with intervals, the oldest first. A dashed line stands where the processor, a version or "
        "the model changed; across another processor or version no line joins the dots."
    )
    return (
        element("h2", "History"),
        element("p", words, class_="soft"),
        element("div", *map(_figure, histories), class_="charts"),
    )


def history_figure(results: Sequence[Result], heading: str, unit: str) -> Markup:
    """Estimates in `unit` with what changed between them."""
    moments, texts = [], []
    for index, each in enumerate(results):
        if each.change is not None:
            texts.append(f"{each.taken:{TIME}}: {'; '.join(each.change.texts)}")
        moments.append(
            Moment(
                estimate=each.estimate,
                when=f"{each.taken:%Y-%m-%d}",
                title=f"{each.taken:{TIME}} UTC, {each.file.name}: {each.words}",
                mark=str(len(texts)) if each.change else "",
                joined=index > 0 and (each.change is None or each.change.comparable),
            )
        )
    chart = history_chart(moments, 0, heading, unit)
    changes = element("ol", *(element("li", text) for text in texts), class_="changes") if texts else ""
    return element("div", chart, changes)


def _figure(series: Sequence[Measurement]) -> Markup:
    model, device, shapes, count = series[0].key
    changes = (None, *map(change, series, series[1:]))
    results = [
        Result(
            each.file, each.taken, seconds(latency := each.candidate.latency_ns), in_words(latency), changed
        )
        for each, changed in zip(series, changes, strict=True)
    ]
    return history_figure(results, f"{model} on {device}, {shapes}, {threads_text(count)}", "s")
