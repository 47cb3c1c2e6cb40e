"""From exact sums to bytes: one rounding, half to even, in float32 as onnxruntime and XNNPACK do it."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qnas.quantization.quantizers import QuantParams

Bytes = NDArray[np.uint8]  # [N, C, H, W]
Steps = NDArray[Any]  # whole numbers, in integers or in floats that hold them exactly
Read = tuple[Bytes, QuantParams]  # a tensor and the grid that it is on
# The scales over that of their sum which onnxruntime adds in fixed point on ARM, and the bits of the larger one.
FIXED_POINT = (2.0**-14, 2.0**8)
FIXED_POINT_BITS = 22
Watch = Callable[[NDArray[np.float64]], None]  # is shown what is rounded, in exact steps


def centred(x: Bytes, grid: QuantParams) -> Steps:
    """`x - zero_point`; products of two, and sums of 64ths, stay far below 2^31."""
    return x.astype(np.int32) - grid.zero_point


def rounded(steps: NDArray[np.float32], grid: QuantParams) -> Bytes:
    """`clamp(round_half_even(steps) + zero_point, low, high)`, in the memory of `steps`."""
    whole = np.rint(steps, out=steps)
    whole += grid.zero_point
    return np.clip(whole, grid.low, grid.high, out=whole).astype(np.uint8)


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
    """Whether all sums of bytes on two grids are the same in onnxruntime on ARM, which adds in fixed point, 22
    bits for the larger scale, and rounds ties away from zero. Scales of other sizes it adds in float, as defined.
    """
    factors = np.array([a.scale / output.scale, b.scale / output.scale], np.float32)
    if not (FIXED_POINT[0] <= factors.min() and factors.max() < FIXED_POINT[1]):
        return True
    shift = FIXED_POINT_BITS - int(np.frexp(factors.max())[1])
    x, y = _steps(a), _steps(b)
    steps = np.add.outer(*(
        whole * int(np.rint(np.ldexp(np.float64(factor), shift)))
        for whole, factor in zip((x, y), factors, strict=True)
    ))  # fmt: skip
    theirs = np.sign(steps) * ((np.abs(steps) + (1 << shift - 1)) >> shift) + output.zero_point
    sums = np.add.outer(a.scale * x.astype(np.float32), b.scale * y.astype(np.float32)) / output.scale
    return bool(np.array_equal(theirs.clip(output.low, output.high), rounded(sums, output)))
