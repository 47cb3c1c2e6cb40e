"""The operations a search chooses from, as chains of convolutions.

Names follow appendix J of Shvetsov et al., QuantNAS (IEEE Access 2024):

    simple_KxK              C_in -> C_out
    simple_KxK_grouped_G    the same, in G groups
    growthF_KxK             C_in -> F * C_in -> C_out
    decenc_KxK_F            C_in -> C_in / F -> C_out
    conv_Kx1_1xK            K x 1, then 1 x K

A chain has other widths inside when they follow its name: growth1_3x3_via_48, decenc_3x3_2_via_24_24.
"""

import re
from dataclasses import dataclass

from qnas.errors import ArchitectureError

_SIMPLE = re.compile(r"simple_([1-9])x\1(?:_grouped_([1-9]\d?))?")
_GROWTH = re.compile(r"growth([1-4])_([1-9])x\2")
_DECENC = re.compile(r"decenc_([1-9])x\1_([2-9])")
_FACTORISED = re.compile(r"conv_([1-9])x1_1x\1")
_VIA = re.compile(r"([a-z]+[1-4]?_\dx\d(?:_[2-9]|_1x\d)?)_via_([1-9]\d{0,2}(?:_[1-9]\d{0,2})?)")


@dataclass(frozen=True)
class ConvShape:
    """One convolution of an operation; `kernel` is (height, width)."""

    in_channels: int
    out_channels: int
    kernel: tuple[int, int]
    groups: int = 1


def operation_convolutions(op: str, in_channels: int, out_channels: int) -> tuple[ConvShape, ...]:
    """The convolutions of operation `op` between the given channel counts.

    Raises ArchitectureError when the name is unknown, the kernel even or the channels do not divide.
    """
    chain = _chain(op, in_channels, out_channels)
    if chain is None:
        raise ArchitectureError(
            f"unknown operation {op!r}: use simple_KxK, simple_KxK_grouped_G, growthF_KxK, decenc_KxK_F "
            "or conv_Kx1_1xK"
        )
    for shape in chain:
        if any(k % 2 == 0 for k in shape.kernel):
            raise ArchitectureError(f"operation {op!r} has an even kernel: use 1, 3, 5, 7 or 9")
        if shape.in_channels % shape.groups or shape.out_channels % shape.groups:
            raise ArchitectureError(
                f"operation {op!r} cannot split {shape.in_channels} -> {shape.out_channels} channels "
                f"into {shape.groups} groups: choose other channels or groups"
            )
    return chain


def _chain(op: str, c_in: int, c_out: int) -> tuple[ConvShape, ...] | None:
    if match := _VIA.fullmatch(op):
        return _via(_chain(match[1], c_in, c_out), [c_in, *map(int, match[2].split("_")), c_out])
    if match := _SIMPLE.fullmatch(op):
        k = int(match[1])
        return (ConvShape(c_in, c_out, (k, k), int(match[2] or 1)),)
    if match := _GROWTH.fullmatch(op):
        middle, k = int(match[1]) * c_in, int(match[2])
        return ConvShape(c_in, middle, (k, k)), ConvShape(middle, c_out, (k, k))
    if match := _DECENC.fullmatch(op):
        k, middle = int(match[1]), max(c_in // int(match[2]), 1)
        return ConvShape(c_in, middle, (k, k)), ConvShape(middle, c_out, (k, k))
    if match := _FACTORISED.fullmatch(op):
        k = int(match[1])
        return ConvShape(c_in, c_out, (k, 1)), ConvShape(c_out, c_out, (1, k))
    return None


def _via(chain: tuple[ConvShape, ...] | None, widths: list[int]) -> tuple[ConvShape, ...] | None:
    """The chain with `widths` before, between and after its convolutions; one more may stand inside."""
    if chain is None or len(chain) != 2:
        return None
    kernels = [shape.kernel for shape in chain]
    if len(widths) == 4:
        if kernels[0] != kernels[1]:
            return None
        kernels.append(kernels[0])
    ends = zip(widths, widths[1:], kernels, strict=False)
    return tuple(ConvShape(c_in, c_out, kernel) for c_in, c_out, kernel in ends)
