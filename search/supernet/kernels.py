"""The weights of convolutions that are added up, mixed over bit widths."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from qnas.network.operations import ConvShape
from qnas.quantization.quantizers import FLOAT_BITS, WEIGHT_SCALE_BITS, weight_spec
from qnas.search.supernet.bit_mixing import Basis, Exact, Mixer, Noise, Noisy, Quantized, noise_deltas
from qnas.torch.fake_quantization import lsq_grid, snap_scale

MIXING = 2.0  # what mixing an input costs, in MACs of each weight of a 1x1 convolution


def largest_kernel(shapes: Sequence[ConvShape]) -> tuple[int, int]:
    """(height, width) of what all of the kernels fit into."""
    return max(shape.kernel[0] for shape in shapes), max(shape.kernel[1] for shape in shapes)


class Kernels(nn.Module):
    """Weights [S, O, I, kh, kw] of S convolutions of one layer, each in the middle of the largest kernel.

    A `mask` [S, O, I, kh, kw] holds what of that belongs to a smaller kernel, or to groups, in place. Each
    bit width has its own LSQ scales [S, O]; `independent` weights are sets of their own as well.
    """

    def __init__(self, shapes: Sequence[ConvShape], bits: tuple[int, ...], mixer: Mixer) -> None:
        super().__init__()
        self.shapes, self.bits, self.mixer = tuple(shapes), bits, mixer
        first = shapes[0]
        self.kernel = largest_kernel(shapes)
        masks = torch.stack([self._mask(shape) for shape in shapes])
        self.mask: Tensor
        self.register_buffer("mask", masks, persistent=False)
        self.dense = bool(masks.all())
        weight = torch.zeros(len(shapes), first.out_channels, first.in_channels, *self.kernel)
        for index, shape in enumerate(shapes):
            fan_in = shape.in_channels // shape.groups * shape.kernel[0] * shape.kernel[1]
            weight[index].normal_(std=(2 / fan_in) ** 0.5).mul_(masks[index])
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(len(shapes), first.out_channels))
        self.quantized_bits = tuple(b for b in bits if b < FLOAT_BITS)
        counts = torch.tensor([float(mask[0].sum()) for mask in masks])  # weights of an output channel
        self.counts: Tensor
        self.register_buffer("counts", counts, persistent=False)
        if mixer != "san" and self.quantized_bits:
            specs = [weight_spec(b) for b in self.quantized_bits]
            self.lows: Tensor
            self.highs: Tensor
            for name, ends in (("lows", [s.low for s in specs]), ("highs", [s.high for s in specs])):
                self.register_buffer(
                    name, torch.tensor(ends).float().view(-1, 1, 1, 1, 1, 1), persistent=False
                )
            self.scale = nn.Parameter(torch.empty(len(specs), *weight.shape[:2]))
            self.reset_scale()

    def _mask(self, shape: ConvShape) -> Tensor:
        """[O, I, kh, kw]: where the weights of one convolution stand."""
        mask = torch.zeros(shape.out_channels, shape.in_channels, *self.kernel)
        (kh, kw), outs, ins = (
            shape.kernel,
            shape.out_channels // shape.groups,
            shape.in_channels // shape.groups,
        )
        top, left = (self.kernel[0] - kh) // 2, (self.kernel[1] - kw) // 2
        for g in range(shape.groups):
            mask[g * outs : (g + 1) * outs, g * ins : (g + 1) * ins, top : top + kh, left : left + kw] = 1
        return mask

    def shrink(self, factor: float) -> None:
        """Multiply all weights."""
        with torch.no_grad():
            self.weight.mul_(factor)
        self.reset_scale()

    def reset_scale(self) -> None:
        """LSQ's initial scale for the present weights, 2 mean|w| / sqrt(q_max) of each output channel."""
        if hasattr(self, "scale"):
            with torch.no_grad():
                mean = self.weight.abs().sum((2, 3, 4)) / self.counts.view(-1, 1)
                self.scale.copy_(2 * mean / self.highs.view(-1, 1, 1).sqrt())

    def joined_is_less(self, tensors: int) -> bool:
        """Whether one kernel for each of so many tensors multiplies less than each convolution by itself.

        Tensors of one image, for a batch of many, do not count.
        """
        alone = sum(s.kernel[0] * s.kernel[1] / s.groups + MIXING for s in self.shapes)
        return len(self.shapes) > 1 and tensors * self.kernel[0] * self.kernel[1] <= alone

    def basis(self, noise: Noise) -> Basis:
        """The stack of weights, [S, O, I, kh, kw]; nothing stands outside the mask."""
        weight = self.weight if self.dense else self.weight * self.mask
        if not self.quantized_bits:
            return Exact(weight)
        if self.mixer == "san":
            low, high = weight.detach().flatten(1).aminmax(dim=1)
            drawn = noise.draw(weight)
            return Noisy(
                weight, drawn if self.dense else drawn * self.mask, noise_deltas(high - low, self.bits)
            )
        grids = dict(zip(self.quantized_bits, self._lsq(weight), strict=True))
        return Quantized([grids.get(b, weight) for b in self.bits])

    def _lsq(self, weight: Tensor) -> Tensor:
        """The weights at every bit width, [B, S, O, I, kh, kw]."""
        factor = (self.counts.view(1, -1, 1) * weight.shape[1] * self.highs.view(-1, 1, 1)) ** -0.5
        scale = snap_scale(self.scale, WEIGHT_SCALE_BITS)[..., None, None, None]
        return lsq_grid(weight, scale, self.lows, self.highs, factor[..., None, None, None])

    def mixed(self, shares: Tensor, noise: Noise) -> Tensor:
        """Shares [S, B] of the bit widths of each convolution -> [S, O, I, kh, kw]."""
        basis = self.basis(noise)
        if len(basis.tensors) == 1:
            return basis.tensors[0]
        return torch.einsum("sj,jsoikl->soikl", basis.weights(shares), torch.stack(basis.tensors))

    def own(self, mixed: Tensor, index: int) -> Tensor:
        """Convolution `index` of `mixed` at its own size, [O, I / groups, kh, kw]."""
        shape, kernel = self.shapes[index], mixed[index]
        top, left = ((big - small) // 2 for big, small in zip(self.kernel, shape.kernel, strict=True))
        kernel = kernel[:, :, top : top + shape.kernel[0], left : left + shape.kernel[1]]
        if shape.groups == 1:
            return kernel
        outs, ins = shape.out_channels // shape.groups, shape.in_channels // shape.groups
        rows = [kernel[g * outs : (g + 1) * outs, g * ins : (g + 1) * ins] for g in range(shape.groups)]
        return torch.cat(rows)
