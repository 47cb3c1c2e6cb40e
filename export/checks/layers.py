"""Layer by layer: the tensors that a runtime lets out against those of the interpreter."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qnas.export.checks.report import LayerResult, LayerTable
from qnas.export.to_tflite.channel_order import in_runtime_order, shuffled_back
from qnas.images.evaluation import Image
from qnas.integer.interpreter import NearTies, trace
from qnas.integer.network import IntegerNetwork
from qnas.integer.nodes import IntegerNode
from qnas.runtimes.runtime import Runner, planes


@dataclass
class _Layer:
    """Differences of one node summed over images; `signal` and `noise` are sums of squared steps."""

    node: IntegerNode
    values: int = 0
    differing: int = 0
    largest: int = 0
    signal: int = 0
    noise: int = 0

    def add(self, got: NDArray[np.uint8], expected: NDArray[np.uint8]) -> None:
        steps = expected.astype(np.int64) - self.node.output.zero_point
        difference = got.astype(np.int64) - expected
        self.values += difference.size
        self.differing += int(np.count_nonzero(difference))
        self.largest = max(self.largest, int(np.abs(difference).max(initial=0)))
        self.signal += int(np.square(steps).sum())
        self.noise += int(np.square(difference).sum())

    def result(self, near_ties: int) -> LayerResult:
        return LayerResult(
            self.node.name, type(self.node).__name__, self.values, self.differing, self.largest,
            sqnr(self.signal, self.noise), near_ties,
        )  # fmt: skip


def sqnr(signal: int, noise: int) -> float:
    """Signal to quantization noise in dB, of sums of squares; inf without noise, -inf without signal."""
    if not noise:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def layer_table(
    name: str, network: IntegerNetwork, kind: str, runner: Runner, images: Sequence[Image]
) -> LayerTable:
    """Every tensor of `network` that `runner`, of a file of `kind`, lets out, on uint8 images [H, W, 3].

    Raises ModelError.
    """
    if runner.trace is None:
        return LayerTable(name, (), note=runner.no_trace)
    walked = network
    if kind == "tflite":
        network = in_runtime_order(network)
        walked = shuffled_back(network)
    nodes = [node for node in network.nodes if node.inputs]
    layers = {node.name: _Layer(node) for node in nodes}
    ties, note = NearTies({}), ""
    for image in images:
        found = runner.trace(image, nodes)
        for node, expected in trace(walked, planes(image), ties):
            got = found.get(node.name)
            if got is not None and got.shape == expected.shape:
                layers[node.name].add(got, expected)
        last = found.get(nodes[-1].name)
        if last is not None and not np.array_equal(last, planes(runner.upscale(image))):
            note = "with its layers let out it computes other pixels than without"
    seen = (layer.result(ties.counts.get(name, 0)) for name, layer in layers.items() if layer.values)
    unseen = tuple(name for name, layer in layers.items() if not layer.values)
    return LayerTable(name, tuple(seen), unseen, note)
