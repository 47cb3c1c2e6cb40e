"""A model of a gate and where it runs."""

from dataclasses import dataclass, replace

from qnas.runtime_bench.gate.deterministic import Subject
from qnas.runtime_bench.gate.pairs import Cpus
from qnas.runtime_bench.model_files import ModelFiles
from qnas.runtime_bench.workers.process import LoadOptions
from qnas.runtime_bench.workers.runner import LoadedRunner
from qnas.runtime_bench.workers.start import start_runner
from qnas.runtimes.names import DeviceName


@dataclass(frozen=True)
class Contender:
    """A model and where it runs; `latency`: a first idea of it, in nanoseconds."""

    device: DeviceName
    subject: Subject
    latency: float

    @property
    def files(self) -> ModelFiles:
        """The files of the model."""
        return self.subject.files

    def start(self, load: LoadOptions, cpus: Cpus) -> LoadedRunner:
        """Load it in a fresh process that may use `cpus`. Raises ModelError and UsageError."""
        return start_runner(self.files, self.device, replace(load, cpus=cpus))
