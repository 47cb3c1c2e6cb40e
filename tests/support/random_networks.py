"""Networks with random weights whose outputs are lively: a flat gray image would hide every difference."""

from dataclasses import replace
from functools import cache

import numpy as np
import torch

from qnas.network.architecture import Architecture, Choice, Space, find_architecture
from qnas.network.lowering import lower, slot_operations
from qnas.torch.checkpoint import Found
from qnas.torch.inference import to_network
from qnas.torch.network import Affine, Convolution, Network


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A uint8 image [H, W, 3] of soft blobs with sharp pixels among them."""
    rng = np.random.default_rng(seed)
    coarse = np.kron(rng.integers(0, 256, (-(-height // 4), -(-width // 4), 3)), np.ones((4, 4, 1)))[
        :height, :width
    ]
    return np.clip(coarse + rng.normal(0, 20, coarse.shape), 0, 255).astype(np.uint8)


@cache
def random_found(name: str, seed: int = 0) -> Found:
    """The named architecture with random weights, norms and deviations, calibrated on noise."""
    return build(find_architecture(name), seed)


OPERATIONS = (
    "simple_1x1", "simple_3x3", "simple_5x5", "simple_3x3_grouped_3", "simple_5x5_grouped_3", "growth2_3x3",
    "growth1_1x1", "decenc_3x3_2", "conv_3x1_1x3",
)  # fmt: skip


def random_architecture(space: Space, seed: int) -> Architecture:
    """A member of a searched space: any operations, 4 and 8 bits mixed; ADQ for every other seed."""
    rng = np.random.default_rng(seed)
    frame = Architecture(
        space, int(rng.choice([12, 18, 24])), int(rng.integers(1, 3)), int(rng.choice([2, 3, 4])), {},
        "adq" if seed % 2 else "none",
    )  # fmt: skip
    layers = {
        slot: Choice(str(rng.choice(OPERATIONS)), int(rng.choice([4, 8]))) for slot in slot_operations(frame)
    }
    return replace(frame, layers=layers)


def build(architecture: Architecture, seed: int = 0) -> Found:
    """`random_found` for any architecture."""
    torch.manual_seed(seed)
    network = Network(lower(architecture)).train()
    convolutions = [m for m in network.modules() if isinstance(m, Convolution)]
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, Convolution):
                module.bias.normal_(0, 0.05)
            if isinstance(module, Affine):
                module.weight.uniform_(-1.5, 1.5)
                module.bias.normal_(0, 0.3)
        x = to_network(noise(40, 36)[None])
        for _ in range(3):
            with network.calibrated_by_data():
                y = network(x)
        _spread(convolutions[-1], float(y.std()), float(y.mean()))
        with network.calibrated_by_data():
            network(x)
    return Found(architecture, network.eval(), {})


def _spread(last: Convolution, deviation: float, mean: float) -> None:
    """Scale the last convolution so that outputs cover the range of pixels."""
    factor = 0.25 / max(deviation, 1e-6)
    last.weight.mul_(factor)
    last.bias.mul_(factor).add_(0.5 - mean * factor)
    last.reset_scale()
