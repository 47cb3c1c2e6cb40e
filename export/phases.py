"""Convolutions behind a pixel shuffle, run in front of it: the same integers at a fraction of the time.

A k x k convolution of C channels at f times the size equals one of C f^2 channels at the small size, between
the phases of the shuffle, zero padding included. It multiplies f^2 times as much, mostly by zero, but integer
kernels are that much better at 48 channels than at 3: docs/graph-forms.md has what it is worth.

Requires: the layers of a quantized network. Ensures: the same function; the shuffle comes last.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from qnas.export.parameters import IntegerConvolution
from qnas.layers import Layer, by_name

WIDEST = 64  # channels of a convolution between phases; wider ones gain nothing


def delay_shuffles(layers: Sequence[Layer]) -> tuple[tuple[Layer, ...], dict[str, int]]:
    """(layers, phases): the last pixel shuffle moved to the end where all behind it allow, and for each
    convolution that now runs between phases the factor f of the shuffle.

    Case 1: a quantizer, relu or add works value by value: it does not mind the order.
    Case 2: a narrow convolution of stride 1 that keeps the size: it gets f^2 times the channels.
    Anything else, or an input that does not come from the shuffle, leaves the layers as they are.
    """
    shuffles = [index for index, layer in enumerate(layers) if layer.op == "pixel_shuffle"]
    if not shuffles or shuffles[-1] == len(layers) - 1:
        return tuple(layers), {}
    at, shuffle = shuffles[-1], layers[shuffles[-1]]
    behind, named = layers[at + 1 :], by_name(layers)
    inside = {shuffle.name, *(layer.name for layer in behind)}
    square = shuffle.factor**2
    for layer in behind:
        narrow = layer.op == "conv" and _keeps_size(layer) and layer.channels * square <= WIDEST
        if not (layer.op in ("quantize", "relu", "add") or narrow) or not inside.issuperset(layer.inputs):
            return tuple(layers), {}
        if narrow and named[layer.inputs[0]].channels * square > WIDEST:
            return tuple(layers), {}
    source = shuffle.inputs[0]
    moved = [
        replace(
            layer,
            channels=layer.channels * square,
            inputs=tuple(source if name == shuffle.name else name for name in layer.inputs),
        )
        for layer in behind
    ]
    last = replace(shuffle, inputs=(behind[-1].name,), channels=behind[-1].channels)
    phases = {layer.name: shuffle.factor for layer in moved if layer.op == "conv"}
    return (*layers[:at], *moved, last), phases


def _keeps_size(layer: Layer) -> bool:
    return layer.stride == 1 and all(k == 2 * p + 1 for k, p in zip(layer.kernel, layer.padding, strict=True))


def between_phases(layer: Layer, c: IntegerConvolution, factor: int) -> tuple[Layer, IntegerConvolution]:
    """The layer and integers of `c` between the phases of a shuffle by `factor`; `layer` as `delay_shuffles`
    returned it. Weight [O, I / groups, kh, kw] -> [O f^2, I f^2, kh', kw'], kh' = 2 ceil(ph / f) + 1.
    """
    f, (ph, pw) = factor, layer.padding
    dense = _ungrouped(c.weight, layer.groups)
    out, channels, kh, kw = dense.shape
    qh, qw = -(-ph // f), -(-pw // f)
    weight = np.zeros((out, f, f, channels, f, f, 2 * qh + 1, 2 * qw + 1), np.int8)
    for i in range(f):  # the row phase that is written, and the one read: f * y + a = i + dy - ph
        for dy in range(kh):
            y, a = divmod(i + dy - ph, f)
            for j in range(f):
                for dx in range(kw):
                    x, b = divmod(j + dx - pw, f)
                    weight[:, i, j, :, a, b, y + qh, x + qw] = dense[:, :, dy, dx]
    wide = weight.reshape(out * f * f, channels * f * f, 2 * qh + 1, 2 * qw + 1)
    spread = IntegerConvolution(wide, np.repeat(c.weight_scale, f * f), np.repeat(c.bias, f * f))
    return replace(layer, kernel=(2 * qh + 1, 2 * qw + 1), padding=(qh, qw), groups=1), spread


def _ungrouped(weight: NDArray[np.int8], groups: int) -> NDArray[np.int8]:
    """[O, I / groups, kh, kw] -> [O, I, kh, kw] with zeros between groups."""
    out, part, *kernel = weight.shape
    dense = np.zeros((groups, out // groups, groups, part, *kernel), np.int8)
    for g in range(groups):
        dense[g, :, g] = weight.reshape(groups, out // groups, part, *kernel)[g]
    return dense.reshape(out, groups * part, *kernel)
