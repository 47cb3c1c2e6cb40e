"""Float residuals -> 8-bit ones on scales that images decide: the ranges that training left open.

The twin of an architecture with `residual_bits` null has quantizers that the trained network has not. Their
scales are powers of two like all others, and one of several tensors (a residual stream) fits all of them.
"""

import math
from collections.abc import Iterable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qnas.errors import ImageError
from qnas.images.evaluation import Image
from qnas.network.layers import Layer, by_name, scale_owner
from qnas.network.lowering import lower
from qnas.quantization.quantizers import QuantSpec, on_grid
from qnas.torch.checkpoint import Found
from qnas.torch.fake_quantization import Quantizer
from qnas.torch.inference import upscaler
from qnas.torch.network import Network

SAMPLE = 1 << 14  # values of a tensor and image
Sample = tuple[NDArray[np.float32], QuantSpec]


def with_residual_grids(found: Found, images: Iterable[Image]) -> Found:
    """The twin of `found` with 8-bit residuals, its new scales fitted to LR `images`, uint8 [H, W, 3] each.

    What is new stays float while the images run, so that every scale is fitted to what was trained. Raises
    ImageError without images.
    """
    architecture = found.architecture.deployable()
    network = Network(lower(architecture))
    theirs, own = found.network.state_dict(), network.state_dict()
    network.load_state_dict({name: theirs.get(name, value) for name, value in own.items()})
    layers = by_name(network.layers)
    new = [
        layer for layer in network.layers if layer.op == "quantize" and _is_new(layers, layer, theirs.keys())
    ]
    seen: dict[str, list[Sample]] = {scale_owner(layers, layer).name: [] for layer in new}
    hooks = [
        network.module(layer.name).register_forward_hook(
            partial(_bypass, seen[scale_owner(layers, layer).name])
        )
        for layer in new
    ]
    upscale = upscaler(network)
    try:
        for image in images:
            upscale(image)
    finally:
        for hook in hooks:
            hook.remove()
    for name, samples in seen.items():
        if not samples:
            raise ImageError("there is no image to calibrate the residuals with: give some with --images")
        with torch.no_grad():
            network.module(name).step.fill_(_best_step(samples))
    return Found(architecture, network.eval(), found.training)


def _is_new(layers: dict[str, Layer], quantizer: Layer, known: Iterable[str]) -> bool:
    """Whether its scale is none that was trained; a given one (that of images) is none to fit."""
    owner = scale_owner(layers, quantizer)
    return owner.quant is not None and owner.quant.scale is None and f"{owner.name}.step" not in known


def _bypass(seen: list[Sample], module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    """What a quantizer reads, sampled, and left as it is but for the ReLU of an unsigned one."""
    assert isinstance(module, Quantizer)
    x = inputs[0] if module.spec.signed else torch.relu(inputs[0])
    flat = x.detach().flatten()
    seen.append((flat[:: max(1, flat.numel() // SAMPLE)].numpy().copy(), module.spec))
    return x


def _best_step(samples: list[Sample]) -> float:
    """The power of two whose quantization of all samples has the least squared error."""
    peak = max(float(np.abs(x).max(initial=0)) / spec.high for x, spec in samples)
    if peak == 0:
        return 1 / 128
    top = math.ceil(math.log2(peak))
    errors = {
        step: sum(float(np.square(on_grid(x, spec, step) - x).sum()) for x, spec in samples)
        for step in (2.0**e for e in range(top, top - 6, -1))
    }
    return min(errors, key=errors.__getitem__)
