"""What a network is shown and what it should answer: crops, its float self, and photographs where wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from qnas.calibration.prepare.float_model import FloatModel, Runner
from qnas.errors import UsageError
from qnas.images.evaluation import Batch
from qnas.images.files import full_range_luma
from qnas.quantization.quantizers import PIXELS_PER_UNIT
from qnas.search.training.data import Crops, load_crops


@dataclass(frozen=True, eq=False)
class Lessons:
    """Batches of `crops`, a function of (seed, step), each with what `teacher` makes of it."""

    crops: Crops
    teacher: Runner
    size: int
    patch: int

    def inputs(self, seed: int, step: int) -> tuple[Tensor, Tensor]:
        """Grey levels of what the network reads, and of the photographs: float32 [N, C, H, W]."""
        lr, hr = self.crops.batch(seed, step, self.size, self.patch)
        channels = self.teacher.network.channels
        return in_channels(lr, channels), in_channels(hr, channels)

    def answers(self, pixels: Tensor) -> Tensor:
        """What the float network makes of `pixels`, clipped: float32 grey levels [N, C, s H, s W]."""
        batch: Batch = self.teacher(pixels.numpy().transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
        return torch.from_numpy(np.ascontiguousarray(batch.clip(0, 255), np.float32))


def lessons(
    network: FloatModel, folders: Sequence[Path], size: int, patch: int, cache_mib: int, threads: int
) -> Lessons:
    """Read the HR images of `folders`. Raises ImageError, and UsageError where no crop fits the network."""
    if network.size is not None and network.size != (patch, patch):
        height, width = network.size
        raise UsageError(
            f"{network.name} takes images of {width}x{height} alone, and not crops: export it for any size"
        )
    crops = load_crops(folders, network.scale, patch, cache_mib)
    return Lessons(crops, Runner(network, threads=threads), size, patch)


def in_channels(images: Tensor, channels: int) -> Tensor:
    """RGB [N, 3, H, W] in units of a network -> grey levels [N, channels, H, W]."""
    pixels = (images * PIXELS_PER_UNIT["short"]).contiguous()
    if channels == 3:
        return pixels
    grey = full_range_luma(
        pixels.permute(0, 2, 3, 1).numpy().astype(np.uint8).reshape(-1, pixels.shape[3], 3)
    )
    return torch.from_numpy(grey.astype(np.float32)).reshape(len(pixels), 1, *pixels.shape[2:])
