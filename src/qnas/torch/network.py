"""Layers -> torch.nn.Module: the only builder of a concrete network.

All tensors are float32 in units where one grey level is 2^-8. In `eval()` a quantized network computes with
integers times short scales (see `qnas.quantization`), so its float arithmetic is exact: it *is* the integer
network that is exported. `train()` differs in three places, as batch norm does: batch statistics, the
deviation of each image in place of its mean (see `per_image`), and no rounding to pixels at the output.

Layers in the paper's arithmetic compute what its released code does, in float32 and in the same order: one
grey level is 1/255, and the two modes differ in batch norm alone.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from qnas.integer.interpolation import STEPS, interpolation_steps
from qnas.network.layers import Layer, by_name, grid_of, scale_owner
from qnas.quantization.quantizers import (
    AFFINE_BITS,
    FLOAT_BITS,
    SMALLEST_SCALE,
    WEIGHT_SCALE_BITS,
    Arithmetic,
    StepRule,
    best_power_of_two,
    best_weight_scale,
    lsq_initial_scale,
    weight_spec,
)
from qnas.torch.deviation import Deviation, ImageDeviation
from qnas.torch.fake_quantization import Quantizer, lsq, snap_scale, straight_through

PRELU_SLOPE = 0.1  # at the start, as in the paper's code


def bias_steps(bias: Tensor, step: Tensor) -> Tensor:
    """A bias [C] in whole steps [C] of the accumulator, float32: training and export round it here."""
    return torch.round(bias / step)


class Convolution(nn.Module):
    """`conv(x, LSQ(w)) + b`, optionally times a gain: [N, 1, 1, 1] of each image, or a constant [1].

    A constant one is folded into the scales of the weights, as the exported network has it.
    """

    def __init__(self, layer: Layer, in_channels: int) -> None:
        super().__init__()
        shape = (layer.channels, in_channels // layer.groups, *layer.kernel)
        self.weight = nn.Parameter(torch.empty(shape))
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        self.bias = nn.Parameter(torch.zeros(layer.channels))
        self.stride, self.padding, self.groups = layer.stride, layer.padding, layer.groups
        self.bits = layer.bits
        self.spec = weight_spec(self.bits)
        if self.bits < FLOAT_BITS:
            self.weight_scale = nn.Parameter(torch.empty(layer.channels))
            self.reset_scale()

    def shrink(self, factor: float) -> None:
        """Multiply all weights."""
        with torch.no_grad():
            self.weight.mul_(factor)
        self.reset_scale()

    def reset_scale(self) -> None:
        """LSQ's initial scale for the present weights; nothing to do in full precision."""
        self._set_scale(lsq_initial_scale)

    def fit_scale(self) -> None:
        """The best scale for the present, trained weights; nothing to do in full precision."""
        self._set_scale(best_weight_scale)

    def _set_scale(self, rule: Callable[[NDArray[np.float32], int], NDArray[np.float32]]) -> None:
        if self.bits < FLOAT_BITS:
            with torch.no_grad():
                self.weight_scale.copy_(torch.from_numpy(rule(self.weight.detach().cpu().numpy(), self.bits)))

    def forward(self, x: Tensor, input_scale: Tensor | None, gain: Tensor | None) -> Tensor:
        if self.bits == FLOAT_BITS:
            y = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, 1, self.groups)
            return y if gain is None else y * gain
        fold = gain if gain is not None and gain.ndim == 1 else None
        weight, scale = self.quantized_weight(fold)
        bias = self.bias if fold is None else self.bias * fold
        if input_scale is not None:  # an int32 bias in steps of the accumulator
            step = scale * input_scale.to(scale.device)
            bias = straight_through(bias_steps(bias, step) * step, bias)
        y = F.conv2d(x, weight, bias, self.stride, self.padding, 1, self.groups)
        return y if gain is None or fold is not None else y * gain

    def quantized_weight(self, gain: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(weights on their grid [O, I, kh, kw], scale [O]); a gain [1] is part of the snapped scale."""
        scale = snap_scale(self.weight_scale, WEIGHT_SCALE_BITS)
        weight = lsq(self.weight, scale, self.spec)
        if gain is None:
            return weight, scale
        folded = snap_scale(scale * gain, WEIGHT_SCALE_BITS)
        return torch.round(weight / scale.view(-1, 1, 1, 1)) * folded.view(-1, 1, 1, 1), folded


class FreeConvolution(Convolution):
    """`conv(x, LSQ(w))` as the paper has it: no bias, scales of any value but zero.

    Nothing keeps a step of the released code positive, and a few end below zero: their range is mirrored.
    """

    def __init__(self, layer: Layer, in_channels: int) -> None:
        super().__init__(layer, in_channels)
        self.spec = weight_spec(self.bits, "paper")
        del self.bias

    def forward(self, x: Tensor, input_scale: Tensor | None, gain: Tensor | None) -> Tensor:
        weight = self.weight if self.bits == FLOAT_BITS else self.quantized_weight()[0]
        y = F.conv2d(x, weight, None, self.stride, self.padding, 1, self.groups)
        return y if gain is None else y * gain

    def quantized_weight(self, gain: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(weights on their grid [O, I, kh, kw], scale [O])."""
        signs = torch.where(self.weight_scale < 0, -1.0, 1.0)
        scale = straight_through(signs * self.weight_scale.abs().clamp(min=SMALLEST_SCALE), self.weight_scale)
        return lsq(self.weight, scale, self.spec), scale


class Affine(nn.BatchNorm2d):
    """Batch norm that in `eval()` on integers is itself one: slope m * 2^e, |m| <= 127, int32 offset.

    Optionally times a gain, as `Convolution`; a constant one is folded into slope and offset.
    """

    running_mean: Tensor  # never None here, as torch allows
    running_var: Tensor

    def shrink(self, factor: float) -> None:
        """Multiply slope and offset."""
        with torch.no_grad():
            self.weight.mul_(factor)
            self.bias.mul_(factor)

    def coefficients(self, input_scale: Tensor | None, gain: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(slope [C], offset [C]) as `eval()` applies them, times a gain [1]."""
        factor = 1.0 if gain is None else gain
        slope = self.weight / torch.sqrt(self.running_var + self.eps) * factor
        offset = self.bias * factor - self.running_mean * slope
        if input_scale is not None:
            slope = torch.where(slope < 0, -1.0, 1.0) * snap_scale(slope.abs(), AFFINE_BITS)
            step = affine_step(slope) * input_scale.to(slope.device)
            offset = bias_steps(offset, step) * step
        return slope, offset

    def forward(self, x: Tensor, input_scale: Tensor | None = None, gain: Tensor | None = None) -> Tensor:
        fold = None
        if self.training or input_scale is None:
            y = super().forward(x)
        else:
            fold = gain if gain is not None and gain.ndim == 1 else None
            slope, offset = self.coefficients(input_scale, fold)
            y = x * slope.view(1, -1, 1, 1) + offset.view(1, -1, 1, 1)
        return y if gain is None or fold is not None else y * gain


def affine_step(slope: Tensor) -> Tensor:
    """The power of two that an integer slope of 64 .. 127 multiplies. [C] -> [C]."""
    _, exponent = torch.frexp(slope.abs())
    return torch.ldexp(torch.ones_like(slope), exponent - AFFINE_BITS)


def resize_axis(x: Tensor, axis: int, length: int) -> Tensor:
    """x [N, C, H, W], bilinear to `length` rows (axis 2) or columns (axis 3), weights of whole 64ths."""
    weights = torch.from_numpy(interpolation_steps(x.shape[axis], length)).to(x) / STEPS
    return weights @ x if axis == 2 else x @ weights.T


def sigmoid(x: Tensor) -> Tensor:
    """Logistic function, computed in float64: its rounding to a grid must not hang on a last float32 bit."""
    return torch.sigmoid(x.double()).float()


class Network(nn.Module):
    """The network of a layer list. Input [N, 3, H, W], output [N, 3, s H, s W], in units of `arithmetic`."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        super().__init__()
        self.layers = tuple(layers)
        self._named = by_name(layers)
        self._modules_by_layer: dict[str, nn.Module] = {}
        last_use = {source: layer.name for layer in layers for source in layer.inputs}
        self._done_after = {name: [s for s, last in last_use.items() if last == name] for name in self._named}
        for layer in layers:
            module = self._build(layer)
            if module is not None:
                self._modules_by_layer[layer.name] = module
                attach(self, layer.name, module)
        for layer in layers:
            if layer.op == "add":
                self._start_small(layer)

    def _start_small(self, add: Layer) -> None:
        """Weights of a residual branch start at a tenth, so that deep streams start near the identity."""
        for name in add.inputs:
            source = self._named[name]
            while source.op == "quantize":
                source = self._named[source.inputs[0]]
            if source.op == "conv" or (source.op == "affine" and len(source.inputs) == 2):
                self.module(source.name).shrink(0.1)

    def _build(self, layer: Layer) -> nn.Module | None:
        paper = layer.arithmetic == "paper"
        match layer.op:
            case "conv":
                kind = FreeConvolution if paper else Convolution
                return kind(layer, self._named[layer.inputs[0]].channels)
            case "affine":
                return Affine(layer.channels)
            case "deviation":
                return ImageDeviation() if paper else Deviation(layer.form)
            case "prelu":
                return nn.PReLU(init=PRELU_SLOPE)
            case "quantize":
                assert layer.quant is not None
                owner = scale_owner(self._named, layer)
                shared = None if owner is layer else self._modules_by_layer[owner.name]
                assert shared is None or isinstance(shared, Quantizer)
                return Quantizer(layer.quant, shared)
        return None

    @property
    def arithmetic(self) -> Arithmetic:
        """That of its layers; what it reads and writes is `pixel / PIXELS_PER_UNIT[arithmetic]`."""
        return self.layers[0].arithmetic

    def module(self, name: str) -> Any:
        """The module of layer `name`."""
        return self._modules_by_layer[name]

    def input_scale(self, layer: Layer) -> Tensor | None:
        """The scale [] of the grid that layer's first input is on, None when that is float."""
        grid = grid_of(self._named, layer.inputs[0])
        return self.module(grid.name).scale() if grid else None

    def forward(self, image: Tensor) -> Tensor:
        values: dict[str, Tensor] = {}
        for layer in self.layers:
            inputs = [values[name] for name in layer.inputs]
            values[layer.name] = image if layer.op == "image" else self._run(layer, inputs)
            for name in self._done_after[layer.name]:
                del values[name]
        return values[self.layers[-1].name]

    def _run(self, layer: Layer, x: list[Tensor]) -> Tensor:
        match layer.op:
            case "conv" | "affine":
                return self.module(layer.name)(x[0], self.input_scale(layer), x[1] if len(x) > 1 else None)  # type: ignore[no-any-return]
            case "quantize" if layer.name == "output" and self.training:
                return x[0]
            case "quantize" | "deviation" | "prelu":
                return self.module(layer.name)(x[0])  # type: ignore[no-any-return]
            case "multiply" if len(x) == 3:
                return x[0] * x[1] * _short(x[2])
            case "scale":
                return x[0] * _short(x[1])
            case "concat":
                return torch.cat(x, dim=1)
            case "max_pool":
                return F.max_pool2d(x[0], layer.kernel, layer.stride)
            case _:
                return _FUNCTIONS[layer.op](layer, *x)

    def quantizers(self) -> Iterator[Quantizer]:
        """All activation quantizers."""
        return (m for m in self._modules_by_layer.values() if isinstance(m, Quantizer))

    @property
    def per_image(self) -> bool:
        """Whether `eval()` computes ADQ's factor of each image; otherwise it has the mean of all."""
        return any(module.per_image for module in self.deviations())

    @per_image.setter
    def per_image(self, value: bool) -> None:
        for module in self.deviations():
            module.per_image = value

    def deviations(self) -> tuple[Deviation, ...]:
        """Those whose factor can be frozen."""
        return tuple(m for m in self._modules_by_layer.values() if isinstance(m, Deviation))

    @contextmanager
    def calibrated_by_data(self, rule: StepRule = best_power_of_two) -> Iterator[None]:
        """Inside, every forward pass sets the step of each quantizer by `rule` from what it sees."""
        for quantizer in self.quantizers():
            quantizer.calibrating = rule
        try:
            yield
        finally:
            for quantizer in self.quantizers():
                quantizer.calibrating = None


def _short(gain: Tensor) -> Tensor:
    """A constant gain [1] on a short scale; those of images are, or are being trained."""
    return snap_scale(gain, WEIGHT_SCALE_BITS) if gain.ndim == 1 else gain


_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "relu": lambda layer, x: F.relu(x),
    "add": lambda layer, x, y: x + y,
    "multiply": lambda layer, x, y: x * y,
    "repeat": lambda layer, x: x.repeat(1, layer.factor, 1, 1),
    "pixel_shuffle": lambda layer, x: F.pixel_shuffle(x, layer.factor),
    "upscale": lambda layer, x: F.interpolate(x, scale_factor=layer.factor, mode="bilinear"),
    "resize_rows": lambda layer, x, like: resize_axis(x, 2, like.shape[2]),
    "resize_columns": lambda layer, x, like: resize_axis(x, 3, like.shape[3]),
    "resize_like": lambda layer, x, like: F.interpolate(x, like.shape[2:], mode="bilinear"),
    "sigmoid": lambda layer, x: torch.sigmoid(x) if layer.arithmetic == "paper" else sigmoid(x),
}


def attach(root: nn.Module, path: str, module: nn.Module) -> None:
    """Add `module` at the dotted path, so that state_dict keys read like the layer names."""
    *parents, last = path.split(".")
    for part in parents:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    existing = root._modules.get(last)
    if existing is not None:  # a container made for a deeper name before this layer
        for name, child in existing.named_children():
            module.add_module(name, child)
    root.add_module(last, module)
