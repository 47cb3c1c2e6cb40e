"""Building blocks of an ONNX graph: nodes, constants that are stored once, and the model around them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

INPUT, OUTPUT = "image", "upscaled"


@dataclass
class GraphNodes:
    """The nodes and constants of a graph under construction. Methods return the name of the output."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: dict[str, onnx.TensorProto] = field(default_factory=dict)

    def node(self, op: str, inputs: Sequence[str], output: str, **attributes: object) -> str:
        """One node, named as what it writes."""
        self.nodes.append(helper.make_node(op, list(inputs), [output], output, **attributes))  # type: ignore[arg-type]
        return output

    def constant(self, name: str, value: NDArray[np.generic] | np.generic) -> str:
        """An initializer; one of that name is stored once."""
        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def int4(self, name: str, value: NDArray[np.int8]) -> str:
        """An initializer of two values a byte."""
        self.initializers[name] = helper.make_tensor(
            name, TensorProto.INT4, value.shape, value.flatten().tolist()
        )
        return name

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
