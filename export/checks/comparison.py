"""One runtime against the references over all images: values counted, the largest difference kept."""

import math
from dataclasses import dataclass, field

import numpy as np

from qnas.errors import ModelError
from qnas.export.checks.cases import SLOW_SIDE, Case, Effort, Window, windows
from qnas.export.checks.layers import layer_table
from qnas.export.checks.report import Difference, Evidence, LayerTable, RuntimeResult
from qnas.images.evaluation import Image
from qnas.images.files import planar
from qnas.images.quality import psnr_y
from qnas.integer.network import IntegerNetwork
from qnas.runtimes.runtime import Runner

LAYER_IMAGES = 2
EVIDENCE_SIDE = 96


@dataclass
class _Tally:
    """uint8 images against those of one reference."""

    values: int = 0
    differing: int = 0
    largest: int = 0
    squares: int = 0

    def add(self, difference: Image) -> None:
        """`difference`: uint8 [H, W, 3], its magnitude."""
        self.values += difference.size
        self.differing += int(np.count_nonzero(difference))
        self.largest = max(self.largest, int(difference.max()))
        self.squares += int(np.square(difference.astype(np.int64)).sum())

    def result(self) -> Difference:
        psnr = 10 * math.log10(255**2 * self.values / self.squares) if self.squares else math.inf
        return Difference(self.values, self.differing, self.largest, psnr)


@dataclass
class Comparison:
    """What is compared, and what has been seen of it so far.

    `against` names references, None all of them. `near`: dB that it needs where it is not `gated`.
    `error` says why `runner` is None, or stopped.
    """

    name: str
    version: str
    gated: bool
    runner: Runner | None
    against: tuple[str, ...] | None = None
    near: float | None = None
    error: str | None = None
    tallies: dict[str, _Tally] = field(default_factory=dict)
    psnr_y: list[float] = field(default_factory=list)
    parts: list[Image] = field(default_factory=list)  # the first images, for the layers
    evidence: Evidence | None = None

    def add(self, case: Case, effort: Effort, first: bool) -> None:
        """Upscale the windows of one photograph."""
        if self.runner is None or self.error is not None:
            return
        height, width, _ = case.lr.shape
        for window in windows(height, width, self.runner, effort, first):
            expected, part = case.expected(window), case.part(window)
            if len(self.parts) < LAYER_IMAGES:
                side = None if self.runner.size else max(SLOW_SIDE, effort.smallest)
                self.parts.append(part[:side, :side])
            try:
                got = expected[self.name] if self.name in expected else self.runner.upscale(part)
                self._compare(case, window, got, expected)
            except ModelError as error:
                self.error = str(error)
                return

    def _compare(self, case: Case, window: Window, got: Image, expected: dict[str, Image]) -> None:
        for name in expected if self.against is None else self.against:
            if got.shape != expected[name].shape:
                sizes = (f"{image.shape[1]}x{image.shape[0]}" for image in (got, expected[name]))
                raise ModelError("it makes {} pixels where {} are expected".format(*sizes))
            difference = np.maximum(got, expected[name]) - np.minimum(got, expected[name])
            tally = self.tallies.setdefault(name, _Tally())
            if difference.max() > tally.largest:
                self.evidence = _evidence(case.name, name, expected[name], got, difference)
            tally.add(difference)
        made = zip((window.height, window.width), got.shape, strict=False)
        top, left = (max(0, case.scale * side - length) // 2 for side, length in made)  # a border left out
        hr = case.photograph(window)[top:, left:]
        hr, got = hr[: got.shape[0], : got.shape[1]], got[: hr.shape[0], : hr.shape[1]]
        self.psnr_y.append(psnr_y(planar(got), planar(hr), case.scale))

    def result(self) -> RuntimeResult:
        """The sums."""
        against = {} if self.error else {name: tally.result() for name, tally in self.tallies.items()}
        mean = float(np.mean(self.psnr_y)) if self.psnr_y and not self.error else math.nan
        return RuntimeResult(
            self.name, self.version, against, mean, self.gated, self.error, self.evidence, self.near
        )

    def layers(self, network: IntegerNetwork, kind: str) -> LayerTable:
        """The layers on the first images."""
        if self.runner is None or self.error is not None:
            return LayerTable(self.name, (), note=self.error or "")
        try:
            return layer_table(self.name, network, kind, self.runner, self.parts)
        except ModelError as error:
            return LayerTable(self.name, (), note=str(error))


def _evidence(image: str, reference: str, expected: Image, got: Image, difference: Image) -> Evidence:
    """The surroundings of the largest difference."""
    row, column, _ = np.unravel_index(int(difference.argmax()), difference.shape)
    top, left = (
        max(0, min(int(at) - EVIDENCE_SIDE // 2, length - EVIDENCE_SIDE))
        for at, length in zip((row, column), difference.shape, strict=False)
    )
    cut = np.s_[top : top + EVIDENCE_SIDE, left : left + EVIDENCE_SIDE]
    return Evidence(image, reference, expected[cut].copy(), got[cut].copy())
