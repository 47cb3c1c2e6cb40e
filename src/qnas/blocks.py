"""The blocks that more than one network is made of."""

from qnas.errors import ArchitectureError
from qnas.graph_builder import GraphBuilder
from qnas.layers import Layer
from qnas.quantization import FLOAT_BITS, IMAGE, QuantSpec

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
    parts = []
    for index in range(REFINEMENTS - 1):
        parts.append(b.operation(f"{name}.distill_{index}", x, channels // 2, signed=relu))
        body, scale = f"{name}.refine_{index}", b.owner(x)
        y = b.residual(body, b.operation(body, x, channels, signed=relu), scale)
        total = b.node("add", f"{body}.add", y, x)
        if relu:
            x = b.hwgq(f"{body}.output", total, b.fixed_bits(8))
        else:
            x = b.residual(f"{body}.add", total, scale)
    parts.append(b.operation(f"{name}.refine_{REFINEMENTS - 1}", x, channels // 2, signed=relu))
    joined = b.node(
        "concat", f"{name}.concat", *_rectified(b, parts, fusion_bits), channels=4 * (channels // 2)
    )
    fusion = f"{name}.fusion"
    fused = b.residual(fusion, b.conv(fusion, joined, channels, 1, fusion_bits))
    return esa(b, f"{name}.esa", fused, esa_bits, gain)


def rfdb_slots(block: str) -> list[str]:
    """The names of the searched layers of `rfdb`."""
    distill = [f"{block}.distill_{index}" for index in range(REFINEMENTS - 1)]
    return distill + [f"{block}.refine_{index}" for index in range(REFINEMENTS)]


def _rectified(b: GraphBuilder, parts: list[str], bits: int) -> list[str]:
    """The parts after a ReLU, on one scale: joining them moves bytes."""
    if bits == FLOAT_BITS:
        return [b.node("relu", f"{part}.part", part) for part in parts]
    first, *others = parts
    owner = b.quantize(f"{first}.part", first, QuantSpec(bits, signed=False))
    spec = QuantSpec(bits, signed=False)
    return [owner, *(b.quantize(f"{part}.part", part, spec, owner) for part in others)]


def esa(b: GraphBuilder, name: str, x: str, bits: int, gain: str | None = None) -> str:
    """Enhanced spatial attention (Liu et al., RFANet, CVPR 2020): x * sigmoid(mask of x)."""
    channels = b.channels(x)
    narrow = channels // 4
    if not narrow:
        raise ArchitectureError(f"{name} needs 4 channels or more, not {channels}: use more channels")

    def conv(part: str, y: str, width: int, kernel: int, stride: int = 1) -> str:
        y = b.signed(f"{name}.{part}.input", y, bits)
        padding = (0, 0) if stride > 1 else None
        return b.conv(f"{name}.{part}", y, width, kernel, bits, stride=stride, padding=padding)

    c1 = b.residual(f"{name}.conv1", conv("conv1", x, narrow, 1))
    scale = b.owner(c1)
    small = b.residual(f"{name}.conv2", conv("conv2", c1, narrow, 3, stride=2))
    small = b.add(Layer(f"{name}.pool", "max_pool", (small,), narrow, (7, 7), 3))
    small = conv("conv_max", small, narrow, 3)
    for part in ("conv3", "conv3_"):
        small = b.hwgq(f"{name}.{part}.input", small, bits)
        small = b.conv(f"{name}.{part}", small, narrow, 3, bits)
    small = b.residual(f"{name}.conv3_", small)
    wide = b.residual(f"{name}.resize", b.node("resize_like", f"{name}.resize", small, c1), scale)
    cf = b.residual(f"{name}.conv_f", conv("conv_f", c1, narrow, 1), scale)
    both = b.residual(f"{name}.sum", b.node("add", f"{name}.sum", wide, cf), scale)
    mask = b.residual(f"{name}.conv4", conv("conv4", both, channels, 1))
    gate = b.residual(f"{name}.gate", b.node("sigmoid", f"{name}.gate", mask), spec=GATE)
    return b.node("multiply", f"{name}.multiply", *((x, gate) if gain is None else (x, gate, gain)))
