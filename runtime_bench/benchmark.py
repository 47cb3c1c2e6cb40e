"""One benchmark of models on devices: latency, memory, size, analytic cost and the proof of what ran."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from qnas.cost.file_cost import FileCost
from qnas.cost.network_cost import NetworkCost
from qnas.errors import ModelError, UsageError
from qnas.export.formats.table import file_kind
from qnas.onnx.fusion import FusionReport
from qnas.runtime_bench.machine_state import Conditions, State, between
from qnas.runtime_bench.measure import Measured, Schedule, measure
from qnas.runtime_bench.model_cost import architecture_cost
from qnas.runtime_bench.model_files import ModelFiles, model_files
from qnas.runtime_bench.noise import noise
from qnas.runtime_bench.profile.delegation import Delegation, delegation
from qnas.runtime_bench.profile.peak import Peak
from qnas.runtime_bench.profile.table import Profile, profile
from qnas.runtime_bench.stats import Estimate, median_interval, percentile, ratio_interval
from qnas.runtime_bench.workers.process import LoadOptions
from qnas.runtime_bench.workers.protocol import Loaded
from qnas.runtime_bench.workers.runner import LoadedRunner
from qnas.runtime_bench.workers.start import start_runner
from qnas.runtimes.inputs import CHANNELS, image_axes, parse_shape
from qnas.runtimes.names import DeviceName, default_device, parse_device

PROOF_RUNS = 1  # profiled inferences that tell what ran where
PROFILE_RUNS = 30


@dataclass(frozen=True)
class Settings:
    """What was asked for. Without `devices` every model runs on the default one of its kind."""

    devices: tuple[str, ...] = ()
    load: LoadOptions = field(default_factory=LoadOptions)
    schedule: Schedule = field(default_factory=Schedule)
    profile: bool = False


@dataclass(frozen=True)
class ModelFacts:
    """What a model is, whatever its latency."""

    files: ModelFiles
    cost: FileCost | None
    architecture_cost: NetworkCost | None  # of a model of qnas: before the exporter rearranged it
    cost_problem: str | None
    fusion: FusionReport | None  # of ONNX models


@dataclass(frozen=True)
class CandidateReport:
    """A model on a device; `ratio`: its median latency over that of the first candidate. Times in ns."""

    device: str
    facts: ModelFacts
    loaded: Loaded
    measured: Measured
    latency: Estimate
    percentiles: dict[int, float]
    ratio: Estimate | None
    delegation: Delegation | None
    profile: Profile | None
    conditions: Conditions
    warnings: tuple[str, ...]

    @property
    def output_pixels(self) -> int | None:
        """Pixels of the first output, or None when it is no batch of images."""
        shape = next(iter(self.loaded.output_shapes.values()), ())
        axes = image_axes(shape)
        if axes is None or shape[1 if axes == (2, 3) else 3] not in CHANNELS:
            return None
        return shape[0] * shape[axes[0]] * shape[axes[1]]

    @property
    def megapixels_per_second(self) -> float | None:
        """Output pixels over the median latency."""
        pixels = self.output_pixels
        return None if pixels is None else pixels * 1e3 / self.latency.value


@dataclass(frozen=True)
class Failure:
    """A candidate that could not be measured."""

    path: Path
    device: str
    reason: str


@dataclass(frozen=True)
class BenchReport:
    """Everything that one benchmark found."""

    settings: Settings
    models: tuple[CandidateReport, ...]
    failures: tuple[Failure, ...]


def candidates(paths: Sequence[Path], devices: Sequence[str]) -> list[tuple[Path, DeviceName]]:
    """Every model on every device that reads files of its kind, in order.

    Raises UsageError for an unknown device, one that reads none of the models, or a model that none reads.
    """
    if not devices:
        return [(path, default_device(path)) for path in paths]
    named = [parse_device(text) for text in devices]
    pairs = [(p, d) for d in named for p in paths if p.suffix.lower() == d.device.suffix]
    for path in paths:
        if all(path != p for p, _ in pairs):
            raise UsageError(f"{path}: none of {', '.join(devices)} runs {path.suffix or 'such'} files")
    for device in named:
        if all(device != d for _, d in pairs):
            raise UsageError(f"--device {device} runs {device.device.suffix} files, and there is none")
    return pairs


def benchmark(
    paths: Sequence[Path], settings: Settings, progress: Callable[[float], None] = lambda done: None
) -> BenchReport:
    """Measure the models at `paths` in interleaved rounds, each in a process of its own.

    A candidate that crashes its runtime is among the failures and the others are measured. Raises UsageError
    when the settings fit no model or device, ModelError when no candidate at all can be measured.
    """
    pairs = candidates(paths, settings.devices)
    files = {path: model_files(path) for path in paths}
    failures: list[Failure] = []
    with ExitStack() as open_workers:
        runners: list[tuple[DeviceName, ModelFiles, LoadedRunner]] = []
        for path, device in pairs:
            try:
                runner = start_runner(files[path], device, settings.load)
            except ModelError as error:
                failures.append(Failure(path, str(device), str(error)))
                if len(failures) == len(pairs):
                    raise
                continue
            open_workers.callback(runner.close)
            runners.append((device, files[path], runner))
        _check_names(settings, [runner for _, _, runner in runners])
        facts = {each.path: _facts(each, runner.loaded, settings) for _, each, runner in runners}
        before = [runner.state() for _, _, runner in runners]
        measured = measure([runner for _, _, runner in runners], settings.schedule, progress)
        states = [(start, _state(runner)) for start, (_, _, runner) in zip(before, runners, strict=True)]
        reports: list[CandidateReport] = []
        for index, ((device, model, runner), times) in enumerate(zip(runners, measured, strict=True)):
            if times.failure is not None:
                failures.append(Failure(model.path, str(device), times.failure))
                continue
            conditions = _conditions(index, [each for each, _, _ in runners], states)
            first = reports[0].measured if reports else None
            reports.append(_report(device, facts[model.path], runner, times, first, conditions, settings))
    if not reports:
        raise ModelError("; ".join(f"{each.path} on {each.device}: {each.reason}" for each in failures))
    return BenchReport(settings, tuple(reports), tuple(failures))


def _state(runner: LoadedRunner) -> State | None:
    try:
        return runner.state()
    except ModelError:  # it died while it was measured
        return None


def _conditions(
    index: int, devices: Sequence[DeviceName], states: Sequence[tuple[State, State | None]]
) -> Conditions:
    """What candidate `index` was measured in; what the other candidates took on its machine is ours."""
    siblings = [
        (start, end)
        for other, (device, (start, end)) in enumerate(zip(devices, states, strict=True))
        if other != index and end is not None and _machine(device) == _machine(devices[index])
    ]
    start, end = states[index]
    return between(start, end or start, siblings)


def _machine(device: DeviceName) -> tuple[str, str]:
    return device.transport, device.machine


def _report(
    device: DeviceName,
    facts: ModelFacts,
    runner: LoadedRunner,
    measured: Measured,
    first: Measured | None,
    conditions: Conditions,
    settings: Settings,
) -> CandidateReport:
    seed, values = settings.load.seed, measured.values
    every = [ns for burst in measured.rounds for ns in burst]
    warnings = list(noise(measured.rounds, conditions))
    proof: Delegation | None = None
    profiled: Profile | None = None
    try:
        executed, provider = runner.executed(PROFILE_RUNS if settings.profile else PROOF_RUNS)
        proof = delegation(executed, provider, facts.cost.macs if facts.cost else 0)
        if settings.profile:
            profiled = profile(executed, _peak(runner, settings.load.threads))
    except (ModelError, UsageError) as error:
        warnings.append(f"what ran where is unknown: {error}")
    return CandidateReport(
        device=str(device),
        facts=facts,
        loaded=runner.loaded,
        measured=measured,
        latency=median_interval(values, seed),
        percentiles={percent: percentile(every, percent) for percent in (50, 90, 99)},
        ratio=ratio_interval(values, first.values, seed) if first else None,
        delegation=proof,
        profile=profiled,
        conditions=conditions,
        warnings=tuple(warnings),
    )


def _peak(runner: LoadedRunner, threads: int) -> Peak | None:
    """None where nothing of ours runs that could measure it, as on a phone."""
    try:
        return runner.peak(threads)
    except (ModelError, UsageError):
        return None


def _check_names(settings: Settings, runners: Sequence[LoadedRunner]) -> None:
    known = {name for runner in runners for name in runner.loaded.input_shapes}
    for text in settings.load.shapes:
        name = parse_shape(text).name
        if name is not None and name not in known:
            raise UsageError(f"no model has an input {name!r}: there are {', '.join(sorted(known))}")


def _facts(files: ModelFiles, loaded: Loaded, settings: Settings) -> ModelFacts:
    kind, cost, problem = file_kind(files.path), None, None
    try:
        cost = kind.cost(files.path, loaded.input_shapes)
    except (ModelError, UsageError) as error:  # it runs: its latency is worth having without its cost
        problem = str(error)
    return ModelFacts(
        files=files,
        cost=cost,
        architecture_cost=architecture_cost(files.path, loaded.input_shapes),
        cost_problem=problem,
        fusion=kind.fusion(files.path, settings.load.threads),
    )
