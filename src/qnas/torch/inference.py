"""A network as a function of images: pixels in, pixels out, and its quality on a folder."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from qnas.images.evaluation import Image, Quality, evaluate, shrink
from qnas.images.files import crop_to_multiple
from qnas.images.quality import psnr_y
from qnas.quantization.quantizers import PIXELS_PER_UNIT, Arithmetic
from qnas.torch.deviation import Deviation
from qnas.torch.network import Convolution, Network


def to_network(images: Image, arithmetic: Arithmetic = "short") -> Tensor:
    """uint8 [N, H, W, 3] -> float32 [N, 3, H, W] in network units, channels last in memory."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
    return pixels.div_(PIXELS_PER_UNIT[arithmetic])


def to_pixels(y: Tensor, arithmetic: Arithmetic = "short") -> Image:
    """float32 [N, 3, H, W] in network units -> uint8 [N, H, W, 3]: rounded half-to-even, clipped."""
    grey = (y * PIXELS_PER_UNIT[arithmetic]).round().clamp(0, 255)
    pixels: Image = grey.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return pixels


def upscaler(network: Network) -> Callable[[Image], Image]:
    """`network` in `eval()` as a function of uint8 images [H, W, 3]."""
    device = next(network.parameters()).device

    def upscale(image: Image) -> Image:
        network.eval()
        with torch.no_grad():
            y = network(to_network(image[None], network.arithmetic).to(device))
        pixels: Image = to_pixels(y, network.arithmetic)[0]
        return pixels

    return upscale


def validate(network: Network, folder: Path, scale: int) -> Quality:
    """PSNR-Y and SSIM of `network` on a folder of HR images."""
    return evaluate(upscaler(network), folder, scale)


@contextmanager
def deviations_per_image(network: Network, per_image: bool) -> Iterator[None]:
    """Inside, `eval()` has ADQ's factors per image, or frozen."""
    before, network.per_image = network.per_image, per_image
    try:
        yield
    finally:
        network.per_image = before


def calibrate_deviations(network: Network, images: Iterable[Image]) -> None:
    """Set what `eval()` freezes: the mean of each of ADQ's factors over LR `images`, uint8 [H, W, 3] each.

    Every image runs with its own factors, and counts once. A network without ADQ stays as it is, and so does
    every network without images.
    """
    factors: dict[Deviation, list[float]] = {module: [] for module in network.deviations()}

    def note(module: Deviation, inputs: tuple[Tensor]) -> None:
        factors[module].append(module.factor(inputs[0]).item())

    upscale = upscaler(network)
    hooks = [module.register_forward_pre_hook(note) for module in factors]
    try:
        with deviations_per_image(network, True):
            for image in images if factors else ():
                upscale(image)
    finally:
        for hook in hooks:
            hook.remove()
    for module, found in factors.items():
        if found:
            module.running_factor.fill_(math.fsum(found) / len(found))


@dataclass(frozen=True)
class FreezingPrice:
    """Mean PSNR-Y in dB with ADQ's factors per image and with frozen ones."""

    per_image: float
    frozen: float

    @property
    def psnr(self) -> float:
        """What freezing costs, in dB; below 0 where it gains."""
        return self.per_image - self.frozen


def freezing_price(network: Network, images: Iterable[Image], scale: int) -> FreezingPrice:
    """Both on HR `images`, uint8 [H, W, 3] each; `network` is as it was afterwards."""
    images, found = list(images), []
    for per_image in (True, False):
        with deviations_per_image(network, per_image):
            found.append(mean_psnr(network, images, scale))
    return FreezingPrice(*found)


@dataclass(frozen=True)
class NarrowingPrice:
    """Mean PSNR-Y in dB with the full range of 8-bit weights, which networks had before, and without its end.

    `weights`: how many are -128 in the full range.
    """

    weights: int
    full: float
    narrow: float

    @property
    def psnr(self) -> float:
        """What the narrow range costs, in dB; below 0 where it gains."""
        return self.full - self.narrow


def narrowing_price(network: Network, images: Iterable[Image], scale: int) -> NarrowingPrice | None:
    """Both on HR `images`, uint8 [H, W, 3] each; None where no weight is at that end."""
    convolutions = [m for m in network.modules() if isinstance(m, Convolution) and m.spec.narrow_range]
    with torch.no_grad():
        narrow = [module.quantized_weight()[0] for module in convolutions]
    for module in convolutions:
        module.spec = replace(module.spec, narrow_range=False)
    try:
        with torch.no_grad():
            full = [module.quantized_weight()[0] for module in convolutions]
        weights = sum(int((a != b).sum()) for a, b in zip(narrow, full, strict=True))
        if not weights:
            return None
        images = list(images)
        before = mean_psnr(network, images, scale)
    finally:
        for module in convolutions:
            module.spec = replace(module.spec, narrow_range=True)
    return NarrowingPrice(weights, before, mean_psnr(network, images, scale))


def mean_psnr(network: Network, images: Iterable[Image], scale: int) -> float:
    """PSNR-Y in dB of `network` on HR `images`, uint8 [H, W, 3] each, of any size from `scale` on."""
    upscale = upscaler(network)
    pairs = ((shrink(hr, scale), hr) for hr in (crop_to_multiple(image, scale) for image in images))
    return float(np.mean([psnr_y(upscale(lr), hr, scale) for lr, hr in pairs]))
