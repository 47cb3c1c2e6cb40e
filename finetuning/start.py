"""What fine-tuning begins with: the integer network of a calibration, at the bits that are wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qnas.calibration.calibrate import quantized_model
from qnas.calibration.document import Calibration
from qnas.calibration.ptq.qdq_writer import WEIGHTED
from qnas.calibration.ptq.rounding import assumed, rounded
from qnas.errors import ModelError, UsageError
from qnas.export.sources.quantizing import integers_in
from qnas.finetuning.narrowing import narrow_grids, narrowed
from qnas.integer.convolution import Conv
from qnas.integer.network import INT32_MAX, IntegerNetwork, rewritten
from qnas.integer.nodes import IntegerNode
from qnas.integer.requantization import Bytes

Reals = Mapping[str, NDArray[np.float32]]  # convolution -> its weights before they were rounded


@dataclass(frozen=True)
class Bits:
    """`weights`: 4 or 8. `activations`: what convolutions read, 4. None for those of the calibration.

    `ends`: whether the first and the last convolutions have them too; else they have 8.
    """

    weights: Literal[4, 8] | None = None
    activations: Literal[4] | None = None
    ends: bool = False


@dataclass(frozen=True, eq=False)
class Start:
    """`network`: the integers. `real`: the weights that are trained. `grids`: the tensors whose scale is."""

    network: IntegerNetwork
    real: Reals
    grids: frozenset[str] = frozenset()


def calibrated(path: Path, calibration: Calibration) -> Start:
    """The integers of the float network at `path`, and the weights of its convolutions as 8 bits hold them.

    Raises ModelError where layers of it compute in float, or none has weights.
    """
    model = quantized_model(path, calibration)
    network, why = integers_in(model, path)
    if network is None:
        raise ModelError(f"{why}: fine-tuning needs all of a network in integers")
    whole = network
    if any(node.bits != 8 for node, _ in network.convolutions()):
        options = replace(calibration.options, weight_bits=8, int4_layers=())
        eight = replace(calibration, options=options, weights={})
        found, _ = integers_in(quantized_model(path, eight), path)
        assert found is not None  # the same operations
        whole = found
    layers = {node.name for node in model.graph.node if node.op_type in WEIGHTED}
    real = {
        node.name: node.weight.astype(np.float32) * node.weight_scale.reshape(-1, 1, 1, 1)
        for node, _ in whole.convolutions()
        if node.name in layers
    }
    if not real:
        raise ModelError(f"{path} has no convolution with weights of its own: there is nothing to tune")
    return Start(network, real)


def at_bits(given: Start, bits: Bits, images: Sequence[Bytes]) -> Start:
    """`given` at other bits; `images` [1, C, H, W] show the ranges of activations. Raises UsageError."""
    network, real = given.network, given.real
    inner = real.keys() if bits.ends else real.keys() - ends(network, real)
    if not inner and 4 in (bits.weights, bits.activations):
        raise UsageError(
            f"all convolutions of {network.name} are its first or last, which keep 8 bits: name --all-layers"
        )
    if bits.weights is not None:
        wanted = {name: bits.weights if name in inner else 8 for name in real}
        network = with_weight_bits(network, real, wanted)
    if bits.activations is not None:
        network = narrowed(network, inner, bits.activations, images)
    return Start(network, real, narrow_grids(network))


def ends(network: IntegerNetwork, layers: Reals) -> frozenset[str]:
    """The convolutions of `layers` that read none of the others' results, and those whose nobody reads."""
    behind: dict[str, frozenset[str]] = {}  # tensor -> the layers that it was made by
    for node in network.nodes:
        made = frozenset[str]().union(*(behind[name] for name in node.inputs))
        behind[node.name] = made | {node.name} if node.name in layers else made
    first = {name for name in layers if behind[name] == {name}}
    read = {other for name in layers for other in behind[name] - {name}}
    return frozenset(first | (layers.keys() - read))


def with_weight_bits(network: IntegerNetwork, real: Reals, bits: Mapping[str, int]) -> IntegerNetwork:
    """`network` with weights of other bits, rounded for images that none looked at."""
    named = network.by_name()

    def edit(node: IntegerNode) -> tuple[IntegerNode, ...]:
        if not isinstance(node, Conv) or bits.get(node.name, node.bits) == node.bits:
            return (node,)
        step = float(named[node.inputs[0]].output.scale)
        bias = (node.bias * (step * node.weight_scale.astype(np.float64))).astype(np.float32)
        weight, wanted = real[node.name], bits[node.name]
        found = rounded(weight, None, assumed(weight, node.groups), wanted, "mse")
        whole = np.rint(bias / (step * found.scale.astype(np.float64)))
        limited = np.clip(whole, -INT32_MAX, INT32_MAX).astype(np.int32)
        return (replace(node, weight=found.q, weight_scale=found.scale, bias=limited, bits=wanted),)

    return rewritten(network, edit)
