"""Runs an integer network on images, as its nodes define it."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from qnas.integer.network import IntegerNetwork
from qnas.integer.nodes import IntegerNode
from qnas.integer.requantization import Bytes
from qnas.integer.windows import Size

LARGE = 512  # a multiple of any block of pixels, and larger than any window
TIE = 2.0**-20  # relative distance from a tie within which float32 may round to the other side


@dataclass
class NearTies:
    """Per node, how many values lie so close to a tie that another order of float32 operations may move them.

    Exact ties do not count: round half to even decides them, the same way in every runtime.
    """

    counts: dict[str, int]

    def add(self, name: str, exact: NDArray[np.float64]) -> None:
        """Count those among `exact`, what node `name` rounds."""
        from_tie = np.abs(exact - np.floor(exact) - 0.5)
        close = (from_tie <= TIE * np.abs(exact)) & (from_tie > 0)
        self.counts[name] = self.counts.get(name, 0) + int(close.sum())


def run(network: IntegerNetwork, images: Bytes, near_ties: NearTies | None = None) -> Bytes:
    """uint8 [N, 3, H, W] -> uint8 [N, 3, s H, s W]."""
    ((_, result),) = deque(trace(network, images, near_ties), maxlen=1)
    return result


def trace(
    network: IntegerNetwork, images: Bytes, near_ties: NearTies | None = None
) -> Iterator[tuple[IntegerNode, Bytes]]:
    """Every node with the tensor it writes, in order; tensors that nothing more reads are let go."""
    named = network.by_name()
    last_use = {source: node.name for node in network.nodes for source in node.inputs}
    values: dict[str, Bytes] = {}
    for node in network.nodes:
        reads = [(values[name], named[name].output) for name in node.inputs] or [(images, node.output)]
        watch = None if near_ties is None else partial(near_ties.add, node.name)
        values[node.name] = node.computed(reads, watch)
        yield node, values[node.name]
        for name in node.inputs:
            if last_use[name] == node.name:
                values.pop(name, None)


def upscaler(network: IntegerNetwork) -> Callable[[Bytes], Bytes]:
    """`network` as a function of uint8 images [H, W, 3]."""

    def upscale(image: Bytes) -> Bytes:
        pixels: Bytes = run(network, image.transpose(2, 0, 1)[None])[0].transpose(1, 2, 0)
        return pixels

    return upscale


def whole_sides(network: IntegerNetwork) -> int:
    """The least power of two whose multiples are sides that the network enlarges by its scale, but for what
    it leaves out of every image."""
    last = network.nodes[-1].name

    def missing(side: int) -> int:
        return network.scale * side - min(sizes(network, side, side)[last])

    steps = (1, 2, 4, 8, 16, 32)
    return next((n for n in steps if missing(LARGE + n) == missing(LARGE + 2 * n) == missing(LARGE)), 64)


def sizes(network: IntegerNetwork, height: int, width: int) -> Mapping[str, Size]:
    """(height, width) of every node's tensor for an image of that size."""
    found: dict[str, Size] = {}
    for node in network.nodes:
        found[node.name] = node.size([found[name] for name in node.inputs] or [(height, width)])
    return found
