"""A QDQ model made elsewhere -> its integer network, and the model itself as its own runtime computes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto, TensorProto

from qnas.calibration.progress import Display
from qnas.errors import ModelError
from qnas.export.checks.check import NEAR
from qnas.export.checks.comparison import Comparison
from qnas.export.from_qdq.reader import DIVISORS, InputRange, integer_network_of
from qnas.export.options import Options
from qnas.export.sources.source import Source
from qnas.images.evaluation import Image
from qnas.onnx.files import model_bytes, read_model
from qnas.onnx.graph import Graph
from qnas.runtimes.onnxruntime import image_runner
from qnas.runtimes.runtime import Runner
from qnas.runtimes.table import CHECKS

PIXELS = 255
WIDEST_UNIT = 16.0  # what a quantizer of images in 0..1 may span, far beyond 1


@dataclass(frozen=True, eq=False)
class QdqSource(Source):
    """`range_found`: how its images are read, empty where that was no question. `runner`: the model in
    onnxruntime, None where that cannot be compared, and `why` not.
    """

    range_found: str
    runner: Runner | None
    why: str = ""

    def references(self) -> tuple[Comparison, ...]:
        """The model itself, which the integers have to be near to: its runtime rounds as it likes."""
        if self.runner is None:
            return ()
        version = CHECKS["onnxruntime"].version
        return (Comparison("source model", version, False, self.runner, ("interpreter",), NEAR),)

    def notes(self, options: Options, images: Sequence[tuple[str, Image]]) -> tuple[str, ...]:
        """How its images are read, and whether the integers were compared with it."""
        lost = f"WARNING: not compared with {self.path} itself: {self.why}" if self.runner is None else ""
        return tuple(note for note in (self.range_found, lost) if note)


def read_qdq_source(path: Path, options: Options, display: Display) -> QdqSource:
    """Read a QDQ model. Raises ModelError where it is no integer network."""
    model, input_range, found = read_model(path), options.input_range, ""
    if input_range is None:
        input_range, found = _input_range(model)
    integer = integer_network_of(model, path.stem, input_range)
    kind = model.graph.output[0].type.tensor_type.elem_type
    if kind not in (TensorProto.FLOAT, TensorProto.UINT8):
        return QdqSource(
            path, integer, found, None, f"it writes {TensorProto.DataType.Name(kind)}, which are no pixels"
        )
    try:
        return QdqSource(path, integer, found, image_runner(model_bytes(path), pixel=DIVISORS[input_range]))
    except ModelError as error:
        return QdqSource(path, integer, found, None, str(error))


def _input_range(model: ModelProto) -> tuple[InputRange, str]:
    """What its images hold by the first quantizer, and how that was found; no question in uint8."""
    graph = Graph(model.graph)
    image = graph.inputs[0]
    if image.type.tensor_type.elem_type == TensorProto.UINT8:
        return "0..1", ""
    first = (
        graph.number(node.input[1])
        for node in graph.readers.get(image.name, ())
        if node.op_type == "QuantizeLinear"
    )
    span = next((PIXELS * scale for scale in first if scale is not None), None)
    if span is None:
        return "0..1", "WARNING: images are read as 0..1: nothing quantizes them (choose with --input-range)"
    found: InputRange = "0..255" if span > WIDEST_UNIT else "0..1"
    return found, f"images are read as {found}: their quantizer spans {span:.4g} (choose with --input-range)"
