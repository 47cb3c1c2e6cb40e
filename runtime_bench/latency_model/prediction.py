"""`qnas-bench predict`: the latency of a model that is never timed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qnas.cost.macs import Shape
from qnas.runtime_bench.environment import current_environment
from qnas.runtime_bench.latency_model.kernels import Kernel, kernels
from qnas.runtime_bench.latency_model.table import Basis, LatencyModel
from qnas.runtime_bench.model_files import model_files
from qnas.runtimes.inputs import ShapeRequest, random_inputs, resolve_shapes
from qnas.runtimes.onnxruntime import CPU_DEVICE, execute

# What must be equal for a prediction to be of this machine; the rest of an environment changes no kernel.
MACHINE = ("cpu", "machine", "runtime")


@dataclass(frozen=True)
class PredictedNode:
    """One kernel of the model."""

    name: str
    kernel: Kernel
    ms: float
    basis: Basis


@dataclass(frozen=True)
class Prediction:
    """`ms` is the whole run's; `elsewhere` names the machine it is of where that is not this one."""

    model: Path
    shapes: dict[str, Shape]
    ms: float
    nodes: tuple[PredictedNode, ...]
    elsewhere: str | None

    @property
    def extrapolated_share(self) -> float:
        """The share of the kernels' time that no measurement is near."""
        whole = sum(node.ms for node in self.nodes)
        far = sum(node.ms for node in self.nodes if node.basis == "extrapolated")
        return far / whole if whole else 0.0

    def extrapolated(self) -> list[str]:
        """One line for all kernels that were guessed, and one for each, the longest first."""
        far = sorted((n for n in self.nodes if n.basis == "extrapolated"), key=lambda n: -n.ms)
        if not far:
            return []
        head = f"note: {self.extrapolated_share:.0%} of the time is extrapolated, {len(far)} kernels:"
        return [head, *(f"  {node.ms:.4f} ms {node.name}: {node.kernel}" for node in far)]

    def to_document(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "format": "qnas-prediction",
            "version": 1,
            "model": str(self.model),
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "ms": self.ms,
            "extrapolated_share": self.extrapolated_share,
            "elsewhere": self.elsewhere,
            "nodes": [asdict(node) for node in self.nodes],
        }


def predict(path: Path, model: LatencyModel, requests: Sequence[ShapeRequest] = ()) -> Prediction:
    """Predict one run of an ONNX model. It runs once, so that every tensor's shape is known.

    Raises ModelError or UsageError.
    """
    model_files(path)
    inputs = CPU_DEVICE.load("", path, model.threads, {}).inputs
    shapes = resolve_shapes(inputs, requests)
    executed = execute(path, random_inputs(inputs, shapes, 0), model.threads, runs=1, warmup=0)
    nodes = []
    for node, kernel in zip(executed.nodes, kernels(executed.nodes, executed.graph), strict=True):
        spent, basis = model.time(kernel)
        nodes.append(PredictedNode(node.name, kernel, spent / 1e6, basis))
    total = model.total(1e6 * sum(node.ms for node in nodes), len(nodes)) / 1e6
    return Prediction(path, shapes, total, tuple(nodes), _elsewhere(model))


def _elsewhere(model: LatencyModel) -> str | None:
    here = asdict(current_environment(CPU_DEVICE.version()))
    other = [str(model.environment.get(key)) for key in MACHINE if model.environment.get(key) != here[key]]
    return ", ".join(other) or None
