"""Networks of the kinds that others publish, trained for minutes: what the scoreboard measures besides files.

Each is of its paper's form, RGB in 0..1, without a clip at its end; `train` makes its float32 ONNX file, the
same for the same seed and the same versions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from calibration_networks import CACHE_MIB, OPSET, PATCH, TRAINING, Recipe
from calibration_networks import train as trained
from torch import Tensor, nn
from torch.nn import functional as F

from qnas.search.training.data import load_crops
from qnas.testing.sr_modules import Attention, Network, conv, export, quiet


def repeated(x: Tensor, scale: int) -> Tensor:
    """The nearest neighbour, `scale` times as large: what training starts from."""
    return F.interpolate(x, scale_factor=float(scale), mode="nearest")


class Fsrcnn(Network):
    """FSRCNN (Dong et al. 2016): 5x5, 1x1, four of 3x3, 1x1, each with a PReLU, and a transposed 9x9."""

    def __init__(self, scale: int, wide: int = 56, narrow: int = 12, mapping: int = 4) -> None:
        super().__init__(scale, clip=False)
        layers: list[nn.Module] = [conv(3, wide, 5), nn.PReLU(wide), conv(wide, narrow, 1), nn.PReLU(narrow)]
        for _ in range(mapping):
            layers += [conv(narrow, narrow), nn.PReLU(narrow)]
        self.body = nn.Sequential(*layers, conv(narrow, wide, 1), nn.PReLU(wide))
        self.up = nn.ConvTranspose2d(wide, 3, 9, scale, padding=4, output_padding=scale - 1)
        nn.init.normal_(self.up.weight, std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, 3, scale H, scale W]."""
        y: Tensor = self.up(self.body(x))
        return y


class Srvgg(Network):
    """SRVGGNetCompact of Real-ESRGAN: 3x3 convolutions with PReLUs, a pixel shuffle, the input is added."""

    def __init__(self, scale: int, channels: int = 32, depth: int = 8) -> None:
        super().__init__(scale, clip=False)
        layers: list[nn.Module] = [conv(3, channels), nn.PReLU(channels)]
        for _ in range(depth):
            layers += [conv(channels, channels), nn.PReLU(channels)]
        self.body = nn.Sequential(*layers, quiet(conv(channels, 3 * scale**2)))

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, 3, scale H, scale W]."""
        return F.pixel_shuffle(self.body(x), self.scale) + repeated(x, self.scale)


class Rlfn(Network):
    """RLFN (Kong et al. 2022): blocks of three 3x3 with leaky rectifiers, a skip and attention."""

    def __init__(self, scale: int, channels: int = 24, depth: int = 4) -> None:
        super().__init__(scale, clip=False)
        self.first, self.trunk = conv(3, channels), quiet(conv(channels, channels))
        self.blocks = nn.ModuleList(
            nn.ModuleList(conv(channels, channels) for _ in range(3)) for _ in range(depth)
        )
        self.ends = nn.ModuleList(
            nn.Sequential(conv(channels, channels, 1), Attention(channels)) for _ in range(depth)
        )
        self.last = quiet(conv(channels, 3 * scale**2))

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, 3, scale H, scale W]; images of 15 pixels or more."""
        first = y = self.first(x)
        for block, end in zip(self.blocks, self.ends, strict=True):
            refined = y
            for each in block:  # type: ignore[attr-defined]
                refined = F.leaky_relu(each(refined), 0.05)
            y = end(refined + y)
        return F.pixel_shuffle(self.last(self.trunk(y) + first), self.scale) + repeated(x, self.scale)


class LayerNorm(nn.Module):
    """Over the channels of each pixel, written out as NAFNet exports it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> the same shape."""
        centred = x - x.mean(1, keepdim=True)
        return self.weight * centred / (centred.pow(2).mean(1, keepdim=True) + 1e-6).sqrt() + self.bias


class NafBlock(nn.Module):
    """NAFNet's block (Chen et al. 2022): gates that are products of halves, channel attention, residuals."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 2 * channels
        self.norms = nn.ModuleList(LayerNorm(channels) for _ in range(2))
        self.widen, self.deep = conv(channels, wide, 1), conv(wide, wide, groups=wide)
        self.attention, self.joined = conv(channels, channels, 1), quiet(conv(channels, channels, 1))
        self.forwards, self.out = conv(channels, wide, 1), quiet(conv(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> the same shape."""
        a, b = self.deep(self.widen(self.norms[0](x))).chunk(2, 1)
        y = a * b
        y = x + self.joined(y * self.attention(F.adaptive_avg_pool2d(y, 1)))
        a, b = self.forwards(self.norms[1](y)).chunk(2, 1)
        z: Tensor = y + self.out(a * b)
        return z


class Naf(Network):
    """NAFSSR's single-image form: blocks between two convolutions, a pixel shuffle, the input is added."""

    def __init__(self, scale: int, channels: int = 24, depth: int = 4) -> None:
        super().__init__(scale, clip=False)
        blocks = (NafBlock(channels) for _ in range(depth))
        self.body = nn.Sequential(conv(3, channels), *blocks, quiet(conv(channels, 3 * scale**2)))

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, 3, scale H, scale W]."""
        return F.pixel_shuffle(self.body(x), self.scale) + repeated(x, self.scale)


class Edsr(Network):
    """EDSR-baseline (Lim et al. 2017), x2: residual blocks of two 3x3 without norms, and a long skip."""

    def __init__(self, scale: int, channels: int = 64, depth: int = 16) -> None:
        super().__init__(scale, clip=False)
        self.first, self.trunk = conv(3, channels), quiet(conv(channels, channels))
        self.blocks = nn.ModuleList(
            nn.Sequential(conv(channels, channels), nn.ReLU(), quiet(conv(channels, channels)))
            for _ in range(depth)
        )
        self.last = quiet(conv(channels, 3 * scale**2))

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, 3, scale H, scale W]."""
        first = y = self.first(x)
        for block in self.blocks:
            y = y + block(y)
        return F.pixel_shuffle(self.last(self.trunk(y) + first), self.scale) + repeated(x, self.scale)


@dataclass(frozen=True)
class Family:
    """A kind of network: `make` without weights, and how many steps train it."""

    make: Callable[[], Network]
    steps: int
    rate: float = 2e-3


FAMILIES = {
    "fsrcnn-x2": Family(lambda: Fsrcnn(2), 6000, 1e-3),
    "srvgg-x2": Family(lambda: Srvgg(2), 3000),
    "naf-x2": Family(lambda: Naf(2), 1200, 1e-3),
    "rlfn-x2": Family(lambda: Rlfn(2), 3000, 1e-3),
}


def train(name: str, target: Path, data: Path) -> Path:
    """Write `target`, an ONNX file whole or not at all: minutes on one thread."""
    family = FAMILIES[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = family.make()
    crops = load_crops(
        [data / each for each in TRAINING], network.scale, PATCH, CACHE_MIB, arithmetic="paper"
    )
    found = trained(Recipe(lambda clip: network, family.steps, family.rate), False, crops, family.steps)
    return export(found, target.with_suffix(".part"), OPSET).rename(target)
