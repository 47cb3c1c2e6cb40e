"""A model whose integers somebody else chose, QDQ ONNX or TFLite -> its integer network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from onnx import ModelProto

from qnas.calibration.prepare.standard_forms import shuffles_as_depth_to_space
from qnas.export.checks.comparison import Comparison
from qnas.export.from_qdq.reader import DIVISORS, InputRange, integer_network_of
from qnas.export.options import Options
from qnas.export.sources.source import Source
from qnas.files import read_input
from qnas.images.evaluation import Image
from qnas.onnx.channels_first import channels_first
from qnas.onnx.files import damage_refused, read_model
from qnas.onnx.graph import Graph
from qnas.onnx.shapes import declared_sizes, infer_shapes
from qnas.onnx.stored_weights import as_float32
from qnas.quantization.quantizers import snap_scale
from qnas.runtimes.runtime import Runner, pixels, planes
from qnas.runtimes.table import CHECKS
from qnas.tflite.reader import TfliteModel, is_tflite, read_tflite
from qnas.tflite.session import LiteRtSession
from qnas.tflite.to_onnx.convert import onnx_of

FREE_SIDES = (24, 40)  # of an image, where shapes are inferred and the model leaves its sizes free
SHORT = 8  # bits of a scale that has few
FLOAT_255 = 0.5  # a larger step of a float image is one of grey levels


@dataclass(frozen=True, eq=False)
class QuantizedSource(Source):
    """A network on the grids that somebody else chose."""

    @property
    def inexact(self) -> frozenset[str]:
        """Where a scale has many bits, sums in float32 are not those of integers (decision 0003)."""
        weights = (node.weight_scale for node, _ in self._known().convolutions())
        scales = [*(node.output.scale for node in self._known().nodes), *weights]
        short = all((snap_scale(np.atleast_1d(scale), SHORT) == scale).all() for scale in scales)
        return frozenset() if short else frozenset({"onnxruntime-unoptimized", "reference"})


@dataclass(frozen=True, eq=False)
class TfliteSource(QuantizedSource):
    """A TFLite model of integers; LiteRT runs the file itself. `divisor`: of a pixel of a float image."""

    divisor: float

    def notes(self, options: Options, images: Sequence[tuple[str, Image]]) -> tuple[str, ...]:
        """What the file says of sizes, where it says more than is so."""
        file = read_tflite(self.path)
        tensor = file.tensors[file.inputs[0]]
        if -1 in tensor.signature or len(tensor.shape) != 4:
            return ()
        _, height, width, _ = tensor.shape
        return (f"the file says images of {width}x{height} alone; its integer network takes any size",)

    def references(self) -> tuple[Comparison, ...]:
        """The file as LiteRT runs it, with XNNPACK. It decides nothing: it rounds sums and scales its way."""
        session = LiteRtSession(read_input(self.path))
        upscale = partial(_upscaled, session, self.divisor)
        version = CHECKS["litert-xnnpack"].version
        return (
            Comparison(
                f"{self.path.name} in LiteRT", version, False, Runner(upscale), against=("interpreter",)
            ),
        )


def read_quantized(path: Path, options: Options) -> Source:
    """Read the integer network of a QDQ model.onnx or an integer model.tflite. Raises ModelError."""
    if not is_tflite(path):
        model, white = _turned(path, read_model(path)), options.input_range or "0..1"
        return QuantizedSource(path, integer_network_of(model, path.stem, white))
    file = read_tflite(path)
    white = options.input_range or _white(file)
    integer = integer_network_of(_turned(path, onnx_of(file)), path.stem, white)
    return TfliteSource(path, integer, DIVISORS[white])


def _turned(path: Path, model: ModelProto) -> ModelProto:
    """The model with channels first inside, all its weights dense."""
    if model.graph.sparse_initializer:
        with damage_refused(path):
            as_float32(model)
    images = Graph(model.graph).inputs
    if len(images) != 1 or not any(node.op_type == "Transpose" for node in model.graph.node):
        return model
    with damage_refused(path):
        (image,) = images
        dims = declared_sizes(image)
        last = len(dims) == 4 and dims[3] in (1, 3) and dims[1] not in (1, 3)
        free = (1, *FREE_SIDES, 3) if last else (1, 3, *FREE_SIDES)
        if len(dims) == 4:
            sizes = {image.name: [size or default for size, default in zip(dims, free, strict=True)]}
            shuffles_as_depth_to_space(model.graph, infer_shapes(model, sizes))
            channels_first(model.graph, infer_shapes(model, sizes), image.name if last else None)
    return model


def _white(model: TfliteModel) -> InputRange:
    """The range of a float image, by the step of what quantizes it first."""
    (image,) = model.inputs[:1]
    written = (model.tensors[o.outputs[0]] for o in model.operators if image in o.inputs)
    scales = [float(tensor.scale[0]) for tensor in written if tensor.scale.size == 1]
    return "0..255" if scales and scales[0] > FLOAT_255 else "0..1"


def _upscaled(session: LiteRtSession, divisor: float, image: Image) -> Image:
    if session.takes_bytes:
        return pixels(session.run(planes(image), any_size=True))
    floats = session.raw((image / np.float32(divisor)).astype(np.float32)[None])
    written: Image = np.clip(np.rint(floats[0] * np.float32(divisor)), 0, 255).astype(np.uint8)
    return written
