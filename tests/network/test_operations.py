"""The operations of QuantNAS, appendix J, as chains of convolutions."""

import pytest

from qnas.errors import ArchitectureError
from qnas.network.operations import ConvShape, operation_convolutions


@pytest.mark.parametrize(
    ("op", "chain"),
    [
        ("simple_1x1", [ConvShape(36, 24, (1, 1))]),
        ("simple_5x5", [ConvShape(36, 24, (5, 5))]),
        ("simple_3x3_grouped_3", [ConvShape(36, 24, (3, 3), groups=3)]),
        ("growth2_3x3", [ConvShape(36, 96, (3, 3)), ConvShape(96, 24, (3, 3))]),
        ("growth1_5x5", [ConvShape(36, 48, (5, 5)), ConvShape(48, 24, (5, 5))]),
        (
            "decenc_3x3_2",
            [ConvShape(36, 24, (3, 3)), ConvShape(24, 24, (3, 3)), ConvShape(24, 24, (3, 3))],
        ),
        ("conv_7x1_1x7", [ConvShape(36, 48, (7, 1)), ConvShape(48, 24, (1, 7))]),
        ("growth1_5x5_via_40", [ConvShape(36, 40, (5, 5)), ConvShape(40, 24, (5, 5))]),
        ("conv_3x1_1x3_via_9", [ConvShape(36, 9, (3, 1)), ConvShape(9, 24, (1, 3))]),
        (
            "decenc_3x3_2_via_6_9",
            [ConvShape(36, 6, (3, 3)), ConvShape(6, 9, (3, 3)), ConvShape(9, 24, (3, 3))],
        ),
    ],
)
def test_an_operation_is_a_chain_as_wide_inside_as_the_network_says(op: str, chain: list[ConvShape]) -> None:
    assert operation_convolutions(op, 36, 24, 48) == tuple(chain)


@pytest.mark.parametrize(
    ("op", "chain"),
    [
        ("growth2_3x3", [ConvShape(36, 72, (3, 3)), ConvShape(72, 24, (3, 3))]),
        ("decenc_3x3_2", [ConvShape(36, 18, (3, 3)), ConvShape(18, 24, (3, 3))]),
        ("conv_7x1_1x7", [ConvShape(36, 24, (7, 1)), ConvShape(24, 24, (1, 7))]),
    ],
)
def test_in_version_1_the_inner_width_follows_the_layer(op: str, chain: list[ConvShape]) -> None:
    assert operation_convolutions(op, 36, 24, None) == tuple(chain)


def test_a_separable_operation_is_pointwise_and_as_wide_as_its_input() -> None:
    wide, grouped = operation_convolutions("DWS_5x5", 36, 36, 48)
    assert (wide, grouped) == (ConvShape(36, 144, (1, 1)), ConvShape(144, 36, (1, 1), groups=36))
    with pytest.raises(ArchitectureError, match="'DWS_5x5' has as many outputs as inputs, not 3 -> 36"):
        operation_convolutions("DWS_5x5", 3, 36, 48)


def test_a_fully_grouped_convolution_has_a_group_for_each_input() -> None:
    assert operation_convolutions("simple_3x3_grouped_full", 12, 48, 36) == (ConvShape(12, 48, (3, 3), 12),)


def test_a_narrow_bottleneck_keeps_one_channel() -> None:
    assert operation_convolutions("decenc_3x3_4", 3, 3, 3)[0].out_channels == 1


@pytest.mark.parametrize(
    "op",
    ["", "simple", "simple_3x5", "simple_0x0", "simple_3x3 ", "SIMPLE_3x3", "growth_3x3", "growth5_3x3",
     "decenc_3x3", "decenc_3x3_1", "conv_3x1_1x5", "simple_3x3_grouped_0", "simple_11x11",
     "simple_3x3_via_8", "growth1_3x3_via_0", "growth1_3x3_via_8_8_8", "growth1_3x3_via_8_via_8",
     "conv_3x1_1x3_via_8_8"],
)  # fmt: skip
def test_a_name_outside_the_grammar_is_refused_with_the_grammar(op: str) -> None:
    with pytest.raises(ArchitectureError, match=r"unknown operation .*: use simple_KxK, .* or conv_Kx1_1xK"):
        operation_convolutions(op, 36, 36, 36)


def test_an_even_kernel_is_refused() -> None:
    with pytest.raises(ArchitectureError, match="'simple_4x4' has an even kernel: use 1, 3, 5, 7 or 9"):
        operation_convolutions("simple_4x4", 36, 36, 36)


@pytest.mark.parametrize("channels", [(32, 36), (36, 32)])
def test_groups_must_divide_the_channels_on_both_sides(channels: tuple[int, int]) -> None:
    with pytest.raises(
        ArchitectureError, match=r"cannot split 3\d -> 3\d channels into 3 groups: choose other"
    ):
        operation_convolutions("simple_3x3_grouped_3", *channels, 36)
