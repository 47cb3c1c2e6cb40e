"""One benchmark of one or more models: latency beside memory, size, analytic cost and the fusion proof."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from qnas.architecture import from_json
from qnas.cost import NetworkCost, network_cost
from qnas.errors import ArchitectureError, ModelError, UsageError
from qnas.fusion import FusionReport, count_integer_convolutions
from qnas.lowering import lower
from qnas.onnx_cost import OnnxCost, model_cost
from qnas.onnx_shapes import read_model
from qnas.runtime_bench.environment import Environment, current_environment
from qnas.runtime_bench.inputs import CHANNELS, Shape, ShapeRequest, image_axes
from qnas.runtime_bench.measure import Candidate, Plan, Samples, load_candidate, measure
from qnas.runtime_bench.memory import peak_memory
from qnas.runtime_bench.stats import Estimate, median_interval, percentile, ratio_interval

DEVICES = ("cpu",)


@dataclass(frozen=True)
class Settings:
    """What was asked for."""

    device: str = "cpu"
    threads: int = 1
    shapes: tuple[ShapeRequest, ...] = ()
    plan: Plan = field(default_factory=Plan)
    seed: int = 0


@dataclass(frozen=True)
class ModelFacts:
    """What a model is, whatever its latency; sizes in bytes, of all files that it lies in."""

    path: Path
    sha256: str
    size: int
    input_shapes: dict[str, Shape]
    input_types: dict[str, str]
    output_shapes: dict[str, Shape]
    peak_memory: int | None
    cost: OnnxCost | None
    architecture_cost: NetworkCost | None  # of a model of qnas: before the exporter rearranged it
    cost_problem: str | None
    fusion: FusionReport

    @property
    def output_pixels(self) -> int | None:
        """Pixels of the first output, or None when it is no batch of images."""
        shape = next(iter(self.output_shapes.values()), ())
        axes = image_axes(shape)
        if axes is None or shape[1 if axes == (2, 3) else 3] not in CHANNELS:
            return None
        return shape[0] * shape[axes[0]] * shape[axes[1]]


@dataclass(frozen=True)
class ModelReport:
    """A model's facts and its latencies in nanoseconds; `ratio`: its median over that of the first."""

    facts: ModelFacts
    samples: Samples
    latency: Estimate
    p90: float
    ratio: Estimate | None

    @property
    def megapixels_per_second(self) -> float | None:
        """Output pixels over the median latency."""
        pixels = self.facts.output_pixels
        return None if pixels is None else pixels * 1e3 / self.latency.value


@dataclass(frozen=True)
class BenchReport:
    """Everything that one benchmark found."""

    environment: Environment
    settings: Settings
    models: tuple[ModelReport, ...]


def benchmark(
    paths: Sequence[Path], settings: Settings, progress: Callable[[float], None] = lambda done: None
) -> BenchReport:
    """Measure the models at `paths` in interleaved rounds.

    Raises UsageError when the settings fit no model or device, ModelError when a model cannot be read or run.
    """
    if settings.device not in DEVICES:
        raise UsageError(f"there is no device {settings.device!r}: the devices are {', '.join(DEVICES)}")
    candidates = [load_candidate(path, settings.threads, settings.shapes, settings.seed) for path in paths]
    known = {name for candidate in candidates for name in candidate.feed}
    for request in settings.shapes:
        if request.name is not None and request.name not in known:
            raise UsageError(f"no model has an input {request.name!r}: there are {', '.join(sorted(known))}")
    facts = [_facts(candidate, settings) for candidate in candidates]
    samples = measure(candidates, settings.plan, progress)
    reports = tuple(
        ModelReport(
            facts=fact,
            samples=times,
            latency=median_interval(times, settings.seed),
            p90=percentile(times, 90),
            ratio=ratio_interval(times, samples[0], settings.seed) if index else None,
        )
        for index, (fact, times) in enumerate(zip(facts, samples, strict=True))
    )
    return BenchReport(current_environment(), settings, reports)


def _facts(candidate: Candidate, settings: Settings) -> ModelFacts:
    path, feed = candidate.path, candidate.feed
    shapes = {name: value.shape for name, value in feed.items()}
    cost, problem = None, None
    try:
        cost = model_cost(path, shapes)
    except ModelError as error:  # it runs, so that its latency is worth having without its cost
        problem = str(error)
    files = [path, *_external_files(path)]
    return ModelFacts(
        path=path,
        sha256=_digest(files),
        size=sum(file.stat().st_size for file in files),
        input_shapes=shapes,
        input_types={name: str(value.dtype) for name, value in feed.items()},
        output_shapes=candidate.output_shapes,
        peak_memory=peak_memory(path, settings.threads, shapes, settings.seed),
        cost=cost,
        architecture_cost=_architecture_cost(path, shapes),
        cost_problem=problem,
        fusion=count_integer_convolutions(path, settings.threads),
    )


def _architecture_cost(path: Path, shapes: dict[str, Shape]) -> NetworkCost | None:
    """The cost of the architecture that qnas-export left in the metadata, for one image."""
    metadata = {entry.key: entry.value for entry in read_model(path, external_data=False).metadata_props}
    shape = next(iter(shapes.values()), ())
    if "qnas.architecture" not in metadata or len(shape) != 4:
        return None
    try:
        layers = lower(from_json(metadata["qnas.architecture"], str(path)))
    except ArchitectureError:
        return None  # of another version of qnas: what the file executes is counted all the same
    return network_cost(layers, shape[2], shape[3])


def _external_files(path: Path) -> list[Path]:
    model = read_model(path, external_data=False)
    tensors = [tensor for tensor in model.graph.initializer if uses_external_data(tensor)]
    return [path.parent / name for name in sorted({ExternalDataInfo(tensor).location for tensor in tensors})]


def _digest(files: Sequence[Path]) -> str:
    """SHA-256 of the files, one after the other."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
