"""What each class of integer node computes, in torch: the values of `qnas.integer.nodes` with gradients.

Tensors [N, C, H, W] hold whole steps from the zero point of their grid, in float32 while a network is trained
and in float64, where all sums are exact, in `eval()`. A rounding is done in float32, as it is defined.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from qnas.finetuning.parameters import TrainedConv
from qnas.finetuning.rounding import looked_up, on_grid
from qnas.integer import nodes
from qnas.integer.convolution import Conv
from qnas.integer.crops import Crop, CropTo, Nearest, nearest_places
from qnas.integer.interpolation import STEPS, interpolation_steps
from qnas.quantization.quantizers import QuantParams


@dataclass(frozen=True, eq=False)
class Steps:
    """A tensor `x` [N, C, H, W] of whole steps of `scale` [], and the grid that they are on."""

    x: Tensor
    scale: Tensor
    grid: QuantParams


Form = Callable[[nodes.IntegerNode, Sequence[Steps], Tensor, TrainedConv | None], Tensor]
# (node, what it reads, the scale of what it writes, its parameters) -> whole steps


def convolved(node: Conv, reads: Sequence[Steps], scale: Tensor, own: TrainedConv | None) -> Tensor:
    """Sums, requantized by `float32(s_x * s_w) / s_y`."""
    read = reads[0]
    x = read.x
    if own is None:
        weight, bias, scales = (
            torch.from_numpy(each).to(x) for each in (node.weight, node.bias, node.weight_scale)
        )
    else:
        weight, bias, scales = own.weights(), own.biases(read.scale), own.scales()
    top, left, bottom, right = node.padding
    if node.padding[:2] == node.padding[2:]:
        around = (top, left)
    else:
        x, around = F.pad(x, (left, right, top, bottom)), (0, 0)
    sums = F.conv2d(x, weight.to(x), bias.to(x), node.stride, around, node.dilation, node.groups)
    factor = read.scale * scales.float() / scale
    return on_grid(_times(sums, factor.view(-1, 1, 1)), node.output)


def added(node: nodes.Add, reads: Sequence[Steps], scale: Tensor, own: TrainedConv | None) -> Tensor:
    """Both as real values, in float32."""
    a, b = (each.scale * each.x.float() for each in reads)
    return on_grid((a + b) / scale, node.output).to(reads[0].x.dtype)


def multiplied(
    node: nodes.Multiply, reads: Sequence[Steps], scale: Tensor, own: TrainedConv | None
) -> Tensor:
    """A product of steps, requantized; [N, C, H, W] times the same or [N, C, 1, 1]."""
    a, b = reads
    product, factor = a.x * b.x, a.scale * (b.scale * float(node.gain))
    if a.grid.is_wide or b.grid.is_wide or node.output.is_wide:
        return on_grid((product.float() * factor) / scale, node.output).to(product.dtype)
    return on_grid(_times(product, factor / scale), node.output)


def averaged(node: nodes.Mean, reads: Sequence[Steps], scale: Tensor, own: TrainedConv | None) -> Tensor:
    """Rounded as a distance from the middle integer."""
    x, grid, middle = reads[0].x, node.output, node.middle
    less = middle.zero_point - grid.zero_point  # of the steps from the middle
    sums = x.sum(dim=(2, 3), keepdim=True) - float(less * x[0, 0].numel())
    factor = torch.tensor(np.float32(1) / np.float32(x[0, 0].numel()), device=x.device)
    return on_grid(_times(sums, factor), middle) + less


def tabulated(node: nodes.Table, reads: Sequence[Steps], scale: Tensor, own: TrainedConv | None) -> Tensor:
    """Looked up; the gradient is half the difference of its neighbours in the table."""
    x, grid = reads[0].x, reads[0].grid
    table = node.table.astype(np.float32) - node.output.zero_point
    slope = np.gradient(table)
    index = (x.detach() + grid.zero_point).long()
    return looked_up(x, index, *(torch.from_numpy(each).to(x) for each in (table, slope)))


def joined(node: nodes.Concat, reads: Sequence[Steps], scale: Tensor, own: TrainedConv | None) -> Tensor:
    """Channels one behind the other."""
    return torch.cat([each.x for each in reads], 1)


def shuffled(
    node: nodes.DepthToSpace, reads: Sequence[Steps], scale: Tensor, own: TrainedConv | None
) -> Tensor:
    """Channels to pixels."""
    return F.pixel_shuffle(reads[0].x, node.factor)


def pooled(node: nodes.MaxPool, reads: Sequence[Steps], scale: Tensor, own: TrainedConv | None) -> Tensor:
    """Pixels outside the image do not count: nothing is below byte 0."""
    top, left, bottom, right = node.padding
    x = F.pad(reads[0].x, (left, right, top, bottom), value=float(-reads[0].grid.zero_point))
    return F.max_pool2d(x, node.kernel, node.stride)


def interpolated(
    node: nodes.Interpolate, reads: Sequence[Steps], scale: Tensor, own: TrainedConv | None
) -> Tensor:
    """Bilinear along one axis, in 64ths."""
    (x, like), axis = (each.x for each in reads), node.axis
    weights = torch.from_numpy(interpolation_steps(x.shape[axis], like.shape[axis])).to(x)
    sums = weights @ x if axis == 2 else x @ weights.T
    return on_grid(_times(sums, reads[0].scale / STEPS / scale), node.output)


def padded(node: nodes.Pad, reads: Sequence[Steps], scale: Tensor, own: TrainedConv | None) -> Tensor:
    """Rows and columns, then channels of the value 0."""
    x = reads[0].x
    top, left, bottom, right = node.around((x.shape[2], x.shape[3]))
    mode = {"zero": "constant", "edge": "replicate", "reflect": "reflect"}[node.mode]
    x = F.pad(x, (left, right, top, bottom), mode)
    return F.pad(x, (0, 0, 0, 0, 0, node.channels - x.shape[1]))


def cropped(node: Crop, reads: Sequence[Steps], scale: Tensor, own: TrainedConv | None) -> Tensor:
    """A part of the image."""
    x, (top, left, bottom, right) = reads[0].x, node.sides
    return x[:, :, top : x.shape[2] - bottom, left : x.shape[3] - right]


def cropped_to(node: CropTo, reads: Sequence[Steps], scale: Tensor, own: TrainedConv | None) -> Tensor:
    """A part of the rows or columns, as many as another tensor has."""
    x, like = (each.x for each in reads)
    kept = min(node.times * like.shape[node.axis], x.shape[node.axis] - node.start)
    return x.narrow(node.axis, node.start, kept)


def nearest(node: Nearest, reads: Sequence[Steps], scale: Tensor, own: TrainedConv | None) -> Tensor:
    """Some rows or columns several times, or not at all."""
    x, like = (each.x for each in reads)
    places = nearest_places(x.shape[node.axis], like.shape[node.axis])
    return x.index_select(node.axis, torch.from_numpy(places).to(x.device))


def _times(sums: Tensor, factor: Tensor) -> Tensor:
    """float32(sums) * factor, in the type of `sums`, which holds it exactly."""
    return (sums.float() * factor).to(sums.dtype)


FORMS: dict[type[nodes.IntegerNode], Callable[..., Tensor]] = {
    Conv: convolved,
    nodes.Add: added,
    nodes.Multiply: multiplied,
    nodes.ChannelGate: multiplied,
    nodes.Mean: averaged,
    nodes.Table: tabulated,
    nodes.Concat: joined,
    nodes.DepthToSpace: shuffled,
    nodes.MaxPool: pooled,
    nodes.Interpolate: interpolated,
    nodes.Pad: padded,
    Crop: cropped,
    CropTo: cropped_to,
    Nearest: nearest,
}
