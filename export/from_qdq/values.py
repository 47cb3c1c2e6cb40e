"""What the tensors of a QDQ graph are while it is read, and the integer network that grows from them.

1. `Constant`: no input changes it; a dequantized one remembers its integers.
2. `Levels`: a float tensor that is a function of one integer tensor, 256 values or 65536. What is computed
   value by value stays one, so a chain such as x * sigmoid(x) is one table in the end.
3. `Pending`: the float result of an operation that only a quantizer can finish. Rounding commutes with moving
   values, with their maximum, and with bounds, so all of these may stand in between.
4. `Integers`: what a quantizer writes. Its operation is written when something other than an integer Clip
   reads it, because such a clip is part of the quantizer.
5. `Derived`: computed from sizes alone, such as an interpolation matrix.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qnas.errors import ModelError
from qnas.integer.nodes import IntegerNode, Table
from qnas.integer.tables import sigmoid
from qnas.integer.windows import Size
from qnas.quantization.quantizers import QuantParams, dequantize, quantize

Array = NDArray[Any]
Line = tuple[float, float]  # slope, offset
Write = Callable[[QuantParams], str]
SMALLEST, LARGEST = 1e-9, 1e9  # scales whose products and ratios stay well inside float32
MOST_CHANNELS = 1024
SHORT_BITS = 8  # of a ratio of scales that every runtime multiplies bytes with exactly
DIGITS = 9  # that a float32 has
SAME = 1e-6  # relative difference of values that float32 computed in two ways


@dataclass(frozen=True)
class Steps:
    """Integers behind a dequantized constant: value = scale * q, int64 q of any shape, scale [] or [C].

    `axis` is that of the scales; `bits` those in which q is stored.
    """

    q: NDArray[np.int64]
    scale: NDArray[np.float32]
    axis: int
    bits: int


@dataclass(frozen=True)
class Constant:
    """`kind` is the ONNX type of the tensor, `bits` those of its values; 4-bit ones lie in int8 arrays."""

    array: Array
    kind: int
    bits: int
    steps: Steps | None = None


@dataclass(frozen=True)
class Levels:
    """`values` float32 [256], or [65536], of every q of `node`; `grid`, when a dequantizer made them.

    `low` and `high` are those of a Clip, in `values` already: they are the range of a quantizer behind it.
    """

    node: str
    values: NDArray[np.float32]
    grid: QuantParams | None = None
    low: float = -np.inf
    high: float = np.inf


@dataclass(frozen=True)
class Pending:
    """`write` puts the operation into the network with that output grid, and returns its name.

    Before the rounding the result is bounded to low .. high.
    """

    write: Write
    low: float = -np.inf
    high: float = np.inf

    def bounded(self, low: float, high: float) -> "Pending":
        """With another bound behind: min(max(x, low), high), which prefers `high` as ONNX does."""
        first, last = (min(max(x, low), high) for x in (self.low, self.high))
        return replace(self, low=first, high=last)


@dataclass(frozen=True)
class Integers:
    """The ONNX tensor holds q - offset, of ONNX type `kind`."""

    write: Write
    grid: QuantParams
    offset: int
    kind: int


@dataclass(frozen=True)
class Indices:
    """The bytes of `node` as wide integers, to look up values with."""

    node: str


@dataclass(frozen=True)
class Derived:
    """Computed from sizes: the value for images of each of the sizes that are tried."""

    values: tuple[Array, ...]


Value = Constant | Levels | Pending | Integers | Indices | Derived


@dataclass
class Draft:
    """The nodes written so far, in order; `sizes` of what each writes, for images of the sizes `tried`."""

    tried: tuple[Size, ...] = ()
    nodes: dict[str, IntegerNode] = field(default_factory=dict)
    sizes: dict[str, tuple[Size, ...]] = field(default_factory=dict)
    copies: dict[str, int] = field(default_factory=dict)
    tables: dict[tuple[object, ...], str] = field(default_factory=dict)
    lines: dict[str, Line] = field(default_factory=dict)  # of the values of the source, by table

    def put(self, node: IntegerNode) -> str:
        """Add `node`, under another name when there is one of its name; return the name."""
        if not 0 < node.channels <= MOST_CHANNELS:
            raise ModelError(
                f"{node.name} has {node.channels} channels: the integer network has at most {MOST_CHANNELS}"
            )
        name = node.name
        while name in self.nodes:
            self.copies[node.name] = self.copies.get(node.name, 1) + 1
            name = f"{node.name}.{self.copies[node.name]}"
        self.nodes[name] = replace(node, name=name)
        read = [self.sizes[each] for each in node.inputs] or [self.tried]
        self.sizes[name] = tuple(node.size(sizes) for sizes in zip(*read, strict=True))
        return name

    def reach(self, name: str) -> slice:
        """The q that node `name` can write."""
        grid = self.nodes[name].output
        return slice(grid.low, grid.high + 1)

    def table(self, source: str, bytes_: NDArray[np.int32], grid: QuantParams, name: str) -> str:
        """A node that maps each q of `source` to one of `bytes_` int32, on `grid`; `source` if all stay."""
        node, reach = self.nodes[source], self.reach(source)
        if same_grid(node.output, grid) and (bytes_ == node.output.every)[reach].all():
            return source
        key = (source, bytes_.tobytes(), _key(grid))
        if key in self.tables:
            return self.tables[key]
        function: Literal["requantize", "sigmoid", "leaky_relu", "levels"] = "levels"
        values = dequantize(node.output.every, node.output)
        slope = leaky_slope(values[reach], bytes_[reach], grid)
        if (bytes_ == quantize(values, grid))[reach].all():
            function, slope = "requantize", None
        elif (bytes_ == quantize(sigmoid(values), grid))[reach].all():
            function, slope = "sigmoid", None
        elif slope is not None:
            function = "leaky_relu"
        table = Table(name, (source,), node.channels, grid, bytes_.astype(grid.dtype), function, slope or 1.0)
        return self.tables.setdefault(key, self.put(table))

    def on_grid(self, value: Levels | Pending, grid: QuantParams, name: str) -> str:
        """The node that holds `value` quantized to `grid`; if it has to be a table, it is called `name`."""
        grid = bounded_grid(value, grid)
        if not isinstance(value, Levels):
            return value.write(grid)
        table = self.table(value.node, quantize(value.values, grid), grid, name)
        line = straight(value, grid, self.nodes[value.node].output)
        if line is not None and table != value.node:
            self.lines[table] = line
        return table

    def affine(self, value: Levels, name: str) -> str | None:
        """The node whose grid gives `value`, written as a table where need be; None when no grid does."""
        node, reach = self.nodes[value.node], self.reach(value.node)
        grid = value.grid or node.output
        steps = quantize(value.values, replace(grid, low=0, high=grid.top))
        if not np.allclose(dequantize(steps, grid)[reach], value.values[reach], rtol=SAME, atol=0):
            return None
        return self.table(value.node, steps, grid, name)

    def moved(self, value: Levels | Pending | Integers, name: str, write: Callable[[str], str]) -> Value:
        """`value` behind an operation that moves values: `write` puts it, for the name of what it reads."""
        match value:
            case Levels():
                return replace(value, node=write(value.node))
            case Pending():
                return replace(value, write=once(lambda grid: write(self.on_grid(value, grid, name))))
            case Integers():
                return self.integers(write(value.write(value.grid)), value.offset, value.kind)

    def levels(self, name: str) -> Levels:
        """The values that node `name` writes."""
        grid = self.nodes[name].output
        return Levels(name, dequantize(grid.every, grid), grid)

    def integers(self, name: str, offset: int, kind: int) -> Integers:
        """The integers that node `name` writes."""
        return Integers(lambda _: name, self.nodes[name].output, offset, kind)


def once(write: Write) -> Write:
    """`write`, called once per grid."""
    names: dict[tuple[float, ...], str] = {}

    def cached(grid: QuantParams) -> str:
        key = _key(grid)
        if key not in names:
            names[key] = write(grid)
        return names[key]

    return cached


def _key(grid: QuantParams) -> tuple[float, ...]:
    return float(grid.scale), grid.zero_point, grid.low, grid.high, grid.container


def bounded_grid(value: Levels | Pending, grid: QuantParams) -> QuantParams:
    """`grid` with the bounds of `value`: rounding and bounding commute."""
    low, high = (int(quantize(np.asarray(x, np.float32), grid)) for x in (value.low, value.high))
    return replace(grid, low=low, high=high)


def lowered(integers: Integers) -> Integers:
    """Signed bytes stored from 0 on where nothing lies below: -8 .. 7 of an int8 are 0 .. 15 around 8."""
    grid = integers.grid
    by = min(grid.low, grid.zero_point) if integers.offset > 0 and not grid.is_wide else 0
    grid = replace(grid, zero_point=grid.zero_point - by, low=grid.low - by, high=grid.high - by)
    return replace(integers, grid=grid, offset=integers.offset - by)


def same_grid(a: QuantParams, b: QuantParams) -> bool:
    """Whether the same q has the same value on both, in the same container."""
    return a.scale == b.scale and a.zero_point == b.zero_point and a.container == b.container


def straight(value: Levels, grid: QuantParams, source: QuantParams) -> Line | None:
    """The line that `value` is of the values of its node, wherever `grid` does not cut it off."""
    q = np.arange(source.low, source.high + 1)
    values = value.values[q].astype(np.float64)
    bytes_ = quantize(value.values[q], grid)
    inside = np.flatnonzero((bytes_ > grid.low) & (bytes_ < grid.high))
    if len(inside) < 2:
        return None
    first, last = inside[[0, -1]]
    x = (q - source.zero_point) * np.float64(source.scale)
    slope = float((values[last] - values[first]) / (x[last] - x[first]))
    offset = float(values[first] - slope * x[first])
    near = np.abs(slope * x + offset - values)[inside] <= SAME * np.abs(values[inside]).max()
    return (slope, offset) if near.all() and slope != 0 else None


def leaky_slope(values: NDArray[np.float32], bytes_: NDArray[np.int32], grid: QuantParams) -> float | None:
    """The shortest decimal in 0 .. 1 whose leaky ReLU takes all `values` to `bytes_` on `grid`, or None."""
    below = values < 0
    if not below.any():
        return None
    steps = np.float64(grid.scale) / -values[below]  # of the slope
    least = (grid.zero_point - bytes_[below] - 0.5) * steps
    most = np.where(bytes_[below] > grid.low, least + steps, 1)
    low, high = max(float(least.max()), 0), min(float(most.min()), 1)
    for slope in (round((low + high) / 2, digits) for digits in range(1, DIGITS)):
        near = low - SAME <= slope <= high + SAME  # equal ends are ties, which float32 decides
        found = quantize(np.where(values < 0, np.float32(slope) * values, values), grid)
        if near and 0 < slope < 1 and np.array_equal(found, bytes_):
            return slope
    return None
