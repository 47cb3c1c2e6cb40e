"""Layers of a full-precision network -> float32 ONNX graph: what the integers are compared with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from qnas.export.trained import TrainedParameters, float_convolution
from qnas.integer.interpolation import STEPS
from qnas.network.layers import Layer
from qnas.onnx.builder import INPUT, OUTPUT, GraphNodes
from qnas.onnx.interpolation import interpolation_nodes
from qnas.onnx.names import Names
from qnas.torch.network import Network

OPSET, IR_VERSION = 21, 10


@dataclass
class _Writer(GraphNodes):
    network: Network = field(kw_only=True)


def write_float32(network: Network, name: str, scale: int) -> onnx.ModelProto:
    """The float32 graph of a network without quantizers; one grey level is 2^-8. Its last layer is OUTPUT."""
    writer = _Writer(Names([INPUT, OUTPUT, *(layer.name for layer in network.layers)]), network=network)
    for layer in network.layers:
        if layer.op not in ("image", "deviation"):  # the readers of a deviation fold it
            _WRITERS[layer.op](writer, layer)
    return writer.model(name, TensorProto.FLOAT, scale, OPSET, IR_VERSION)


def _conv(w: _Writer, layer: Layer) -> None:
    arrays = zip(("weight", "bias"), float_convolution(w.network, layer), strict=True)
    parameters = [w.constant(f"{layer.name}.{part}", array) for part, array in arrays]
    w.put(
        "Conv", [layer.inputs[0], *parameters], layer.name, kernel_shape=layer.kernel,
        strides=[layer.stride] * 2, pads=layer.padding * 2,
        group=layer.channels if layer.op == "affine" else layer.groups,
    )  # fmt: skip


def _prelu(w: _Writer, layer: Layer) -> None:
    slope = w.network.module(layer.name).weight.detach().numpy().reshape(1, 1, 1)
    w.put("PRelu", [*layer.inputs, w.constant(f"{layer.name}.slope", slope)], layer.name)


def _scale(w: _Writer, layer: Layer) -> None:
    x, deviation = layer.inputs
    gain = w.constant(f"{layer.name}.gain", TrainedParameters(w.network).gain(deviation))
    w.put("Mul", [x, gain], layer.name)


def _multiply(w: _Writer, layer: Layer) -> None:
    x, gate, *deviation = layer.inputs
    gain = TrainedParameters(w.network).gain(deviation[0]) if deviation else np.float32(1)
    if gain != 1:
        factor = w.constant(f"{layer.name}.gain", gain)
        gate = w.node("Mul", [gate, factor], f"{layer.name}.gated")
    w.put("Mul", [x, gate], layer.name)


def _upscale(w: _Writer, layer: Layer) -> None:
    scales = w.constant(f"{layer.name}.scales", np.array([1, 1, layer.factor, layer.factor], np.float32))
    inputs = [layer.inputs[0], "", scales]
    w.put("Resize", inputs, layer.name, mode="linear", coordinate_transformation_mode="half_pixel")


def _resize(w: _Writer, layer: Layer) -> None:
    x, like = layer.inputs
    axis = 2 if layer.op == "resize_rows" else 3
    steps = interpolation_nodes(w, layer.name, x, like, axis)
    floats = w.node("Cast", [steps], f"{layer.name}.float", to=TensorProto.FLOAT)
    weights = w.node("Div", [floats, w.constant("steps", np.float32(STEPS))], f"{layer.name}.weights")
    if axis == 2:
        w.put("MatMul", [weights, x], layer.name)
    else:
        columns = w.node("Transpose", [weights], f"{layer.name}.columns", perm=[1, 0])
        w.put("MatMul", [x, columns], layer.name)


def _plain(op: str, inputs: Callable[[Layer], Sequence[str]] | None = None, **fixed: Any) -> "_Write":
    def write(w: _Writer, layer: Layer) -> None:
        w.put(op, inputs(layer) if inputs else layer.inputs, layer.name, **fixed)

    return write


def _shuffle(w: _Writer, layer: Layer) -> None:
    w.put("DepthToSpace", layer.inputs, layer.name, blocksize=layer.factor, mode="CRD")


def _max_pool(w: _Writer, layer: Layer) -> None:
    w.put("MaxPool", layer.inputs, layer.name, kernel_shape=layer.kernel, strides=[layer.stride] * 2)


_Write = Callable[[_Writer, Layer], None]
_WRITERS: dict[str, _Write] = {
    "conv": _conv,
    "affine": _conv,
    "relu": _plain("Relu"),
    "prelu": _prelu,
    "add": _plain("Add"),
    "scale": _scale,
    "multiply": _multiply,
    "sigmoid": _plain("Sigmoid"),
    "concat": _plain("Concat", axis=1),
    "repeat": _plain("Concat", lambda layer: layer.inputs * layer.factor, axis=1),
    "pixel_shuffle": _shuffle,
    "max_pool": _max_pool,
    "upscale": _upscale,
    "resize_rows": _resize,
    "resize_columns": _resize,
}
