"""A float ONNX model made elsewhere -> its calibrated QDQ model -> the integer network, where it has one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qnas.calibration.calibrate import Settings, quantized_model, run
from qnas.calibration.document import Calibration, read_calibration
from qnas.calibration.prepare.float_model import FloatModel, Runner, read_float_model
from qnas.calibration.progress import Display
from qnas.errors import ImageError
from qnas.export.checks.comparison import Comparison
from qnas.export.from_qdq.reader import InputRange
from qnas.export.options import Options
from qnas.export.sources.quantizing import FloatSource, integers_in
from qnas.images.evaluation import Image
from qnas.images.files import list_images, read_image
from qnas.runtimes.runtime import Runner as Upscaler
from qnas.runtimes.table import CHECKS

EQUAL = 60.0  # dB: all but some values are the same
FURTHER = 12.0  # dB that images may be harder than patches; beyond it, values grow with the image
MOST_COMPARED = 16  # of the images that calibrate
RANGES: dict[float, InputRange] = {1.0: "0..1", 255.0: "0..255"}


@dataclass(frozen=True, eq=False)
class CalibratedSource(FloatSource):
    """A float network and its calibration.

    `range_found`: how the range of its input was found, empty where the calibration was given.
    """

    calibration: Calibration
    range_found: str

    def notes(self, options: Options, images: Sequence[tuple[str, Image]]) -> tuple[str, ...]:
        """How it was calibrated."""
        found = self.calibration
        kept = ", ".join(found.options.float_layers)
        return (
            f"calibrated ({found.chosen}): {found.fidelity:.2f} dB against the float model on other patches",
            *self.network.remarks,
            *([self.range_found] if self.range_found else []),
            found.source.clip.explanation,
            *([f"layers kept in float: {kept}"] if kept else []),
        )

    def references(self) -> tuple[Comparison, ...]:
        """The QDQ model, operation by operation, where there is no integer network; and the float model, as
        near to whole images as its calibration was to patches."""
        against, version = ("interpreter",), CHECKS["onnxruntime"].version
        known = []
        if self.integer is None:
            against = ("QDQ model",)
            runner = CHECKS["onnxruntime-unoptimized"].open(self.model.SerializeToString())
            known.append(Comparison("QDQ model", version, False, runner, against=()))
        near = max(0.0, min(self.calibration.fidelity, EQUAL) - FURTHER)
        return (*known, Comparison("float model", version, False, _rounded(self.network), against, near))


def read_calibrated(path: Path, options: Options, display: Display) -> CalibratedSource:
    """Calibrate `path` with HR images, unless there is a calibration of it. Raises QnasError."""
    if options.calibration is not None:
        found, range_found = read_calibration(options.calibration), ""
    else:
        assert options.images is not None
        settings = Settings(hr=True, input_range=options.input_range)
        done = run(path, [options.images], settings, display)
        found, range_found = done.calibration, done.network.white_found
    model = quantized_model(path, found)
    network = read_float_model(path, RANGES.get(found.source.white))
    integer, refusal = integers_in(model, path)
    return CalibratedSource(path, integer, network, model, found.options, refusal, found, range_found)


def _rounded(network: FloatModel) -> Upscaler:
    """The float model, its output clipped and rounded to pixels."""
    runner = Runner(network)

    def upscale(image: Image) -> Image:
        pixels: Image = np.clip(np.rint(runner(image[None])[0]), 0, 255).astype(np.uint8)
        return pixels

    return Upscaler(upscale, network.size)


def compared_images(folder: Path) -> list[tuple[str, Image]]:
    """(name, HR image) of some that calibrated, evenly spread, without those that cannot be read."""
    paths = list_images(folder)
    found: list[tuple[str, Image]] = []
    for index in dict.fromkeys(np.linspace(0, len(paths) - 1, MOST_COMPARED).round().astype(int).tolist()):
        try:
            found.append((paths[index].name, read_image(paths[index])))
        except ImageError:
            continue
    return found
