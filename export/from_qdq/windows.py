"""The windows of convolutions and pools, as ONNX gives them."""

from dataclasses import dataclass
from typing import Any

from onnx import NodeProto

from qnas.export.from_qdq.graph import refused
from qnas.integer.windows import Sides, Size, span

LARGEST = 1024  # of every number of a window


@dataclass(frozen=True)
class Window:
    """`kernel` taps, `dilation` pixels apart, at steps of `stride` over an image with `padding` around it."""

    kernel: Size
    stride: Size
    padding: Sides
    dilation: Size


def window(node: NodeProto, a: dict[str, Any], kernel: tuple[int, ...]) -> Window:
    """What the attributes `a` of a convolution or a pool say.

    Raises ModelError for what is no window of two axes, or whose padding each image decides.
    """
    if len(kernel) != 2 or not all(1 <= k <= LARGEST for k in kernel):
        raise refused(node, f"has the kernel {list(kernel)}: two sizes are needed")
    stride, dilation = (_two(node, a, name) for name in ("strides", "dilations"))
    size = (kernel[0], kernel[1])
    return Window(size, stride, _padding(node, a, span(size, dilation), stride), dilation)


def _two(node: NodeProto, a: dict[str, Any], name: str) -> Size:
    found = a.get(name, [1, 1])
    if len(found) != 2 or not all(1 <= n <= LARGEST for n in found):
        raise refused(node, f"has the {name} {found}: two sizes are needed")
    return found[0], found[1]


def _padding(node: NodeProto, a: dict[str, Any], reach: Size, stride: Size) -> Sides:
    """Case 1: it is said. Case 2: SAME at steps of 1 is as much as the window reaches beyond a pixel."""
    mode, pads = a.get("auto_pad", "NOTSET"), a.get("pads", [0, 0, 0, 0])
    if mode in ("SAME_UPPER", "SAME_LOWER"):  # Case 2
        if stride != (1, 1):
            raise refused(node, f"is padded by {mode} at steps of {list(stride)}: export it with pads")
        more, less = ([(n - 1 + up) // 2 for n in reach] for up in (1, 0))
        first, last = (less, more) if mode == "SAME_UPPER" else (more, less)
        return first[0], first[1], last[0], last[1]
    if mode == "VALID":
        pads = [0, 0, 0, 0]
    if len(pads) != 4 or not all(0 <= p <= LARGEST for p in pads):
        raise refused(node, f"has the padding {pads}: four sides are needed, none below zero")
    return pads[0], pads[1], pads[2], pads[3]
