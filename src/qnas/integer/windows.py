"""Windows that slide over an image: how many of them fit, and how they are called."""

from collections.abc import Sequence

Size = tuple[int, int]  # height, width
Sides = tuple[int, int, int, int]  # above, left, below, right: the order of ONNX
NO_SIDES: Sides = (0, 0, 0, 0)


def span(kernel: Sequence[int], dilation: Size = (1, 1)) -> Size:
    """The rows and columns that a window reaches over whose taps lie `dilation` apart."""
    height, width = ((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
    return height, width


def padded(size: Size, sides: Sides) -> Size:
    """`size` with `sides` around it."""
    return size[0] + sides[0] + sides[2], size[1] + sides[1] + sides[3]


def windows_along(size: Size, reach: Size, stride: Size) -> Size:
    """How many windows of `reach` fit into `size`, `stride` apart: rows, columns."""
    height, width = ((length - r) // s + 1 for length, r, s in zip(size, reach, stride, strict=True))
    return height, width


def window_words(height: int, width: int, stride: Size, dilation: Size = (1, 1)) -> str:
    """The window of a convolution or a pooling: "3x3 stride 2"."""
    words = f"{height}x{width}"
    for name, (rows, columns) in (("stride", stride), ("dilation", dilation)):
        if (rows, columns) != (1, 1):
            words += f" {name} {rows}" if rows == columns else f" {name} {rows}x{columns}"
    return words
