"""The JSON of a benchmark: every sample, and what it was taken on.

Times are nanoseconds, sizes bytes; `models` has one entry a candidate, a model on a device.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from qnas.cost.network_cost import NetworkCost
from qnas.errors import printable
from qnas.files import write_file
from qnas.runtime_bench.benchmark import BenchReport, CandidateReport, Settings
from qnas.runtime_bench.cost_report import cost_document
from qnas.runtime_bench.result_files import BENCH, head
from qnas.runtime_bench.stats import CONFIDENCE, RESAMPLES


def write_json(report: BenchReport, path: Path, force: bool) -> None:
    """Write the report whole or not at all; OutputError when `path` exists or cannot be written."""
    write_file(path, json.dumps(as_document(report)) + "\n", force)


def as_document(report: BenchReport) -> dict[str, Any]:
    """The report as JSON data."""
    return {
        **head(BENCH),
        "settings": _settings(report.settings),
        "interval": {
            "confidence": CONFIDENCE,
            "method": "percentile bootstrap over rounds",
            "resamples": RESAMPLES,
        },
        "models": [_candidate(each) for each in report.models],
        "failures": [
            {"path": printable(str(each.path)), "device": each.device, "reason": each.reason}
            for each in report.failures
        ],
    }


def _settings(settings: Settings) -> dict[str, Any]:
    load, schedule = settings.load, settings.schedule
    return {
        "devices": settings.devices,
        "device_options": dict(load.device_options),
        "threads": load.threads,
        "cpus": load.cpus,
        "shapes": load.shapes,
        "seed": load.seed,
        "runs": schedule.runs,
        "seconds": schedule.seconds,
        "warmup": schedule.warmup,
    }


def _candidate(each: CandidateReport) -> dict[str, Any]:
    facts, loaded = each.facts, each.loaded
    inputs = {
        name: {"type": loaded.input_types[name], "shape": shape}
        for name, shape in loaded.input_shapes.items()
    }
    return {
        "path": printable(str(facts.files.path)),
        "device": each.device,
        "sha256": facts.files.digest,
        "bytes": facts.files.size,
        "environment": asdict(loaded.environment),
        "inputs": inputs,
        "outputs": loaded.output_shapes,
        "load_ns": loaded.load_ns,
        "first_ns": loaded.first_ns,
        "peak_memory_bytes": loaded.peak_memory or None,
        "latency_ns": asdict(each.latency),
        "percentiles_ns": {f"p{percent}": value for percent, value in each.percentiles.items()},
        "ratio_to_first": asdict(each.ratio) if each.ratio else None,
        "megapixels_per_second": each.megapixels_per_second,
        "cost": cost_document(facts.cost) if facts.cost else None,
        "cost_problem": facts.cost_problem,
        "architecture": _architecture(facts.architecture_cost) if facts.architecture_cost else None,
        "fusion": asdict(facts.fusion) if facts.fusion else None,
        "delegation": asdict(each.delegation) if each.delegation else None,
        "conditions": asdict(each.conditions),
        "warnings": each.warnings,
        "profile": asdict(each.profile) if each.profile else None,
        "rounds_ns": each.measured.rounds,
    }


def _architecture(cost: NetworkCost) -> dict[str, Any]:
    """Per image; `cost` counts what the file executes for the whole batch."""
    return {"macs": cost.macs, "bitops": cost.bitops, "weight_bytes": cost.weight_bytes}
