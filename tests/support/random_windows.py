"""Random super-resolution networks x2 of windows, borders, crops and resizes, as torch exports them."""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHANNELS = 8


def near_identity(read: int, write: int, kernel: int, gain: float = 1, **options: object) -> nn.Conv2d:
    """A convolution whose middle taps pass channels on times `gain`, with some noise."""
    layer = nn.Conv2d(read, write, kernel, **options)  # type: ignore[arg-type]
    with torch.no_grad():
        layer.weight.normal_(0, 0.2 / (kernel * read**0.5))
        for o in range(write):
            layer.weight[o, o * read // write, (kernel - 1) // 2, (kernel - 1) // 2] += 1
        layer.weight *= gain
        layer.bias.zero_()  # type: ignore[union-attr]
    return layer


class SideBySide(nn.Module):
    """x + 0.2 f(x), where f changes the size on its way and comes back to that of x."""

    def __init__(self) -> None:
        super().__init__()
        self.last = near_identity(CHANNELS, CHANNELS, 1, 0.2)

    def cut(self, y: Tensor, x: Tensor) -> Tensor:
        """As many rows and columns of y as x has."""
        return y[:, :, : x.shape[2], : x.shape[3]]

    def way(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return x + self.last(self.cut(self.way(x), x))


class Padded(SideBySide):
    """A dilated convolution behind a padding that differs from side to side, or padded by itself."""

    def __init__(self, r: random.Random) -> None:
        super().__init__()
        self.kernel, self.dilation = r.choice([2, 3, 4]), r.choice([1, 2])
        self.mode = r.choice(["constant", "reflect", "replicate"])
        reach = (self.kernel - 1) * self.dilation
        left, top = r.randint(0, reach), r.randint(0, reach)
        self.sides = (left, reach - left, top, reach - top)
        self.conv = near_identity(CHANNELS, CHANNELS, self.kernel, dilation=self.dilation)

    def way(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(F.pad(x, self.sides, self.mode)))


class Strided(SideBySide):
    """A strided convolution, and back by nearest or bilinear resizing or a shuffle."""

    def __init__(self, r: random.Random) -> None:
        super().__init__()
        self.back = r.choice(["nearest", "bilinear", "repeat", "shuffle"])
        self.stride = 2 if self.back in ("repeat", "shuffle") else r.choice([2, 3, (1, 2), (2, 3)])
        self.down = near_identity(CHANNELS, CHANNELS, 3, stride=self.stride, padding=1)
        self.up = near_identity(CHANNELS, 4 * CHANNELS, 1)

    def way(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.down(x), 0.1)
        if self.back == "shuffle":
            return F.pixel_shuffle(self.up(y), 2)
        if self.back == "repeat":
            return F.interpolate(y, scale_factor=2, mode="nearest")
        if self.back == "nearest":
            return F.interpolate(y, size=x.shape[2:], mode="nearest")
        return F.interpolate(y, size=x.shape[2:], mode="bilinear", align_corners=False)


class Pooled(SideBySide):
    """A pool with padding, or one that rounds up, and back."""

    def __init__(self, r: random.Random) -> None:
        super().__init__()
        self.kind, self.kernel = r.choice(["max", "mean", "max up", "half"]), r.choice([3, 5])
        self.conv = near_identity(CHANNELS, CHANNELS, 1)

    def way(self, x: Tensor) -> Tensor:
        if self.kind == "max":
            y = F.max_pool2d(x, self.kernel, 1, self.kernel // 2)
        elif self.kind == "mean":
            y = F.avg_pool2d(x, self.kernel, 1, self.kernel // 2)
        else:
            y = F.max_pool2d(x, 2, ceil_mode=True)
            y = F.interpolate(y, size=x.shape[2:], mode="nearest")
        return F.relu(self.conv(y))


class Unpadded(nn.Module):
    """A convolution that leaves out a border, and as much of what it reads."""

    def __init__(self, r: random.Random) -> None:
        super().__init__()
        self.conv = near_identity(CHANNELS, CHANNELS, 3, 0.2)

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, 1:-1, 1:-1] + self.conv(x)


class Shifted(nn.Module):
    """Rows and columns cut off at the ends, and repeated edges in their place."""

    def __init__(self, r: random.Random) -> None:
        super().__init__()
        self.top, self.right = r.randint(1, 3), r.randint(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, self.top :, : -self.right], (0, self.right, self.top, 0), mode="replicate")


BLOCKS = (Padded, Strided, Pooled, Unpadded, Shifted)


class RandomWindows(nn.Module):
    """Two to four such blocks between a convolution and a pixel shuffle, for images of any size.

    `deep`: the image is padded to a multiple of 2 first, its pixels become channels, and the output is cut.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        r = random.Random(seed)
        self.deep = r.random() < 0.25
        self.multiple = r.choice([2, 4, 8])
        self.head = near_identity(12 if self.deep else 3, CHANNELS, 3, padding=1)
        kinds = [r.choice(BLOCKS[:3] if self.deep else BLOCKS) for _ in range(r.randint(2, 4))]
        self.blocks = nn.Sequential(*(kind(r) for kind in kinds))
        self.tail = near_identity(CHANNELS, 48 if self.deep else 12, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        x, (height, width) = image, image.shape[2:]
        if self.deep:
            rows, columns = (-side % self.multiple for side in (height, width))
            x = F.pixel_unshuffle(F.pad(x, (0, columns, 0, rows), mode="reflect"), 2)
        y = F.pixel_shuffle(self.tail(self.blocks(self.head(x))), 4 if self.deep else 2)
        return y[:, :, : 2 * height, : 2 * width] if self.deep else y
