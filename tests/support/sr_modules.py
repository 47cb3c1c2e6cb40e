"""Super-resolution networks as others write and export them: plain torch modules, float32 ONNX files.

All read and write RGB [N, 3, H, W] in 0..1; `in_grey_levels` makes the same network in 0..255. With `clip`
they end in the nominal range, each the way its paper does it; without, what they write is linear. At first
each about repeats the pixels (nearest neighbour): few steps train it, and untrained its output is an image
already, which leaves the nominal range in places.
"""

import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import version_converter
from torch import Tensor, nn
from torch.nn import functional as F

NEWEST = 20  # of torch's exporter without onnxscript; onnx converts to what is newer


class Network(nn.Module):
    """What all have: `scale`, `clip`, and the value of a white pixel."""

    def __init__(self, scale: int, clip: bool) -> None:
        super().__init__()
        self.scale, self.clip, self.white = scale, clip, 1.0

    def clipped(self, y: Tensor) -> Tensor:
        return torch.clamp(y, 0.0, self.white) if self.clip else y


class Abpn(Network):
    """Anchor-based plain net (Du et al. 2021): the input, s s times, is added before DepthToSpace."""

    def __init__(self, scale: int, channels: int, depth: int, clip: bool) -> None:
        super().__init__(scale, clip)
        self.first = conv(3, channels)
        self.body = nn.ModuleList(conv(channels, channels) for _ in range(depth - 2))
        self.last = quiet(conv(channels, 3 * scale**2))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first(x))
        for layer in self.body:
            y = F.relu(layer(y))
        return self.clipped(depth_to_space(self.last(y) + torch.cat([x] * self.scale**2, 1), self.scale))


class Xlsr(Network):
    """Extremely lightweight SR (Ayazoglu 2021): grouped convolutions, one concatenation, a clipped ReLU."""

    def __init__(self, scale: int, channels: int, depth: int, clip: bool) -> None:
        super().__init__(scale, clip)
        half = channels // 2
        self.lead = passing(conv(3, half), 3)
        self.first = conv(3, channels)
        self.grouped = nn.ModuleList(conv(channels, channels, groups=4) for _ in range(depth))
        self.mixing = nn.ModuleList(conv(channels, channels, 1) for _ in range(depth))
        self.narrow = conv(channels, half, 1)
        self.joined = passing(conv(2 * half, channels, 1), 3)
        self.last = repeating(conv(channels, 3 * scale**2), scale)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first(x))
        for grouped, mixing in zip(self.grouped, self.mixing, strict=True):
            y = F.relu(mixing(F.relu(grouped(y))))
        y = F.relu(self.joined(torch.cat([self.lead(x), self.narrow(y)], 1)))
        y = F.pixel_shuffle(self.last(y), self.scale)
        return torch.minimum(F.relu(y), torch.tensor(self.white)) if self.clip else y


class Espcn(Network):
    """Sub-pixel network (Shi et al. 2016), with ReLU: 5x5, 3x3, 3x3, PixelShuffle; clipped before it."""

    def __init__(self, scale: int, channels: int, clip: bool) -> None:
        super().__init__(scale, clip)
        self.first = passing(conv(3, channels, 5), 3)
        self.second = passing(conv(channels, channels // 2), 3)
        self.last = repeating(conv(channels // 2, 3 * scale**2), scale)

    def forward(self, x: Tensor) -> Tensor:
        y = self.last(F.relu(self.second(F.relu(self.first(x)))))
        return F.pixel_shuffle(self.clipped(y), self.scale)


class Attention(nn.Module):
    """Enhanced spatial attention (Liu et al. 2020): pooling, a bilinear resize, a sigmoid, a product."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(4, channels // 4)
        self.narrow = conv(channels, inner, 1)
        self.skip = conv(inner, inner, 1)
        self.strided = nn.Conv2d(inner, inner, 3, stride=2)
        self.pooled = conv(inner, inner)
        self.wide = conv(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        narrow = self.narrow(x)
        y = self.pooled(F.max_pool2d(self.strided(narrow), 7, 3))
        y = F.interpolate(y, x.shape[2:], mode="bilinear", align_corners=False)
        return x * torch.sigmoid(self.wide(y + self.skip(narrow)))


class DistillationBlock(nn.Module):
    """RFDB: three distilled and refined parts and a last one, joined by 1x1, then attention."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        part = channels // 2
        self.distilled = nn.ModuleList(conv(channels, part, 1) for _ in range(3))
        self.refined = nn.ModuleList(conv(channels, channels) for _ in range(3))
        self.rest = conv(channels, part)
        self.joined = conv(4 * part, channels, 1)
        self.attention = Attention(channels)

    def forward(self, x: Tensor) -> Tensor:
        parts = []
        y = x
        for distilled, refined in zip(self.distilled, self.refined, strict=True):
            parts.append(F.leaky_relu(distilled(y), 0.05))
            y = F.leaky_relu(refined(y) + y, 0.05)
        parts.append(F.leaky_relu(self.rest(y), 0.05))
        attended: Tensor = self.attention(self.joined(torch.cat(parts, 1)))
        return attended


class Rfdn(Network):
    """Residual feature distillation network (Liu et al. 2020); images of 15 pixels or more."""

    def __init__(self, scale: int, channels: int, depth: int, clip: bool) -> None:
        super().__init__(scale, clip)
        self.first = passing(conv(3, channels), 3)
        self.blocks = nn.ModuleList(DistillationBlock(channels) for _ in range(depth))
        self.joined = conv(depth * channels, channels, 1)
        self.trunk = quiet(conv(channels, channels))
        self.last = repeating(conv(channels, 3 * scale**2), scale)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        blocks = []
        y = first
        for block in self.blocks:
            y = block(y)
            blocks.append(y)
        y = self.trunk(F.leaky_relu(self.joined(torch.cat(blocks, 1)), 0.05)) + first
        return self.clipped(F.pixel_shuffle(self.last(y), self.scale))


class EveryOperation(Network):
    """x4, of all that a calibration has to know: no paper has this network."""

    def __init__(self, channels: int, clip: bool) -> None:
        super().__init__(4, clip)
        self.first, self.norm, self.prelu = conv(3, channels), nn.BatchNorm2d(channels), nn.PReLU(channels)
        self.pooled = conv(channels, channels, groups=channels)
        self.gate = conv(channels, channels, 1)
        self.joined = conv(2 * channels, channels, 1)
        self.up = nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1)
        self.last = quiet(conv(channels, 12))

    def forward(self, x: Tensor) -> Tensor:
        y = self.prelu(self.norm(self.first(x)))
        small = F.relu6(self.pooled(F.max_pool2d(y, 2)))
        wide = F.interpolate(small, scale_factor=2.0, mode="nearest")
        y = y * torch.sigmoid(self.gate(F.adaptive_avg_pool2d(y, 1)))
        y = F.leaky_relu(self.joined(torch.cat([y, wide], 1)), 0.1)
        y = by_hand(self.last(F.relu(self.up(y))), 2)
        return self.clipped(y + F.interpolate(x, scale_factor=4.0, mode="nearest"))


def abpn_like(clip: bool, channels: int = 8, depth: int = 4, scale: int = 3, seed: int = 0) -> Abpn:
    """`depth` 3x3 convolutions in all; a Clip behind DepthToSpace (DCR)."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Abpn(scale, channels, depth, clip).eval()


def xlsr_like(clip: bool, channels: int = 16, depth: int = 2, scale: int = 3, seed: int = 0) -> Xlsr:
    """`depth` grouped convolutions; Relu and Min behind DepthToSpace (CRD)."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Xlsr(scale, channels, depth, clip).eval()


def espcn(clip: bool, channels: int = 16, scale: int = 4, seed: int = 0) -> Espcn:
    """Three convolutions; a Clip before DepthToSpace (CRD)."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Espcn(scale, channels, clip).eval()


def rfdn_like(clip: bool, channels: int = 8, depth: int = 1, scale: int = 4, seed: int = 0) -> Rfdn:
    """`depth` blocks with attention; a Clip behind DepthToSpace (CRD)."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Rfdn(scale, channels, depth, clip).eval()


def every_operation(clip: bool = True, channels: int = 8, seed: int = 0) -> EveryOperation:
    """Images of even sides; batch norm with statistics that matter; a Clip behind an Add."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = EveryOperation(channels, clip).eval()
        made.norm.running_mean.normal_(0, 0.1)
        made.norm.running_var.uniform_(0.1, 0.5)
        nn.init.uniform_(made.prelu.weight, 0.05, 0.5)
        return made


def in_grey_levels(network: Abpn) -> Abpn:
    """Changes `network` so that it reads and writes 0..255 and else is the same function."""
    with torch.no_grad():
        network.first.weight /= 255
        network.last.weight *= 255
        network.last.bias *= 255
    network.white = 255.0
    return network


def export(module: nn.Module, path: Path, opset: int = 17, size: tuple[int, int] | None = None) -> Path:
    """Writes the ONNX file that torch makes, for images [N, 3, H, W] of any size or of one `size` (H, W)."""
    axes = {0: "n", 2: "h", 3: "w"} if size is None else {}
    arguments: dict[str, Any] = {"input_names": ["input"], "output_names": ["output"], "dynamo": False}
    if axes:
        arguments["dynamic_axes"] = {"input": axes, "output": {0: "n", 2: "oh", 3: "ow"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own: deprecated, and constants of the trace
        image = torch.rand(1, 3, *(size or (32, 40)))
        torch.onnx.export(module, (image,), str(path), opset_version=min(opset, NEWEST), **arguments)
    if opset > NEWEST:
        onnx.save(version_converter.convert_version(onnx.load(path), opset), path)
    return path


def conv(read: int, write: int, kernel: int = 3, groups: int = 1) -> nn.Conv2d:
    layer = nn.Conv2d(read, write, kernel, padding=kernel // 2, groups=groups)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")  # torch's own lets a plain net's signal die
    nn.init.zeros_(layer.bias)
    return layer


def quiet(layer: nn.Conv2d) -> nn.Conv2d:
    """Of a fiftieth of the weights."""
    with torch.no_grad():
        layer.weight *= 0.02
    return layer


def passing(layer: nn.Conv2d, channels: int) -> nn.Conv2d:
    """Its first `channels` outputs are its first inputs."""
    with torch.no_grad():
        layer.weight[:channels] = 0
        layer.bias[:channels] = 0
        for channel in range(channels):
            layer.weight[channel, channel, layer.weight.shape[2] // 2, layer.weight.shape[3] // 2] = 1
    return layer


def repeating(layer: nn.Conv2d, scale: int) -> nn.Conv2d:
    """With PixelShuffle behind it, about the nearest neighbour of its first three inputs."""
    quiet(layer)
    with torch.no_grad():
        for channel in range(3 * scale**2):
            layer.weight[channel, channel // scale**2, 1, 1] += 1
    return layer


def by_hand(x: Tensor, scale: int) -> Tensor:
    """[N, s s C, H, W] -> [N, C, s H, s W], the block first in the channels: Reshape, Transpose, Reshape."""
    n, c, h, w = x.shape
    inner = c // scale**2
    blocks = x.reshape(n, scale, scale, inner, h, w).permute(0, 3, 4, 1, 5, 2)
    return blocks.reshape(n, inner, h * scale, w * scale)


class _DepthToSpace(torch.autograd.Function):
    """`by_hand`, and one node DepthToSpace (DCR) in an ONNX file: torch itself only writes CRD."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: int) -> Tensor:
        return by_hand(x, scale)

    @staticmethod
    def symbolic(g: Any, x: Any, scale: int) -> Any:
        return g.op("DepthToSpace", x, blocksize_i=scale, mode_s="DCR")


def depth_to_space(x: Tensor, scale: int) -> Tensor:
    """DCR, as TensorFlow has it."""
    if torch.onnx.is_in_onnx_export():
        written: Tensor = _DepthToSpace.apply(x, scale)
        return written
    return by_hand(x, scale)
