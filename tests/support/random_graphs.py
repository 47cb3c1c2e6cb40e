"""Random float networks of the arithmetic that public networks are made of, each a few operations long.

They double an image of [N, 3, H, W] in 0..1, and their output is an image: near to the input, repeated.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from qnas.onnx.builder import GraphNodes
from qnas.onnx.names import Names

CHANNELS = (4, 6, 7, 12, 16)
Floats = NDArray[np.float32]


class RandomGraph(GraphNodes):
    """A network under construction; methods take and return the name of a tensor of `width` channels."""

    def __init__(self, seed: int) -> None:
        super().__init__(Names(["image", "upscaled"]))
        self.rng = np.random.default_rng(seed)
        self.width = int(self.rng.choice(CHANNELS))

    def floats(self, *shape: int, scale: float = 1.0, mean: float = 0.0) -> str:
        values = self.rng.normal(mean, scale, shape).astype(np.float32)
        return self.constant("c", values)

    def conv(self, x: str, read: int, write: int, kernel: int = 3) -> str:
        """Variance stays; half of each channel is its own, so that images stay images."""
        spread = 0.5 / np.sqrt(read * kernel**2)
        weight = self.rng.normal(0, spread, (write, read, kernel, kernel))
        for channel in range(write):
            weight[channel, channel % read, kernel // 2, kernel // 2] += 0.8
        inputs = [x, self.constant("w", weight.astype(np.float32)), self.floats(write, scale=0.05)]
        return self.node("Conv", inputs, "conv", kernel_shape=[kernel] * 2, pads=[kernel // 2] * 4)

    def same(self, x: str, kernel: int = 3) -> str:
        return self.conv(x, self.width, self.width, kernel)

    def number(self, value: float) -> str:
        return self.constant("n", np.float32(value))

    # Operations -------------------------------------------------------------------------------------------

    def leaky_by_max(self, x: str) -> str:
        slope = float(self.rng.choice([0.05, 0.1, 0.2, 0.3]))
        return self.node("Max", [x, self.node("Mul", [x, self.number(slope)], "scaled")], "leaky")

    def square(self, x: str) -> str:
        positive = self.node("Relu", [x], "relu")
        if self.rng.random() < 0.5:
            return self.node("Pow", [positive, self.number(2)], "square")
        return self.node("Mul", [positive, positive], "square")

    def gated(self, x: str) -> str:
        return self.node("Mul", [x, self.node("Sigmoid", [self.same(x)], "sigmoid")], "gated")

    def attention(self, x: str) -> str:
        """As SPAN: x (sigmoid(y) - 1/2)."""
        y = self.same(x)
        less = self.node("Sub", [self.node("Sigmoid", [y], "sigmoid"), self.number(0.5)], "attention")
        return self.node("Mul", [self.node("Add", [x, y], "sum"), less], "attended")

    def squeeze_excite(self, x: str) -> str:
        """By convolutions of [N, C, 1, 1], or by dense layers of [N, C]."""
        gate = str(self.rng.choice(["Sigmoid", "HardSigmoid"]))
        inner = max(self.width // 4, 2)
        if self.rng.random() < 0.5:
            mean = self.node("GlobalAveragePool", [x], "mean")
            y = self.node("Relu", [self.conv(mean, self.width, inner, 1)], "relu")
            return self.node(
                "Mul", [x, self.node(gate, [self.conv(y, inner, self.width, 1)], "gate")], "scaled"
            )
        axes = self.constant("axes", np.array([2, 3]))
        flat = self.node("ReduceMean", [x, axes], "flat", keepdims=0)
        dense = self.node("MatMul", [flat, self.floats(self.width, inner, scale=0.5)], "dense")
        y = self.node("Relu", [self.node("Add", [dense, self.floats(inner)], "biased")], "relu")
        y = self.node("Gemm", [y, self.floats(self.width, inner), self.floats(self.width)], "dense", transB=1)
        wide = self.node("Unsqueeze", [self.node(gate, [y], "gate"), axes], "gates")
        return self.node("Mul", [x, wide], "scaled")

    def one_map(self, x: str) -> str:
        """One channel of attention for all channels."""
        one = self.node("Sigmoid", [self.conv(x, self.width, 1)], "map")
        return self.node("Mul", [x, one] if self.rng.random() < 0.5 else [one, x], "mapped")

    def per_channel(self, x: str) -> str:
        return self.node(
            "Mul", [self.same(x), self.floats(1, self.width, 1, 1, scale=0.3, mean=1)], "factors"
        )

    def sum_of_three(self, x: str) -> str:
        op = str(self.rng.choice(["Sum", "Mean"]))
        return self.node(op, [x, self.same(x), self.same(x, 1)], "total")

    def dense_block(self, x: str) -> str:
        y = self.node("LeakyRelu", [self.same(x)], "leaky", alpha=0.2)
        z = self.node(
            "Relu", [self.conv(self.node("Concat", [x, y], "two", axis=1), 2 * self.width, 5)], "relu"
        )
        return self.conv(self.node("Concat", [x, y, z], "three", axis=1), 2 * self.width + 5, self.width, 1)

    def linear(self, x: str) -> str:
        """A 1x1 convolution as a layer of channels last."""
        turned = self.node("Transpose", [x], "turned", perm=[0, 2, 3, 1])
        weight = self.constant(
            "w", (np.eye(self.width) + self.rng.normal(0, 0.2, [self.width] * 2)).astype("f4")
        )
        y = self.node(
            "Add", [self.node("MatMul", [turned, weight], "dense"), self.floats(self.width)], "biased"
        )
        if self.rng.random() < 0.5:
            y = self.node("Relu", [y], "relu")
        return self.node("Transpose", [y], "back", perm=[0, 3, 1, 2])

    def gelu(self, x: str) -> str:
        part = self.node("Erf", [self.node("Mul", [x, self.number(0.70710678)], "half")], "erf")
        more = self.node("Mul", [x, self.node("Add", [part, self.number(1)], "more")], "twice")
        return self.node("Mul", [more, self.number(0.5)], "gelu")

    def shifted(self, x: str) -> str:
        return self.node(
            "Add", [self.node("Abs", [x], "abs"), self.number(float(self.rng.normal()))], "shifted"
        )

    # Operations that no integer network has ----------------------------------------------------------------

    def layer_norm(self, x: str) -> str:
        axes = self.constant("axes", np.array([1]))
        centred = self.node("Sub", [x, self.node("ReduceMean", [x, axes], "mean")], "centred")
        variance = self.node(
            "ReduceMean", [self.node("Pow", [centred, self.number(2)], "p"), axes], "variance"
        )
        spread = self.node("Sqrt", [self.node("Add", [variance, self.number(0.01)], "more")], "spread")
        return self.node("Div", [centred, spread], "normed")

    def sum_over_image(self, x: str) -> str:
        total = self.node("ReduceSum", [x, self.constant("axes", np.array([2, 3]))], "total")
        return self.node("Add", [x, self.node("Mul", [total, self.number(1e-4)], "little")], "shifted")

    def softmax(self, x: str) -> str:
        return self.node("Mul", [x, self.node("Softmax", [self.same(x)], "shares", axis=1)], "chosen")

    def instance_norm(self, x: str) -> str:
        inputs = [x, self.floats(self.width, mean=1, scale=0.1), self.floats(self.width, scale=0.1)]
        return self.node("InstanceNormalization", inputs, "normed")

    def cubic(self, x: str) -> str:
        sizes = self.constant("sizes", np.float32([1, 1, 2, 2]))
        large = self.node("Resize", [x, "", sizes], "large", mode="cubic")
        return self.node("AveragePool", [large], "back", kernel_shape=[2, 2], strides=[2, 2])


Operations = tuple[Callable[[RandomGraph, str], str], ...]
OPERATIONS: Operations = (
    RandomGraph.leaky_by_max, RandomGraph.square, RandomGraph.gated, RandomGraph.attention,
    RandomGraph.squeeze_excite, RandomGraph.one_map, RandomGraph.per_channel, RandomGraph.sum_of_three,
    RandomGraph.dense_block, RandomGraph.linear, RandomGraph.gelu, RandomGraph.shifted,
)  # fmt: skip
FLOAT_OPERATIONS: Operations = (
    RandomGraph.layer_norm, RandomGraph.sum_over_image, RandomGraph.softmax, RandomGraph.instance_norm,
    RandomGraph.cubic,
)  # fmt: skip


def random_graph(seed: int, operations: Operations = OPERATIONS) -> ModelProto:
    """Two to four of `operations` between convolutions, around which the image is carried."""
    g = RandomGraph(seed)
    x = first = g.conv("image", 3, g.width)
    for index in g.rng.integers(0, len(operations), g.rng.integers(2, 5)):
        x = operations[index](g, x)
        x = g.same(x) if g.rng.random() < 0.6 else x
    x = g.node("Add", [g.same(x), first], "carried")
    wide = g.conv(x, g.width, 12)
    size = g.constant("sizes", np.float32([1, 1, 2, 2]))
    small = g.node(
        "Mul", [g.node("DepthToSpace", [wide], "shuffled", blocksize=2, mode="CRD"), g.number(0.1)], "s"
    )
    repeated = g.node("Resize", ["image", "", size], "repeated", mode="nearest")
    g.put("Add", [small, repeated], "upscaled")
    model = g.model("random", TensorProto.FLOAT, 2, 18, 8)
    model.graph.input[0].name = model.graph.node[0].input[0] = "image"
    return model
