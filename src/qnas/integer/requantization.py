"""From exact sums to levels: one rounding, half to even, in float32 as onnxruntime and XNNPACK do it."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qnas.quantization.quantizers import QuantParams

Bytes = NDArray[np.unsignedinteger[Any]]  # [N, C, H, W]: uint8, or uint16 on a grid of 16 bits
Steps = NDArray[Any]  # whole numbers, in integers or in floats that hold them exactly
Read = tuple[Bytes, QuantParams]  # a tensor and the grid that it is on
# The scales over that of their sum which are added in fixed point: onnxruntime's on ARM, and XNNPACK's.
FIXED_POINT = (2.0**-14, 2.0**8)
XNNPACK_FIXED_POINT = (2.0**-10, 2.0**8)
Watch = Callable[[NDArray[np.float64]], None]  # is shown what is rounded, in exact steps


def centred(x: Bytes, grid: QuantParams) -> Steps:
    """`x - zero_point`: sums of 64ths, and products of two, stay far below 2^31, or 2^63 with 16 bits."""
    return x.astype(np.int64 if grid.is_wide else np.int32) - grid.zero_point


def rounded(steps: NDArray[np.float32], grid: QuantParams) -> Bytes:
    """`clamp(round_half_even(steps) + zero_point, low, high)`, in the memory of `steps`."""
    whole = np.rint(steps, out=steps)
    whole += grid.zero_point
    return np.clip(whole, grid.low, grid.high, out=whole).astype(grid.dtype)


def requantized(
    sums: Steps, factor: NDArray[np.float32] | np.float32, grid: QuantParams, watch: Watch | None = None
) -> Bytes:
    """`float32(sums) * factor`, rounded onto `grid`. [N, C, H, W] both ways."""
    if watch is not None:
        watch(sums * np.asarray(factor, np.float64))
    return rounded(sums.astype(np.float32, copy=False) * factor, grid)


def products_agree(a: QuantParams, b: QuantParams, output: QuantParams) -> bool:
    """Whether all products of bytes on two grids are the same in onnxruntime, which adds the zero point in
    float32 before it rounds, so that a product close to a tie may become one."""
    products, factor = np.unique(_products(a, b)), _factor(a, b, output)
    theirs = np.rint(products.astype(np.float32) * factor + np.float32(output.zero_point))
    return _as_defined(theirs, products, factor, output)


def ties_agree(a: QuantParams, b: QuantParams, output: QuantParams) -> bool:
    """Whether all products of bytes on two grids are the same in XNNPACK on ARM, where ties go up."""
    products, factor = np.unique(_products(a, b)), _factor(a, b, output)
    theirs = np.floor(products * np.float64(factor) + 0.5) + output.zero_point
    return _as_defined(theirs, products, factor, output)


def float_product_agrees(a: QuantParams, b: QuantParams, output: QuantParams) -> bool:
    """Whether all products of two bytes, each dequantized to float32, are quantized as they are defined."""
    x, y = (grid.scale * _steps(grid).astype(np.float32) for grid in (a, b))
    theirs = np.rint(np.multiply.outer(x, y) * (np.float32(1) / output.scale)) + output.zero_point
    return _as_defined(theirs, _products(a, b), _factor(a, b, output), output)


def _steps(grid: QuantParams) -> Steps:
    """All values of a grid, in steps."""
    return np.arange(grid.low, grid.high + 1) - grid.zero_point


def _products(a: QuantParams, b: QuantParams) -> Steps:
    return np.multiply.outer(_steps(a), _steps(b))


def _factor(a: QuantParams, b: QuantParams, output: QuantParams) -> np.float32:
    return np.float32(a.scale * b.scale / output.scale)


def _as_defined(theirs: Steps, products: Steps, factor: np.float32, output: QuantParams) -> bool:
    defined = rounded(products.astype(np.float32) * factor, output)
    return bool(np.array_equal(theirs.clip(output.low, output.high), defined))


def sums_agree(a: QuantParams, b: QuantParams, output: QuantParams) -> bool:
    """Whether all sums of bytes on two grids are the same in onnxruntime on ARM.

    It adds in fixed point there, and rounds ties away from zero; scales of other sizes in float, as defined.
    """
    low, high = FIXED_POINT
    if not all(low <= float(x.scale / output.scale) < high for x in (a, b)):
        return True
    steps, half = _fixed_point_sums(a, b, output, bits=22)
    return _sums_as_defined(np.sign(steps) * ((np.abs(steps) + half) // (2 * half)), a, b, output)


def xnnpack_sums_agree(a: QuantParams, b: QuantParams, output: QuantParams) -> bool:
    """Whether all sums of bytes on two grids are the same in XNNPACK; False where it does not add.

    It adds in fixed point on every processor, and rounds ties up.
    """
    low, high = XNNPACK_FIXED_POINT
    if not all(low <= float(x.scale / output.scale) < high for x in (a, b)):
        return False
    steps, half = _fixed_point_sums(a, b, output, bits=21)
    return _sums_as_defined((steps + half) // (2 * half), a, b, output)


def _fixed_point_sums(
    a: QuantParams, b: QuantParams, output: QuantParams, bits: int
) -> tuple[NDArray[np.int64], int]:
    """(sums of all pairs of bytes in steps of `output` times a power of two, half of that power).

    The larger factor has so many `bits`, the smaller one its last digit in common.
    """
    factors = [np.float32(x.scale / output.scale) for x in (a, b)]
    shift = bits - math.frexp(max(factors))[1]
    x, y = (
        _steps(grid) * int(np.rint(math.ldexp(float(factor), shift)))
        for grid, factor in zip((a, b), factors, strict=True)
    )
    return np.add.outer(x, y), 1 << shift - 1


def _sums_as_defined(theirs: Steps, a: QuantParams, b: QuantParams, output: QuantParams) -> bool:
    x, y = (grid.scale * _steps(grid).astype(np.float32) for grid in (a, b))
    defined = rounded(np.asarray(np.add.outer(x, y) / output.scale, np.float32), output)
    return bool(np.array_equal((theirs + output.zero_point).clip(output.low, output.high), defined))
