"""From exact sums to levels: one rounding, half to even, in float32 as onnxruntime and XNNPACK do it."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qnas.quantization.quantizers import QuantParams

Bytes = NDArray[np.unsignedinteger[Any]]  # [N, C, H, W]: uint8, or uint16 on a grid of 16 bits
Steps = NDArray[Any]  # whole numbers, in integers or in floats that hold them exactly
Read = tuple[Bytes, QuantParams]  # a tensor and the grid that it is on
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
    x, y = (np.arange(grid.low, grid.high + 1) - grid.zero_point for grid in (a, b))
    steps = np.unique(np.multiply.outer(x, y)).astype(np.float32) * np.float32(
        a.scale * b.scale / output.scale
    )
    theirs = np.rint(steps + np.float32(output.zero_point)).clip(output.low, output.high)
    return bool(np.array_equal(theirs, rounded(steps, output)))
