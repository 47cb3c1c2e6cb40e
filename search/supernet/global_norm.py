"""Statistics over the batches of all processes, on any device (PyTorch's own batch norm wants GPUs)."""

import torch
from torch import Tensor

from qnas.quantization.image_gain import FactorForm
from qnas.search.supernet.world import World
from qnas.torch.deviation import Deviation
from qnas.torch.network import Affine


class GlobalAffine(Affine):
    """`Affine` whose statistics in training are those of the whole batch."""

    def __init__(self, channels: int, world: World) -> None:
        super().__init__(channels)
        self.world = world

    def forward(self, x: Tensor, input_scale: Tensor | None = None, gain: Tensor | None = None) -> Tensor:
        if not self.training:
            return super().forward(x, input_scale, gain)
        mean = self.world.differentiable_mean(x.mean((0, 2, 3)))
        centred = x - mean.view(1, -1, 1, 1)
        variance = self.world.differentiable_mean(centred.square().mean((0, 2, 3)))
        count = x.numel() // x.shape[1] * self.world.size
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum or 0.0)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum or 0.0)
        slope = self.weight / torch.sqrt(variance + self.eps)
        y = torch.addcmul(self.bias.view(1, -1, 1, 1), centred, slope.view(1, -1, 1, 1))
        return y if gain is None else y * gain


class GlobalDeviation(Deviation):
    """`Deviation` whose running factor is that of the whole batch."""

    def __init__(self, world: World, form: FactorForm) -> None:
        super().__init__(form)
        self.world = world

    def batch_mean(self, factor: Tensor) -> Tensor:
        return self.world.mean(super().batch_mean(factor))
