"""The two search spaces of QuantNAS (Shvetsov et al., IEEE Access 2024, section 4) at one choice per layer.

Beside each builder its slots: the names of the layers whose operation and bits a search chooses.
"""

from qnas.errors import ArchitectureError
from qnas.network.architecture import Architecture
from qnas.network.blocks import rfdb, rfdb_slots
from qnas.network.graph_builder import GraphBuilder
from qnas.network.layers import Layer
from qnas.quantization.image_gain import FactorForm
from qnas.quantization.quantizers import IMAGE, IMAGE_RESIDUAL, QuantSpec

FUSION_BITS = 8  # the paper's own, as for ESA
ESA_BITS = 8


def basic(b: GraphBuilder, a: Architecture) -> None:
    """Head, `blocks` blocks with a skip over them, upsample, tail, as figure 3 has it.

    A block, all blocks together and the tail are each `x + s f(BN(x))` with ADQ.
    """
    x = b.image()
    for slot in (head := _parts("head.", a.pattern.head)):
        x = b.operation(slot, x, a.channels, signed=slot == "head.0")
    head_end = x = b.residual(head[-1], x)
    whole = a.version > 1
    norm, gain, again = _normalize(b, "body", x) if whole else (x, None, None)
    if norm != x:
        x = b.residual("body.norm", norm)
    for p in (f"body.{k}" for k in range(a.blocks)):
        x = _basic_block(b, a, p, x)
    if whole:
        scale = b.owner(head_end)
        if gain:
            x = b.residual("body.scaled", b.node("scale", "body.scaled", x, gain), scale)
        x = _normalize_again(b, "body", x, again, scale)
        x = b.residual("body.skip", b.node("add", "body.skip", head_end, x), scale)
    _tail(b, a, x, _parts("tail.", a.pattern.tail))


def _basic_block(b: GraphBuilder, a: Architecture, p: str, x: str) -> str:
    """Consecutive layers beside parallel ones, their sum scaled and added to x."""
    roads = _roads(a, p)
    norm, gain, again = _normalize(b, p, x)
    bits = {b.bits(road[0]) for road in roads}
    if len(bits) == 1:  # both read the same integers
        norm = b.hwgq(f"{p}.input", norm, bits.pop())
    elif norm != x:
        norm = b.residual(f"{p}.norm", norm)
    ends: list[str] = []
    for road in roads:
        y = norm
        for slot in road:
            y = b.operation(slot, y, a.channels, gain=gain if slot == road[-1] else None)
        scale = b.owner(ends[0]) if ends else None if again else b.owner(x)
        ends.append(b.residual(road[-1], y, scale))
    inner = b.residual(f"{p}.add", b.node("add", f"{p}.add", *ends), b.owner(ends[0]))
    inner = _normalize_again(b, p, inner, again, b.owner(x))
    return b.residual(f"{p}.skip", b.node("add", f"{p}.skip", x, inner), b.owner(x))


def _roads(a: Architecture, block: str) -> tuple[list[str], list[str]]:
    """The slots of a block that follow each other, and those beside them."""
    skip = _parts(f"{block}.parallel_", a.pattern.skip) if a.pattern.skip > 1 else [f"{block}.parallel"]
    return _parts(f"{block}.conv_", a.pattern.body), skip


def _parts(name: str, count: int) -> list[str]:
    return [f"{name}{index}" for index in range(count)]


def basic_slots(a: Architecture) -> dict[str, str | None]:
    """All free."""
    body = [slot for k in range(a.blocks) for road in _roads(a, f"body.{k}") for slot in road]
    head, tail = _parts("head.", a.pattern.head), _parts("tail.", a.pattern.tail)
    return dict.fromkeys([*head, *body, "upsample", *tail])


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
    _tail(b, a, x, ["tail.0"])


def rfdn_space_slots(a: Architecture) -> dict[str, str | None]:
    """All free; fusions and ESA are fixed and no slots."""
    body = [slot for k in range(a.blocks) for slot in rfdb_slots(f"body.{k}")]
    return dict.fromkeys([*body, "upsample", "tail.0"])


def _normalize(b: GraphBuilder, name: str, x: str) -> tuple[str, str | None, str | None]:
    """What a block's function f reads, the deviation that scales it, and that of a second batch norm.

    The block is `x + f(x)` without normalization, `x + f(BN(x))` with bn, `x + s f(BN(x))` with adq and
    adq_linear, and `x + s BN'(f(BN(x)))` with adadm (Liu et al., ICCV workshops 2021): s is a function of the
    deviation of x.
    """
    kind = b.architecture.normalization
    if kind == "none":
        return x, None, None
    norm = b.node("affine", f"{name}.norm", x)
    if kind == "bn":
        return norm, None, None
    form: FactorForm = "linear" if kind == "adq_linear" else "power"
    deviation = b.add(Layer(f"{name}.deviation", "deviation", (x,), 1, form=form))
    return (norm, None, deviation) if kind == "adadm" else (norm, deviation, None)


def _normalize_again(
    b: GraphBuilder, name: str, y: str, deviation: str | None, scale: str | None,
    spec: QuantSpec | None = None,
) -> str:  # fmt: skip
    """AdaDM's second batch norm of y times the deviation, y itself without one."""
    if deviation is None:
        return y
    norm = b.node("affine", f"{name}.norm_again", y, deviation)
    return b.residual(f"{name}.norm_again", norm, scale, spec)


def _tail(b: GraphBuilder, a: Architecture, x: str, slots: list[str]) -> None:
    """Upsample to an image, then a residual correction at full size: none without `slots`."""
    x = b.operation("upsample", x, 3 * a.scale**2)
    image = b.shuffle("upsample.shuffle", b.residual("upsample", x, spec=IMAGE), a.scale)
    if not slots:
        b.output(image)
        return
    basic = a.space == "basic" and a.version > 1
    y, gain, again = _normalize(b, "tail", image) if basic else (image, None, None)
    for slot in slots[:-1]:
        y = b.operation(slot, y, a.channels if basic else 3)
    y = b.operation(slots[-1], y, 3, gain=gain)
    y = b.residual(slots[-1], y, spec=None if again else IMAGE_RESIDUAL)
    y = _normalize_again(b, "tail", y, again, None, IMAGE_RESIDUAL)
    b.output(b.node("add", "upscaled", image, y))
