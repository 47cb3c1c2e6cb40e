"""Searched layers of 6 -> 9 channels in float64, and what they read."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from qnas.network.layers import Layer
from qnas.network.operations import operation_convolutions
from qnas.search.supernet.bit_mixing import Mixer, Reader
from qnas.search.supernet.kernels import Kernels
from qnas.search.supernet.mixed_layer import MixedLayer

SINGLES = ("simple_1x1", "simple_3x3", "simple_5x5", "simple_3x3_grouped_3", "simple_5x5_grouped_3")
CHAINS = ("growth2_3x3", "decenc_3x3_2", "conv_3x1_1x3")
MIXERS: tuple[Mixer, ...] = ("independent", "shared", "san")


def searched(
    operations: Sequence[str], bits: tuple[int, ...], mixer: Mixer, *, merged: bool = False, seed: int = 0
) -> MixedLayer:
    """6 -> 9 channels in float64; biases and scales are no longer those of the start."""
    torch.manual_seed(seed)
    chains = [operation_convolutions(op, 6, 9, 8) for op in operations]
    layer = MixedLayer(Layer("layer", "conv", ("x",), 9), chains, bits, mixer, merged=merged).double()
    with torch.no_grad():
        for kernels in all_kernels(layer):
            kernels.bias.normal_()
            if hasattr(kernels, "scale"):
                kernels.scale.mul_(torch.empty_like(kernels.scale).uniform_(0.7, 1.4))
    return layer


def all_kernels(layer: nn.Module) -> Iterator[Kernels]:
    return (module for module in layer.modules() if isinstance(module, Kernels))


def reader_of(bits: tuple[int, ...], mixer: Mixer, *, signed: bool = False, exact: bool = False) -> Reader:
    return Reader(bits, mixer, signed=signed, exact=exact).double()


def random_input(seed: int = 0, images: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(images, 6, 7, 6, generator=generator, dtype=torch.float64)


def random_alpha(operations: int, bits: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(operations, bits, generator=generator, dtype=torch.float64)
