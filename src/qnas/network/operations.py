"""The operations a search chooses from, as chains of convolutions.

Names follow appendix J of Shvetsov et al., QuantNAS (IEEE Access 2024):

    simple_KxK              C_in -> C_out
    simple_KxK_grouped_G    the same, in G groups
    simple_KxK_grouped_full the same, one group for each input channel
    growthF_KxK             C_in -> F * C -> C_out
    decenc_KxK_F            C_in -> C / F -> C / F -> C_out
    conv_Kx1_1xK            K x 1, C_in -> C, then 1 x K, C -> C_out
    DWS_KxK                 1 x 1, C_in -> 4 * C_in, then 1 x 1 in C_in groups -> C_in

C is the width of the network, as in the released code. A chain has other widths inside when they follow its
name: growth1_3x3_via_48, decenc_3x3_2_via_24_24. The K of DWS changes nothing, there as here.
"""

import re
from dataclasses import dataclass
from itertools import pairwise

from qnas.errors import ArchitectureError

_SIMPLE = re.compile(r"simple_([1-9])x\1(?:_grouped_(full|[1-9]\d?))?")
_GROWTH = re.compile(r"growth([1-4])_([1-9])x\2")
_DECENC = re.compile(r"decenc_([1-9])x\1_([2-9])")
_SEPARABLE = re.compile(r"DWS_([1-9])x\1")
_FACTORISED = re.compile(r"conv_([1-9])x1_1x\1")
_VIA = re.compile(r"([a-z]+[1-4]?_\dx\d(?:_[2-9]|_1x\d)?)_via_([1-9]\d{0,2}(?:_[1-9]\d{0,2})?)")


@dataclass(frozen=True)
class ConvShape:
    """One convolution of an operation; `kernel` is (height, width)."""

    in_channels: int
    out_channels: int
    kernel: tuple[int, int]
    groups: int = 1


def operation_convolutions(
    op: str, in_channels: int, out_channels: int, width: int | None
) -> tuple[ConvShape, ...]:
    """The convolutions of operation `op` between the given channel counts, in a network of `width` channels.

    `width` None takes the inner widths of architectures of version 1: those of growth and decenc follow the
    input, that of conv_Kx1_1xK the output, and decenc has two convolutions. Raises ArchitectureError when the
    name is unknown, the kernel even or the channels do not divide.
    """
    chain = _chain(op, in_channels, out_channels, width)
    if chain is None:
        raise ArchitectureError(
            f"unknown operation {op!r}: use simple_KxK, simple_KxK_grouped_G, growthF_KxK, decenc_KxK_F, "
            "DWS_KxK or conv_Kx1_1xK"
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


def _chain(op: str, c_in: int, c_out: int, width: int | None) -> tuple[ConvShape, ...] | None:
    if match := _VIA.fullmatch(op):
        return _via(match[1], [c_in, *map(int, match[2].split("_")), c_out])
    if match := _SIMPLE.fullmatch(op):
        groups = c_in if match[2] == "full" else int(match[2] or 1)
        return (ConvShape(c_in, c_out, _square(match[1]), groups),)
    if match := _GROWTH.fullmatch(op):
        middle = int(match[1]) * (width or c_in)
        return _path([c_in, middle, c_out], [_square(match[2])] * 2)
    if match := _DECENC.fullmatch(op):
        middle = max((width or c_in) // int(match[2]), 1)
        inside = [middle, middle] if width else [middle]
        return _path([c_in, *inside, c_out], [_square(match[1])] * (len(inside) + 1))
    if match := _FACTORISED.fullmatch(op):
        k = int(match[1])
        return _path([c_in, width or c_out, c_out], [(k, 1), (1, k)])
    if _SEPARABLE.fullmatch(op):
        if c_in != c_out:
            raise ArchitectureError(
                f"operation {op!r} has as many outputs as inputs, not {c_in} -> {c_out}: choose another here"
            )
        return ConvShape(c_in, 4 * c_in, (1, 1)), ConvShape(4 * c_in, c_in, (1, 1), groups=c_in)
    return None


def _square(k: str) -> tuple[int, int]:
    return int(k), int(k)


def _path(widths: list[int], kernels: list[tuple[int, int]]) -> tuple[ConvShape, ...]:
    """Convolutions with `widths` before, between and after them."""
    ends = zip(pairwise(widths), kernels, strict=True)
    return tuple(ConvShape(c_in, c_out, kernel) for (c_in, c_out), kernel in ends)


def _via(op: str, widths: list[int]) -> tuple[ConvShape, ...] | None:
    """The chain `op` with `widths` before, between and after its convolutions; equal kernels may be three."""
    count = len(widths) - 1
    if match := _FACTORISED.fullmatch(op):
        k = int(match[1])
        return _path(widths, [(k, 1), (1, k)]) if count == 2 else None
    if match := _GROWTH.fullmatch(op):
        return _path(widths, [_square(match[2])] * count)
    if match := _DECENC.fullmatch(op):
        return _path(widths, [_square(match[1])] * count)
    return None
