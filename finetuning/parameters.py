"""What of an integer network is trained: weights with their scales and biases, and the scales of some grids.

Parameters count in units of their own, so that one learning rate serves networks of any size: weights in the
root mean square of their channel, biases in quarters of the range that is written, scales as logarithms of
what they began with.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qnas.finetuning.rounding import rounded
from qnas.integer.convolution import Conv, accumulator_bounds
from qnas.integer.network import INT32_MAX
from qnas.quantization.quantizers import QuantParams

ENDS = {8: (-127, 127), 4: (-8, 7)}
ROOM = 2**26  # sums beyond this come of a bias without weights: such channels stay as they are
MOST = 1.5  # of the logarithm of how much larger or smaller a scale becomes
Number = TypeVar("Number", bound=np.generic)
NEAR = 0.49  # of a step: what an integer can have been before it was rounded


class GridScale(nn.Module):
    """The scale [] of a grid, learned."""

    start: Tensor

    def __init__(self, grid: QuantParams) -> None:
        super().__init__()
        self.register_buffer("start", torch.tensor(float(grid.scale)), persistent=False)
        self.log_step = nn.Parameter(torch.zeros(()))

    def forward(self) -> Tensor:
        """float32 []."""
        scale: Tensor = self.start * self.log_step.clamp(-MOST, MOST).exp()
        return scale


class TrainedConv(nn.Module):
    """Weights and biases of `node`, which reads the grid `read` as it is at first.

    `real` [O, I / groups, kh, kw]: the weights before they were rounded, as far as they are known. Integers
    begin as those of `node`.
    """

    scale: Tensor
    unit: Tensor
    free: Tensor  # 1 for the channels that are trained, else 0
    bias_start: Tensor
    fixed: Tensor

    def __init__(self, node: Conv, read: QuantParams, real: NDArray[np.float32]) -> None:
        super().__init__()
        self.node, (self.low, self.high) = node, ENDS[node.bits]
        scale = node.weight_scale.astype(np.float64)
        steps = np.clip(real / _along(scale), node.weight - NEAR, node.weight + NEAR)
        unit = np.sqrt(np.square(steps).reshape(len(steps), -1).mean(axis=1)) * scale
        reach = (node.output.high - node.output.low) * float(node.output.scale) / 4
        wide = read.is_wide or node.output.is_wide  # their sums have 64 bits, and biases 32
        largest = np.abs(node.bias.astype(np.int64)) if wide else accumulator_bounds(node, read)
        free = (unit > 0) & (largest < ROOM) & (reach < ROOM * float(read.scale) * scale)
        values = np.divide(steps * _along(scale), _along(unit), out=np.zeros_like(steps), where=_along(free))
        bias = node.bias * (float(read.scale) * scale)
        for name, each in (("scale", scale), ("unit", unit), ("free", free), ("bias_start", bias)):
            self.register_buffer(name, torch.from_numpy(np.array(each, np.float32)), persistent=False)
        self.register_buffer("fixed", torch.from_numpy(node.weight.astype(np.float32)), persistent=False)
        self.reach = reach
        self.value = nn.Parameter(torch.from_numpy(values.astype(np.float32)))
        self.log_scale = nn.Parameter(torch.zeros(len(scale)))
        self.bias = nn.Parameter(torch.zeros(len(scale)))

    def scales(self) -> Tensor:
        """Return the scales of the weights, float32 [O]."""
        scale: Tensor = self.scale * (self.log_scale * self.free).clamp(-MOST, MOST).exp()
        return scale

    def weights(self) -> Tensor:
        """Whole steps [O, I / groups, kh, kw]."""
        free = _column(self.free, self.value)
        steps = self.value * _column(self.unit / self.scales(), self.value)
        return torch.where(free > 0, rounded(steps, self.low, self.high), self.fixed)

    def biases(self, read_scale: Tensor) -> Tensor:
        """Whole steps [O] of `read_scale` times those of the weights."""
        values = self.bias_start.double() + (self.bias * self.free).double() * self.reach
        steps = values / (read_scale.double() * self.scales().double())
        return rounded(steps, -INT32_MAX, INT32_MAX)

    def trained(self, read_scale: Tensor) -> Conv:
        """The node with its integers of now."""
        with torch.no_grad():
            arrays = [each.cpu().numpy() for each in (self.weights(), self.scales(), self.biases(read_scale))]
        weight, scale, bias = arrays
        return replace(
            self.node, weight=weight.astype(np.int8), weight_scale=scale.astype(np.float32),
            bias=bias.astype(np.int32),
        )  # fmt: skip


def _along(channels: NDArray[Number]) -> NDArray[Number]:
    """[O] -> [O, 1, 1, 1]."""
    return channels.reshape(-1, 1, 1, 1)


def _column(channels: Tensor, like: Tensor) -> Tensor:
    """[O] -> [O, 1, ...]."""
    return channels.view(-1, *[1] * (like.ndim - 1))
