"""Networks that were trained with weights of -128 say what it costs that they end at -127."""

from pathlib import Path

import pytest
import torch

from qnas.images.files import list_images, read_image
from qnas.network.architecture import find_architecture
from qnas.testing.random_networks import build
from qnas.torch.inference import narrowing_price, validate
from qnas.torch.network import Convolution, Network


def with_weights_at_the_end(steps: float) -> Network:
    """A network whose first convolution has weights of so many steps in all its channels."""
    network = build(find_architecture("espcn-w8"), seed=9).network
    first = next(module for module in network.modules() if isinstance(module, Convolution))
    with torch.no_grad():
        scale = first.quantized_weight()[1]
        first.weight.clamp_(min=-100 * scale.view(-1, 1, 1, 1))
        first.weight[:, 0, 0, 0] = steps * scale
    return network


def test_the_price_of_the_narrow_range_is_the_difference_of_two_validations(photographs: Path) -> None:
    network = with_weights_at_the_end(-130)
    first = next(module for module in network.modules() if isinstance(module, Convolution))
    price = narrowing_price(network, map(read_image, list_images(photographs)), 4)
    assert price is not None
    assert price.weights == len(first.weight)
    assert price.narrow == pytest.approx(validate(network, photographs, 4).psnr)
    assert price.psnr == price.full - price.narrow != 0
    steps = first.quantized_weight()[0] / first.quantized_weight()[1].view(-1, 1, 1, 1)
    assert steps.min() == -127


def test_a_network_without_such_weights_has_no_price(photographs: Path) -> None:
    network = with_weights_at_the_end(-127)
    assert narrowing_price(network, map(read_image, list_images(photographs)), 4) is None
