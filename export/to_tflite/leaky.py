"""A leaky ReLU as the sum of what is above zero and what is below, each on a grid that cuts off the other."""

import numpy as np
from numpy.typing import NDArray

from qnas.integer import nodes
from qnas.quantization.quantizers import QuantParams


def halves(node: nodes.Table) -> tuple[tuple[str, QuantParams, float], tuple[str, QuantParams, float]]:
    """(name, grid, factor) of what is above zero and below."""
    scale = node.output.scale
    above, below = QuantParams(scale, 0, 0, 255), QuantParams(scale, 255, 0, 255)
    return ("above", above, 1.0), ("below", below, node.slope)


def sum_of_halves(q: NDArray[np.intp], node: nodes.Table, read: QuantParams) -> NDArray[np.float32]:
    """What the operators of `leaky` make of `q`."""
    y, total = node.output, np.zeros(len(q), np.float32)
    for _, grid, slope in halves(node):
        factor = np.float32(read.scale * np.float32(slope)) / grid.scale
        steps = np.rint((q - read.zero_point).astype(np.float32) * factor)
        total += np.clip(steps, -grid.zero_point, 255 - grid.zero_point)
    return np.clip(total + y.zero_point, y.low, y.high)
