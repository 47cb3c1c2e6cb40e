"""What `qnas-inspect` says of each layer, and those rows for an integer network.

MACs and BitOps are counted as in `qnas.cost`, but of what is executed: a bilinear resize that runs as a
convolution counts as one, and so does padding with zeros.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from qnas.cost.network_cost import layer_sizes, network_cost, stored_bytes
from qnas.errors import UsageError
from qnas.integer.convolution import Conv, accumulator_bounds, convolution_words, saturating_pairs
from qnas.integer.interpreter import sizes, trace
from qnas.integer.network import IntegerNetwork
from qnas.integer.nodes import IntegerNode
from qnas.network.layers import Layer, by_name
from qnas.quantization.quantizers import QuantParams

BIAS_BYTES = 4


@dataclass(frozen=True)
class LayerRow:
    """One layer; what does not apply to it, or is not in the file, is None or ().

    `shape` is (channels, height, width) of one image. `weight_counts`: how many weights take each level of
    their grid, from `weight_low` on; `output_counts`: how many values of bytes each level, from `output.low`.
    `accumulator_bits` hold any sum that images can cause; `saturating_pairs`: two products may leave 16 bits.
    """

    name: str
    operation: str
    shape: tuple[int, ...] | None = None
    weight_bits: int | None = None
    activation_bits: int | None = None  # of what it reads
    weight_scale: tuple[float, float] | None = None  # least, largest
    output: QuantParams | None = None
    macs: int = 0
    weight_bytes: int = 0
    bias_bytes: int = 0
    weight_low: int = 0
    weight_counts: tuple[int, ...] = ()
    output_counts: tuple[int, ...] = ()
    accumulator_bits: int | None = None
    saturating_pairs: bool = False

    @property
    def bitops(self) -> int:
        """MACs * b_w * b_a."""
        return self.macs * (self.weight_bits or 0) * (self.activation_bits or 0)

    @property
    def unused_levels(self) -> int | None:
        """Levels of the weights' grid that no weight takes."""
        return self.weight_counts.count(0) if self.weight_counts else None

    @property
    def saturation(self) -> tuple[float, float] | None:
        """Shares of the values at the lowest and at the highest level; the lowest of a ReLU is its zero."""
        total = sum(self.output_counts)
        return (self.output_counts[0] / total, self.output_counts[-1] / total) if total else None


def grid_bits(grid: QuantParams) -> int:
    """Bits of a grid that is stored from 0 on; a ReLU on a signed grid leaves it these."""
    return max(1, grid.high.bit_length())


def network_rows(
    network: IntegerNetwork, height: int, width: int, images: Sequence[NDArray[np.uint8]]
) -> tuple[LayerRow, ...]:
    """A row for every node at `height` x `width` input pixels; levels counted over `images` uint8 [H, W, 3].

    Raises UsageError when the network leaves nothing of an image.
    """
    for size in ((height, width), *(image.shape[:2] for image in images)):
        if min(min(each) for each in sizes(network, *size).values()) < 1:
            raise UsageError(f"{size[0]}x{size[1]} pixels are too few for the network: use more")
    found, named = sizes(network, height, width), network.by_name()
    counts = _output_counts(network, images)
    rows = []
    for node in network.nodes:
        reads = [named[name].output for name in node.inputs]
        shape = (node.channels, *found[node.name])
        rows.append(_row(node, reads, shape, counts.get(node.name, ())))
    return tuple(rows)


def layer_rows(layers: Sequence[Layer], height: int, width: int) -> tuple[LayerRow, ...]:
    """The rows of a network that is not all integers: shapes, and what the layers cost."""
    found, named = layer_sizes(layers, height, width), by_name(layers)
    costs = {cost.name: cost for cost in network_cost(layers, height, width).layers}
    rows = []
    for layer in layers:
        row = LayerRow(layer.name, layer.op.replace("_", " "), (layer.channels, *found[layer.name]))
        if cost := costs.get(layer.name):
            weight = (layer.channels, named[layer.inputs[0]].channels // layer.groups, *layer.kernel)
            words = convolution_words(weight, layer.groups, (layer.stride,) * 2)
            row = replace(
                row,
                operation=words if layer.op == "conv" else "batch norm",
                weight_bits=cost.weight_bits,
                activation_bits=cost.activation_bits,
                macs=cost.macs,
                weight_bytes=cost.weight_bytes,
                bias_bytes=BIAS_BYTES * layer.channels,
            )
        rows.append(row)
    return tuple(rows)


def _row(
    node: IntegerNode, reads: Sequence[QuantParams], shape: tuple[int, ...], counts: tuple[int, ...]
) -> LayerRow:
    if isinstance(node, Conv):
        return convolution_row(node, reads[0], shape, counts, saturating_pairs(node, reads[0]))
    return LayerRow(
        name=node.name,
        operation=node.words,
        shape=shape,
        activation_bits=max(map(grid_bits, reads), default=None),
        output=node.output,
        output_counts=counts,
    )


def convolution_row(
    node: Conv, read: QuantParams, shape: tuple[int, ...], counts: tuple[int, ...] = (), pairs: bool = False
) -> LayerRow:
    """The row of a convolution that reads the grid `read` and writes `shape`."""
    low = -(2 ** (node.bits - 1))
    levels = np.bincount(node.weight.ravel().astype(np.int64) - low, minlength=2**node.bits)
    largest = int(accumulator_bounds(node, read).max(initial=0))
    return LayerRow(
        name=node.name,
        operation=node.words,
        shape=shape,
        weight_bits=node.bits,
        activation_bits=grid_bits(read),
        weight_scale=(float(node.weight_scale.min()), float(node.weight_scale.max())),
        output=node.output,
        macs=node.weight[0].size * int(np.prod(shape, dtype=np.int64)),
        weight_bytes=stored_bytes(node.weight.size, node.bits),
        bias_bytes=BIAS_BYTES * node.bias.size,
        weight_low=low,
        weight_counts=tuple(levels.tolist()),
        output_counts=counts,
        accumulator_bits=largest.bit_length() + 1,
        saturating_pairs=pairs,
    )


def _output_counts(
    network: IntegerNetwork, images: Sequence[NDArray[np.uint8]]
) -> dict[str, tuple[int, ...]]:
    """Node of bytes -> how many of its values lie on each of its levels, over all images."""
    named = network.by_name()
    of_bytes = [node.name for node in network.nodes if not node.output.is_wide] if images else []
    sums = {name: np.zeros(256, np.int64) for name in of_bytes}
    for image in images:
        for node, values in trace(network, np.ascontiguousarray(image.transpose(2, 0, 1)[None])):
            if node.name in sums:
                sums[node.name] += np.bincount(values.ravel(), minlength=256)
    ends = {name: (named[name].output.low, named[name].output.high + 1) for name in sums}
    return {name: tuple(count[slice(*ends[name])].tolist()) for name, count in sums.items()}
