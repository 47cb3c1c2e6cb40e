"""The nodes of an integer network, and what each of them computes: this is the definition, in numpy.

Every node writes one tensor [N, C, H, W] of integers on the grid `output`, uint8 or, where that has 16 bits,
uint16: real value `scale * (q - zero_point)`, `low <= q <= high`. Sums are exact integers; what is not on the
grid of its reader passes through a requantization `clamp(round_half_even(float32(acc) * multiplier) +
zero_point, low, high)`, the arithmetic of onnxruntime and XNNPACK alike. No runtime has integer kernels of 16
bits that round so: there they are near (docs/decisions/0028-sixteen-bits.md).

    ImageInput    pixels as they are
    Conv          acc = sum(weight * (q - zero_point)) + bias; multiplier float32(s_x * s_w[o] gain) / s_y:
                  in `qnas.integer.convolution`
    Add           scale_a (q_a - z_a) + scale_b (q_b - z_b) in float32, requantized
    Multiply      (q_a - z_a) (q_b - z_b), multiplier s_a s_b gain / s_y; where a grid has 16 bits, times
                  float32(s_a s_b gain), then divided by s_y: as float operations between quantizers do it
    ChannelGate   the same, b one value per channel
    Mean          sum(q - 128), multiplier float32(1 / pixels), and 128; of 16 bits around 32768
    Table         output[q]: whatever function of one value
    Concat        channels of tensors on one grid, one behind the other
    DepthToSpace  ONNX mode CRD
    MaxPool       of the pixels of each window that lie in the image
    Interpolate   bilinear along one axis to the length of `inputs[1]`, in 64ths, requantized
    Pad           rows and columns around the image, or channels of the value 0 behind the last
    Crop, CropTo  a part of the image: in `qnas.integer.crops`
    Nearest       rows or columns, some left out or taken several times: there too
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from qnas.errors import ModelError
from qnas.integer.interpolation import STEPS, interpolation_steps
from qnas.integer.requantization import Bytes, Read, Watch, centred, requantized, rounded
from qnas.integer.windows import NO_SIDES, Sides, Size, padded, window_words, windows_along
from qnas.quantization.image_gain import ImageGain, variance
from qnas.quantization.quantizers import QuantParams

# What a value of the output hangs on. "value": the values at its place in the operands, by one function for
# all places. "channel": its channel of the operands, by one function for all channels. "tensor": more, or by
# functions that differ: passes that do not know the class leave what it reads and writes as it is.
Scope = Literal["value", "channel", "tensor"]
PadMode = Literal["zero", "edge", "reflect"]


@dataclass(frozen=True, eq=False)  # arrays do not compare
class IntegerNode(ABC):
    """What all nodes have. `output.scale` is float32 []; `channels` are those of the tensor it writes.

    A class says its scope, `class Add(IntegerNode, scope="value")`, and inherits none: the passes ask for it.
    """

    name: str
    inputs: tuple[str, ...]
    channels: int
    output: QuantParams
    scope: ClassVar[Scope]

    def __init_subclass__(cls, *, scope: Scope) -> None:
        cls.scope = scope

    @property
    def operands(self) -> tuple[str, ...]:
        """The inputs whose values it computes with; others decide a gain or a size."""
        return self.inputs

    @property
    def words(self) -> str:
        """What it does, in a few words: "max pool 2x2"."""
        return type(self).__name__.lower()

    @abstractmethod
    def computed(self, reads: Sequence[Read], watch: Watch | None = None) -> Bytes:
        """The tensor that it writes for those of its inputs; `watch` is shown what is rounded."""

    def size(self, reads: Sequence[Size]) -> Size:
        """The size of what it writes, by those of its inputs."""
        return reads[0]


@dataclass(frozen=True, eq=False)
class ImageInput(IntegerNode, scope="tensor"):
    """The input: uint8 pixels, RGB. It has no inputs, and reads the image that the network is run on."""

    words = "image"

    def computed(self, reads: Sequence[Read], watch: Watch | None = None) -> Bytes:
        return reads[0][0]


@dataclass(frozen=True, eq=False)
class GainedNode(IntegerNode, scope="tensor"):
    """A node that multiplies. With an `image_gain` (ADQ per image) it has one input more, the last: the
    tensor whose variance decides the gain of each image."""

    image_gain: ImageGain | None = field(default=None, kw_only=True)

    @property
    def operands(self) -> tuple[str, ...]:
        return self.inputs[:-1] if self.image_gain else self.inputs

    def gains(self, reads: Sequence[Read]) -> NDArray[np.float32]:
        """The gains [N, 1] of the images that it reads, [1, 1] where all have 1."""
        if self.image_gain is None:
            return np.ones((1, 1), np.float32)
        steps, scale = centred(*reads[-1]), float(reads[-1][1].scale)
        total, squares = (np.asarray(x.sum(axis=(1, 2, 3)), np.float64) for x in (steps, steps**2))
        count = self.image_gain.channels * steps[0, 0].size
        return self.image_gain.of(variance(total, squares, count), scale)[:, None]


@dataclass(frozen=True, eq=False)
class Add(IntegerNode, scope="value"):
    """The sum of two tensors of one shape."""

    def computed(self, reads: Sequence[Read], watch: Watch | None = None) -> Bytes:
        (x, a), (y, b) = ((centred(*read), read[1].scale) for read in reads)
        if watch is not None:
            watch((np.float64(a) * x + np.float64(b) * y) / np.float64(self.output.scale))
        return rounded((a * x.astype(np.float32) + b * y.astype(np.float32)) / self.output.scale, self.output)


@dataclass(frozen=True, eq=False)
class Multiply(GainedNode, scope="value"):
    """The product of two tensors of one shape, times a constant."""

    gain: np.float32 = np.float32(1)  # noqa: RUF009 (a number)

    def computed(self, reads: Sequence[Read], watch: Watch | None = None) -> Bytes:
        (x, a), (y, b) = reads[:2]
        gain = self.gain * self.gains(reads)[..., None, None]
        scale, product = a.scale * (b.scale * gain), centred(x, a) * centred(y, b)
        if a.is_wide or b.is_wide or self.output.is_wide:
            values = product.astype(np.float32) * np.asarray(scale, np.float32)
            return rounded(values / self.output.scale, self.output)
        return requantized(product, np.asarray(scale / self.output.scale, np.float32), self.output, watch)


@dataclass(frozen=True, eq=False)
class ChannelGate(Multiply, scope="channel"):
    """The product of a tensor and of one value per channel [N, C, 1, 1], times a constant."""

    words = "channel gate"


@dataclass(frozen=True, eq=False)
class Mean(IntegerNode, scope="channel"):
    """The mean of each channel of an image [N, C, 1, 1], on the grid of the tensor that it reads.

    It is rounded as a distance from the byte 128, wherever zero lies, as XNNPACK adds up int8 bytes: ties and
    sums of more than 24 bits go the same way in every runtime.
    """

    @property
    def middle(self) -> QuantParams:
        """The integers as they are, as distances from the middle one."""
        half = 1 << self.output.container - 1
        return QuantParams(np.asarray(1, np.float32), half, 0, self.output.top, self.output.container)

    def computed(self, reads: Sequence[Read], watch: Watch | None = None) -> Bytes:
        ((x, _),) = reads
        sums = x.sum(axis=(2, 3), keepdims=True, dtype=np.int64) - self.middle.zero_point * x[0, 0].size
        return requantized(sums, np.float32(1) / np.float32(x[0, 0].size), self.middle, watch)

    def size(self, reads: Sequence[Size]) -> Size:
        return 1, 1


@dataclass(frozen=True, eq=False)
class Table(IntegerNode, scope="value"):
    """`table` [256], or [65536] of a tensor of 16 bits: q of the input -> q of the output, in its type.
    `function` says what it holds:

    requantize: the input's value, on the output's grid; sigmoid: of the input's value; leaky_relu: the same,
    times `slope` below zero; levels: anything.
    """

    table: Bytes
    function: Literal["requantize", "sigmoid", "leaky_relu", "levels"]
    slope: float = 1.0

    @property
    def words(self) -> str:
        return f"table {self.function}"

    def computed(self, reads: Sequence[Read], watch: Watch | None = None) -> Bytes:
        return self.table[reads[0][0]]


@dataclass(frozen=True, eq=False)
class Concat(IntegerNode, scope="tensor"):
    """Inputs on the grid of the output; the same one may stand there several times."""

    def computed(self, reads: Sequence[Read], watch: Watch | None = None) -> Bytes:
        return np.concatenate([x for x, _ in reads], axis=1)


@dataclass(frozen=True, eq=False)
class DepthToSpace(IntegerNode, scope="tensor"):
    """[N, C f^2, H, W] -> [N, C, f H, f W], channel c f^2 + i f + j to pixel (i, j) of channel c."""

    factor: int

    @property
    def words(self) -> str:
        return f"depth to space {self.factor}"

    def computed(self, reads: Sequence[Read], watch: Watch | None = None) -> Bytes:
        (x, _), f = reads[0], self.factor
        n, c, h, w = x.shape
        phases = x.reshape(n, c // f**2, f, f, h, w).transpose(0, 1, 4, 2, 5, 3)
        return phases.reshape(n, c // f**2, h * f, w * f)

    def size(self, reads: Sequence[Size]) -> Size:
        return reads[0][0] * self.factor, reads[0][1] * self.factor


@dataclass(frozen=True, eq=False)
class MaxPool(IntegerNode, scope="channel"):
    """Pixels outside the image do not count; `padding` says how far windows reach beyond it, less than
    `kernel` on each side. Rounds the size down."""

    kernel: Size
    stride: Size
    padding: Sides = NO_SIDES

    @property
    def words(self) -> str:
        return f"max pool {window_words(*self.kernel, self.stride)}"

    def computed(self, reads: Sequence[Read], watch: Watch | None = None) -> Bytes:
        (x, _), (top, left, bottom, right), (sh, sw) = reads[0], self.padding, self.stride
        wide = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))  # no byte is below 0
        windows = np.lib.stride_tricks.sliding_window_view(wide, self.kernel, axis=(2, 3))
        pooled: Bytes = windows[:, :, ::sh, ::sw].max(axis=(4, 5))
        return pooled

    def size(self, reads: Sequence[Size]) -> Size:
        return windows_along(padded(reads[0], self.padding), self.kernel, self.stride)


@dataclass(frozen=True, eq=False)
class LikeAnother(IntegerNode, scope="channel"):
    """A node that gives inputs[0] as many rows (`axis` 2) or columns (3) as inputs[1] has."""

    axis: Literal[2, 3]

    @property
    def operands(self) -> tuple[str, ...]:
        return self.inputs[:1]

    def size(self, reads: Sequence[Size]) -> Size:
        x, like = reads
        return (like[0], x[1]) if self.axis == 2 else (x[0], like[1])


@dataclass(frozen=True, eq=False)
class Interpolate(LikeAnother, scope="channel"):
    """Bilinear along `axis` (2 rows, 3 columns) of inputs[0] to the length of inputs[1].

    The weights are those of `qnas.integer.interpolation.interpolation_steps`: 64ths that sum to 64.
    """

    @property
    def words(self) -> str:
        return "interpolate rows" if self.axis == 2 else "interpolate columns"

    def computed(self, reads: Sequence[Read], watch: Watch | None = None) -> Bytes:
        (x, grid), (like, _) = reads
        weights = interpolation_steps(x.shape[self.axis], like.shape[self.axis])
        sums = weights @ centred(x, grid) if self.axis == 2 else centred(x, grid) @ weights.T
        factor = np.float32(np.float32(grid.scale / STEPS) / self.output.scale)
        return requantized(sums, factor, self.output, watch)


@dataclass(frozen=True, eq=False)
class Pad(IntegerNode, scope="tensor"):
    """`sides` around the image, and more rows below and columns to the right until height and width are
    multiples of `multiple`; then channels of the value 0 up to `channels`.

    The new pixels have the value 0 (zero), that of the nearest one (edge), or mirror the image around its
    outermost ones (reflect), which reaches less than its height and width.
    """

    sides: Sides = NO_SIDES
    mode: PadMode = "zero"
    multiple: Size = (1, 1)

    @property
    def words(self) -> str:
        if self.sides == NO_SIDES and self.multiple == (1, 1):
            return "pad channels"
        sides = str(self.sides[0]) if len(set(self.sides)) == 1 else " ".join(map(str, self.sides))
        multiples = "x".join(map(str, dict.fromkeys(self.multiple)))
        return f"pad {self.mode} {sides}" + (f" to multiples of {multiples}" if multiples != "1" else "")

    def computed(self, reads: Sequence[Read], watch: Watch | None = None) -> Bytes:
        (x, grid), (height, width) = reads[0], reads[0][0].shape[2:]
        top, left, bottom, right = self.around((height, width))
        sides = ((0, 0), (0, 0), (top, bottom), (left, right))
        zero = grid.zero_point
        x = np.pad(x, sides, constant_values=zero) if self.mode == "zero" else np.pad(x, sides, self.mode)
        more = self.channels - x.shape[1]
        return np.pad(x, ((0, 0), (0, more), (0, 0), (0, 0)), constant_values=zero)

    def around(self, size: Size) -> Sides:
        """What it puts around an image of `size`."""
        (top, left, bottom, right), (height, width) = self.sides, padded(size, self.sides)
        return top, left, bottom + -height % self.multiple[0], right + -width % self.multiple[1]

    def size(self, reads: Sequence[Size]) -> Size:
        """Raises ModelError where the image is too small to be mirrored."""
        sides, (height, width) = self.around(reads[0]), reads[0]
        if self.mode == "reflect" and (max(sides[::2]) >= height or max(sides[1::2]) >= width):
            raise ModelError(
                f"{self.name} mirrors more than there is of {height}x{width}: use a larger image"
            )
        return padded(reads[0], sides)
