"""Batch norm over the batches of all processes, on any device (PyTorch's own wants a GPU)."""

import torch
from torch import Tensor
from torch.distributed.nn.functional import all_reduce

from qnas.network import Affine
from qnas.search.world import World


class GlobalAffine(Affine):
    """`Affine` whose statistics in training are those of the whole batch."""

    def __init__(self, channels: int, world: World) -> None:
        super().__init__(channels)
        self.world = world

    def forward(self, x: Tensor, input_scale: Tensor | None = None) -> Tensor:
        if not self.training:
            return super().forward(x, input_scale)
        moments = torch.stack((x.mean((0, 2, 3)), x.square().mean((0, 2, 3))))
        mean, square = all_reduce(moments) / self.world.size
        variance = square - mean.square()
        count = x.numel() // x.shape[1] * self.world.size
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum or 0.0)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum or 0.0)
        slope = self.weight / torch.sqrt(variance + self.eps)
        return x * slope.view(1, -1, 1, 1) + (self.bias - mean * slope).view(1, -1, 1, 1)
