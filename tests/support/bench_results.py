"""Result files of the bench and of its gate, as they write them, without a measurement."""

from pathlib import Path
from typing import Any

from qnas.runtime_bench.environment import Environment
from qnas.runtime_bench.gate.sequential import Decision, Sample, Status
from qnas.runtime_bench.gate.timing import Timed
from qnas.runtime_bench.gate.verdict import GateReport, Row
from qnas.runtime_bench.stats import Estimate

ENVIRONMENT = Environment(
    "AMD EPYC", "x86_64", "Linux 6.1", 2, 2, None, "onnxruntime 1.31.1", "3.11.7", "2.4.6", "0.1.0"
)


def candidate(path: str = "a.onnx", device: str = "cpu", milliseconds: float = 2.0) -> dict[str, Any]:
    """An entry of `models`, as qnas.runtime_bench.document writes it."""
    row = {"name": "c", "op": "QLinearConv", "provider": "CPU", "nodes": 1, "integer": True,
           "microseconds": 50.0, "share": 0.5, "macs": 1000, "gops": 40.0, "peak_share": 0.08,
           "gigabytes": 1.5}  # fmt: skip
    peak = {"integer_gops": 500.0, "float_gflops": 100.0, "gigabytes": 9.0, "threads": 1, "runtime": "ort"}
    node = {"name": "n", "op": "Conv", "macs": 1000, "bitops": 16_000, "executed_bitops": 64_000}
    return {
        "path": path,
        "device": device,
        "sha256": "25c481b5" + 56 * "0",
        "bytes": 142_812,
        "environment": dict(vars(ENVIRONMENT)),
        "inputs": {"image": {"type": "uint8", "shape": [1, 3, 64, 48]}},
        "load_ns": 20_000_000,
        "first_ns": 6_000_000,
        "peak_memory_bytes": 67_379_200,
        "latency_ns": {
            "value": milliseconds * 1e6,
            "low": milliseconds * 0.9e6,
            "high": milliseconds * 1.1e6,
        },
        "percentiles_ns": {"p50": 2e6, "p90": 2.5e6, "p99": 3.5e6},
        "cost": {"macs": 1000, "bitops": 16_000, "executed_bitops": 64_000, "uncovered": [], "nodes": [node]},
        "delegation": {"provider": "CPU", "nodes": 4, "delegated_nodes": 3, "macs": 1000,
                       "delegated_macs": 750, "integer_macs": 500, "unknown_macs": 0},
        "warnings": [],
        "profile": {"rows": [row], "operations": [row], "total": row | {"name": "total"}, "peak": peak},
    }  # fmt: skip


def document(*models: dict[str, Any], taken: str = "2026-01-31T12:00:00+00:00") -> dict[str, Any]:
    """A file of `qnas-bench MODEL --json`, of one candidate where none is given."""
    return {
        "format": "qnas-bench",
        "version": 2,
        "taken": taken,
        "settings": {"threads": 1, "cpus": [], "device_options": {}},
        "interval": {"confidence": 0.95},
        "models": list(models or (candidate(),)),
        "failures": [],
    }


def gate_report(ratio: Estimate, confirmed: Estimate | None = None) -> GateReport:
    """A gate of latency and size whose sample has this ratio; `confirmed`: that of a second one."""
    sample = Sample((1.2, 1.1), ratio, Status.FAIL)
    again = None if confirmed is None else Sample((1.2, 1.1), confirmed, Status.FAIL)
    rows = (
        Row("latency", Status.FAIL, "ratio", ratio.value, 1.0, 1.05),
        Row("size", Status.PASS, "bytes", 90, 100, 100),
    )
    timed = Timed(Decision(Status.FAIL, sample, again), (), 12.34, 1.5)
    return GateReport(Path("new.onnx"), Path("old.onnx"), "cpu", 1, ENVIRONMENT, rows, timed, 0, 60)
