"""How many multiply-adds an operation takes, from the shapes of its tensors alone.

Written once, for every reader of graphs: ONNX, TFLite, and what a runtime says it ran. A multiply-add is one
MAC; a bias, an activation and a requantization are none. A `Shape` holds numbers, never names.

Layouts, with kernels of any rank:

- ONNX weights are OIHW, [M, C/groups, k...]: what follows the first axis makes one output value, groups too.
- TFLite weights are OHWI, [M, k..., C/groups]: the same, so `convolution` reads both.
- A depthwise convolution of TFLite has [1, k..., M] instead: `depthwise`; M = C * multiplier.
- A transposed convolution has ONNX weights IOHW, [C, M/groups, k...], and TFLite weights OHWI, [M, k..., C].
"""

from math import prod

Shape = tuple[int, ...]


def convolution(output: Shape, weights: Shape) -> int:
    """Outputs [N, M, ...] or [N, ..., M], times the weights [M, ...] that make one of them."""
    return prod(output) * prod(weights[1:])


def depthwise(output: Shape, weights: Shape) -> int:
    """Outputs [N, ..., M] times the kernel of weights [1, k..., M]."""
    return prod(output) * prod(weights[1:-1])


def transposed(data: Shape, weights: Shape) -> int:
    """Inputs [N, C, ...] times the weights [C, M/groups, k...] that read one of them: borders included."""
    return prod(data) * prod(weights[1:])


def transposed_channels_last(data: Shape, weights: Shape) -> int:
    """Inputs [N, ..., C] times the weights [M, k..., C] without C that read one of them: borders included."""
    return prod(data) * prod(weights[:-1])


def product(output: Shape, inner: int) -> int:
    """Outputs [..., M, N] of a matrix product, times the `inner` dimension that is summed."""
    return prod(output) * inner


def per_value(data: Shape) -> int:
    """One for every value that comes in: a scale and an offset, as of a batch norm."""
    return prod(data)
