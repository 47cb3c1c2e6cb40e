"""What the operations of a search space cost, put together from the kernels that they become.

These are the kernels of an exported network (docs/targets.md): channels padded to multiples of 4, groups
dense, narrow convolutions behind the last pixel shuffle between its phases, and a clip in front of every
convolution that reads less than 8 bits. Float is not among them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import get_args

from msgspec import structs

from qnas.cost.network_cost import layer_sizes
from qnas.documents.latency_model import OperationTime
from qnas.export.passes.phases import WIDEST
from qnas.export.targets import TARGETS
from qnas.network.architecture import Choice
from qnas.network.layers import Layer, by_name, grid_of
from qnas.network.lowering import lower
from qnas.runtime_bench.latency_model.kernels import Kernel
from qnas.runtime_bench.latency_model.table import Basis, LatencyModel
from qnas.runtimes.inputs import ShapeRequest, image_axes
from qnas.search.space.candidate_costs import owns
from qnas.search.space.latency_costs import Place, Size, places
from qnas.search.space.search_space import SearchSpace, find_space, named_spaces

BITS = (2, 3, 4, 8)
PAD_TO = TARGETS["onnxruntime"].pad_to


def built_in_spaces() -> list[SearchSpace]:
    """Those that `qnas-search` knows by name."""
    return [find_space(name) for name in named_spaces()]


def image_sizes(requests: Sequence[ShapeRequest]) -> list[Size]:
    """The heights and widths that are asked for; shapes of what is no image are passed over."""
    sizes = []
    for each in requests:
        axes = (0, 1) if len(each.sizes) == 2 else image_axes(each.sizes)
        if axes is not None:
            sizes.append((each.sizes[axes[0]], each.sizes[axes[1]]))
    return sizes


def operation_times(
    model: LatencyModel, spaces: Sequence[SearchSpace], sizes: Sequence[Size]
) -> dict[OperationTime, Basis]:
    """Every operation between the channels that a layer of `spaces` has, with the worst basis of its kernels.

    One network of each bit width and rank shows the operations of that rank of all layers at once.
    """
    found: dict[tuple[Choice, Place], tuple[OperationTime, Basis]] = {}
    for space, bits in product(spaces, BITS):
        stands = {size: places(space, *size) for size in sizes}
        for rank in range(max(map(len, space.slots.values()))):
            choices = {slot: Choice(ops[rank % len(ops)], bits) for slot, ops in space.slots.items()}
            layers = lower(space.frame(choices))
            for size, (slot, choice) in product(sizes, choices.items()):
                place = stands[size][slot]
                if (choice, place) not in found:
                    kernels = _Network(layers, size).kernels(slot)
                    if all(min(kernel.output) > 0 for kernel in kernels):  # the image is large enough
                        found[choice, place] = _timed(model, choice, place, kernels)
    return dict(found.values())


def _timed(
    model: LatencyModel, choice: Choice, place: Place, kernels: Sequence[Kernel]
) -> tuple[OperationTime, Basis]:
    times = [model.time(kernel) for kernel in kernels]
    ms = max(sum(spent + model.node_ns for spent, _ in times), 0.0) / 1e6
    row = OperationTime(op=choice.op, bits=choice.bits, ms=round(ms, 6), **vars(place))
    return row, max((basis for _, basis in times), key=get_args(Basis).index)


def with_operations(model: LatencyModel, times: Sequence[OperationTime]) -> LatencyModel:
    """The model with these rows in place of its own for the same operations."""
    rows = {structs.replace(row, ms=0.0): row for row in (*model.operations, *times)}
    return replace(model, operations=tuple(rows.values()))


@dataclass(frozen=True)
class _Network:
    """A lowered network on an image of `size`."""

    layers: Sequence[Layer]
    size: Size

    @cached_property
    def named(self) -> dict[str, Layer]:
        return by_name(self.layers)

    @cached_property
    def sizes(self) -> dict[str, Size]:
        return layer_sizes(self.layers, *self.size)

    @cached_property
    def shuffled(self) -> tuple[int, frozenset[str]]:
        """(factor of the last pixel shuffle, the layers behind it)."""
        at = max(index for index, layer in enumerate(self.layers) if layer.op == "pixel_shuffle")
        return self.layers[at].factor, frozenset(layer.name for layer in self.layers[at + 1 :])

    def kernels(self, slot: str) -> list[Kernel]:
        """The channels of what `slot` chose; between the phases of the shuffle where all of it is narrow."""
        convs = [layer for layer in self.layers if layer.op == "conv" and owns(slot, layer.name)]
        factor, behind = self.shuffled
        widest = max(max(conv.channels, self._read(conv)) for conv in convs) * factor**2
        phases = factor if convs[0].name in behind and widest <= WIDEST else 1
        return [kernel for conv in convs for kernel in self._kernels(conv, phases)]

    def _kernels(self, conv: Layer, phases: int) -> Iterator[Kernel]:
        """The clip of what it reads, and the convolution."""
        height, width = self.sizes[conv.inputs[0]]
        image = (1, height // phases, width // phases, _padded(self._read(conv) * phases**2))
        grid = grid_of(self.named, conv.inputs[0])
        if grid is not None and grid.quant is not None and grid.quant.bits < 8:
            yield Kernel("Clip", ("uint8",), (image,), image)
        yield self._convolution(conv, image, phases)

    def _convolution(self, conv: Layer, image: tuple[int, ...], phases: int) -> Kernel:
        height, width = self.sizes[conv.name]
        written = _padded(conv.channels * phases**2)
        kernel = conv.kernel if phases == 1 else tuple(2 * -(-(k // 2) // phases) + 1 for k in conv.kernel)
        return Kernel(
            "QLinearConv",
            ("uint8", "int8"),
            (image, (written, image[3], *kernel)),
            (1, height // phases, width // phases, written),
            f"group=1 strides={conv.stride},{conv.stride}",
        )

    def _read(self, conv: Layer) -> int:
        return self.named[conv.inputs[0]].channels


def _padded(channels: int) -> int:
    return -(-channels // PAD_TO) * PAD_TO
