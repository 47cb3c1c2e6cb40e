"""Adds layers one by one, every input on the grid that its reader needs.

A convolution of the search spaces is `conv(HWGQ(x), LSQ(w))`: its input is quantized with the ReLU included.
A tensor that something other than one convolution reads (an add, a concatenation, several layers) first gets
a `residual_bits` quantizer of its own; all of one residual stream share one scale, so that their sums are
sums of integers.
"""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

from qnas.errors import ArchitectureError
from qnas.network.architecture import Architecture
from qnas.network.layers import Layer, Op, activated, grid_of
from qnas.network.operations import operation_convolutions
from qnas.quantization.quantizers import FLOAT_BITS, IMAGE, PAPER_HWGQ_STEPS, QuantSpec


class Bits(NamedTuple):
    """Bits of the weights of a convolution, and of what it reads."""

    weights: int
    inputs: int


@dataclass(frozen=True)
class GraphBuilder:
    """A network under construction: `layers` by name, in order. Methods return the name of the output."""

    architecture: Architecture
    layers: dict[str, Layer] = field(default_factory=dict)

    def add(self, layer: Layer) -> str:
        """A layer as it is, in the arithmetic of the architecture."""
        self.layers[layer.name] = replace(layer, arithmetic=self.architecture.arithmetic)
        return layer.name

    def node(self, op: Op, name: str, *inputs: str, channels: int | None = None, factor: int = 1) -> str:
        """A layer without weights, as wide as its first input unless told."""
        width = self.channels(inputs[0]) if channels is None else channels
        return self.add(Layer(name, op, inputs, width, factor=factor))

    def channels(self, name: str) -> int:
        """The width of a layer's output."""
        return self.layers[name].channels

    def bits(self, slot: str) -> int:
        """The bits of what `slot` reads."""
        return self.architecture.layers[slot].reads

    def both_bits(self, slot: str) -> Bits:
        """Those of the weights and of the inputs of `slot`."""
        return Bits(self.architecture.layers[slot].bits, self.bits(slot))

    def fixed_bits(self, bits: int) -> int:
        """`bits` where the search has no say, 32 in a full-precision network of ours."""
        released = self.paper and self.architecture.activation == "prelu"  # its helpers have 8 bits always
        return bits if self.architecture.quantized or released else FLOAT_BITS

    def own_activations(self, slot: str) -> bool:
        """Whether what `slot` reads has slopes of its own, so that no other layer reads it."""
        return self.bits(slot) == FLOAT_BITS and self.architecture.activation == "prelu"

    @property
    def paper(self) -> bool:
        """Whether the released code's rules hold: only what convolutions read is quantized."""
        return self.architecture.arithmetic == "paper"

    # The image and the output ----------------------------------------------------------------------------

    def image(self) -> str:
        """The input, on its own lossless grid."""
        name = self.node("image", "image", channels=3)
        if self.paper or not self.architecture.quantized:
            return name
        return self.quantize(f"{name}.grid", name, IMAGE)

    def output(self, x: str) -> str:
        """The image's own grid: rounding to pixels and clipping to their range."""
        if self.paper or not self.architecture.quantized:
            return x
        return self.quantize("output", x, IMAGE)

    def shuffle(self, name: str, x: str, factor: int) -> str:
        """Channels into `factor` times the height and width."""
        return self.node("pixel_shuffle", name, x, channels=self.channels(x) // factor**2, factor=factor)

    # Quantizers ------------------------------------------------------------------------------------------

    def quantize(self, name: str, x: str, spec: QuantSpec, scale_of: str | None = None) -> str:
        """x on the grid of `spec`, with the scale of quantizer `scale_of` if given."""
        return self.add(Layer(name, "quantize", (x,), self.channels(x), quant=spec, scale_of=scale_of))

    def hwgq(self, name: str, x: str, bits: int, scale_of: str | None = None) -> str:
        """The input of a convolution with its ReLU included."""
        if bits == FLOAT_BITS:
            return x if activated(self.layers, x) else self.node(self.architecture.activation, name, x)
        grid = self.grid(x)
        if grid and not grid.signed and grid.bits == bits:
            return x  # it is on such a grid already
        spec = self.half_wave(bits)
        return self.quantize(name, x, spec, None if spec.scale else scale_of)

    def positive(self, name: str, x: str, bits: int) -> str:
        """`hwgq` that keeps the scale of x where that has as many bits: a clamp, and no table."""
        grid = self.grid(x)
        same = grid is not None and grid.bits == bits == 8
        return self.hwgq(name, x, bits, self.owner(x) if same else None)

    def half_wave(self, bits: int) -> QuantSpec:
        """The grid of a HWGQ quantizer; at 8 bits Lloyd levels would be all of the grid that they lie on."""
        if self.paper:
            return QuantSpec(bits, signed=False, scale=PAPER_HWGQ_STEPS[bits])
        return QuantSpec(bits, signed=False, levels=self.architecture.levels if bits < 8 else "uniform")

    def signed(self, name: str, x: str, bits: int) -> str:
        """The input of a convolution that reads negative values too."""
        grid = self.grid(x)
        if grid == IMAGE and self.architecture.first_input == "bits":
            return self.hwgq(name, x, bits)  # no pixel is negative
        if bits == FLOAT_BITS or (grid and (grid.bits == bits or grid == IMAGE)):
            return x  # the image's own grid is lossless
        return self.quantize(name, x, QuantSpec(bits, signed=True))

    def residual(self, name: str, x: str, scale_of: str | None = None, spec: QuantSpec | None = None) -> str:
        """A tensor of a residual stream; float where the architecture keeps those float."""
        bits = self.architecture.residual_bits
        if bits is None or not self.architecture.quantized:
            return x
        spec = spec or QuantSpec(bits, signed=True)
        return self.quantize(f"{name}.grid", x, spec, None if spec.scale else scale_of)

    def grid(self, x: str) -> QuantSpec | None:
        """The grid that tensor x is on, None when it is float."""
        quantizer = grid_of(self.layers, x)
        return quantizer.quant if quantizer else None

    def owner(self, x: str) -> str | None:
        """The quantizer whose scale tensor x carries."""
        quantizer = grid_of(self.layers, x)
        return (quantizer.scale_of or quantizer.name) if quantizer else None

    # Convolutions ----------------------------------------------------------------------------------------

    def conv(
        self, name: str, x: str, channels: int, kernel: tuple[int, int] | int, bits: int,
        groups: int = 1, stride: int = 1, padding: tuple[int, int] | None = None, gain: str | None = None,
    ) -> str:  # fmt: skip
        """A convolution, padded to keep the size unless told, its output times `gain` [N, 1, 1, 1]."""
        k = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (k[0] // 2, k[1] // 2) if padding is None else padding
        inputs = (x,) if gain is None else (x, gain)
        return self.add(Layer(name, "conv", inputs, channels, k, stride, padding, groups, bits=bits))

    def operation(
        self, slot: str, x: str, channels: int, *, signed: bool = False, gain: str | None = None
    ) -> str:
        """The chain of convolutions chosen for `slot`; each reads its own quantized input."""
        choice = self.architecture.layers[slot]
        try:
            chain = operation_convolutions(
                choice.op, self.channels(x), channels, self.architecture.inner_width
            )
        except ArchitectureError as error:
            raise ArchitectureError(f"layer {slot!r}: {error}") from None
        for index, shape in enumerate(chain):
            name = slot if len(chain) == 1 else f"{slot}.{index}"
            reads = self.signed if signed and index == 0 else self.hwgq
            x = reads(f"{name}.input", x, choice.reads)
            last = gain if index == len(chain) - 1 else None
            x = self.conv(name, x, shape.out_channels, shape.kernel, choice.bits, shape.groups, gain=last)
        return x
