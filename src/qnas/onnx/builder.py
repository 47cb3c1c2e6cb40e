"""Builds and rewrites ONNX graphs: nodes, constants that are stored once, and the model around them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from qnas.onnx.names import Names

INPUT, OUTPUT = "image", "upscaled"


def _tensor(name: str, array: NDArray[Any], kind: int | None) -> TensorProto:
    """A tensor of ONNX type `kind`, or the array's; onnx itself would take a byte and a half for two INT4."""
    if kind is None:
        return numpy_helper.from_array(array, name)
    if kind != TensorProto.INT4:
        return helper.make_tensor(name, kind, array.shape, array.flatten().tolist())
    flat = np.append(array.ravel(), np.zeros(array.size % 2, array.dtype)).astype(np.uint8) & 15
    return helper.make_tensor(name, kind, array.shape, bytes(flat[::2] | flat[1::2] << 4), raw=True)


@dataclass
class GraphNodes:
    """The nodes and constants of a graph under construction. Methods return the name of a tensor.

    `names` are those taken: of all tensors that `put` will write, and of the model that nodes are added to.
    """

    names: Names = field(default_factory=Names)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: dict[str, onnx.TensorProto] = field(default_factory=dict)
    _constants: dict[tuple[object, ...], str] = field(default_factory=dict)

    def node(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Write a new tensor, called `output` or, where that is taken, `output` with a number."""
        return self.put(op, inputs, self.names.tensor(output), **attributes)

    def put(self, op: str, inputs: Sequence[str], output: str, name: str = "", **attributes: Any) -> str:
        """Write the tensor that the model knows as `output`; the node has that name too, or `name`."""
        name = name or self.names.node(output)
        self.nodes.append(helper.make_node(op, list(inputs), [output], name, **attributes))
        return output

    def constant(self, name: str, value: NDArray[np.generic] | np.generic, kind: int | None = None) -> str:
        """An initializer of ONNX type `kind`, or its array's; equal ones of one name are stored once."""
        array = np.asarray(value)
        key = (name, kind, array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = free = self.names.tensor(name)
            self.initializers[free] = _tensor(free, array, kind)
        return self._constants[key]

    def int4(self, name: str, value: NDArray[np.int8]) -> str:
        """An initializer of two values a byte."""
        return self.constant(name, value, TensorProto.INT4)

    def rewrite(self, graph: onnx.GraphProto) -> None:
        """Let `graph` have these nodes instead of its own, and these constants besides its own."""
        del graph.node[:]
        graph.node.extend(self.nodes)
        graph.initializer.extend(self.initializers.values())

    def model(
        self, name: str, kind: int, scale: int, opset: int, ir_version: int, *,
        nhwc: bool = False, batch: int | str = "batch", channels: int = 3,
    ) -> onnx.ModelProto:  # fmt: skip
        """The model from INPUT to OUTPUT, images of elements `kind`; sizes are free."""

        def shape(height: str, width: str) -> list[str | int | None]:
            return [batch, height, width, channels] if nhwc else [batch, channels, height, width]

        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info(INPUT, kind, shape("height", "width"))],
            [helper.make_tensor_value_info(OUTPUT, kind, shape(f"{scale}*height", f"{scale}*width"))],
            list(self.initializers.values()),
        )
        opsets = [helper.make_opsetid("", opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version, producer_name="qnas")
