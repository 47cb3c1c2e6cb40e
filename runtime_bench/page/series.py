"""One measurement in several files: which is the newest, and what changed between two of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from qnas.runtime_bench.environment import Environment
from qnas.runtime_bench.result_files import BenchFile, Candidate

CHANGES = {"cpu": "processor", "runtime": "runtime", "qnas": "qnas"}  # of the environment
DIGEST = 8  # digits of a sha256 that tell two models apart


@dataclass(frozen=True)
class Measurement:
    """A candidate of a file: `model` names it among those of the file, `device` with its options."""

    file: Path
    taken: datetime
    model: str
    device: str
    threads: int
    candidate: Candidate

    @property
    def key(self) -> tuple[str, str, str, int]:
        """Measurements of one key are one series."""
        return self.model, self.device, self.candidate.shapes, self.threads


@dataclass(frozen=True)
class Change:
    """What differs from the result before, in words. `comparable`: only the model changed."""

    texts: tuple[str, ...]
    comparable: bool


def measurements(files: Mapping[Path, BenchFile]) -> tuple[Measurement, ...]:
    """All of them, the oldest first."""
    return tuple(
        Measurement(path, file.taken, label, each.device + file.settings.chosen, file.settings.threads, each)
        for path, file in sorted(files.items(), key=lambda item: item[1].taken)
        for label, each in zip(_labels(file.models), file.models, strict=True)
    )


def newest(found: Sequence[Measurement]) -> tuple[Measurement, ...]:
    """The last of every series on every processor; models in the order in which they first came."""
    last = {(each.key, each.candidate.environment.cpu): each for each in found}
    models = list(dict.fromkeys(each.model for each in found))
    return tuple(sorted(last.values(), key=lambda each: models.index(each.model)))


def histories(found: Sequence[Measurement]) -> tuple[tuple[Measurement, ...], ...]:
    """Every series that holds more than one measurement."""
    series: dict[object, list[Measurement]] = {}
    for each in found:
        series.setdefault(each.key, []).append(each)
    return tuple(tuple(each) for each in series.values() if len(each) > 1)


def change(before: Measurement, after: Measurement) -> Change | None:
    """What differs between two measurements of a series, None when it is only the time."""
    then, now = before.candidate, after.candidate
    texts = differing(then.environment, now.environment)
    if then.sha256 == now.sha256:
        return Change(texts, False) if texts else None
    model = f"another model: sha256 {then.sha256[:DIGEST]}, then {now.sha256[:DIGEST]}"
    return Change((*texts, model), not texts)


def differing(then: Environment, now: Environment) -> tuple[str, ...]:
    """What makes times of two environments incomparable, in words."""
    pairs = ((what, getattr(then, name), getattr(now, name)) for name, what in CHANGES.items())
    return tuple(f"{what}: {old}, then {new}" for what, old, new in pairs if old != new)


def _labels(candidates: Sequence[Candidate]) -> list[str]:
    """The file name; the whole path where there are two of that name, numbered where it is the same."""
    paths = {Path(each.path) for each in candidates}
    names = Counter(path.name for path in paths)
    seen: Counter[tuple[str, str]] = Counter()
    labels = []
    for each in candidates:
        name = Path(each.path).name
        label = name if names[name] == 1 else each.path
        seen[label, each.device] += 1
        count = seen[label, each.device]
        labels.append(label if count == 1 else f"{label} ({count})")
    return labels
