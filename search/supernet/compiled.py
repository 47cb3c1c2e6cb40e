"""A mixture of quantized forms of one tensor as one compiled pass over memory, and one for its gradients."""

import os
import shutil
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from qnas.errors import UsageError

Bounds = Sequence[tuple[int, int] | None]  # of the integers of each bit width; None: not quantized


def check_compiler() -> None:
    """Raises UsageError where torch has nothing to compile with."""
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        raise UsageError("--compile needs a C++ compiler: install g++, or leave --compile out")


def quantized_mixture(x: Tensor, scales: Tensor, shares: Tensor, bounds: Bounds) -> Tensor:
    """`sum_b shares[b] Q_b(x)`: x [N, C, H, W], scales [B], shares [B].

    Gradients as those of the quantizers one by one: straight through inside the bounds, none to the scales.
    """
    n, c, h, w = x.shape
    flat = x.permute(0, 2, 3, 1).reshape(-1)  # in the order of memory: one kernel for all shapes
    mixture: Tensor = _Mixture.apply(flat, scales, shares, tuple(bounds))  # type: ignore[no-untyped-call]
    return mixture.view(n, h, w, c).permute(0, 3, 1, 2)


class _Mixture(torch.autograd.Function):
    """Autograd of a compiled function would save masks for some inputs, which costs more than the pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scales: Tensor, shares: Tensor, bounds: Bounds) -> Tensor:
        ctx.save_for_backward(x, scales, shares)
        ctx.bounds = bounds
        y: Tensor = _compiled(_mixed)(x, scales, shares, bounds)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_x, grad_shares = _compiled(_gradients)(grads[0], *ctx.saved_tensors, ctx.bounds)
        return grad_x, None, grad_shares, None


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function, dynamic=True)


def _levels(x: Tensor, scale: Tensor, bounds: tuple[int, int] | None) -> Tensor:
    """x at one bit width."""
    return x if bounds is None else torch.round(x / scale).clamp(*bounds) * scale


def _mixed(x: Tensor, scales: Tensor, shares: Tensor, bounds: Bounds) -> Tensor:
    return sum(
        (_levels(x, scale, each) * share for scale, share, each in zip(scales, shares, bounds, strict=True)),
        torch.zeros_like(x),
    )


def _gradients(
    grad: Tensor, x: Tensor, scales: Tensor, shares: Tensor, bounds: Bounds
) -> tuple[Tensor, Tensor]:
    """The gradients of x, and of the shares."""
    slope, own = torch.zeros_like(x), []
    for scale, share, each in zip(scales, shares, bounds, strict=True):
        inside = True if each is None else (x > each[0] * scale) & (x < each[1] * scale)
        slope = slope + share * inside
        own.append((grad * _levels(x, scale, each)).sum())
    return grad * slope, torch.stack(own)
