"""IntegerNetwork -> .tflite that LiteRT runs wholly in XNNPACK, bit for bit as `qnas.integer` defines it, but
for what has 16 bits (`wide.py`).

XNNPACK requantizes convolutions, matrix products and products as the definition does: float32, half to even.
Its ADD and QUANTIZE round ties up, and its MUL does so on ARM: they stand only where there are none. A
convolution does the rest of sums, float32 that of products (docs/decisions/0010-tflite-forms.md).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qnas.errors import ModelError
from qnas.export.to_tflite import wide
from qnas.export.to_tflite.blocks import MOST_PARTS, SAME, VALID, Blocks, Kernel, Tensor
from qnas.export.to_tflite.channel_order import in_runtime_order
from qnas.export.to_tflite.file import Grid
from qnas.export.to_tflite.leaky import halves, sum_of_halves
from qnas.export.to_tflite.logistic import logistic_table
from qnas.integer import nodes
from qnas.integer.convolution import Conv
from qnas.integer.crops import Crop, CropTo, Nearest, nearest_places
from qnas.integer.interpolation import STEPS, interpolation_steps
from qnas.integer.interpreter import sizes
from qnas.integer.network import IntegerNetwork, form_of, is_wide, refuse_image_gains
from qnas.integer.requantization import float_product_agrees, ties_agree, xnnpack_sums_agree
from qnas.integer.windows import NO_SIDES
from qnas.quantization.quantizers import GREY_LEVEL, QuantParams

METADATA = "qnas"  # the entry that holds the properties, as JSON
BYTE_ZERO = -128  # the byte of q = 0 in the file's input and output
LARGEST_WEIGHT = 127
LARGEST_QUANTIZE = 128  # factors of XNNPACK's QUANTIZE are smaller
LARGEST_FACTOR = 256  # and those of its convolutions


@dataclass(frozen=True)
class TfliteModel:
    """`data` is the file, `resizable` whether a runtime may change the size of its input.

    `approximate` names the additions whose scales allow no exact form: some sums may be one step off.
    """

    data: bytes
    approximate: tuple[str, ...]
    resizable: bool


def write_tflite(
    network: IntegerNetwork,
    height: int,
    width: int,
    *,
    resizable: bool = False,
    io: Literal["int8", "uint8"] = "int8",
    properties: Mapping[str, str] | None = None,
) -> TfliteModel:
    """The file for images of `height` x `width`; `properties` goes into its metadata as JSON.

    int8 images hold `pixel - 128`; uint8 ones cost a QUANTIZE at each end that XNNPACK does not run.
    Raises ModelError naming the node that has nothing to read in such an image, or that has no form for every
    size when `resizable`; UsageError without ai-edge-litert.
    """
    refuse_image_gains(network, "TFLite")
    ordered = in_runtime_order(network)
    size = sizes(ordered, height, width)
    empty = next((name for name, pixels in size.items() if min(pixels) < 1), None)
    if empty is not None:
        raise ModelError(f"{empty} has nothing to read in an image of {height}x{width}: use a larger one")
    writer = _Writer(ordered, size, resizable)
    first, *others = ordered.nodes
    start = writer.begin(first, io)
    read = _read(ordered)
    for node in others:
        if node.name in read:
            writer.at[node.name] = writer.write(node)
    end = writer.finish(ordered.nodes[-1], io)
    metadata = {METADATA: json.dumps(dict(properties or {}), sort_keys=True).encode()}
    data = writer.blocks.file.pack(network.name, start, end, metadata)
    return TfliteModel(data, tuple(writer.approximate), resizable)


@dataclass
class _Writer:
    network: IntegerNetwork
    size: Mapping[str, tuple[int, int]]
    resizable: bool
    blocks: Blocks = field(default_factory=Blocks)
    at: dict[str, Tensor] = field(default_factory=dict)
    approximate: list[str] = field(default_factory=list)
    named: dict[str, nodes.IntegerNode] = field(init=False)

    def __post_init__(self) -> None:
        self.named = self.network.by_name()

    def write(self, node: nodes.IntegerNode) -> Tensor:
        """Append the operators of `node`; the tensor that holds its output."""
        reads = [self.at[name] for name in node.operands]
        if type(node) in wide.FORMS and is_wide(node, self.named):
            read = self.named[node.operands[0]].output
            return wide.FORMS[type(node)](self.blocks, node, read, self.shape(node), *reads)
        return form_of(node, _FORMS, "TFLite")(self, node, *reads)

    def shape(self, node: nodes.IntegerNode) -> tuple[int, ...]:
        """NHWC."""
        return (1, *self.size[node.name], node.channels)

    def fixed(self, node: nodes.IntegerNode) -> None:
        if self.resizable:
            raise ModelError(f"{node.name} needs a fixed size of the image: export without resizable")

    # The ends ----------------------------------------------------------------------------------------------

    def begin(self, image: nodes.IntegerNode, io: str) -> int:
        """Write the input; the index of the file's input tensor."""
        file, grid, shape = self.blocks.file, image.output, self.shape(image)
        signature = (1, -1, -1, shape[3]) if self.resizable else None
        zero_point = grid.zero_point + BYTE_ZERO
        if io == "int8":
            self.at[image.name] = self.blocks.new(image.name, shape, grid.scale, zero_point, signature)
            return self.at[image.name].index
        start = file.tensor(
            image.name, shape, "UINT8", Grid(grid.scale, grid.zero_point), signature=signature
        )
        x = self.at[image.name] = self.blocks.new(f"{image.name}.int8", shape, grid.scale, zero_point)
        file.operator("QUANTIZE", [start], x.index)
        return start

    def second_image(self, image: nodes.IntegerNode) -> Tensor:
        raise ModelError(f"{image.name} is a second image: a network has one input")

    def finish(self, last: nodes.IntegerNode, io: str) -> int:
        """Write the output, q - 128 or q; the index of the file's output tensor."""
        grid = last.output
        y = self.blocks.on(f"{last.name}.output", self.at[last.name], grid.zero_point + BYTE_ZERO)
        if io == "int8":
            return y.index
        file = self.blocks.file
        end = file.tensor(f"{last.name}.uint8", y.shape, "UINT8", Grid(grid.scale, grid.zero_point))
        return file.operator("QUANTIZE", [y.index], end)

    # Nodes that requantize ---------------------------------------------------------------------------------

    def conv(self, node: Conv, x: Tensor) -> Tensor:
        """Padding is SAME where that means the same, otherwise a PAD."""
        x = self.blocks.widened(x) if is_wide(node, self.named) else x
        bias = wide.bias(node, self.named[node.inputs[0]].output, x) if x.is_wide else node.bias
        (top, left, bottom, right), part = node.padding, node.weight.shape[1]
        if not node.keeps_size and node.padding != NO_SIDES:
            x = self.blocks.padded(f"{node.name}.padded", x, ((0, 0), (top, bottom), (left, right), (0, 0)))
        depthwise = node.groups > 1 and part == 1 and node.groups == x.shape[3]
        weight = node.weight.transpose((1, 2, 3, 0) if depthwise else (0, 2, 3, 1))
        kernel = Kernel(weight, node.weight_scale, bias, depthwise)
        (sh, sw), (dh, dw) = node.stride, node.dilation
        window = {
            "strideH": sh, "strideW": sw, "dilationHFactor": dh, "dilationWFactor": dw,
            "padding": SAME if node.keeps_size else VALID,
        }  # fmt: skip
        return self.blocks.convolved(node.name, x, node.output, kernel, self.shape(node), **window)

    def add(self, node: nodes.Add, a: Tensor, b: Tensor) -> Tensor:
        """Case 1: no sum is close to a tie: ADD. Case 2: scales are whole times some unit: a convolution of
        both. Case 3: ADD, whose ties and whose factors of 21 bits are the runtime's own."""
        exact = xnnpack_sums_agree(a.grid, b.grid, node.output)
        factors = (Fraction(float(a.scale)) / Fraction(float(b.scale))).as_integer_ratio()
        unit = np.float32(float(a.scale) / factors[0])
        if exact or not _equal_sums((a.scale, b.scale), factors, unit, node.output):
            if not exact:
                self.approximate.append(node.name)
            return self.blocks.computed("ADD", node.name, node.output, (a.index, b.index), a.shape)
        bias = factors[1] * (a.zero_point - b.zero_point)  # b is read with the zero point of a
        parts, weights = [], []
        for i, (x, factor) in enumerate(zip((a, b), factors, strict=True)):
            same = self.blocks.relabelled(f"{node.name}.bytes{i}", x, unit, a.zero_point)
            copies = -(-factor // LARGEST_WEIGHT)
            parts += [same] * copies
            weights += [(factor + k) // copies for k in range(copies)]
        return self.summed(node, parts, weights, bias)

    def summed(self, node: nodes.Add, parts: Sequence[Tensor], weights: Sequence[int], bias: int) -> Tensor:
        """`weights . parts + bias` as a convolution of the tensors joined.

        One above the other takes half the time of side by side, but the dilation is the height of the image.
        """
        channels, shape = node.channels, parts[0].shape
        scale, shift = np.ones(channels, np.float32), np.full(channels, bias, np.int32)
        both = self.blocks.concat(f"{node.name}.both", parts, axis=3 if self.resizable else 1)
        if self.resizable:
            dense = np.concatenate([w * np.eye(channels) for w in weights], axis=1).astype(np.int8)
            kernel = Kernel(dense.reshape(channels, 1, 1, -1), scale, shift, depthwise=False)
            return self.blocks.convolved(node.name, both, node.output, kernel, shape)
        column = np.repeat(np.asarray(weights, np.int8), channels).reshape(1, -1, 1, channels)
        kernel = Kernel(column, scale, shift, depthwise=True)
        return self.blocks.convolved(node.name, both, node.output, kernel, shape, dilationHFactor=shape[1])

    def multiply(self, node: nodes.Multiply, a: Tensor, b: Tensor) -> Tensor:
        """The gain is in the scale that `b` is said to have. In float where ties would go up on ARM."""
        scale = np.float32(b.scale * node.gain)
        b = self.blocks.relabelled(f"{node.name}.gain", b, scale, b.zero_point)
        if not ties_agree(a.grid, b.grid, node.output) and float_product_agrees(a.grid, b.grid, node.output):
            return self.blocks.computed_in_float("MUL", node.name, node.output, (a, b))
        return self.blocks.computed("MUL", node.name, node.output, (a.index, b.index), a.shape)

    def mean(self, node: nodes.Mean, x: Tensor) -> Tensor:
        """Average the bytes q - 128 of the definition, said to lie around 0: XNNPACK makes up for another
        zero point by a product that is a little off for some sizes."""
        home = node.output.zero_point + BYTE_ZERO
        around = self.blocks.relabelled(
            f"{node.name}.bytes", self.blocks.on(f"{node.name}.home", x, home), x.scale, 0
        )
        axes = (self.blocks.ints(f"{node.name}.axes", (1, 2)),)
        mean = self.blocks.moved("MEAN", f"{node.name}.mean", [around], self.shape(node), axes, keepDims=True)
        return self.blocks.relabelled(node.name, mean, x.scale, home)

    def interpolate(self, node: nodes.Interpolate, x: Tensor) -> Tensor:
        axis = node.axis - 1
        return self.product(node, x, interpolation_steps(x.shape[axis], self.shape(node)[axis]), 1 / STEPS)

    def nearest(self, node: Nearest, x: Tensor) -> Tensor:
        axis = node.axis - 1
        places = nearest_places(x.shape[axis], self.shape(node)[axis])
        return self.product(node, x, np.eye(x.shape[axis], dtype=np.int64)[places], 1)

    def product(
        self, node: nodes.Interpolate | Nearest, x: Tensor, weight: NDArray[np.int64], step: float
    ) -> Tensor:
        """`weight` steps [out, in] times the rows or columns, as the last axis: it goes there and back."""
        self.fixed(node)
        x = self.blocks.widened(x) if is_wide(node, self.named) else x
        there, back = ((0, 2, 3, 1), (0, 3, 1, 2)) if node.axis == 2 else ((0, 1, 3, 2), (0, 1, 3, 2))
        weight, scale = weight.astype(np.int8), np.full(len(weight), step, np.float32)
        matrix = self.blocks.file.constant(f"{node.name}.weight", weight, Grid(scale, 0))
        turned = self.blocks.transposed(f"{node.name}.turned", x, there)
        product = self.blocks.computed(
            "FULLY_CONNECTED", f"{node.name}.product", node.output, (turned.index, matrix, -1),
            (*turned.shape[:3], len(weight)), keepNumDims=True,
        )  # fmt: skip
        return self.blocks.transposed(node.name, product, back)

    def table(self, node: nodes.Table, x: Tensor) -> Tensor:
        """Case 0: the bytes as they are, on another grid.
        Case 1: those of a requantization: QUANTIZE if nothing is rounded and int8 clamps, or a convolution.
        Case 2: those of the runtime's sigmoid. Case 3: those of the sum of both halves of a leaky ReLU.
        Case 4: any: GATHER, which XNNPACK leaves out.
        """
        read, grid = self.named[node.inputs[0]].output, node.output
        q = np.arange(read.low, read.high + 1)
        if np.array_equal(node.table[q], q):
            zero_point = x.zero_point + grid.zero_point - read.zero_point
            return self.blocks.relabelled(node.name, x, np.float32(grid.scale), zero_point)
        factor = np.float32(x.scale / grid.scale)
        steps = np.rint((q - read.zero_point).astype(np.float32) * factor) + grid.zero_point
        same = np.array_equal(node.table[q], np.clip(steps, grid.low, grid.high))
        zero_point = grid.zero_point + BYTE_ZERO
        if same and float(factor).is_integer() and factor < LARGEST_QUANTIZE and _is_byte(grid):
            y = self.blocks.new(node.name, x.shape, grid.scale, zero_point)
            self.blocks.file.operator("QUANTIZE", [x.index], y.index)
            return y
        if same and factor < LARGEST_FACTOR:
            return self.blocks.rescaled(node.name, x, grid, 1.0)
        if node.function == "sigmoid" and grid.scale == np.float32(GREY_LEVEL) and grid.zero_point == 0:
            known = logistic_table(x.scale, x.zero_point)[q - read.zero_point + x.zero_point - BYTE_ZERO]
            if np.array_equal(node.table[q], known):
                y = self.blocks.new(node.name, x.shape, grid.scale, zero_point)
                self.blocks.file.operator("LOGISTIC", [x.index], y.index)
                return y
        if node.function == "leaky_relu" and np.array_equal(node.table[q], sum_of_halves(q, node, read)):
            return self.leaky(node, x)
        return self.gathered(node, x, read)

    def leaky(self, node: nodes.Table, x: Tensor) -> Tensor:
        """Each half on a grid that ends at zero, where int8 cuts off the other."""
        parts = [
            self.blocks.rescaled(f"{node.name}.{name}", x, grid, factor)
            for name, grid, factor in halves(node)
        ]
        reads = [half.index for half in parts]
        return self.blocks.computed("ADD", node.name, node.output, reads, x.shape)

    def gathered(self, node: nodes.Table, x: Tensor, read: QuantParams) -> Tensor:
        """Indices are int32: the bytes of `x`, plus 128."""
        grid, file = node.output, self.blocks.file
        q = np.arange(256) + BYTE_ZERO - x.zero_point + read.zero_point
        values = node.table[np.clip(q, read.low, read.high)].astype(np.int16) + BYTE_ZERO
        y = self.blocks.new(node.name, x.shape, grid.scale, grid.zero_point + BYTE_ZERO)
        entries = file.constant(
            f"{node.name}.table", values.astype(np.int8), Grid(np.asarray(y.scale), y.zero_point)
        )
        unsigned = file.tensor(
            f"{node.name}.uint8", x.shape, "UINT8", Grid(np.asarray(x.scale), x.zero_point - BYTE_ZERO)
        )
        where = file.tensor(f"{node.name}.where", x.shape, "INT32")
        file.operator("QUANTIZE", [x.index], unsigned)
        file.operator("CAST", [unsigned], where)
        file.operator("GATHER", [entries, where], y.index, axis=0)
        return y

    # Nodes that move values --------------------------------------------------------------------------------

    def concat(self, node: nodes.Concat, *reads: Tensor) -> Tensor:
        """Grids of one scale and zero point may have several zero points in bytes: q - 128 holds them all."""
        levels = {x.zero_point for x in reads}
        home = levels.pop() if len(levels) == 1 else node.output.zero_point + BYTE_ZERO
        parts = [self.blocks.on(f"{node.name}.part{i}", x, home) for i, x in enumerate(reads)]
        return self.blocks.concat(node.name, parts, axis=3)

    def shuffle(self, node: nodes.DepthToSpace, x: Tensor) -> Tensor:
        return self.blocks.moved("DEPTH_TO_SPACE", node.name, [x], self.shape(node), blockSize=node.factor)

    def max_pool(self, node: nodes.MaxPool, x: Tensor) -> Tensor:
        """Zeros around it where no value is below, otherwise repeated edges: each window has these anyway."""
        (kh, kw), grid = node.kernel, self.named[node.inputs[0]].output
        same = node.stride == (1, 1) and node.padding == ((kh - 1) // 2, (kw - 1) // 2, kh // 2, kw // 2)
        if not same and node.padding != NO_SIDES:
            lowest = grid.low == grid.zero_point
            x = self.blocks.around(f"{node.name}.padded", x, node.padding, "zero" if lowest else "edge")
        return self.blocks.pooled(node.name, x, node.kernel, node.stride, SAME if same else VALID)

    def pad(self, node: nodes.Pad, x: Tensor) -> Tensor:
        if node.multiple != (1, 1):
            self.fixed(node)
        sides, more = node.around((x.shape[1], x.shape[2])), node.channels - x.shape[3]
        x = self.blocks.around(f"{node.name}.around" if more else node.name, x, sides, node.mode)
        return self.blocks.padded(node.name, x, ((0, 0), (0, 0), (0, 0), (0, more))) if more else x

    def crop(self, node: Crop, x: Tensor) -> Tensor:
        top, left, bottom, right = node.sides
        return self.blocks.taken(node.name, x, (top, left), (-bottom, -right))

    def crop_to(self, node: CropTo, x: Tensor) -> Tensor:
        """The sizes of a file are constants."""
        self.fixed(node)
        height, width = self.size[node.name]
        begin = (node.start, 0) if node.axis == 2 else (0, node.start)
        return self.blocks.taken(node.name, x, begin, (begin[0] + height, begin[1] + width))


def _read(network: IntegerNetwork) -> set[str]:
    """The nodes whose values the output depends on."""
    found = {network.nodes[-1].name}
    for node in reversed(network.nodes):
        if node.name in found:
            found.update(node.operands)
    return found


def _is_byte(grid: QuantParams) -> bool:
    return grid.high - grid.low == 255


def _equal_sums(
    scales: tuple[np.float32, np.float32], factors: Sequence[int], unit: np.float32, y: QuantParams
) -> bool:
    """Whether `(factors . q) * unit / s_y` rounds as the definition of Add does, for all pairs of bytes."""
    if max(factors) > LARGEST_WEIGHT * (MOST_PARTS - 1):
        return False
    left, right = np.meshgrid(np.arange(-255, 256), np.arange(-255, 256))
    a, b = scales
    defined = np.rint((a * left.astype(np.float32) + b * right.astype(np.float32)) / y.scale)
    sums = (factors[0] * left + factors[1] * right).astype(np.float32) * np.float32(unit / y.scale)
    return bool(np.array_equal(defined, np.rint(sums)))


# Class of a node -> what writes its operators, for the tensors of its operands.
_FORMS: dict[type[nodes.IntegerNode], Callable[..., Tensor]] = {
    nodes.ImageInput: _Writer.second_image,
    Conv: _Writer.conv,
    nodes.Add: _Writer.add,
    nodes.Multiply: _Writer.multiply,
    nodes.ChannelGate: _Writer.multiply,
    nodes.Mean: _Writer.mean,
    nodes.Table: _Writer.table,
    nodes.Concat: _Writer.concat,
    nodes.DepthToSpace: _Writer.shuffle,
    nodes.MaxPool: _Writer.max_pool,
    nodes.Interpolate: _Writer.interpolate,
    nodes.Pad: _Writer.pad,
    Crop: _Writer.crop,
    CropTo: _Writer.crop_to,
    Nearest: _Writer.nearest,
}
