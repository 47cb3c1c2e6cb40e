"""Where a search step's noise comes from: one seed for a step, whatever the number of processes."""

import torch
from torch import Tensor

from qnas.search.supernet.world import World


class StepNoise:
    """Draws of one forward pass, in its order: the same in every process, for its own part of a batch."""

    def __init__(self, seed: int, device: torch.device, world: World) -> None:
        self.generator = torch.Generator(device).manual_seed(seed)
        self.world = world

    def draw(self, weight: Tensor) -> Tensor:
        """Standard normal, of the shape of `weight`."""
        return torch.randn(weight.shape, generator=self.generator, device=weight.device)

    def draw_image(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Standard normal [1, C, H, W] channels last, for x [N, C, H, W]; -1 or 1 for each, [N, 1, 1, 1]."""
        n, c, h, w = x.shape
        z = torch.randn((1, h, w, c), generator=self.generator, device=x.device).permute(0, 3, 1, 2)
        whole = self.signs(x.new_empty(n * self.world.size, 1, 1, 1))
        return z, whole[n * self.world.rank : n * (self.world.rank + 1)]

    def signs(self, like: Tensor) -> Tensor:
        """-1 or 1 with equal probability, of the shape of `like`."""
        bits = torch.randint(0, 2, like.shape, generator=self.generator, device=like.device)
        return 2.0 * bits - 1.0

    def span(self, x: Tensor) -> Tensor:
        """Largest minus smallest value of the whole batch, []."""
        low, high = x.detach().permute(0, 2, 3, 1).aminmax()  # in the order of memory: no copy
        return self.world.largest(torch.stack((high, -low))).sum()
