"""An ONNX model as a function of images, in any runtime that runs named inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from qnas.quantization.quantizers import PIXELS_PER_UNIT
from qnas.runtimes.inputs import Feed
from qnas.runtimes.runtime import Planes, Runner, asking, pixels, planes

if TYPE_CHECKING:
    from qnas.images.evaluation import Image
    from qnas.integer.nodes import IntegerNode

Session = Callable[[Feed], Sequence[Any]]


def onnx_runner(
    data: bytes,
    session: Callable[[bytes], Session],
    slow: bool = False,
    pixel: float = PIXELS_PER_UNIT["short"],
) -> Runner:
    """A Runner of what `session` makes of a model: a function of named inputs to the outputs in order.

    Images of a model in float32 hold pixels divided by `pixel`.
    """
    with asking():
        model = onnx.load_model_from_string(data)
        entry, run = _Entry(model, np.float32(pixel)), session(data)

    def upscale(image: Image) -> Image:
        with asking():
            return entry.pixels(run(entry.feed(image))[0])

    def trace(image: Image, nodes: Sequence[IntegerNode]) -> Mapping[str, Planes]:
        written = {node.name: node.output[0] for node in model.graph.node}
        # A layer that is named as the graph's input or output has a node of another name.
        spelled = [(node.name, name) for node in nodes for name in (node.name, f"{node.name}.value")]
        tensors = {layer: written[name] for layer, name in spelled if name in written}
        tensors[nodes[-1].name] = entry.output
        more = deepcopy(model)
        names = [entry.output, *dict.fromkeys(t for t in tensors.values() if t != entry.output)]
        # Only the name: whoever opens the graph infers the type.
        more.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names[1:])
        with asking():
            found = dict(zip(names, session(more.SerializeToString())(entry.feed(image)), strict=True))
            found[entry.output] = planes(entry.pixels(found[entry.output]))
        return {node: found[t] for node, t in tensors.items() if found[t].dtype in (np.uint8, np.uint16)}

    return Runner(upscale, entry.size, slow=slow, trace=trace)


class _Entry:
    """How a model takes and gives an image: NCHW or NHWC, uint8, or float32 with pixels over `pixel`."""

    def __init__(self, model: onnx.ModelProto, pixel: np.float32) -> None:
        self.pixel = pixel
        kind = model.graph.input[0].type.tensor_type
        self.name, self.output = model.graph.input[0].name, model.graph.output[0].name
        self.floats = kind.elem_type == onnx.TensorProto.FLOAT
        dims = [dim.dim_value for dim in kind.shape.dim]
        self.channels_last = dims[-1:] in ([1], [3])
        height, width = (dims[1:3] if self.channels_last else dims[2:4]) if len(dims) == 4 else (0, 0)
        self.size = (height, width) if height and width else None

    def feed(self, image: Image) -> Feed:
        x = image[None] if self.channels_last else planes(image)
        return {self.name: x.astype(np.float32) / self.pixel if self.floats else x}

    def pixels(self, y: NDArray[Any]) -> Image:
        if self.floats:
            y = np.clip(np.rint(y * self.pixel), 0, 255).astype(np.uint8)
        return y[0] if self.channels_last else pixels(y)
