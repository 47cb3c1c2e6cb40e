"""The networks whose operations are given and whose bits alone can be chosen: ESPCN, MSRResNet, RFDN.

Beside each builder its slots: the names of the layers that an architecture must choose bits for, and their
operations.
"""

from qnas.network.architecture import Architecture
from qnas.network.blocks import rfdb, rfdb_slots
from qnas.network.graph_builder import GraphBuilder
from qnas.quantization.quantizers import IMAGE, IMAGE_RESIDUAL


def espcn(b: GraphBuilder, a: Architecture) -> None:
    """Shi et al., CVPR 2016, in the sizes of QuantNAS: 5x5 3->64, 3x3 64->32, 3x3 32->3s^2."""
    x = b.operation("conv_0", b.image(), 64, signed=True)
    x = b.operation("conv_1", x, 32)
    x = b.operation("conv_2", x, 3 * a.scale**2)
    b.shuffle("upscaled", b.output(x), a.scale)


def espcn_slots(a: Architecture) -> dict[str, str | None]:
    """Three convolutions."""
    return {"conv_0": "simple_5x5", "conv_1": "simple_3x3", "conv_2": "simple_3x3"}


def srresnet(b: GraphBuilder, a: Architecture) -> None:
    """MSRResNet of AIM 2020: no batch norm, x2 shuffles, bilinear global skip."""
    image = b.image()
    x = b.operation("conv_first", image, a.channels, signed=True)
    x = b.residual("conv_first", b.hwgq("conv_first.output", x, b.fixed_bits(8)))
    scale = b.owner(x)
    for k in range(a.blocks):
        y = b.operation(f"body.{k}.conv_0", x, a.channels, signed=True)
        y = b.operation(f"body.{k}.conv_1", y, a.channels)
        y = b.residual(f"body.{k}.conv_1", y, scale)
        x = b.residual(f"body.{k}.add", b.node("add", f"body.{k}.add", x, y), scale)
    stages = _upsampling(a)
    readers = [*(f"upsample.{index}" for index in range(1, len(stages))), "conv_hr"]
    for index, (factor, reader) in enumerate(zip(stages, readers, strict=True)):
        x = b.operation(f"upsample.{index}", x, a.channels * factor**2, signed=index == 0)
        x = b.hwgq(f"upsample.{index}.output", x, b.bits(reader))
        x = b.shuffle(f"upsample.{index}.shuffle", x, factor)
    x = b.operation("conv_hr", x, a.channels)
    x = b.residual("conv_last", b.operation("conv_last", x, 3), spec=IMAGE_RESIDUAL)
    base = b.residual("base", b.node("upscale", "base", image, factor=a.scale), spec=IMAGE)
    b.output(b.node("add", "upscaled", x, base))


def srresnet_slots(a: Architecture) -> dict[str, str | None]:
    """3x3 everywhere."""
    body = (f"body.{k}.conv_{index}" for k in range(a.blocks) for index in range(2))
    stages = (f"upsample.{index}" for index in range(len(_upsampling(a))))
    return dict.fromkeys(["conv_first", *body, *stages, "conv_hr", "conv_last"], "simple_3x3")


def _upsampling(a: Architecture) -> tuple[int, ...]:
    return (2, 2) if a.scale == 4 else (a.scale,)


def rfdn(b: GraphBuilder, a: Architecture) -> None:
    """Liu, Tang, Wu, RFDN (ECCV workshops 2020), ReLU in place of LeakyReLU."""
    x = head = b.residual("conv_first", b.operation("conv_first", b.image(), a.channels, signed=True))
    outs: list[str] = []
    for k in range(a.blocks):
        p = f"body.{k}"
        y = rfdb(b, p, x, b.both_bits(f"{p}.fusion"), b.both_bits(f"{p}.esa"), relu=True)
        x = b.residual(f"{p}.output", y, b.owner(outs[0]) if outs else None)
        outs.append(x)
    joined = b.node("concat", "body.concat", *outs, channels=a.channels * a.blocks)
    y = b.operation("fusion", joined, a.channels, signed=True)
    y = b.residual("conv_body", b.operation("conv_body", y, a.channels), b.owner(head))
    x = b.residual("skip", b.node("add", "skip", y, head), b.owner(head))
    x = b.operation("upsample", x, 3 * a.scale**2, signed=True)
    b.shuffle("upscaled", b.output(x), a.scale)


def rfdn_slots(a: Architecture) -> dict[str, str | None]:
    """1x1 for distillation and fusion, 3x3 else; "esa" stands for all convolutions of that block."""
    slots: dict[str, str | None] = {"conv_first": "simple_3x3"}
    for p in (f"body.{k}" for k in range(a.blocks)):
        slots |= {slot: "simple_1x1" if "distill" in slot else "simple_3x3" for slot in rfdb_slots(p)}
        slots |= {f"{p}.fusion": "simple_1x1", f"{p}.esa": "esa"}
    return slots | {"fusion": "simple_1x1", "conv_body": "simple_3x3", "upsample": "simple_3x3"}
