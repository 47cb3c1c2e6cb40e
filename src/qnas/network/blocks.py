"""The blocks that more than one network is made of."""

from qnas.errors import ArchitectureError
from qnas.network.graph_builder import GraphBuilder
from qnas.network.layers import Layer
from qnas.quantization.quantizers import FLOAT_BITS, IMAGE

GATE = IMAGE  # a sigmoid's output lies in [0, 1], as a pixel does
REFINEMENTS = 4  # layers of an RFDB; all but the last have a distillation layer beside them


def rfdb(
    b: GraphBuilder, name: str, x: str, fusion_bits: int, esa_bits: int, *,
    relu: bool, gain: str | None = None,
) -> str:  # fmt: skip
    """A residual feature distillation block (Liu, Tang, Wu, RFDN, ECCV workshops 2020).

    `relu`: one after each refinement, as RFDN has it; otherwise HWGQ in front of every convolution.
    """
    channels = b.channels(x)
    reads = b.signed if relu else b.positive
    parts = []
    for index in range(REFINEMENTS - 1):
        distill, body, scale = f"{name}.distill_{index}", f"{name}.refine_{index}", b.owner(x)
        read = reads(f"{body}.input", x, b.bits(body))
        same = b.bits(distill) == b.bits(body) and not b.own_activations(body)  # they read the same integers
        part = read if same else reads(f"{distill}.input", x, b.bits(distill))
        parts.append(b.operation(distill, part, channels // 2, signed=relu))
        y = b.residual(body, b.operation(body, read, channels, signed=relu), scale)
        total = b.node("add", f"{body}.add", y, x)
        if relu:
            x = b.hwgq(f"{body}.output", total, b.fixed_bits(8), scale)
        else:
            x = b.residual(f"{body}.add", total, scale)
    last = f"{name}.refine_{REFINEMENTS - 1}"
    read = reads(f"{last}.input", x, b.bits(last))
    parts.append(b.operation(last, read, channels // 2, signed=relu))
    joined = b.node(
        "concat", f"{name}.concat", *_rectified(b, parts, fusion_bits), channels=4 * (channels // 2)
    )
    fusion = f"{name}.fusion"
    fused = b.residual(fusion, b.conv(fusion, joined, channels, 1, fusion_bits))
    return esa(b, f"{name}.esa", fused, esa_bits, gain, signed=relu)


def rfdb_slots(block: str) -> list[str]:
    """The names of the searched layers of `rfdb`."""
    distill = [f"{block}.distill_{index}" for index in range(REFINEMENTS - 1)]
    return distill + [f"{block}.refine_{index}" for index in range(REFINEMENTS)]


def _rectified(b: GraphBuilder, parts: list[str], bits: int) -> list[str]:
    """The parts after a ReLU, on one scale: joining them moves bytes."""
    if bits == FLOAT_BITS:
        return [b.hwgq(f"{part}.part", part, bits) for part in parts]
    first, *others = parts
    spec = b.half_wave(bits)
    owner = b.quantize(f"{first}.part", first, spec)
    return [owner, *(b.quantize(f"{part}.part", part, spec, owner) for part in others)]


def esa(b: GraphBuilder, name: str, x: str, bits: int, gain: str | None = None, *, signed: bool) -> str:
    """Enhanced spatial attention (Liu et al., RFANet, CVPR 2020): x * sigmoid(mask of x).

    `signed`: its convolutions read negative values, but for two, as RFDN has it; otherwise HWGQ everywhere.
    """
    channels = b.channels(x)
    narrow = channels // 4
    if not narrow:
        raise ArchitectureError(f"{name} needs 4 channels or more, not {channels}: use more channels")

    def conv(part: str, y: str, width: int, kernel: int, stride: int = 1) -> str:
        y = (b.signed if signed else b.hwgq)(f"{name}.{part}.input", y, bits)
        padding = (0, 0) if stride > 1 else None
        return b.conv(f"{name}.{part}", y, width, kernel, bits, stride=stride, padding=padding)

    def output(part: str, y: str) -> str:
        return b.residual(f"{name}.{part}", y) if signed else b.hwgq(f"{name}.{part}.output", y, bits)

    c1 = output("conv1", conv("conv1", x, narrow, 1))
    small = output("conv2", conv("conv2", c1, narrow, 3, stride=2))
    small = b.add(Layer(f"{name}.pool", "max_pool", (small,), narrow, (7, 7), 3))
    small = conv("conv_max", small, narrow, 3)
    for part in ("conv3", "conv3_"):
        small = b.hwgq(f"{name}.{part}.input", small, bits)
        small = b.conv(f"{name}.{part}", small, narrow, 3, bits)
    small = b.residual(f"{name}.conv3_", small)
    wide = _resized(b, name, small, c1, b.owner(c1) if signed else None)
    scale = b.owner(wide)
    cf = b.residual(f"{name}.conv_f", conv("conv_f", c1, narrow, 1), scale)
    both = b.node("add", f"{name}.sum", wide, cf)
    if signed:
        both = b.residual(f"{name}.sum", both, scale)
    else:  # the sum's own scale: adding stays exact
        both = b.hwgq(f"{name}.conv4.input", both, bits, scale)
    mask = b.residual(f"{name}.conv4", conv("conv4", both, channels, 1))
    gate = b.residual(f"{name}.gate", b.node("sigmoid", f"{name}.gate", mask), spec=GATE)
    return b.node("multiply", f"{name}.multiply", *((x, gate) if gain is None else (x, gate, gain)))


def _resized(b: GraphBuilder, name: str, small: str, like: str, scale: str | None) -> str:
    """`small` at the height and width of `like`; on short scales one axis after the other, each rounded."""
    if b.paper:
        return b.node("resize_like", f"{name}.resize", small, like)
    tall = b.residual(f"{name}.tall", b.node("resize_rows", f"{name}.tall", small, like), b.owner(small))
    return b.residual(f"{name}.resize", b.node("resize_columns", f"{name}.resize", tall, like), scale)
