"""What a check found and whether that is good enough, as plain data and as JSON."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qnas.onnx.fusion import FusionReport


@dataclass(frozen=True)
class Thresholds:
    """What has to hold between a runtime and each reference: values are pixels times colours."""

    min_equal: float
    max_steps: int

    def miss(self, difference: "Difference") -> str | None:
        """What does not hold, or None."""
        if difference.equal < self.min_equal:
            return f"{share(difference.equal)} of the values are equal, not {share(self.min_equal)}"
        if difference.largest > self.max_steps:
            return f"a value differs by {difference.largest} grey levels, more than {self.max_steps}"
        return None


@dataclass(frozen=True)
class Difference:
    """uint8 images against those of a reference, over `values` pixels times colours.

    `psnr` in dB over all colours, inf when nothing differs.
    """

    values: int
    differing: int
    largest: int
    psnr: float

    @property
    def equal(self) -> float:
        """The share of values that are equal."""
        return 1 - self.differing / self.values


@dataclass(frozen=True)
class Evidence:
    """The surroundings of the largest difference of a runtime: uint8 [h, w, 3] both."""

    image: str
    reference: str
    expected: NDArray[np.uint8]
    got: NDArray[np.uint8]


@dataclass(frozen=True)
class RuntimeResult:
    """One runtime over all images, against each reference by its name.

    `gated`: whether it has to be equal. `near`: how near it has to be else, in dB of PSNR to each reference;
    None where it decides nothing. `psnr_y` in dB against the photographs. `error`: why it could not run the
    file; `against` is empty then and `psnr_y` nan.
    """

    runtime: str
    version: str
    against: Mapping[str, Difference]
    psnr_y: float
    gated: bool = True
    error: str | None = None
    evidence: Evidence | None = field(default=None, compare=False, repr=False)
    near: float | None = None

    @property
    def decides(self) -> bool:
        """Whether the verdict depends on it."""
        return self.gated or self.near is not None

    def misses(self, thresholds: Thresholds) -> tuple[str, ...]:
        """What does not hold, a sentence each."""
        if self.error is not None:
            return (self.error,)
        miss = thresholds.miss if self.gated or self.near is None else self._distant
        found = ((name, miss(difference)) for name, difference in self.against.items())
        return tuple(f"against {name} {text}" for name, text in found if text is not None)

    def _distant(self, difference: Difference) -> str | None:
        assert self.near is not None
        if difference.psnr >= self.near:
            return None
        return f"{difference.psnr:.1f} dB, less than {self.near:.1f} dB: another network than it is to be"


@dataclass(frozen=True)
class LayerResult:
    """One tensor of a runtime against the interpreter's: `largest` in steps of its grid, `sqnr` in dB.

    SQNR: the signal is the interpreter's tensor, the noise what the runtime's differs by; inf when equal.
    `near_ties`: values within 2^-20 of a rounding tie, which another order of operations may move.
    """

    name: str
    operation: str
    values: int
    differing: int
    largest: int
    sqnr: float
    near_ties: int

    @property
    def equal(self) -> float:
        """The share of values that are equal."""
        return 1 - self.differing / self.values


@dataclass(frozen=True)
class LayerTable:
    """The layers of one runtime in the order of the network; `unseen` ones have no tensor in the file."""

    runtime: str
    layers: tuple[LayerResult, ...]
    unseen: tuple[str, ...] = ()
    note: str = ""

    @property
    def first_difference(self) -> LayerResult | None:
        """The first layer that differs, None when all are equal."""
        return next((layer for layer in self.layers if layer.differing), None)


@dataclass(frozen=True)
class FileResult:
    """One written file.

    `fusion`: convolutions as onnxruntime runs them, and `macs`: multiply-adds of one run there, those in
    integers and all; `delegated`: nodes that XNNPACK runs, of how many; `not_checked`: the runtimes that are
    not installed.
    """

    file: str
    kind: str
    runtimes: tuple[RuntimeResult, ...]
    layers: tuple[LayerTable, ...] = ()
    not_checked: tuple[str, ...] = ()
    fusion: FusionReport | None = None
    macs: tuple[int, int] | None = None
    delegated: tuple[int, int] | None = None


@dataclass(frozen=True)
class CheckReport:
    """What `qnas-export` prints and saves beside the files.

    `references`: interpreter and torch, as far as they are known, the second against the first; of a
    calibrated model also the float one.
    `near_ties`: node -> values within 2^-20 of a rounding tie while the interpreter ran; None without one.
    """

    thresholds: Thresholds
    images: tuple[str, ...]
    references: tuple[RuntimeResult, ...]
    files: tuple[FileResult, ...]
    near_ties: Mapping[str, int] | None = None
    notes: tuple[str, ...] = ()

    @property
    def misses(self) -> tuple[str, ...]:
        """What is to hold and does not, one sentence each."""
        networks = ((r.runtime, r) for r in self.references)
        files = ((f"{file.file} in {r.runtime}", r) for file in self.files for r in file.runtimes)
        found = (
            f"{where}: {miss}"
            for where, result in (*networks, *files)
            if result.decides
            for miss in result.misses(self.thresholds)
        )
        # What nothing was compared with has not passed.
        idle = (
            f"{file.file}: no runtime that decides is installed and runs such files"
            for file in self.files
            if self.defined and not any(result.decides for result in file.runtimes)
        )
        return (*found, *idle)

    @property
    def defined(self) -> bool:
        """Whether there is a network that files have to equal; a float one rounds as its runtime does."""
        return any(result.gated for result in self.references)

    @property
    def passed(self) -> bool:
        """Whether every runtime that decides keeps within the thresholds."""
        return not self.misses

    def to_json(self) -> dict[str, Any]:
        """Plain data; an infinite PSNR or SQNR becomes null."""
        return {
            "format": "qnas-parity",
            "version": 2,
            "passed": self.passed,
            "misses": list(self.misses),
            "thresholds": {"min_equal": self.thresholds.min_equal, "max_steps": self.thresholds.max_steps},
            "images": list(self.images),
            "references": [_runtime_json(result) for result in self.references],
            "near_ties": None if self.near_ties is None else _near_ties_json(self.near_ties),
            "files": [_file_json(file) for file in self.files],
            "notes": list(self.notes),
        }


def share(value: float, digits: int = 4) -> str:
    """A share in percent that shows 100 % only for all."""
    text = f"{value:.{digits}%}"
    return "<100%" if value < 1 and text.startswith("100") else text


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _near_ties_json(counts: Mapping[str, int]) -> dict[str, Any]:
    return {"total": sum(counts.values()), "layers": {name: n for name, n in counts.items() if n}}


def _runtime_json(result: RuntimeResult) -> dict[str, Any]:
    against = {
        name: {
            "values": d.values, "differing": d.differing, "equal": d.equal,
            "largest_difference": d.largest, "psnr": _finite(d.psnr),
        }
        for name, d in result.against.items()
    }  # fmt: skip
    return {
        "runtime": result.runtime, "version": result.version, "against": against,
        "psnr_y": _finite(result.psnr_y), "gated": result.gated, "near": result.near, "error": result.error,
    }  # fmt: skip


def _layers_json(table: LayerTable) -> dict[str, Any]:
    first = table.first_difference
    return {
        "runtime": table.runtime,
        "first_difference": None if first is None else first.name,
        "layers": [
            {
                "name": layer.name, "operation": layer.operation, "values": layer.values,
                "differing": layer.differing, "equal": layer.equal, "largest_difference": layer.largest,
                "sqnr": _finite(layer.sqnr), "near_ties": layer.near_ties,
            }
            for layer in table.layers
        ],
        "unseen": list(table.unseen),
        "note": table.note,
    }  # fmt: skip


def _file_json(file: FileResult) -> dict[str, Any]:
    fusion = file.fusion
    return {
        "file": file.file,
        "kind": file.kind,
        "runtimes": [_runtime_json(result) for result in file.runtimes],
        "layers": [_layers_json(table) for table in file.layers],
        "not_checked": list(file.not_checked),
        "fusion": None if fusion is None else {
            "total": fusion.total, "integer": fusion.integer, "float_ops": list(fusion.float_ops)
        },
        "macs": None if file.macs is None else {"integer": file.macs[0], "of": file.macs[1]},
        "delegated": None if file.delegated is None else {
            "nodes": file.delegated[0], "of": file.delegated[1]
        },
    }  # fmt: skip
