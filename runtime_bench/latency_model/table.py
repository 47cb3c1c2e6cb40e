"""A machine's measured kernels, and what they predict; `qnas.documents.latency_model` is their file."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import msgspec

from qnas.documents.latency_model import (
    LATENCY_MODEL,
    Accuracy,
    KernelRow,
    LatencyDocument,
    OperationTime,
)
from qnas.runtime_bench.latency_model.kernels import Kernel
from qnas.runtime_bench.latency_model.regression import Family, fit_family

Basis = Literal["measured", "interpolated", "extrapolated"]


@dataclass(frozen=True)
class KernelTime:
    """A measured kernel."""

    kernel: Kernel
    nanoseconds: float
    samples: int


@dataclass(frozen=True)
class LatencyModel:
    """A machine's kernels; `environment` is that of `qnas.runtime_bench.environment`."""

    device: str
    threads: int
    environment: Mapping[str, Any]
    kernels: tuple[KernelTime, ...]
    node_ns: float
    run_ns: float
    accuracy: Accuracy | None = None
    operations: tuple[OperationTime, ...] = ()
    _found: dict[Kernel, tuple[float, Basis]] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )
    _fitted: dict[object, Family] = field(default_factory=dict, init=False, compare=False, repr=False)

    def time(self, kernel: Kernel) -> tuple[float, Basis]:
        """(nanoseconds, what they rest on).

        Case 1: the very kernel was measured. Case 2: its family was, and its sizes lie between those.
        Case 3: they lie outside, or only the operation is known, or nothing: the law, which may be far off.
        """
        if kernel not in self._found:
            self._found[kernel] = self._time(kernel)
        return self._found[kernel]

    def _time(self, kernel: Kernel) -> tuple[float, Basis]:
        groups: tuple[object, ...] = (kernel.family, kernel.op, kernel.convolution)
        for group in groups:
            if group in self._groups:
                family = self._family(group)
                measured = group == kernel.family and kernel in self._measured
                covered = group == kernel.family and family.covers(kernel)
                basis: Basis = "measured" if measured else "interpolated" if covered else "extrapolated"
                return family.predict(kernel), basis
        return 0.0, "extrapolated"

    @cached_property
    def _measured(self) -> frozenset[Kernel]:
        return frozenset(each.kernel for each in self.kernels)

    @cached_property
    def _groups(self) -> dict[object, list[KernelTime]]:
        """Kernels by family, by operation, and by whether they are convolutions."""
        groups: dict[object, list[KernelTime]] = defaultdict(list)
        for each in self.kernels:
            for group in (each.kernel.family, each.kernel.op, each.kernel.convolution):
                groups[group].append(each)
        return dict(groups)

    def _family(self, group: object) -> Family:
        """Fitted when it is first asked for."""
        if group not in self._fitted:
            rows = self._groups[group]
            self._fitted[group] = fit_family([r.kernel for r in rows], [r.nanoseconds for r in rows])
        return self._fitted[group]

    def total(self, kernel_times: float, nodes: int) -> float:
        """Nanoseconds of a whole run whose `nodes` kernels take `kernel_times` together."""
        return max(kernel_times + self.node_ns * nodes + self.run_ns, 0.0)

    def to_json(self) -> str:
        """The file's text."""
        document = LatencyDocument(
            device=self.device,
            threads=self.threads,
            environment=dict(self.environment),
            node_ns=self.node_ns,
            run_ns=self.run_ns,
            accuracy=self.accuracy,
            kernels=tuple(map(_row, self.kernels)),
            operations=self.operations,
        )
        return json.dumps(LATENCY_MODEL.head | msgspec.to_builtins(document), indent=1) + "\n"


def _row(each: KernelTime) -> KernelRow:
    return KernelRow(**vars(each.kernel), ns=round(each.nanoseconds, 1), samples=each.samples)


def read_latency_model(path: Path) -> LatencyModel:
    """Read a file. Raises ModelError when it is damaged, foreign or of another version."""
    found = LATENCY_MODEL.read(path)
    kernels = (
        KernelTime(
            Kernel(each.op, each.types, each.inputs, each.output, each.attributes), each.ns, each.samples
        )
        for each in found.kernels
    )
    return LatencyModel(
        device=found.device,
        threads=found.threads,
        environment=found.environment,
        kernels=tuple(kernels),
        node_ns=found.node_ns,
        run_ns=found.run_ns,
        accuracy=found.accuracy,
        operations=found.operations,
    )
