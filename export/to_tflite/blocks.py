"""Building blocks of a .tflite network: int8 tensors on grids, and the operators that XNNPACK runs on them.

Operators that requantize clamp with the ends of int8 as far as these suffice:

    8 bits            both ends
    fewer, unsigned   the zero point lies so that `high` is 127; a fused RELU is the lower bound
    fewer, signed     `high` is 127 first, then a QUANTIZE of the same scale makes `low` -128
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from qnas.export.to_tflite.file import Grid, OpName, TfliteFile
from qnas.integer.nodes import PadMode
from qnas.integer.windows import NO_SIDES, Sides, Size
from qnas.quantization.quantizers import QuantParams

MOST_PARTS = 5  # XNNPACK concatenates up to five tensors
RELU = 1  # ActivationFunctionType
SAME, VALID = 0, 1  # Padding
WINDOW = {"dilationHFactor": 1, "dilationWFactor": 1, "strideH": 1, "strideW": 1, "padding": VALID}


@dataclass(frozen=True)
class Tensor:
    """int8 `shape` [1, H, W, C]: the value is `scale * (byte - zero_point)`."""

    index: int
    scale: np.float32
    zero_point: int
    shape: tuple[int, ...]

    @property
    def grid(self) -> QuantParams:
        """The grid of its bytes as they are, which counts from the zero point."""
        return QuantParams(np.asarray(self.scale), 0, -128 - self.zero_point, 127 - self.zero_point)


@dataclass(frozen=True)
class Kernel:
    """`weight` int8 [O, kh, kw, I / groups] of a CONV_2D, [1, kh, kw, O] of a DEPTHWISE_CONV_2D; `scale`
    float32 [O]; `bias` int32 [O]."""

    weight: NDArray[np.int8]
    scale: NDArray[np.float32]
    bias: NDArray[np.int32]
    depthwise: bool


@dataclass
class Blocks:
    """A file, and what takes more than one of its calls. `name` is always that of the tensor returned."""

    file: TfliteFile = field(default_factory=TfliteFile)

    def new(self, name: str, shape: Sequence[int], scale: NDArray[np.float32] | np.float32, zero_point: int,
            signature: Sequence[int] | None = None) -> Tensor:  # fmt: skip
        """A tensor that nothing has written yet."""
        step = np.asarray(scale, np.float32)
        index = self.file.tensor(name, shape, "INT8", Grid(step, zero_point), signature=signature)
        return Tensor(index, np.float32(step), zero_point, tuple(shape))

    def ints(self, name: str, values: object) -> int:
        """An int32 constant: axes, margins, bounds."""
        return self.file.constant(name, np.asarray(values, np.int32))

    def on(self, name: str, x: Tensor, zero_point: int) -> Tensor:
        """`x` with another zero point; what leaves int8 is clamped."""
        if x.zero_point == zero_point:
            return x
        y = self.new(name, x.shape, x.scale, zero_point)
        self.file.operator("QUANTIZE", [x.index], y.index)
        return y

    def computed(self, op: OpName, name: str, grid: QuantParams, inputs: Sequence[int], shape: Sequence[int],
                 **options: object) -> Tensor:  # fmt: skip
        """An operator that requantizes, clamped to `grid`; `name.low` after a clamp in two steps."""
        top = 127 - (grid.high - grid.zero_point)
        bottom = -128 + (grid.zero_point - grid.low)
        activation = RELU if grid.low == grid.zero_point and top != bottom else 0
        y = self.new(name, shape, grid.scale, top)
        self.file.operator(op, inputs, y.index, fusedActivationFunction=activation, **options)
        return y if activation else self.on(f"{name}.low", y, bottom)

    def moved(self, op: OpName, name: str, inputs: Sequence[Tensor], shape: Sequence[int],
              constants: Sequence[int] = (), **options: object) -> Tensor:  # fmt: skip
        """An operator that only moves values: its output is on the grid of its inputs."""
        y = self.new(name, shape, inputs[0].scale, inputs[0].zero_point)
        self.file.operator(op, [*(x.index for x in inputs), *constants], y.index, **options)
        return y

    def convolved(self, name: str, x: Tensor, grid: QuantParams, kernel: Kernel, shape: Sequence[int],
                  **options: object) -> Tensor:  # fmt: skip
        """`options`: what differs from WINDOW."""
        inputs = (
            x.index,
            self.file.constant("weight", kernel.weight, Grid(kernel.scale, 0, 3 if kernel.depthwise else 0)),
            self.file.constant("bias", kernel.bias, Grid((x.scale * kernel.scale).astype(np.float32), 0)),
        )
        window: dict[str, object] = WINDOW | options
        if kernel.depthwise:
            copies = kernel.weight.shape[3] // x.shape[3]
            return self.computed(
                "DEPTHWISE_CONV_2D", name, grid, inputs, shape, depthMultiplier=copies, **window
            )
        return self.computed("CONV_2D", name, grid, inputs, shape, **window)

    def rescaled(self, name: str, x: Tensor, grid: QuantParams, factor: float, bias: int = 0,
                 stride: Size = (1, 1)) -> Tensor:  # fmt: skip
        """`(x + bias steps) * factor` on `grid`: a depthwise 1x1 convolution of weights 1."""
        channels = x.shape[3]
        ones, steps = np.ones((1, 1, 1, channels), np.int8), np.full(channels, bias, np.int32)
        kernel = Kernel(ones, np.full(channels, factor, np.float32), steps, depthwise=True)
        shape = [1, *(-(-n // s) for n, s in zip(x.shape[1:3], stride, strict=True)), channels]
        return self.convolved(name, x, grid, kernel, shape, strideH=stride[0], strideW=stride[1])

    def relabelled(self, name: str, x: Tensor, scale: np.float32, zero_point: int) -> Tensor:
        """The bytes of `x` as they are, said to be on another grid."""
        if (x.scale, x.zero_point) == (scale, zero_point):
            return x
        grid = replace(x, scale=scale, zero_point=zero_point).grid
        return self.rescaled(name, x, grid, float(scale / x.scale), x.zero_point - zero_point)

    def concat(self, name: str, parts: Sequence[Tensor], axis: int) -> Tensor:
        """Concatenate parts on one grid, at most five at a time."""
        level, count = list(parts), 0
        while len(level) > 1:
            groups = [level[i : i + MOST_PARTS] for i in range(0, len(level), MOST_PARTS)]
            names = [f"{name}.{count + i}" for i in range(len(groups))] if len(groups) > 1 else [name]
            level = [self._joined(*each, axis) for each in zip(names, groups, strict=True)]
            count += len(groups)
        return level[0]

    def _joined(self, name: str, parts: Sequence[Tensor], axis: int) -> Tensor:
        if len(parts) == 1:
            return parts[0]
        shape = list(parts[0].shape)
        shape[axis] = sum(x.shape[axis] for x in parts)
        return self.moved("CONCATENATION", name, parts, shape, axis=axis)

    def pooled(self, name: str, x: Tensor, kernel: Size, stride: Size, padding: int) -> Tensor:
        """The largest value of each window; SAME goes with a stride of 1.

        XNNPACK takes no steps beyond the window: a convolution does, behind it.
        """
        (height, width), far = kernel, stride[0] > kernel[0] or stride[1] > kernel[1]
        step = (1, 1) if far else stride
        whole = x.shape[1:3] if padding == SAME else (x.shape[1] - height + 1, x.shape[2] - width + 1)
        shape = [1, *(-(-n // s) for n, s in zip(whole, step, strict=True)), x.shape[3]]
        y = self.moved(
            "MAX_POOL_2D", f"{name}.all" if far else name, (x,), shape, padding=padding,
            filterHeight=height, filterWidth=width, strideH=step[0], strideW=step[1],
        )  # fmt: skip
        return self.rescaled(name, y, y.grid, 1.0, stride=stride) if far else y

    def transposed(self, name: str, x: Tensor, axes: tuple[int, ...]) -> Tensor:
        shape = [x.shape[axis] for axis in axes]
        return self.moved("TRANSPOSE", name, (x,), shape, (self.ints(f"{name}.axes", axes),))

    def padded(self, name: str, x: Tensor, margins: Sequence[Sequence[int]]) -> Tensor:
        """Values of zero around `x`: (before, after) of each axis."""
        shape = [n + sum(each) for n, each in zip(x.shape, margins, strict=True)]
        return self.moved("PAD", name, (x,), shape, (self.ints(f"{name}.margins", margins),))

    def taken(self, name: str, x: Tensor, begin: Sequence[int], end: Sequence[int]) -> Tensor:
        """Rows begin[0] to end[0] and columns begin[1] to end[1]: negative ones count from the end, and an
        end of 0 is the end."""
        spans = [range(n)[b : e or None] for n, b, e in zip(x.shape[1:3], begin, end, strict=True)]
        shape = [1, *map(len, spans), x.shape[3]]
        begins, ends = ((0, *places, 0) for places in (begin, end))
        bounds = [self.ints(f"{name}.{what}", at) for what, at in (("begin", begins), ("end", ends))]
        whole = 0b1001 | sum(1 << axis for axis in (1, 2) if not ends[axis])
        strides = self.ints(f"{name}.strides", [1] * 4)
        return self.moved(
            "STRIDED_SLICE", name, (x,), shape, (*bounds, strides), beginMask=0b1001, endMask=whole
        )

    def around(self, name: str, x: Tensor, sides: Sides, mode: PadMode) -> Tensor:
        """`x` with `sides` around it as a Pad node puts them; a tensor called `name` if there are any."""
        top, left, bottom, right = sides
        if mode == "zero" and sides != NO_SIDES:
            return self.padded(name, x, ((0, 0), (top, bottom), (left, right), (0, 0)))
        step = int(mode == "reflect")  # from one line to the next, places counted from the end below zero
        for axis, before, behind in ((1, top, bottom), (2, left, right)):
            places = [step * i for i in range(before, 0, -1)], [-1 - step * i for i in range(1, behind + 1)]
            if before or behind:
                last = axis == 2 or not (left or right)
                x = self._with_lines(name if last else f"{name}.rows", x, axis, *places)
        return x

    def _with_lines(self, name: str, x: Tensor, axis: int, before: list[int], behind: list[int]) -> Tensor:
        """`x` between some of its rows (axis 1) or columns (axis 2)."""
        lines: dict[int, Tensor] = {}
        for place in dict.fromkeys((*before, *behind)):
            begin, end = ((at, 0) if axis == 1 else (0, at) for at in (place, place + 1))
            lines[place] = self.taken(f"{name}.line{len(lines)}", x, begin, end)
        return self.concat(name, [*(lines[i] for i in before), x, *(lines[i] for i in behind)], axis)
