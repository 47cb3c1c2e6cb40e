"""Layers -> QDQ ONNX with random integers, in the forms that the exporter chooses for onnxruntime.

Channels are padded to multiples of 4, grouped convolutions are dense, repeated channels a 1x1 convolution,
and what stands behind the last pixel shuffle runs in front of it, between its phases (docs/targets.md). What
the network computes means nothing: its kernels are to be those of an exported one, which a test compares.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from qnas.network.layers import Layer, by_name, grid_of, scale_owner

PAD_TO = 4
NARROW = 16  # inputs of fewer channels are padded where they are read
WIDEST_PHASE = 64  # channels of a convolution between the phases of a shuffle
OPSET, IR_VERSION = 21, 10
SCALE = np.float32(2.0**-6)

# The steps of a bilinear resize: (operation, inputs, output), as qnas.integer has the arithmetic.
_STEPS = (
    ("Range", "0 out 1", "o"), ("Mul", "o 2", "2o"), ("Add", "2o 1", "2o1"), ("Mul", "2o1 in", "odd"),
    ("Mul", "odd 64", "num"), ("Mul", "out 2", "2out"), ("Div", "num 2out", "at"), ("Sub", "in 1", "in1"),
    ("Mul", "in1 64", "last"), ("Sub", "at 32", "raw"), ("Max", "raw 0", "low"),
    ("Min", "low last", "centre"),
    ("Unsqueeze", "centre axis", "column"), ("Range", "0 in 1", "i"), ("Mul", "i 64", "source"),
    ("Sub", "column source", "difference"), ("Abs", "difference", "distance"), ("Sub", "64 distance", "hat"),
    ("Max", "hat 0", "steps"),
)  # fmt: skip


def write_qdq(layers: Sequence[Layer], seed: int) -> onnx.ModelProto:
    """The network of `layers`, which are those of a searched space; image [n, 3, h, w] uint8 in and out."""
    return _Writer(layers, seed).model()


class _Writer:
    """`tensors`: layer -> its uint8 tensor, or its float one before a quantizer; `widths`: its channels."""

    def __init__(self, layers: Sequence[Layer], seed: int) -> None:
        self.layers, self.named = layers, by_name(layers)
        self.generator = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, TensorProto] = {}
        self.tensors: dict[str, str] = {}
        self.widths: dict[str, int] = {}
        self.rigid = self._rigid()
        self.phases, self.delayed = self._delayed()

    def model(self) -> onnx.ModelProto:
        for layer in self.layers:
            self.write(layer)
        last = self.layers[-1]
        result = self.quantized(self.tensors[last.name], "result") if last.op == "add" else last.name
        if self.phases > 1:
            result = self.node("DepthToSpace", [result], "shuffled", blocksize=self.phases, mode="CRD")
        self.node("Identity", [result], "upscaled")
        image, upscaled = (
            helper.make_tensor_value_info(name, TensorProto.UINT8, ["n", 3, *axes])
            for name, axes in (("image", "hw"), ("upscaled", "yx"))
        )
        graph = helper.make_graph(self.nodes, "member", [image], [upscaled], list(self.constants.values()))
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)

    def node(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: Any) -> str:
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def grid(self) -> list[str]:
        return [self.constant("scale", SCALE), self.constant("zero_point", np.uint8(128))]

    def quantized(self, source: str, name: str) -> str:
        return self.node("QuantizeLinear", [source, *self.grid()], name)

    def floats(self, tensor: str) -> str:
        name = f"{tensor}.float"
        if all(node.name != name for node in self.nodes):
            self.node("DequantizeLinear", [tensor, *self.grid()], name)
        return name

    def write(self, layer: Layer) -> None:
        width = layer.channels if layer.name in self.rigid else -(-layer.channels // PAD_TO) * PAD_TO
        if layer.name in self.delayed:
            width *= self.phases**2
            if layer.name not in self.rigid:
                width = -(-layer.channels * self.phases**2 // PAD_TO) * PAD_TO
        reads = [self.widths[name] for name in layer.inputs if name in self.widths]
        self.widths[layer.name] = sum(reads) if layer.op == "concat" else width
        _WRITERS[layer.op](self, layer)

    def image(self, layer: Layer) -> None:
        self.tensors[layer.name], self.widths[layer.name] = "image", layer.channels

    def quantize(self, layer: Layer) -> None:
        """Case 1: the image's own grid. Case 2: less of a grid. Case 3: another one, by an add of zero.

        Otherwise what comes is float, and its quantizer ends its kernel.
        """
        source = self.named[layer.inputs[0]]
        assert layer.quant is not None
        self.widths[layer.name] = self.widths[source.name]
        tensor = self.tensors[source.name]
        if source.op == "image":  # Case 1
            self.tensors[layer.name] = tensor
            return
        grid = grid_of(self.named, source.name) if source.op != "repeat" else None
        if grid is not None and scale_owner(self.named, grid) == scale_owner(self.named, layer):  # Case 2
            low, high = (self.constant(f"uint8_{v}", np.uint8(v)) for v in (128, 255))
            self.tensors[layer.name] = self.node("Clip", [tensor, low, high], layer.name)
            return
        if grid is not None:  # Case 3
            tensor = self.moved(tensor, f"{layer.name}.moved")
        clamped = layer.quant.bits < 8
        tensor = self.quantized(tensor, f"{layer.name}.wide" if clamped else layer.name)
        if clamped:
            low, high = (self.constant(f"uint8_{v}", np.uint8(v)) for v in (0, 15))
            tensor = self.node("Clip", [tensor, low, high], layer.name)
        self.tensors[layer.name] = tensor

    def moved(self, tensor: str, name: str) -> str:
        """Onto another grid: zeros in four axes, one constant each, keep two quantizers apart."""
        zeros = self.constant(f"{name}.zero", np.full((1, 1, 1, 1), 128, np.uint8))
        return self.node("Add", [self.floats(tensor), self.floats(zeros)], name)

    def conv(self, layer: Layer) -> None:
        source = layer.inputs[0]
        kernel = layer.kernel
        if layer.name in self.delayed:
            kh, kw = (2 * -(-(k // 2) // self.phases) + 1 for k in kernel)
            kernel = (kh, kw)
        tensor, width = self.narrow(source, layer.name)
        shape = (self.widths[layer.name], width, *kernel)
        self.convolve(layer, tensor, shape, 1)

    def narrow(self, source: str, reader: str) -> tuple[str, int]:
        """The tensor and width of `source`, padded where it is narrow and odd."""
        tensor, width = self.tensors[source], self.widths[source]
        if width < NARROW and width % PAD_TO:
            more = -width % PAD_TO
            pads = self.constant(f"pads_{more}", np.array([0, 0, 0, 0, 0, more, 0, 0], np.int64))
            tensor = self.node("Pad", [tensor, pads, self.grid()[1]], f"{reader}.padded")
            width += more
        return tensor, width

    def affine(self, layer: Layer) -> None:
        width = self.widths[layer.inputs[0]]
        self.widths[layer.name] = width
        self.convolve(layer, self.tensors[layer.inputs[0]], (width, 1, 1, 1), width)

    def repeat(self, layer: Layer) -> None:
        once = self.quantized(
            self.moved(self.tensors[layer.inputs[0]], f"{layer.name}.moved"), f"{layer.name}.once"
        )
        self.tensors[layer.inputs[0]] = once
        tensor, width = self.narrow(layer.inputs[0], layer.name)
        self.convolve(layer, tensor, (self.widths[layer.name], width, 1, 1), 1)

    def convolve(self, layer: Layer, tensor: str, shape: tuple[int, ...], groups: int) -> None:
        name, out = layer.name, shape[0]
        scales = self.constant(f"scales_{out}", np.full(out, 2.0**-9, np.float32))
        biases = self.constant(f"bias_scales_{out}", np.full(out, SCALE * 2.0**-9, np.float32))
        weights = self.constant(f"{name}.weight", self.generator.integers(-8, 8, shape, np.int8))
        bias = self.constant(f"{name}.bias", np.zeros(out, np.int32))
        zeros = self.constant(f"zeros_{out}", np.zeros(out, np.int8))
        weight = self.node("DequantizeLinear", [weights, scales, zeros], f"{name}.weights", axis=0)
        offset = self.node("DequantizeLinear", [bias, biases], f"{name}.offset", axis=0)
        pads = [shape[2] // 2, shape[3] // 2] * 2 if layer.stride == 1 else [*layer.padding] * 2
        self.tensors[name] = self.node(
            "Conv", [self.floats(tensor), weight, offset], f"{name}.sum",
            pads=pads, strides=[layer.stride] * 2, group=groups,
        )  # fmt: skip

    def arithmetic(self, layer: Layer) -> None:
        operands = layer.inputs[:2]
        self.widths[layer.name] = self.widths[operands[0]]
        op = {"add": "Add", "multiply": "Mul", "sigmoid": "Sigmoid"}[layer.op]
        self.tensors[layer.name] = self.node(
            op, [self.floats(self.tensors[name]) for name in operands], f"{layer.name}.sum"
        )

    def concat(self, layer: Layer) -> None:
        parts = [self.tensors[name] for name in layer.inputs]
        self.tensors[layer.name] = self.node("Concat", parts, layer.name, axis=1)

    def pixel_shuffle(self, layer: Layer) -> None:
        tensor = self.tensors[layer.inputs[0]]
        if self.phases > 1:
            self.widths[layer.name] = self.widths[layer.inputs[0]]
        else:
            tensor = self.node("DepthToSpace", [tensor], layer.name, blocksize=layer.factor, mode="CRD")
        self.tensors[layer.name] = tensor

    def max_pool(self, layer: Layer) -> None:
        self.widths[layer.name] = self.widths[layer.inputs[0]]
        self.tensors[layer.name] = self.node(
            "MaxPool", [self.tensors[layer.inputs[0]]], layer.name,
            kernel_shape=layer.kernel, strides=[layer.stride] * 2, pads=[*layer.padding] * 2,
        )  # fmt: skip

    def resize(self, layer: Layer) -> None:
        x, like = (self.tensors[name] for name in layer.inputs)
        self.widths[layer.name] = self.widths[layer.inputs[0]]
        rows, name = layer.op == "resize_rows", layer.name
        axis = 2 if rows else 3
        for tensor, end in ((x, "in"), (like, "out")):
            size = self.node("Shape", [tensor], f"{name}.{end}_shape", start=axis, end=axis + 1)
            self.node("Squeeze", [size, self.constant("first_axis", np.array([0]))], f"{name}.{end}")
        for op, inputs, output in _STEPS:
            read = [self.step(name, each) for each in inputs.split()]
            self.node(op, read, f"{name}.{output}")
        steps = self.node("Cast", [f"{name}.steps"], f"{name}.uint8", to=TensorProto.UINT8)
        if not rows:
            steps = self.node("Transpose", [steps], f"{name}.columns", perm=[1, 0])
        factors = [self.floats(steps), self.floats(x)]
        self.tensors[name] = self.node("MatMul", factors if rows else factors[::-1], f"{name}.sum")

    def step(self, name: str, text: str) -> str:
        if text == "axis":
            return self.constant("second_axis", np.array([1]))
        return self.constant(f"int_{text}", np.int64(text)) if text.isdecimal() else f"{name}.{text}"

    def nothing(self, layer: Layer) -> None:
        """A deviation is a number in the scales."""

    def _rigid(self) -> frozenset[str]:
        """What cannot be padded: where channels are counted, and all that is added to such."""
        group = {layer.name: frozenset({layer.name}) for layer in self.layers}
        for layer in self.layers:
            if layer.op not in _OWN_CHANNELS:
                joined = frozenset().union(group[layer.name], *(group[name] for name in layer.inputs))
                group |= dict.fromkeys(joined, joined)
        fixed = set(group[self.layers[-1].name])
        concats = {layer.name for layer in self.layers if layer.op == "concat"}
        for layer in self.layers:
            if layer.op in ("pixel_shuffle", "image", "affine"):
                fixed.update(*(group[name] for name in (layer.name, *layer.inputs)))
            if layer.op in ("add", "multiply") and group[layer.name] & concats:
                fixed |= group[layer.name]
        for layer in reversed(self.layers):
            if layer.name in fixed & concats:
                fixed.update(*(group[name] for name in layer.inputs))
        return frozenset(fixed)

    def _delayed(self) -> tuple[int, set[str]]:
        """(factor of the last shuffle, what runs between its phases), or (1, nothing)."""
        at = max(index for index, layer in enumerate(self.layers) if layer.op == "pixel_shuffle")
        factor, behind = self.layers[at].factor, self.layers[at + 1 :]
        convs = [layer for layer in behind if layer.op == "conv"]
        widest = max(
            (max(y.channels, self.named[y.inputs[0]].channels) * factor**2 for y in convs), default=0
        )
        if not behind or widest > WIDEST_PHASE:
            return 1, set()
        return factor, {layer.name for layer in behind}


_OWN_CHANNELS = ("conv", "affine", "repeat", "concat", "pixel_shuffle", "image", "deviation")
_WRITERS: dict[str, Callable[[_Writer, Layer], None]] = {
    "image": _Writer.image,
    "quantize": _Writer.quantize,
    "conv": _Writer.conv,
    "affine": _Writer.affine,
    "repeat": _Writer.repeat,
    "add": _Writer.arithmetic,
    "multiply": _Writer.arithmetic,
    "sigmoid": _Writer.arithmetic,
    "concat": _Writer.concat,
    "pixel_shuffle": _Writer.pixel_shuffle,
    "max_pool": _Writer.max_pool,
    "resize_rows": _Writer.resize,
    "resize_columns": _Writer.resize,
    "deviation": _Writer.nothing,
}
