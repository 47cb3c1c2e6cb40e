"""What QuantNAS' released code computes, written down plainly: random checkpoints and their outputs.

Reproduces the reference vectors (`tests/search/imports/test_import.py`); independent of the code under test.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

STEPS = {2: 0.6356366866, 3: 0.3720645814, 4: 0.2130560679, 8: 0.0203005678}
ESA = {"conv1": 1, "conv_f": 1, "conv_max": 3, "conv2": 3, "conv3": 3, "conv3_": 3, "conv4": 1}
Pairs = list[tuple[str, int]]


@dataclass(frozen=True)
class Genes:
    """The parts of a genotype as Python data."""

    body: list[Pairs]
    skip: list[Pairs]
    upsample: Pairs
    tail: Pairs

    def __str__(self) -> str:
        parts = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"Genotype_SR({parts})"


def shapes(op: str, reads: int, writes: int, channels: int) -> list[tuple[int, int, int, int]]:
    """Weights of an operation; what stands between two convolutions is as wide as the network or a share."""
    kind, kernel, *rest = op.split("_")
    k = int(kernel[0])
    if kind == "simple":
        groups = 1 if not rest else reads if rest[-1] == "full" else int(rest[-1])
        return [(writes, reads // groups, k, k)]
    if kind == "conv":
        return [(channels, reads, k, 1), (writes, channels, 1, k)]
    if kind == "decenc":
        inside = channels // int(rest[0])
        return [(inside, reads, k, k), (inside, inside, k, k), (writes, inside, k, k)]
    inside = channels * int(kind.removeprefix("growth"))
    return [(inside, reads, k, k), (writes, inside, k, k)]


def random_state(genes: Genes, channels: int, scale: int, adq: bool, seed: int = 0) -> dict[str, Tensor]:
    """A state dict in the released names. Some LSQ steps are negative, as happens there."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}

    def chain(name: str, bits: int, weights: list[tuple[int, int, int, int]]) -> None:
        for index, shape in enumerate(weights):
            w = torch.randn(shape, generator=generator) / (shape[1] * shape[2] * shape[3]) ** 0.5
            if bits == 32:  # a PReLU in place of HWGQ, and a step that nothing reads
                state[f"{name}.net.{index}.quan_a_fn.prelu.weight"] = torch.rand(1, generator=generator)
            step = w.abs().amax((1, 2, 3), keepdim=True) / 2 ** (bits - 1)
            step[0] *= -1
            state[f"{name}.net.{index}.conv.weight"] = w
            state[f"{name}.net.{index}.quan_w_fn.s"] = step

    half, narrow = channels // 2, channels // 4
    for k, (body, skip) in enumerate(zip(genes.body, genes.skip, strict=True)):
        for index, (op, bits) in enumerate(skip):
            chain(f"body.{k}.skip.{index}", bits, shapes(op, channels, half, channels))
        for index, (op, bits) in enumerate(body):
            width = channels if index < 3 else half
            chain(f"body.{k}.body.{index}", bits, shapes(op, channels, width, channels))
        chain(f"body.{k}.cum_channels", 8, [(channels, 4 * half, 1, 1)])
        for part, kernel in ESA.items():
            ends = {"conv1": (narrow, channels), "conv4": (channels, narrow)}.get(part, (narrow, narrow))
            chain(f"body.{k}.esa.{part}", 8, [(*ends, kernel, kernel)])
        if adq:
            name = f"body.{k}.adn"
            state[f"{name}.bn.weight"] = torch.rand(channels, generator=generator) + 0.5
            state[f"{name}.bn.bias"] = torch.rand(channels, generator=generator)
            state[f"{name}.bn.running_mean"] = torch.rand(channels, generator=generator) / 2
            state[f"{name}.bn.running_var"] = torch.rand(channels, generator=generator) + 0.1
            state[f"{name}.bn.num_batches_tracked"] = torch.tensor(6)
            state[f"{name}.phi.weight"] = torch.full((1, 1, 1, 1), 1.4)
            state[f"{name}.phi.bias"] = torch.tensor([0.01])
    ((op, bits),) = genes.upsample
    chain("upsample.0.0", bits, shapes(op, channels, 3 * scale**2, channels))
    ((op, bits),) = genes.tail
    chain("tail.0", bits, shapes(op, 3, 3, channels))
    chain("c", 8, [(channels, channels * len(genes.body), 1, 1)])
    chain("c2", 8, [(channels, channels, 3, 3)])
    return state


def activated(state: dict[str, Tensor], name: str, bits: int, x: Tensor) -> Tensor:
    """What a convolution reads: HWGQ, at 32 bits PReLU."""
    if bits == 32:
        return F.prelu(x, state[f"{name}.quan_a_fn.prelu.weight"])
    return (x / STEPS[bits]).round().clamp(0, 2**bits - 1) * STEPS[bits]


def output(state: dict[str, Tensor], genes: Genes, x: Tensor) -> Tensor:
    """y [1, 3, s H, s W] of x [1, 3, H, W] in [0, 1]."""

    def convolutions(name: str, bits: int, x: Tensor, stride: int = 1) -> Tensor:
        index = 0
        while f"{name}.net.{index}.conv.weight" in state:
            w, s = (state[f"{name}.net.{index}.{part}"] for part in ("conv.weight", "quan_w_fn.s"))
            x = activated(state, f"{name}.net.{index}", bits, x)
            w = w if bits == 32 else (w / s).clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1).round() * s
            padding = 0 if stride > 1 else (w.shape[2] // 2, w.shape[3] // 2)
            x = F.conv2d(x, w, None, stride, padding, groups=x.shape[1] // w.shape[1])
            index += 1
        return x

    def attention(name: str, x: Tensor) -> Tensor:
        c1 = convolutions(f"{name}.conv1", 8, x)
        y = F.max_pool2d(convolutions(f"{name}.conv2", 8, c1, stride=2), 7, 3)
        for part in ("conv_max", "conv3", "conv3_"):
            y = convolutions(f"{name}.{part}", 8, y)
        y = F.interpolate(y, x.shape[2:], mode="bilinear") + convolutions(f"{name}.conv_f", 8, c1)
        return x * torch.sigmoid(convolutions(f"{name}.conv4", 8, y))

    def block(k: int, x: Tensor) -> Tensor:
        name, parts = f"body.{k}", []
        for index in range(3):
            parts.append(convolutions(f"{name}.skip.{index}", genes.skip[k][index][1], x))
            x = convolutions(f"{name}.body.{index}", genes.body[k][index][1], x) + x
        parts.append(convolutions(f"{name}.body.3", genes.body[k][3][1], x))
        return attention(f"{name}.esa", convolutions(f"{name}.cum_channels", 8, torch.cat(parts, 1)))

    def normalized(k: int, x: Tensor, inside: Callable[[int, Tensor], Tensor]) -> Tensor:
        name = f"body.{k}.adn"
        if f"{name}.phi.weight" not in state:
            return inside(k, x) + x
        bn = {part: state[f"{name}.bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")}
        factor = x.std((1, 2, 3), keepdim=True) * state[f"{name}.phi.weight"] + state[f"{name}.phi.bias"]
        return inside(k, F.batch_norm(x, **bn)) * factor + x

    x = head = x.repeat(1, len(state["c2.net.0.conv.weight"]) // 3, 1, 1)
    outputs = []
    for k in range(len(genes.body)):
        x = normalized(k, x, block)
        outputs.append(x)
    x = convolutions("c2", 8, convolutions("c", 8, torch.cat(outputs, 1))) + head
    x = convolutions("upsample.0.0", genes.upsample[0][1], x)
    x = F.pixel_shuffle(x, round((x.shape[1] / 3) ** 0.5))
    return x + convolutions("tail.0", genes.tail[0][1], x)
