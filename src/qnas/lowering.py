"""Architecture -> layers: where every convolution, quantizer and connection of a network is decided.

A convolution of the search spaces is `conv(HWGQ(x), LSQ(w))`: its input is quantized with the ReLU included.
A tensor that something other than one convolution reads (an add, a concatenation, several layers) first gets
a `residual_bits` quantizer of its own; all of one residual stream share one scale, so that their sums are
sums of integers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from qnas.architecture import Architecture, Choice
from qnas.errors import ArchitectureError
from qnas.layers import Layer, by_name, grid_of
from qnas.operations import operation_convolutions
from qnas.quantization import FLOAT_BITS, IMAGE, IMAGE_RESIDUAL, QuantSpec

GATE = IMAGE  # a sigmoid's output lies in [0, 1], as a pixel does
ESA_BITS = 8
FUSION_BITS = 8


def lower(architecture: Architecture) -> tuple[Layer, ...]:
    """The layers of `architecture`, topologically ordered; the last one is the output.

    Raises ArchitectureError when slots are missing or unknown, or an operation does not fit its channels.
    """
    slots = slot_operations(architecture)
    unknown, missing = set(architecture.layers) - set(slots), set(slots) - set(architecture.layers)
    if unknown or missing:
        word, name = ("unknown", min(unknown)) if unknown else ("missing", min(missing))
        raise ArchitectureError(
            f"{word} layer {name!r} in space {architecture.space} with {architecture.blocks} blocks: "
            f"its layers are {', '.join(slots)}"
        )
    for name, fixed in slots.items():
        if fixed is not None and architecture.layers[name].op != fixed:
            raise ArchitectureError(
                f"layer {name!r} of {architecture.space} is {fixed}, not {architecture.layers[name].op!r}: "
                "only its bits can be chosen"
            )
    builder = _Builder(architecture)
    _SPACES[architecture.space](builder, architecture)
    return tuple(builder.layers)


def slot_operations(architecture: Architecture) -> dict[str, str | None]:
    """The slots that `architecture.layers` must fill; a slot's operation where the space fixes it, else None."""
    return _SLOTS[architecture.space](architecture)


def uniform_layers(architecture: Architecture, op: str, bits: int) -> dict[str, Choice]:
    """Choices for every slot: `op` where it is free, at `bits`."""
    return {name: Choice(fixed or op, bits) for name, fixed in slot_operations(architecture).items()}


@dataclass
class _Builder:
    architecture: Architecture
    layers: list[Layer] = field(default_factory=list)

    def add(self, layer: Layer) -> str:
        self.layers.append(layer)
        return layer.name

    def channels(self, name: str) -> int:
        return by_name(self.layers)[name].channels

    def node(self, op: str, name: str, *inputs: str, channels: int | None = None, factor: int = 1) -> str:
        width = self.channels(inputs[0]) if channels is None else channels
        return self.add(Layer(name, op, inputs, width, factor=factor))  # type: ignore[arg-type]

    def image(self) -> str:
        name = self.add(Layer("image", "image", (), 3))
        return self.quantize(f"{name}.grid", name, IMAGE) if self.architecture.quantized else name

    # Quantizers ------------------------------------------------------------------------------------------

    def quantize(self, name: str, x: str, spec: QuantSpec, scale_of: str | None = None) -> str:
        layer = Layer(name, "quantize", (x,), self.channels(x), quant=spec)
        return self.add(replace(layer, scale_of=scale_of))

    def hwgq(self, name: str, x: str, bits: int) -> str:
        """The input of a convolution with its ReLU included."""
        if bits == FLOAT_BITS:
            return x if by_name(self.layers)[x].op == "relu" else self.node("relu", name, x)
        grid = grid_of(by_name(self.layers), x)
        if grid and grid.quant and not grid.quant.signed and grid.quant.bits == bits:
            return x  # it is on such a grid already
        return self.quantize(name, x, QuantSpec(bits, signed=False))

    def signed(self, name: str, x: str, bits: int) -> str:
        """The input of a convolution that reads negative values too."""
        grid = grid_of(by_name(self.layers), x)
        if bits == FLOAT_BITS or (grid and grid.quant and (grid.quant.bits == bits or grid.quant == IMAGE)):
            return x  # the image's own grid is lossless
        return self.quantize(name, x, QuantSpec(bits, signed=True))

    def residual(self, name: str, x: str, scale_of: str | None = None, spec: QuantSpec | None = None) -> str:
        """A tensor of a residual stream; float where the architecture keeps those float."""
        bits = self.architecture.residual_bits
        if bits is None or not self.architecture.quantized:
            return x
        spec = spec or QuantSpec(bits, signed=True)
        return self.quantize(f"{name}.grid", x, spec, None if spec.scale else scale_of)

    def owner(self, x: str) -> str | None:
        """The quantizer whose scale tensor x carries."""
        grid = grid_of(by_name(self.layers), x)
        return (grid.scale_of or grid.name) if grid else None

    # Convolutions ----------------------------------------------------------------------------------------

    def conv(
        self, name: str, x: str, channels: int, kernel: tuple[int, int] | int, bits: int,
        groups: int = 1, stride: int = 1, padding: tuple[int, int] | None = None, gain: str | None = None,
    ) -> str:  # fmt: skip
        k = (kernel, kernel) if isinstance(kernel, int) else kernel
        same = (k[0] // 2, k[1] // 2)
        inputs = (x,) if gain is None else (x, gain)
        layer = Layer(name, "conv", inputs, channels, k, stride, padding if padding is not None else same, groups)
        return self.add(replace(layer, bits=bits))

    def operation(self, slot: str, x: str, channels: int, *, signed: bool = False, gain: str | None = None) -> str:
        """The chain of convolutions chosen for `slot`; each reads its own quantized input."""
        choice = self.architecture.layers[slot]
        try:
            chain = operation_convolutions(choice.op, self.channels(x), channels)
        except ArchitectureError as error:
            raise ArchitectureError(f"layer {slot!r}: {error}") from None
        for index, shape in enumerate(chain):
            name = slot if len(chain) == 1 else f"{slot}.{index}"
            reads = self.signed if signed and index == 0 else self.hwgq
            x = reads(f"{name}.input", x, choice.bits)
            last = index == len(chain) - 1
            x = self.conv(name, x, shape.out_channels, shape.kernel, choice.bits, shape.groups, gain=gain if last else None)
        return x

    def output(self, x: str) -> str:
        """The image's own grid: rounding to pixels and clipping to their range."""
        return self.quantize("output", x, IMAGE) if self.architecture.quantized else x

    def shuffle(self, name: str, x: str, factor: int) -> str:
        return self.node("pixel_shuffle", name, x, channels=self.channels(x) // factor**2, factor=factor)

    def normalize(self, name: str, x: str) -> tuple[str, str | None]:
        """(batch-normalised x, deviation) as the architecture's normalization asks."""
        if self.architecture.normalization == "none":
            return x, None
        norm = self.node("affine", f"{name}.norm", x)
        adq = self.architecture.normalization == "adq"
        return norm, self.node("deviation", f"{name}.deviation", x, channels=1) if adq else None

    def esa(self, name: str, x: str, channels: int, bits: int, gain: str | None = None) -> str:
        """Enhanced spatial attention (Liu et al., RFANet, CVPR 2020): x * sigmoid(mask of x)."""
        narrow = channels // 4
        reads = self.signed(f"{name}.conv1.input", x, bits)
        c1 = self.residual(f"{name}.conv1", self.conv(f"{name}.conv1", reads, narrow, 1, bits))
        scale = self.owner(c1)
        small = self.signed(f"{name}.conv2.input", c1, bits)
        small = self.conv(f"{name}.conv2", small, narrow, 3, bits, stride=2, padding=(0, 0))
        small = self.residual(f"{name}.conv2", small)
        small = self.add(Layer(f"{name}.pool", "max_pool", (small,), narrow, (7, 7), 3))
        for index, part in enumerate(("conv_max", "conv3", "conv3_")):
            reads = (self.signed if index == 0 else self.hwgq)(f"{name}.{part}.input", small, bits)
            small = self.conv(f"{name}.{part}", reads, narrow, 3, bits)
        small = self.residual(f"{name}.conv3_", small)
        wide = self.residual(f"{name}.resize", self.node("resize_like", f"{name}.resize", small, c1), scale)
        cf = self.conv(f"{name}.conv_f", self.signed(f"{name}.conv_f.input", c1, bits), narrow, 1, bits)
        cf = self.residual(f"{name}.conv_f", cf, scale)
        both = self.residual(f"{name}.sum", self.node("add", f"{name}.sum", wide, cf), scale)
        mask = self.conv(f"{name}.conv4", self.signed(f"{name}.conv4.input", both, bits), channels, 1, bits)
        mask = self.residual(f"{name}.conv4", mask)
        gate = self.residual(f"{name}.gate", self.node("sigmoid", f"{name}.gate", mask), spec=GATE)
        return self.node("multiply", f"{name}.multiply", *((x, gate) if gain is None else (x, gate, gain)))


# Networks ------------------------------------------------------------------------------------------------


def _espcn(b: _Builder, a: Architecture) -> None:
    """Shi et al., CVPR 2016, in the sizes of QuantNAS: 5x5 3->64, 3x3 64->32, 3x3 32->3s^2."""
    x = b.operation("conv_0", b.image(), 64, signed=True)
    x = b.operation("conv_1", x, 32)
    x = b.operation("conv_2", x, 3 * a.scale**2)
    b.shuffle("upscaled", b.output(x), a.scale)


def _srresnet(b: _Builder, a: Architecture) -> None:
    """MSRResNet of AIM 2020: no batch norm, 16 blocks of 64 channels, x2 shuffles, bilinear global skip."""
    image = b.image()
    x = b.operation("conv_first", image, a.channels, signed=True)
    x = b.residual("conv_first", b.hwgq("conv_first.output", x, 8 if a.quantized else FLOAT_BITS))
    scale = b.owner(x)
    for k in range(a.blocks):
        y = b.operation(f"body.{k}.conv_0", x, a.channels, signed=True)
        y = b.operation(f"body.{k}.conv_1", y, a.channels)
        y = b.residual(f"body.{k}.conv_1", y, scale)
        x = b.residual(f"body.{k}.add", b.node("add", f"body.{k}.add", x, y), scale)
    stages = _srresnet_stages(a)
    readers = [f"upsample.{index + 1}" for index in range(len(stages) - 1)] + ["conv_hr"]
    for index, (factor, reader) in enumerate(zip(stages, readers, strict=True)):
        x = b.operation(f"upsample.{index}", x, a.channels * factor**2, signed=index == 0)
        x = b.hwgq(f"upsample.{index}.output", x, a.layers[reader].bits)
        x = b.shuffle(f"upsample.{index}.shuffle", x, factor)
    x = b.operation("conv_hr", x, a.channels)
    x = b.operation("conv_last", x, 3)
    x = b.residual("conv_last", x, spec=IMAGE_RESIDUAL)
    base = b.residual("base", b.node("upscale", "base", image, factor=a.scale), spec=IMAGE)
    b.output(b.node("add", "upscaled", x, base))


def _srresnet_stages(a: Architecture) -> tuple[int, ...]:
    return (2, 2) if a.scale == 4 else (a.scale,)


def _rfdb(b: _Builder, name: str, x: str, channels: int, gain: str | None, skip_slots: Sequence[str], body_slots: Sequence[str],
          fusion: tuple[str, int], esa_bits: int, relu: bool) -> str:  # fmt: skip
    """A residual feature distillation block; `relu`: as RFDN has it (after), else HWGQ before convolutions."""
    narrow = channels // 2
    parts: list[str] = []
    for index, body in enumerate(body_slots):
        last = index == len(body_slots) - 1
        if not last:
            parts.append(b.operation(skip_slots[index], x, narrow, signed=relu))
        y = b.operation(body, x, narrow if last else channels, signed=relu)
        if last:
            parts.append(y)
            break
        scale = b.owner(x)
        y = b.residual(body, y, scale)
        total = b.node("add", f"{body}.add", y, x)
        x = b.hwgq(f"{body}.output", total, 8 if b.architecture.quantized else FLOAT_BITS) if relu else b.residual(
            f"{body}.add", total, scale
        )  # fmt: skip
    fusion_slot, bits = fusion
    owner: str | None = None
    grids: list[str] = []
    for part in parts:  # one scale, so that joining them moves bytes
        reads = f"{part}.part"
        if bits == FLOAT_BITS:
            grids.append(b.node("relu", reads, part))
        else:
            grids.append(b.quantize(reads, part, QuantSpec(bits, signed=False), owner))
            owner = owner or reads
    joined = b.node("concat", f"{name}.concat", *grids, channels=sum(b.channels(g) for g in grids))
    fused = b.residual(fusion_slot, b.conv(fusion_slot, joined, channels, 1, bits))
    return b.esa(f"{name}.esa", fused, channels, esa_bits, gain)


def _rfdn(b: _Builder, a: Architecture) -> None:
    """Liu, Tang, Wu, RFDN (ECCV workshops 2020), ReLU in place of LeakyReLU."""
    head = b.residual("conv_first", b.operation("conv_first", b.image(), a.channels, signed=True))
    x, outs, owner = head, [], None
    for k in range(a.blocks):
        p = f"body.{k}"
        skips = [f"{p}.distill_{i}" for i in range(3)]
        bodies = [f"{p}.refine_{i}" for i in range(4)]
        bits = {s: a.layers[s].bits for s in (f"{p}.fusion", f"{p}.esa")}
        y = _rfdb(b, p, x, a.channels, None, skips, bodies, (f"{p}.fusion", bits[f"{p}.fusion"]), bits[f"{p}.esa"], True)
        x = b.residual(f"{p}.output", y, owner)
        owner = owner or b.owner(x)
        outs.append(x)
    joined = b.node("concat", "body.concat", *outs, channels=a.channels * a.blocks)
    y = b.operation("fusion", joined, a.channels, signed=True)
    y = b.operation("conv_body", y, a.channels)
    y = b.residual("conv_body", y, b.owner(head))
    x = b.residual("skip", b.node("add", "skip", y, head), b.owner(head))
    x = b.operation("upsample", x, 3 * a.scale**2, signed=True)
    b.shuffle("upscaled", b.output(x), a.scale)


def _tail(b: _Builder, a: Architecture, x: str, slots: Sequence[str]) -> None:
    """Upsample to an image, then a residual correction at full size."""
    x = b.operation("upsample", x, 3 * a.scale**2)
    image = b.shuffle("upsample.shuffle", b.residual("upsample", x, spec=IMAGE), a.scale)
    y = image
    for slot in slots:
        y = b.operation(slot, y, 3)
    y = b.residual(slots[-1], y, spec=IMAGE_RESIDUAL)
    b.output(b.node("add", "upscaled", image, y))


def _basic(b: _Builder, a: Architecture) -> None:
    """Section 4 of QuantNAS: head, `blocks` blocks of two consecutive and one parallel layer, upsample, tail."""
    x = b.operation("head.0", b.image(), a.channels, signed=True)
    x = b.residual("head.1", b.operation("head.1", x, a.channels))
    scale = b.owner(x)
    for k in range(a.blocks):
        p = f"body.{k}"
        norm, gain = b.normalize(p, x)
        bits = {a.layers[f"{p}.{slot}"].bits for slot in ("conv_0", "parallel")}
        if len(bits) == 1:  # both branches read the same integers
            norm = b.hwgq(f"{p}.input", norm, bits.pop())
        elif a.normalization != "none":
            norm = b.residual(f"{p}.norm", norm)
        y = b.operation(f"{p}.conv_0", norm, a.channels)
        y = b.operation(f"{p}.conv_1", y, a.channels, gain=gain)
        y = b.residual(f"{p}.conv_1", y, scale)
        z = b.operation(f"{p}.parallel", norm, a.channels, gain=gain)
        z = b.residual(f"{p}.parallel", z, scale)
        inner = b.residual(f"{p}.add", b.node("add", f"{p}.add", y, z), scale)
        x = b.residual(f"{p}.skip", b.node("add", f"{p}.skip", x, inner), scale)
    _tail(b, a, x, ("tail.0", "tail.1"))


def _rfdn_space(b: _Builder, a: Architecture) -> None:
    """The RFDN space of QuantNAS: the image repeated to `channels`, RFDB blocks inside ADQ, tail with a skip."""
    image = b.image()
    x = b.node("repeat", "head", image, channels=a.channels, factor=a.channels // 3)
    outs: list[str] = []
    owner: str | None = None
    x = head = b.residual("head", x)
    for k in range(a.blocks):
        p = f"body.{k}"
        norm, gain = b.normalize(p, x)
        if a.normalization != "none":
            norm = b.residual(f"{p}.norm", norm)
        skips = [f"{p}.distill_{i}" for i in range(3)]
        bodies = [f"{p}.refine_{i}" for i in range(4)]
        fusion = (f"{p}.fusion", FUSION_BITS if a.quantized else FLOAT_BITS)
        esa_bits = ESA_BITS if a.quantized else FLOAT_BITS
        y = _rfdb(b, p, norm, a.channels, gain, skips, bodies, fusion, esa_bits, False)
        y = b.residual(f"{p}.output", y, owner)
        owner = owner or b.owner(y)
        if a.normalization != "none":
            y = b.residual(f"{p}.skip", b.node("add", f"{p}.skip", x, y), owner)
        x = y
        outs.append(x)
    joined = b.node("concat", "body.concat", *outs, channels=a.channels * a.blocks)
    bits = FUSION_BITS if a.quantized else FLOAT_BITS
    y = b.conv("fusion", b.hwgq("fusion.input", joined, bits), a.channels, 1, bits)
    y = b.conv("conv_body", b.hwgq("conv_body.input", y, bits), a.channels, 3, bits)
    y = b.residual("conv_body", y, b.owner(head))
    x = b.residual("skip", b.node("add", "skip", y, head), b.owner(head))
    _tail(b, a, x, ("tail.0",))


def _rfdb_slots(k: int) -> dict[str, str | None]:
    return {f"body.{k}.{part}_{i}": None for part, n in (("distill", 3), ("refine", 4)) for i in range(n)}


def _espcn_slots(a: Architecture) -> dict[str, str | None]:
    return {"conv_0": "simple_5x5", "conv_1": "simple_3x3", "conv_2": "simple_3x3"}


def _srresnet_slots(a: Architecture) -> dict[str, str | None]:
    names = ["conv_first", *(f"body.{k}.conv_{i}" for k in range(a.blocks) for i in range(2))]
    stages = [f"upsample.{index}" for index in range(len(_srresnet_stages(a)))]
    return dict.fromkeys([*names, *stages, "conv_hr", "conv_last"], "simple_3x3")


def _rfdn_slots(a: Architecture) -> dict[str, str | None]:
    slots: dict[str, str | None] = {"conv_first": "simple_3x3"}
    for k in range(a.blocks):
        slots |= {f"body.{k}.distill_{i}": "simple_1x1" for i in range(3)}
        slots |= {f"body.{k}.refine_{i}": "simple_3x3" for i in range(4)}
        slots |= {f"body.{k}.fusion": "simple_1x1", f"body.{k}.esa": "esa"}
    return slots | {"fusion": "simple_1x1", "conv_body": "simple_3x3", "upsample": "simple_3x3"}


def _basic_slots(a: Architecture) -> dict[str, str | None]:
    body = [f"body.{k}.{part}" for k in range(a.blocks) for part in ("conv_0", "conv_1", "parallel")]
    return dict.fromkeys(["head.0", "head.1", *body, "upsample", "tail.0", "tail.1"], None)


def _rfdn_space_slots(a: Architecture) -> dict[str, str | None]:
    slots: dict[str, str | None] = {}
    for k in range(a.blocks):
        slots |= _rfdb_slots(k)
    return slots | {"upsample": None, "tail.0": None}


_SLOTS: dict[str, Callable[[Architecture], dict[str, str | None]]] = {
    "espcn": _espcn_slots,
    "srresnet": _srresnet_slots,
    "rfdn": _rfdn_slots,
    "basic": _basic_slots,
    "rfdn_space": _rfdn_space_slots,
}
_SPACES: dict[str, Callable[[_Builder, Architecture], None]] = {
    "espcn": _espcn,
    "srresnet": _srresnet,
    "rfdn": _rfdn,
    "basic": _basic,
    "rfdn_space": _rfdn_space,
}
