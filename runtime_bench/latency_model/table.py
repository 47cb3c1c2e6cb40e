"""Measured kernels of one machine, and what they predict.

The file, JSON, is what `qnas-bench fit` writes and `qnas-bench predict` and a search read:

    {"format": "qnas-latency-model", "version": 1,
     "device": "cpu", "threads": 1, "environment": {...},       # where it was measured
     "node_ns": -1900.0, "run_ns": 25000.0,                     # time of a run besides its kernels
     "accuracy": {"networks", "mape", "within_5", "within_10", "spearman"} or null,
     "kernels": [{"op", "types", "inputs", "output", "attributes", "ns", "samples"}, ...],
     "operations": [{"op", "in_channels", "out_channels", "bits", "height", "width", "scale", "ms"}, ...]}

`kernels` are the nodes that the runtime ran, each once (`latency_model.kernels`); `ns` is the median over
`samples` networks and rounds. `operations` says what one operation of `qnas.network` costs at a bit width:
its convolutions, and the clips in front of those below 8 bits. `height` and `width` are its result's; `scale`
is how many times those are the image's, and 1 where the row does not say. All times of a file are of one
machine.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from qnas.errors import ModelError
from qnas.runtime_bench.latency_model.kernels import Kernel
from qnas.runtime_bench.latency_model.regression import Family, fit_family

FORMAT, VERSION = "qnas-latency-model", 1
Basis = Literal["measured", "interpolated", "extrapolated"]
_KEYS = {
    "format": str, "version": int, "device": str, "threads": int, "environment": dict, "node_ns": float,
    "run_ns": float, "accuracy": (dict, type(None)), "kernels": list, "operations": list,
}  # fmt: skip


@dataclass(frozen=True)
class KernelTime:
    """A measured kernel."""

    kernel: Kernel
    nanoseconds: float
    samples: int


@dataclass(frozen=True)
class OperationTime:
    """An operation of a search space, as part of a network."""

    op: str
    in_channels: int
    out_channels: int
    bits: int
    height: int
    width: int
    ms: float
    scale: int = 1


@dataclass(frozen=True)
class Accuracy:
    """On networks that the fit had not seen: mean absolute relative error, shares, rank correlation."""

    networks: int
    mape: float
    within_5: float
    within_10: float
    spearman: float


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
        document = {
            "format": FORMAT,
            "version": VERSION,
            "device": self.device,
            "threads": self.threads,
            "environment": dict(self.environment),
            "node_ns": self.node_ns,
            "run_ns": self.run_ns,
            "accuracy": None if self.accuracy is None else vars(self.accuracy),
            "kernels": [_kernel_row(each) for each in self.kernels],
            "operations": [vars(each) for each in self.operations],
        }
        return json.dumps(document, indent=1) + "\n"


def _kernel_row(each: KernelTime) -> dict[str, Any]:
    return {**vars(each.kernel), "ns": round(each.nanoseconds, 1), "samples": each.samples}


def read_latency_model(path: Path) -> LatencyModel:
    """Read and check a file; ModelError when it is damaged, foreign or of another version."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not JSON"
        raise ModelError(f"{path} cannot be read ({reason}): name a file of `qnas-bench fit`") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ModelError(f"{path} is no latency model: name a file of `qnas-bench fit`")
    if document.get("version") != VERSION:
        raise ModelError(
            f"{path} is version {document.get('version')!r} of the format, this is {VERSION}: fit again"
        )
    try:
        return _parsed(document)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path} is damaged ({error}): write it again with `qnas-bench fit`") from error


def _parsed(document: Mapping[str, Any]) -> LatencyModel:
    if document.keys() != _KEYS.keys():
        odd = sorted(map(str, document.keys() ^ _KEYS.keys()))
        raise ValueError(f"key {odd[0]} is missing or unknown")
    for key, kind in _KEYS.items():
        if kind is float:
            _number(document[key])
        elif not isinstance(document[key], kind):  # type: ignore[arg-type]
            raise ValueError(f"{key} is of another type")
    accuracy = document["accuracy"]
    return LatencyModel(
        device=document["device"],
        threads=_natural(document["threads"]),
        environment=document["environment"],
        kernels=tuple(_kernel_time(**row) for row in document["kernels"]),
        node_ns=_number(document["node_ns"]),
        run_ns=_number(document["run_ns"]),
        accuracy=None if accuracy is None else _accuracy(**accuracy),
        operations=tuple(_operation(**row) for row in document["operations"]),
    )


def _kernel_time(
    op: Any, types: Any, inputs: Any, output: Any, attributes: Any, ns: Any, samples: Any
) -> KernelTime:
    shapes = tuple(_shape(shape) for shape in inputs)
    kernel = Kernel(_text(op), tuple(map(_text, types)), shapes, _shape(output), _text(attributes))
    if len(types) != len(shapes):
        raise ValueError(f"{op} has {len(shapes)} inputs and {len(types)} types")
    return KernelTime(kernel, _positive(ns), _natural(samples))


def _accuracy(networks: Any, mape: Any, within_5: Any, within_10: Any, spearman: Any) -> Accuracy:
    return Accuracy(
        _natural(networks), _number(mape), _number(within_5), _number(within_10), _number(spearman)
    )


def _operation(
    op: Any, in_channels: Any, out_channels: Any, bits: Any, height: Any, width: Any, ms: Any, scale: Any = 1
) -> OperationTime:
    return OperationTime(
        op=_text(op),
        in_channels=_natural(in_channels),
        out_channels=_natural(out_channels),
        bits=_natural(bits),
        height=_natural(height),
        width=_natural(width),
        ms=_positive(ms),
        scale=_natural(scale),
    )


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(_natural(each) for each in value)


def _natural(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**40:
        raise ValueError(f"{value!r:.40} is no size")
    return value


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{value!r:.40} is no number")
    return float(value)


def _positive(value: Any) -> float:
    if _number(value) < 0:
        raise ValueError(f"{value!r:.40} is no time")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.40} is no name")
    return value
