"""The two search spaces of QuantNAS (Shvetsov et al., IEEE Access 2024, section 4) at one choice per layer.

Beside each builder its slots: the names of the layers whose operation and bits a search chooses.
"""

from qnas.errors import ArchitectureError
from qnas.network.architecture import Architecture
from qnas.network.blocks import rfdb, rfdb_slots
from qnas.network.graph_builder import GraphBuilder
from qnas.quantization.quantizers import IMAGE, IMAGE_RESIDUAL

FUSION_BITS = 8  # the paper's own, as for ESA
ESA_BITS = 8


def basic(b: GraphBuilder, a: Architecture) -> None:
    """Head, `blocks` blocks of two consecutive and one parallel layer, upsample, tail."""
    x = b.operation("head.0", b.image(), a.channels, signed=True)
    x = b.residual("head.1", b.operation("head.1", x, a.channels))
    scale = b.owner(x)
    for p in (f"body.{k}" for k in range(a.blocks)):
        norm, gain, again = _normalize(b, p, x)
        bits = {b.bits(f"{p}.conv_0"), b.bits(f"{p}.parallel")}
        if len(bits) == 1:  # both branches read the same integers
            norm = b.hwgq(f"{p}.input", norm, bits.pop())
        elif norm != x:
            norm = b.residual(f"{p}.norm", norm)
        y = b.operation(f"{p}.conv_0", norm, a.channels)
        y = b.operation(f"{p}.conv_1", y, a.channels, gain=gain)
        y = b.residual(f"{p}.conv_1", y, None if again else scale)
        z = b.operation(f"{p}.parallel", norm, a.channels, gain=gain)
        z = b.residual(f"{p}.parallel", z, b.owner(y))
        inner = b.residual(f"{p}.add", b.node("add", f"{p}.add", y, z), b.owner(y))
        inner = _normalize_again(b, p, inner, again, scale)
        x = b.residual(f"{p}.skip", b.node("add", f"{p}.skip", x, inner), scale)
    _tail(b, a, x, ("tail.0", "tail.1"))


def basic_slots(a: Architecture) -> dict[str, str | None]:
    """All free."""
    body = (f"body.{k}.{part}" for k in range(a.blocks) for part in ("conv_0", "conv_1", "parallel"))
    return dict.fromkeys(["head.0", "head.1", *body, "upsample", "tail.0", "tail.1"])


def rfdn_space(b: GraphBuilder, a: Architecture) -> None:
    """The image repeated to `channels`, RFDB blocks inside ADQ or a plain skip, tail with a skip."""
    if a.channels % 3:
        raise ArchitectureError(
            f"rfdn_space repeats the image's 3 channels to {a.channels}: use a multiple of 3"
        )
    repeated = b.node("repeat", "head", b.image(), channels=a.channels, factor=a.channels // 3)
    x = head = b.residual("head", repeated)
    outs: list[str] = []
    for p in (f"body.{k}" for k in range(a.blocks)):
        norm, gain, again = _normalize(b, p, x)
        if norm != x:
            norm = b.residual(f"{p}.norm", norm)
        y = rfdb(b, p, norm, b.fixed_bits(FUSION_BITS), b.fixed_bits(ESA_BITS), relu=False, gain=gain)
        y = b.residual(f"{p}.output", y, None if again else b.owner(head))
        y = _normalize_again(b, p, y, again, b.owner(head))
        x = b.residual(f"{p}.skip", b.node("add", f"{p}.skip", x, y), b.owner(head))
        outs.append(x)
    joined = b.node("concat", "body.concat", *outs, channels=a.channels * a.blocks)
    bits = b.fixed_bits(FUSION_BITS)
    y = b.conv("fusion", b.positive("fusion.input", joined, bits), a.channels, 1, bits)
    y = b.conv("conv_body", b.hwgq("conv_body.input", y, bits), a.channels, 3, bits)
    y = b.residual("conv_body", y, b.owner(head))
    x = b.residual("skip", b.node("add", "skip", y, head), b.owner(head))
    _tail(b, a, x, ("tail.0",))


def rfdn_space_slots(a: Architecture) -> dict[str, str | None]:
    """All free; fusions and ESA are fixed and no slots."""
    body = [slot for k in range(a.blocks) for slot in rfdb_slots(f"body.{k}")]
    return dict.fromkeys([*body, "upsample", "tail.0"])


def _normalize(b: GraphBuilder, name: str, x: str) -> tuple[str, str | None, str | None]:
    """What a block's function f reads, the deviation that scales it, and that of a second batch norm.

    The block is `x + f(x)` without normalization, `x + f(BN(x))` with bn, `x + s f(BN(x))` with adq, and
    `x + s BN'(f(BN(x)))` with adadm (Liu et al., ICCV workshops 2021): s is a function of the deviation of x.
    """
    kind = b.architecture.normalization
    if kind == "none":
        return x, None, None
    norm = b.node("affine", f"{name}.norm", x)
    if kind == "bn":
        return norm, None, None
    deviation = b.node("deviation", f"{name}.deviation", x, channels=1)
    return (norm, deviation, None) if kind == "adq" else (norm, None, deviation)


def _normalize_again(b: GraphBuilder, name: str, y: str, deviation: str | None, scale: str | None) -> str:
    """AdaDM's second batch norm of y times the deviation, y itself without one."""
    if deviation is None:
        return y
    norm = b.node("affine", f"{name}.norm_again", y, deviation)
    return b.residual(f"{name}.norm_again", norm, scale)


def _tail(b: GraphBuilder, a: Architecture, x: str, slots: tuple[str, ...]) -> None:
    """Upsample to an image, then a residual correction at full size."""
    x = b.operation("upsample", x, 3 * a.scale**2)
    image = y = b.shuffle("upsample.shuffle", b.residual("upsample", x, spec=IMAGE), a.scale)
    for slot in slots:
        y = b.operation(slot, y, 3)
    y = b.residual(slots[-1], y, spec=IMAGE_RESIDUAL)
    b.output(b.node("add", "upscaled", image, y))
