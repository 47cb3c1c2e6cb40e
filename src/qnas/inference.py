"""A network as a function of images: pixels in, pixels out, and its quality on a folder."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from qnas.evaluation import Image, Quality, evaluate
from qnas.network import Network
from qnas.quantization import GREY_LEVEL


def to_network(images: Image) -> Tensor:
    """uint8 [N, H, W, 3] -> float32 [N, 3, H, W] in network units, channels last in memory."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float().mul_(GREY_LEVEL)


def to_pixels(y: Tensor) -> Image:
    """float32 [N, 3, H, W] in network units -> uint8 [N, H, W, 3]: rounded half-to-even, clipped."""
    grey = (y / GREY_LEVEL).round().clamp(0, 255)
    pixels: Image = grey.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return pixels


def upscaler(network: Network) -> Callable[[Image], Image]:
    """`network` in `eval()` as a function of uint8 images [H, W, 3]."""
    device = next(network.parameters()).device

    def upscale(image: Image) -> Image:
        network.eval()
        with torch.no_grad():
            pixels: Image = to_pixels(network(to_network(image[None]).to(device)))[0]
        return pixels

    return upscale


def validate(network: Network, folder: Path, scale: int) -> Quality:
    """PSNR-Y and SSIM of `network` on a folder of HR images."""
    return evaluate(upscaler(network), folder, scale)
