"""The flat layer list: the only description of a network's graph.

The torch builder, the cost model and the exporter all walk the same `tuple[Layer, ...]`, in topological
order; the last layer is the network's output.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from qnas.quantization.image_gain import FactorForm
from qnas.quantization.quantizers import FLOAT_BITS, Arithmetic, QuantSpec

Op = Literal[
    "image",  # the input, [N, 3, H, W]
    "conv",  # inputs (x,) or (x, deviation): the second scales the output
    "affine",  # batch norm: y = slope[c] * x + offset[c]; inputs as of a convolution
    "deviation",  # ADQ's factor of the standard deviation of x, [N, 1, 1, 1]
    "scale",  # inputs (x, deviation): their product
    "quantize",  # onto the grid of `quant`; an unsigned grid is a ReLU as well
    "relu",
    "prelu",  # one slope for all channels: in full precision only
    "add",
    "multiply",  # inputs (x, gate) or (x, gate, deviation)
    "concat",
    "repeat",  # the channels of x, `factor` times
    "pixel_shuffle",  # [N, C f^2, H, W] -> [N, C, f H, f W], ONNX DepthToSpace CRD
    "max_pool",
    "upscale",  # bilinear by the integer `factor`, half-pixel centres
    "resize_rows",  # bilinear to the height of the second input
    "resize_columns",  # bilinear to the width of the second input
    "resize_like",  # bilinear to both at once, in float: the paper's arithmetic only
    "sigmoid",
]

# These move values without changing them: a quantized tensor stays on its grid.
DATA_MOVEMENT: frozenset[Op] = frozenset({"concat", "repeat", "pixel_shuffle", "max_pool"})


@dataclass(frozen=True)
class Layer:
    """One operation. `channels` are those of its output; `padding` is (top = bottom, left = right)."""

    name: str
    op: Op
    inputs: tuple[str, ...]
    channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: tuple[int, int] = (0, 0)
    groups: int = 1
    factor: int = 1
    bits: int = FLOAT_BITS  # of a convolution's weights
    quant: QuantSpec | None = None
    scale_of: str | None = None  # a quantizer that shares the scale of this one
    form: FactorForm = "power"  # of a deviation
    arithmetic: Arithmetic = "short"  # one for all layers of a network


def by_name(layers: Sequence[Layer]) -> dict[str, Layer]:
    """Name -> layer."""
    return {layer.name: layer for layer in layers}


def grid_of(layers: dict[str, Layer], name: str) -> Layer | None:
    """The quantizer whose grid holds the output of layer `name`, or None when that output is float."""
    layer = layers[name]
    while layer.op in DATA_MOVEMENT:
        layer = layers[layer.inputs[0]]
    return layer if layer.op == "quantize" else None


def activated(layers: dict[str, Layer], name: str) -> bool:
    """Whether the output of layer `name` comes from ReLUs or PReLUs."""
    layer = layers[name]
    moved = layer.op in DATA_MOVEMENT and all(activated(layers, source) for source in layer.inputs)
    return layer.op in ("relu", "prelu") or moved


def scale_owner(layers: dict[str, Layer], quantizer: Layer) -> Layer:
    """The quantizer that holds the scale which `quantizer` uses."""
    return layers[quantizer.scale_of] if quantizer.scale_of else quantizer
