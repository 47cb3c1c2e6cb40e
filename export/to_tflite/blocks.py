"""Building blocks of a .tflite network: int8 tensors on grids, and the operators that XNNPACK runs on them.

Tensors of 16 bits are int16 around zero, which LiteRT's built-in kernels alone compute with: what reads one
reads all as such, and writes one, which a QUANTIZE makes int8 of where bytes are wanted. uint16 ones around
another integer than 32768 have no such form: int16 holds them in steps twice as large.

Operators that requantize clamp with the ends of int8 as far as these suffice:

    8 bits            both ends
    fewer, unsigned   the zero point lies so that `high` is 127; a fused RELU is the lower bound
    fewer, signed     `high` is 127 first, then a QUANTIZE of the same scale makes `low` -128
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qnas.export.to_tflite.file import Grid, OpName, TfliteFile
from qnas.integer.nodes import PadMode
from qnas.integer.windows import NO_SIDES, Sides, Size
from qnas.quantization.quantizers import QuantParams

PARTS = 64  # of a step of bytes, in int16
FUSING = frozenset({"ADD", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "MUL"})
INT16 = np.iinfo(np.int16)
MOST_PARTS = 5  # XNNPACK concatenates up to five tensors
RELU = 1  # ActivationFunctionType
SAME, VALID = 0, 1  # Padding
WINDOW = {"dilationHFactor": 1, "dilationWFactor": 1, "strideH": 1, "strideW": 1, "padding": VALID}


@dataclass(frozen=True)
class Tensor:
    """int8 `shape` [1, H, W, C]: the value is `scale * (byte - zero_point)`; int16 where it `is_wide`."""

    index: int
    scale: np.float32
    zero_point: int
    shape: tuple[int, ...]
    is_wide: bool = False

    @property
    def grid(self) -> QuantParams:
        """The grid of its bytes as they are, which counts from the zero point."""
        return QuantParams(np.asarray(self.scale), 0, -128 - self.zero_point, 127 - self.zero_point)


@dataclass(frozen=True)
class Kernel:
    """`weight` int8 [O, kh, kw, I / groups] of a CONV_2D, [1, kh, kw, O] of a DEPTHWISE_CONV_2D; `scale`
    float32 [O]; `bias` [O], int32 or, for int16 tensors, int64."""

    weight: NDArray[np.int8]
    scale: NDArray[np.float32]
    bias: NDArray[np.signedinteger[Any]]
    depthwise: bool


@dataclass
class Blocks:
    """A file, and what takes more than one of its calls. `name` is always that of the tensor returned."""

    file: TfliteFile = field(default_factory=TfliteFile)
    wide: dict[int, Tensor] = field(default_factory=dict)  # int8 tensor -> the same as int16

    def new(self, name: str, shape: Sequence[int], scale: NDArray[np.float32] | np.float32, zero_point: int,
            signature: Sequence[int] | None = None, is_wide: bool = False) -> Tensor:  # fmt: skip
        """A tensor that nothing has written yet."""
        step, kind = np.asarray(scale, np.float32), "INT16" if is_wide else "INT8"
        index = self.file.tensor(name, shape, kind, Grid(step, zero_point), signature=signature)
        return Tensor(index, np.float32(step), zero_point, tuple(shape), is_wide)

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
        if self.file.is_wide(inputs[0]):
            return self.computed_wide(op, name, grid, inputs, shape, **options)
        activation, top = _ends(grid)
        y = self.new(name, shape, grid.scale, top)
        self.file.operator(op, inputs, y.index, fusedActivationFunction=activation, **options)
        return self._from_low(name, y, grid)

    def computed_in_float(self, op: OpName, name: str, grid: QuantParams, inputs: Sequence[Tensor]) -> Tensor:
        """`computed` in float32, which rounds half to even on every processor; `inputs[0]` has its shape."""
        floats = [self.file.tensor(f"{name}.float{i}", x.shape, "FLOAT32") for i, x in enumerate(inputs)]
        for x, real in zip(inputs, floats, strict=True):
            self.file.operator("DEQUANTIZE", [x.index], real)
        (activation, top), shape = _ends(grid), inputs[0].shape
        result = self.file.tensor(f"{name}.float", shape, "FLOAT32")
        self.file.operator(op, floats, result, fusedActivationFunction=activation)
        y = self.new(name, shape, grid.scale, top)
        self.file.operator("QUANTIZE", [result], y.index)
        return self._from_low(name, y, grid)

    def _from_low(self, name: str, y: Tensor, grid: QuantParams) -> Tensor:
        """`y`, clamped at the lower end of `grid` where no activation did that."""
        activation, _ = _ends(grid)
        return y if activation else self.on(f"{name}.low", y, -128 + (grid.zero_point - grid.low))

    # 16 bits ---------------------------------------------------------------------------------------------

    def widened(self, x: Tensor) -> Tensor:
        """`x` as int16; an int8 one in PARTS of its steps, exactly."""
        if not x.is_wide and x.index not in self.wide:
            name = f"{self.file.tensors[x.index].name}.int16"
            y = self.new(name, x.shape, np.float32(x.scale / PARTS), 0, is_wide=True)
            self.file.operator("QUANTIZE", [x.index], y.index)
            self.wide[x.index] = y
        return x if x.is_wide else self.wide[x.index]

    def computed_wide(self, op: OpName, name: str, grid: QuantParams, inputs: Sequence[int],
                      shape: Sequence[int], **options: object) -> Tensor:  # fmt: skip
        """An operator of int16 tensors, clamped to `grid`; where that is one of bytes, rounded once more."""
        bounds = _bounds(grid)
        if op in FUSING:
            relu = ("MAXIMUM", 0) in bounds
            bounds = [each for each in bounds if each != ("MAXIMUM", 0)]
            options |= {"fusedActivationFunction": RELU if relu else 0}
        names = [f"{name}.wide{i}" for i in range(len(bounds) + 1)]
        if grid.is_wide:
            names[-1] = name
        y = self.new(names[0], shape, np.float32(grid.scale / int16_steps(grid)), 0, is_wide=True)
        self.file.operator(op, inputs, y.index, **options)
        for bounding, (limit, end) in zip(names[1:], bounds, strict=True):
            stored = self.file.constant(
                f"{bounding}.end", np.full(1, end, np.int16), Grid(np.asarray(y.scale), 0)
            )
            x, y = y, self.new(bounding, shape, y.scale, 0, is_wide=True)
            self.file.operator(limit, [x.index, stored], y.index)
        return y if grid.is_wide else self.narrowed(name, y, grid)

    def narrowed(self, name: str, x: Tensor, grid: QuantParams) -> Tensor:
        """The int16 tensor `x` as bytes of `grid`."""
        y = self.new(name, x.shape, grid.scale, grid.zero_point - 128)
        self.file.operator("QUANTIZE", [x.index], y.index)
        return y

    def moved(self, op: OpName, name: str, inputs: Sequence[Tensor], shape: Sequence[int],
              constants: Sequence[int] = (), **options: object) -> Tensor:  # fmt: skip
        """An operator that only moves values: its output is on the grid of its inputs."""
        first = inputs[0]
        y = self.new(name, shape, first.scale, first.zero_point, is_wide=first.is_wide)
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


def _ends(grid: QuantParams) -> tuple[int, int]:
    """The fused activation that clamps at the lower end of `grid`, or 0, and the zero point whose byte 127 is
    the upper end."""
    top, bottom = 127 - (grid.high - grid.zero_point), -128 + (grid.zero_point - grid.low)
    return RELU if grid.low == grid.zero_point and top != bottom else 0, top


def int16_steps(grid: QuantParams) -> float:
    """The int16 steps of one step of `grid`: PARTS of a byte's, 1 around 32768, else half of one."""
    if not grid.is_wide:
        return PARTS
    return 1 if grid.zero_point == -INT16.min else 0.5


def _bounds(grid: QuantParams) -> list[tuple[OpName, int]]:
    """What holds int16 values around zero, in their own steps, within `grid` where no type does."""
    steps, zero = int16_steps(grid), grid.zero_point
    low, high = math.ceil((grid.low - zero) * steps), math.floor((grid.high - zero) * steps)
    ends = (INT16.min, INT16.max) if grid.is_wide else (-zero * steps, (grid.top - zero) * steps)
    found: list[tuple[OpName, int]] = []
    if low > ends[0]:
        found.append(("MAXIMUM", low))
    if high < ends[1]:
        found.append(("MINIMUM", high))
    return found
