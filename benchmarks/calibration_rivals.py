"""The rivals of the calibration study: what `onnxruntime.quantization.quantize_static` makes of a network."""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quant_pre_process,
    quantize_static,
)

from qnas.calibration.patches.representative import RepresentativeSet
from qnas.calibration.prepare.float_model import FloatModel

METHODS = {
    "min-max": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}


class Patches(CalibrationDataReader):  # type: ignore[misc]
    """The representative images, one by one, in the network's units."""

    def __init__(self, network: FloatModel, images: RepresentativeSet) -> None:
        self._feeds: Iterator[dict[str, Any]] = (
            {network.input: network.feed(batch)} for batch in images.batches(1)
        )

    def get_next(self) -> dict[str, Any] | None:
        """The next image, None behind the last."""
        return next(self._feeds, None)


def static_quantization(
    network: FloatModel, images: RepresentativeSet, method: str, target: Path, operations: Sequence[str] = ()
) -> None:
    """As its documentation advises for CPUs with VNNI: pre-processed, QDQ, U8S8, weights per channel.

    `operations`: the only ones that are quantized; all that can be if none is named.
    """
    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        source, ready = Path(folder) / "float.onnx", Path(folder) / "ready.onnx"
        onnx.save(network.model, source)
        quant_pre_process(source, ready, skip_symbolic_shape=True)
        quantize_static(
            ready, target, Patches(network, images), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, calibrate_method=METHODS[method],
            op_types_to_quantize=list(operations) or None,
        )  # fmt: skip


def with_clip(source: Path, target: Path, white: float) -> None:
    """A network of linear output with the clip that its user would put behind it."""
    model = onnx.load(source)
    (output,) = model.graph.output
    linear = f"{output.name}.linear"
    for node in model.graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == output.name:
                    names[index] = linear
    bounds = {"clip.low": 0.0, "clip.high": white}
    model.graph.initializer.extend(
        helper.make_tensor(name, TensorProto.FLOAT, [], [value]) for name, value in bounds.items()
    )
    model.graph.node.append(helper.make_node("Clip", [linear, *bounds], [output.name], "clip"))
    onnx.save(model, target)
