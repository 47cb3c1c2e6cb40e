"""Costs against published numbers and sums done by hand."""

from dataclasses import replace

import pytest

from qnas.cost.network_cost import DECIMAL_G, PAPER_G, layer_sizes, network_cost
from qnas.network.architecture import Choice, find_architecture
from qnas.network.layers import Layer
from qnas.network.lowering import lower
from qnas.quantization.quantizers import QuantSpec
from qnas.testing.activations import activation_elements


def test_espcn_has_the_bitops_of_the_papers_table_1() -> None:
    # (5*5*3*64 + 3*3*64*32 + 3*3*32*48) * 32 * 32 = 37 945 344
    cost = network_cost(lower(find_architecture("espcn-w8")), 32, 32)
    assert cost.macs == 37_945_344
    assert cost.bitops == 37_945_344 * 64
    assert round(cost.bitops / PAPER_G, 2) == 2.26  # "2.3 G"


def test_four_bits_cost_a_quarter_but_for_the_image_which_has_eight() -> None:
    cost = network_cost(lower(find_architecture("espcn-w4")), 32, 32)
    first = 5 * 5 * 3 * 64 * 32 * 32
    assert cost.bitops == first * 4 * 8 + (37_945_344 - first) * 4 * 4


def test_four_bit_weights_take_half_a_byte_each() -> None:
    weights = 5 * 5 * 3 * 64 + 3 * 3 * 64 * 32 + 3 * 3 * 32 * 48
    for name, expected in [("espcn-w4", weights // 2), ("espcn-w8", weights), ("espcn-w32", 4 * weights)]:
        cost = network_cost(lower(find_architecture(name)), 8, 8)
        assert cost.weight_bytes == expected
        assert cost.parameters == weights + 64 + 32 + 48


def test_bits_between_containers_are_stored_in_the_next_one() -> None:
    espcn = find_architecture("espcn-w4")
    sizes = {bits: network_cost(lower(espcn.with_bits(bits)), 8, 8).weight_bytes for bits in (2, 4, 5, 8)}
    assert sizes[2] == sizes[4] == sizes[5] // 2 == sizes[8] // 2


@pytest.mark.parametrize(("name", "parameters"), [("rfdn", 433_448), ("srresnet", 1_517_571)])
def test_published_networks_have_their_published_parameters(name: str, parameters: int) -> None:
    """Zhang et al., AIM 2020 Challenge on Efficient Super-Resolution, table 1: 0.433 M and 1.517 M."""
    assert network_cost(lower(find_architecture(f"{name}-w32")), 16, 16).parameters == parameters


def test_the_published_rfdn_has_50_channels_not_48() -> None:
    rfdn = replace(find_architecture("rfdn-w32"), channels=48)
    assert network_cost(lower(rfdn), 16, 16).parameters == 402_288


# AIM 2020's counter adds one operation per output element of every activation *module* to the MACs of the
# convolutions. The residual blocks of MSRResNet call the function instead, which it does not see.
@pytest.mark.parametrize(
    ("name", "functional", "macs", "published"),
    [("rfdn", "none", 27.0336, 27.10), ("srresnet", ".conv_1.input", 166.2077, 166.36)],
)
def test_published_flops_are_macs_and_one_per_output_of_each_activation_module(
    name: str, functional: str, macs: float, published: float
) -> None:
    architecture = find_architecture(f"{name}-w32")
    ours = network_cost(lower(architecture), 256, 256).macs
    assert round(ours / DECIMAL_G, 4) == macs
    assert round((ours + activation_elements(architecture, functional)) / DECIMAL_G, 2) == published


def test_the_activations_of_the_published_networks_are_those_counted_by_hand() -> None:
    pixels = 256 * 256
    small = ((256 - 3) // 2 + 1 - 7) // 3 + 1  # after the stride and the pooling of an ESA
    attention = 4 * 2 * 12 * small**2  # two ReLUs of 12 channels in each
    rfdn = activation_elements(find_architecture("rfdn-w32"), "none")
    assert rfdn - attention == (4 * (4 * 25 + 3 * 50) + 50) * pixels == 1050 * pixels
    srresnet = activation_elements(find_architecture("srresnet-w32"), ".conv_1.input")
    assert srresnet == (64 + 4 * 64 + 16 * 64 + 16 * 64) * pixels


def test_sizes_follow_strides_pools_shuffles_and_resizes() -> None:
    layers = (
        Layer("image", "image", (), 3),
        Layer("half", "conv", ("image",), 4, (3, 3), stride=2),
        Layer("pool", "max_pool", ("half",), 4, (7, 7), stride=3),
        Layer("tall", "resize_rows", ("pool", "half"), 4),
        Layer("back", "resize_columns", ("tall", "half"), 4),
        Layer("shuffled", "pixel_shuffle", ("back",), 1, factor=2),
        Layer("large", "upscale", ("image",), 3, factor=4),
        Layer("deviation", "deviation", ("image",), 1),
    )
    assert layer_sizes(layers, 31, 42) == {
        "image": (31, 42),
        "half": (15, 20),  # (31 - 3) // 2 + 1
        "pool": (3, 5),  # (15 - 7) // 3 + 1
        "tall": (15, 5),
        "back": (15, 20),
        "shuffled": (30, 40),
        "large": (124, 168),
        "deviation": (1, 1),
    }


def test_groups_divide_and_a_batch_norm_counts_once_per_value() -> None:
    layers = (
        Layer("image", "image", (), 6),
        Layer("grid", "quantize", ("image",), 6, quant=QuantSpec(5, signed=True)),
        Layer("norm", "affine", ("grid",), 6),
        Layer("conv", "conv", ("grid",), 9, (3, 1), padding=(1, 0), groups=3, bits=3),
    )
    norm, conv = network_cost(layers, 10, 10).layers
    assert (norm.macs, norm.weight_bits, norm.activation_bits, norm.parameters) == (600, 8, 5, 12)
    assert (conv.macs, conv.weight_bits, conv.activation_bits) == (9 * 2 * 3 * 100, 3, 5)
    assert (conv.parameters, conv.weight_bytes) == (9 * 2 * 3 + 9, 27)
    assert conv.bitops == 5400 * 15


def test_full_precision_counts_32_bits_on_both_sides() -> None:
    espcn = find_architecture("espcn-w8")
    mixed = replace(espcn, layers=dict(espcn.layers) | {"conv_2": Choice("simple_3x3", 32)})
    assert network_cost(lower(mixed), 1, 1).layers[-1].bitops == 9 * 32 * 48 * 32 * 32
