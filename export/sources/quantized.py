"""A model whose integers somebody else chose, QDQ ONNX or TFLite -> its integer network, and the model itself
as its own runtime computes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from qnas.calibration.prepare.pixel_moves import pixel_moves
from qnas.errors import ModelError, QnasError
from qnas.export.checks.check import NEAR
from qnas.export.checks.comparison import Comparison
from qnas.export.from_qdq.reader import DIVISORS, InputRange, integer_network_of
from qnas.export.options import Options
from qnas.export.passes.narrow_weights import narrow_weights
from qnas.export.sources.source import Source
from qnas.files import read_input
from qnas.images.evaluation import Image
from qnas.onnx.channels_first import channels_first
from qnas.onnx.files import damage_refused, model_bytes, read_model
from qnas.onnx.graph import Graph
from qnas.onnx.shapes import declared_sizes, infer_shapes
from qnas.onnx.stored_weights import as_float32
from qnas.runtimes.onnxruntime import image_runner
from qnas.runtimes.runtime import Runner, pixels, planes
from qnas.runtimes.table import CHECKS
from qnas.tflite.reader import is_tflite, read_tflite
from qnas.tflite.session import LiteRtSession
from qnas.tflite.to_onnx.convert import onnx_of

FREE_SIDES = (24, 40)  # of an image, where shapes are inferred and the model leaves its sizes free
LEVELS, WIDE_LEVELS = 255, 65535
WIDEST_UNIT = 16.0  # what a quantizer of images in 0..1 may span, far beyond 1


@dataclass(frozen=True, eq=False)
class QuantizedSource(Source):
    """A network on the grids that somebody else chose.

    `found`: what was found out of the images that it takes. `runner`: the model in the runtime `runtime`,
    None where that cannot be compared, and `why` not.
    """

    found: tuple[str, ...]
    runtime: str
    runner: Runner | None
    why: str = ""

    def references(self) -> tuple[Comparison, ...]:
        """The model itself, which the integers have to be near to: its runtime rounds as it likes."""
        if self.runner is None:
            return ()
        check = CHECKS[self.runtime]
        name = f"source model in {check.name}"
        return (Comparison(name, check.version, False, self.runner, ("interpreter",), NEAR),)

    def notes(self, options: Options, images: Sequence[tuple[str, Image]]) -> tuple[str, ...]:
        """How its images are read, and whether the integers were compared with it."""
        if self.runner is not None:
            return self.found
        return (*self.found, f"WARNING: not compared with {self.path} itself: {self.why}")


def read_quantized(path: Path, options: Options) -> QuantizedSource:
    """Read the integer network of a QDQ model.onnx or an integer model.tflite. Raises ModelError."""
    tflite = is_tflite(path)
    model = onnx_of(read_tflite(path)) if tflite else read_model(path)
    input_range, note = (options.input_range, "") if options.input_range else input_range_of(model)
    integer, changed = narrow_weights(integer_network_of(_turned(path, model), path.stem, input_range))
    narrowed = f"{changed} weights of -128, on which ARM processors disagree, are -127" if changed else ""
    found = tuple(each for each in (note, _one_size(path) if tflite else "", narrowed) if each)
    runtime = "litert-xnnpack" if tflite else "onnxruntime"
    try:
        runner = (litert_runner if tflite else _in_onnxruntime)(path, DIVISORS[input_range])
    except QnasError as error:
        return QuantizedSource(path, integer, found, runtime, None, str(error))
    return QuantizedSource(path, integer, found, runtime, runner)


def _one_size(path: Path) -> str:
    """What a TFLite file says of sizes, where it says more than is so."""
    file = read_tflite(path)
    tensor = file.tensors[file.inputs[0]]
    if -1 in tensor.signature or len(tensor.shape) != 4:
        return ""
    _, height, width, _ = tensor.shape
    return f"the file says images of {width}x{height} alone; its integer network takes any size"


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
            pixel_moves(model.graph, infer_shapes(model, sizes))
            channels_first(model.graph, infer_shapes(model, sizes), image.name if last else None)
    return model


def input_range_of(model: ModelProto) -> tuple[InputRange, str]:
    """What its images hold by the first quantizer, and how that was found; no question in bytes."""
    graph = Graph(model.graph)
    image = graph.inputs[0]
    if image.type.tensor_type.elem_type != TensorProto.FLOAT:
        return "0..1", ""
    found_spans = (
        _span(graph, node) for node in graph.readers.get(image.name, ()) if node.op_type == "QuantizeLinear"
    )
    span = next((each for each in found_spans if each is not None), None)
    if span is None:
        return "0..1", "WARNING: images are read as 0..1: nothing quantizes them (choose with --input-range)"
    found: InputRange = "0..255" if span > WIDEST_UNIT else "0..1"
    return found, f"images are read as {found}: their quantizer spans {span:.4g} (choose with --input-range)"


def _span(graph: Graph, node: NodeProto) -> float | None:
    """What the steps of a QuantizeLinear reach over, None where its scale is no constant number."""
    scale, wide = graph.number(node.input[1]), set[int]()
    if len(node.input) > 2 and node.input[2] in graph.constants:
        wide = {graph.constants[node.input[2]].data_type} & {TensorProto.UINT16, TensorProto.INT16}
    return None if scale is None else scale * (WIDE_LEVELS if wide else LEVELS)


def _in_onnxruntime(path: Path, divisor: float) -> Runner:
    """The file in onnxruntime. Raises ModelError where its output is no image of bytes or floats."""
    kind = read_model(path, external_data=False).graph.output[0].type.tensor_type.elem_type
    if kind not in (TensorProto.FLOAT, TensorProto.UINT8):
        raise ModelError(f"it writes {TensorProto.DataType.Name(kind)}, which are no pixels")
    return image_runner(model_bytes(path), pixel=divisor)


def litert_runner(path: Path, divisor: float) -> Runner:
    """The file in LiteRT, with XNNPACK. Raises ModelError where it is not installed or refuses the file."""
    session = LiteRtSession(read_input(path))

    def upscale(image: Image) -> Image:
        if session.takes_bytes:
            return pixels(session.run(planes(image), any_size=True))
        floats = session.raw((image / np.float32(divisor)).astype(np.float32)[None])
        written: Image = np.clip(np.rint(floats[0] * np.float32(divisor)), 0, 255).astype(np.uint8)
        return written

    return Runner(upscale)
