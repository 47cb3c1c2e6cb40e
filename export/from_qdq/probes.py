"""What a graph computes of the sizes of images alone, for images of several sizes.

Margins, ends of slices and sizes may be computed when a model runs. However a graph does that, the numbers
for several sizes say what it comes to: `qnas.onnx.shapes` computes them, and runs nothing of the model.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from numpy.typing import NDArray
from onnx import ModelProto

from qnas.errors import ModelError
from qnas.integer.windows import Size
from qnas.onnx.graph import Graph
from qnas.onnx.shapes import declared_sizes, infer_shapes

Array = NDArray[Any]
# The first two are multiples of what networks need. What is missing to a multiple of up to 64 differs in the
# sides of the others; not all networks take these.
SIZES: tuple[Size, ...] = ((128, 192), (256, 384), (105, 80), (119, 197), (72, 191))
MEASURING = frozenset({"Shape", "Size"})


def derived_values(model: ModelProto, last: bool) -> tuple[tuple[Size, ...], Mapping[str, tuple[Array, ...]]]:
    """The sizes (height, width) tried, and of each tensor that these alone determine its value for each.

    `last`: the channels of the image are. A model of one size is tried at that alone. Raises ModelError for
    one that takes no image of these sizes.
    """
    (image,) = Graph(model.graph).inputs
    batch, *others = declared_sizes(image)
    *sides, channels = others if last else (*others[1:], others[0])
    tried = dict.fromkeys((sides[0] or height, sides[1] or width) for height, width in SIZES)
    if not any(node.op_type in MEASURING for node in model.graph.node):
        return tuple(tried), {}
    found: dict[Size, Mapping[str, Array]] = {}
    for size in tried:
        shape = (*size, channels or 3) if last else (channels or 3, *size)
        with suppress(Exception):  # a size that it does not take, or a graph tampered with, breaks anywhere
            found[size] = infer_shapes(model, {image.name: (batch or 1, *shape)}).derived
    if not found:
        raise ModelError(f"the model takes none of the images {[*tried]}: export it again, for any size")
    names: set[str] = set().union(*found.values())
    taken = {size: values for size, values in found.items() if names == values.keys()}
    return tuple(taken), {name: tuple(values[name] for values in taken.values()) for name in names}
