"""Roundings that gradients pass through, exact in their values."""

from typing import Any

import torch
from torch import Tensor

from qnas.quantization.quantizers import QuantParams


class _Rounded(torch.autograd.Function):
    """`clamp(round_half_even(x), low, high)`; the gradient passes where nothing is cut off."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: int, high: int) -> Tensor:
        whole = x.round()
        ctx.save_for_backward((whole >= low) & (whole <= high))
        return whole.clamp_(low, high)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (kept,) = ctx.saved_tensors
        return grad * kept, None, None


class _LookedUp(torch.autograd.Function):
    """`table[index]`, whose gradient is that of `slope[index]`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, table: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(slope[index])
        return table[index].to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (slope,) = ctx.saved_tensors
        return grad * slope, None, None, None


def rounded(x: Tensor, low: int, high: int) -> Tensor:
    """The nearest whole numbers in [low, high], ties to even. Any shape."""
    found: Tensor = _Rounded.apply(x, low, high)  # type: ignore[no-untyped-call]
    return found


def on_grid(steps: Tensor, grid: QuantParams) -> Tensor:
    """Real steps of `grid` -> whole ones, counted from its zero point, as `requantization.rounded` has them.

    Any shape; computed in float32, in the type of `steps`.
    """
    low, high = grid.low - grid.zero_point, grid.high - grid.zero_point
    return rounded(steps.float(), low, high).to(steps.dtype)


def looked_up(x: Tensor, index: Tensor, table: Tensor, slope: Tensor) -> Tensor:
    """`table[index]` with the gradient `slope[index]` for x; `index` has the shape of x."""
    found: Tensor = _LookedUp.apply(x, index, table, slope)  # type: ignore[no-untyped-call]
    return found
