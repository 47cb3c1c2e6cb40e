"""A float ONNX model made elsewhere -> its calibrated QDQ model -> the integer network, where it has one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto

from qnas.calibration.calibrate import Settings, calibrate, quantized_model
from qnas.calibration.document import Calibration, read_calibration
from qnas.calibration.prepare.float_model import FloatModel, Runner, read_float_model
from qnas.calibration.progress import bars
from qnas.errors import ImageError, ModelError
from qnas.export.checks import runtimes
from qnas.export.checks.comparison import Comparison
from qnas.export.from_qdq.reader import InputRange, integer_network_of
from qnas.export.source import Source
from qnas.images.evaluation import Image
from qnas.images.files import list_images, read_image
from qnas.quantization.quantizers import FLOAT_BITS

MOST_COMPARED = 16  # of the images that calibrate
RANGES: dict[float, InputRange] = {1.0: "0..1", 255.0: "0..255"}


@dataclass(frozen=True, eq=False)
class Calibrated:
    """`network` as it was; `model`: uint8 in and out; `refusal`: why that is no integer network, or empty."""

    network: FloatModel
    model: ModelProto
    calibration: Calibration
    refusal: str

    @property
    def bits(self) -> set[int]:
        """Of the weights."""
        options = self.calibration.options
        return {options.weight_bits, *([FLOAT_BITS] if options.float_layers else [])}

    @property
    def notes(self) -> tuple[str, ...]:
        """How it was calibrated, for the report."""
        found = self.calibration
        kept = ", ".join(found.options.float_layers)
        return (
            f"calibrated ({found.chosen}): {found.fidelity:.2f} dB against the float model on other patches",
            found.source.clip.explanation,
            *([f"layers kept in float: {kept}"] if kept else []),
        )


def read_float_source(
    path: Path, images: Path | None, calibration: Path | None, input_range: InputRange | None
) -> Source:
    """Calibrate `path` with HR `images`, unless there is a `calibration` of it. Raises QnasError."""
    if calibration is not None:
        found = read_calibration(calibration)
    else:
        assert images is not None
        with bars() as display:
            found = calibrate(path, [images], Settings(hr=True, input_range=input_range), display)
    model = quantized_model(path, found)
    network = read_float_model(path, RANGES.get(found.source.white))
    refusal, integer = "", None
    try:
        integer = integer_network_of(model, path.stem)
    except ModelError as error:
        refusal = str(error)
    return Source(path, integer=integer, calibrated=Calibrated(network, model, found, refusal))


def references(source: Source) -> tuple[Comparison, ...]:
    """What the files of a float source are compared with besides the interpreter; nothing for others.

    The QDQ model, operation by operation, where there is no integer network; and the float model, which
    decides nothing.
    """
    found = source.calibrated
    if found is None:
        return ()
    against, version = ("interpreter",), runtimes.RUNTIMES["onnx"]["onnxruntime"].version
    known = []
    if source.integer is None:
        against = ("QDQ model",)
        runner = runtimes.RUNTIMES["onnx"]["onnxruntime-unoptimized"].open(found.model.SerializeToString())
        known.append(Comparison("QDQ model", version, False, runner, against=()))
    return (*known, Comparison("float model", version, False, _rounded(found.network), against=against))


def _rounded(network: FloatModel) -> runtimes.Runner:
    """The float model, its output clipped and rounded to pixels."""
    run = Runner(network)

    def upscale(image: Image) -> Image:
        pixels: Image = np.clip(np.rint(run(image[None])[0]), 0, 255).astype(np.uint8)
        return pixels

    return runtimes.Runner(upscale, network.size)


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
