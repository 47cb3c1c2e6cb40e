"""A latency measured before, in a file of `qnas-bench MODEL --json`; refused where it cannot be compared."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np

from qnas.errors import UsageError
from qnas.runtime_bench.gate.pairs import FAST, undisturbed
from qnas.runtime_bench.measure import Rounds
from qnas.runtime_bench.result_files import BENCH, Candidate, ModelInput, Settings
from qnas.runtime_bench.stats import Estimate, median
from qnas.runtime_bench.workers.process import LoadOptions
from qnas.runtime_bench.workers.protocol import Loaded
from qnas.runtimes.inputs import shape_text

LEAST_DEVIATION = 0.01  # between processes, of the logarithm: what a few equal ones must not make smaller
RESAMPLES = 1000
SAME = {"cpu": "processor", "machine": "architecture", "cores": "number of cores",
        "usable_cores": "number of usable cores", "runtime": "runtime"}  # fmt: skip


@dataclass(frozen=True)
class Baseline:
    """What the file at `path` says of one model on one device."""

    path: Path
    settings: Settings
    measured: Candidate

    @property
    def rounds(self) -> Rounds:
        """Every sample in nanoseconds."""
        return self.measured.rounds_ns

    @property
    def latency(self) -> float:
        """Undisturbed, as `pairs.undisturbed` has it."""
        return undisturbed(self.rounds)


def read_baseline(path: Path, device: str, model: str) -> Baseline:
    """The entry of `device`, and of several that of the file name `model`.

    Raises UsageError when the file cannot be read, is of another kind or version, or has no such entry.
    """
    document = BENCH.read(path)
    entries = [each for each in document.models if each.device == device]
    if len(entries) > 1:
        entries = [each for each in entries if Path(each.path).name == model]
    if len(entries) != 1:
        raise UsageError(
            f"{path} has {len(entries) or 'no'} measurements of {model} on {device}: measure it again "
            f"with qnas-bench {model} --device {device} --json"
        )
    if len(entries[0].rounds_ns) < 2 or not all(entries[0].rounds_ns):
        raise UsageError(f"{path} has not two rounds of {model} on {device}: measure the baseline again")
    return Baseline(path, document.settings, entries[0])


def check_same(baseline: Baseline, loaded: Loaded, options: LoadOptions) -> None:
    """Raise UsageError, with the difference, when the baseline was not measured under the same conditions."""
    there, here, settings = baseline.measured, loaded.environment, baseline.settings
    pairs = [(what, getattr(there.environment, key), getattr(here, key)) for key, what in SAME.items()]
    pairs += [
        ("number of threads", settings.threads, options.threads),
        ("processors (--cpus)", list(settings.cpus), list(options.cpus)),
        ("device options", settings.device_options, dict(options.device_options)),
    ]
    inputs = {
        name: ModelInput(loaded.input_types[name], shape) for name, shape in loaded.input_shapes.items()
    }
    pairs.append(("inputs", _shown(there.inputs), _shown(inputs)))
    for what, then, now in pairs:
        if then != now:
            raise UsageError(
                f"{baseline.path} cannot be compared: its {what} was {then}, here it is {now}; measure the "
                "baseline again under the same conditions, or compare with --against"
            )


def _shown(inputs: Mapping[str, ModelInput]) -> str:
    words = (f"{name} {each.type} {shape_text(each.shape)}" for name, each in sorted(inputs.items()))
    return ", ".join(words)


@dataclass(frozen=True)
class UnpairedBounds:
    """Bounds of the ratio of one model to a baseline that is one process, measured at another time.

    The logarithms of both vary from process to process with one deviation, which the new processes show;
    resampling its rounds adds what the baseline's own samples leave open. What the machine does differently
    on another day is in none of it: that is why interleaved pairs say more.
    """

    deviation: float  # of the baseline's logarithm

    def __call__(self, ratios: Sequence[float], level: float) -> Estimate:
        logs = np.log(ratios)
        middle = median(logs)
        spread = 1.4826 * median(np.abs(logs - middle))  # a normal distribution's standard deviation
        process = max(spread, LEAST_DEVIATION)
        reach = -NormalDist().inv_cdf(level) * math.hypot(
            process, process * math.sqrt(math.pi / (2 * len(ratios))), self.deviation
        )
        return Estimate(*(math.exp(x) for x in (middle, middle - reach, middle + reach)))


def unpaired_bounds(baseline: Baseline, seed: int) -> UnpairedBounds:
    """With the deviation of the baseline's latency over bootstrap draws of its rounds."""
    generator = np.random.default_rng(seed)
    rounds = [np.asarray(burst, np.float64) for burst in baseline.rounds]
    draws = generator.integers(0, len(rounds), (RESAMPLES, len(rounds)))
    values = [np.percentile(np.concatenate([rounds[index] for index in draw]), FAST) for draw in draws]
    return UnpairedBounds(float(np.std(np.log(values))))
