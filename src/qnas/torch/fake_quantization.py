"""Quantizers that gradients pass through: straight-through rounding, LSQ, HWGQ with a learned step."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qnas.quantization.lloyd import lloyd_table
from qnas.quantization.quantizers import SMALLEST_SCALE, QuantSpec, StepRule, initial_step


def straight_through(value: Tensor, source: Tensor) -> Tensor:
    """`value` exactly, with the gradient of `source`."""
    return value.detach() + (source - source.detach())


def snap_scale(scale: Tensor, bits: int) -> Tensor:
    """`qnas.quantization.quantizers.snap_scale` with a straight-through gradient. Any shape."""
    mantissa, exponent = torch.frexp(scale.detach().clamp(min=SMALLEST_SCALE))
    return straight_through(torch.ldexp(torch.round(mantissa * 2**bits) / 2**bits, exponent), scale)


def lsq(weight: Tensor, scale: Tensor, spec: QuantSpec) -> Tensor:
    """LSQ fake quantization (Esser et al., ICLR 2020, eq. 1 to 3). Weight [C, ...], scale [C] -> [C, ...].

    Gradient to the weight passes inside the range; to the scale it is multiplied by 1 / sqrt(numel * q_max).
    """
    factor = (weight.numel() * spec.high) ** -0.5
    return lsq_grid(weight, scale.view(-1, *[1] * (weight.ndim - 1)), spec.low, spec.high, factor)


def lsq_grid(
    weight: Tensor, scale: Tensor, low: Tensor | int, high: Tensor | int, factor: Tensor | float
) -> Tensor:
    """Weights of any shape on the grids `scale * low .. scale * high`, all arguments broadcast.

    The gradient of the scale is multiplied by `factor`.
    """
    scale = straight_through(scale, scale * factor)
    steps = (weight / scale).clamp(low, high)  # type: ignore[arg-type] # either kind, both alike
    return straight_through(torch.round(steps), steps) * scale


class _FakeQuantize(torch.autograd.Function):
    """Per-tensor fake quantization with LSQ's gradients, in few passes over memory.

    Dividing by the scale is exact where that is a power of two, and what the paper's code does elsewhere.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: int, high: int, shifts: Tensor | None) -> Tensor:
        y = (x / scale).round_().clamp_(low, high)
        if shifts is not None:
            y += shifts[y.byte().long()]  # a sum keeps the NaN that a byte cannot hold
        y.mul_(scale)
        ctx.save_for_backward(x, y, scale)
        ctx.low, ctx.high = low, high
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, y, scale = ctx.saved_tensors
        step = float(scale)
        most = torch.finfo(x.dtype).max  # ends beyond it are no numbers of x, and nothing lies beyond them
        low, high = max(ctx.low * step, -most), min(ctx.high * step, most)
        grad_x = torch.ops.aten.hardtanh_backward(grad, x, low, high)
        grad_scale = None
        if ctx.needs_input_grad[1]:  # sum of grad * (round(v) - v) inside, grad * (low or high) outside
            factor = (x.numel() * ctx.high) ** -0.5
            grad_scale = ((grad * y).sum() - (grad_x * x).sum()) * (factor / step)
        return grad_x, grad_scale, None, None, None


class Quantizer(nn.Module):
    """Puts a tensor [N, C, H, W] on the grid of `spec`; `shared` borrows another quantizer's scale.

    The learned `step` is snapped to a power of two at every use, which also keeps the scale positive and
    finite. It starts at the HWGQ optimum of a unit Gaussian; the rule `calibrating` replaces that by data.
    """

    def __init__(self, spec: QuantSpec, shared: "Quantizer | None" = None) -> None:
        super().__init__()
        self.spec = spec
        self.calibrating: StepRule | None = None
        self._shared = (shared,)  # in a tuple: a borrowed module is not a child
        if spec.scale is None and shared is None:
            self.step = nn.Parameter(torch.tensor(initial_step(spec)))
        shifts = None
        if spec.levels == "lloyd":
            shifts = torch.from_numpy(lloyd_table(spec.bits) - np.arange(256)).float()
        self.shifts: Tensor | None  # [256], from every q to its level
        self.register_buffer("shifts", shifts, persistent=False)

    def scale(self) -> Tensor:
        """The power of two in use, []."""
        if self._shared[0] is not None:
            return self._shared[0].scale()
        if self.spec.scale is not None:
            return torch.tensor(self.spec.scale)
        return snap_scale(self.step, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.calibrating and hasattr(self, "step"):
            sample = x.detach().flatten()
            sample = sample[:: max(1, sample.numel() // 65536)]
            with torch.no_grad():
                self.step.fill_(self.calibrating(sample.float().cpu().numpy(), self.spec))
        scale = self.scale().to(x.device)
        low, high = self.spec.low, self.spec.high
        result: Tensor = _FakeQuantize.apply(x, scale, low, high, self.shifts)  # type: ignore[no-untyped-call]
        return result
