"""Random members of a search space as ONNX files, exported untrained, without torch: for their kernels."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from qnas.export.targets import TARGETS, fitted
from qnas.export.to_onnx.writer import write_onnx
from qnas.integer.builder import build_network
from qnas.network.architecture import Architecture, Choice, Space
from qnas.network.lowering import lower, slot_operations
from qnas.runtime_bench.latency_model.untrained import UntrainedParameters

SPACES: dict[str, Space] = {"basic": "basic", "rfdn": "rfdn_space"}
# Operations of the paper's lists (QuantNAS, appendix J), and the channels that slim and full networks have.
OPERATIONS = (
    "simple_1x1", "simple_3x3", "simple_5x5", "simple_3x3_grouped_3", "simple_5x5_grouped_3", "growth2_3x3",
    "growth1_1x1", "decenc_3x3_2", "conv_3x1_1x3",
)  # fmt: skip
CHANNELS: dict[Space, tuple[int, ...]] = {
    "basic": (12, 18, 24, 30, 36),
    "rfdn_space": (12, 18, 24, 36, 48),
}
BLOCKS = (1, 2, 3)
SCALES = (2, 3, 4)
BITS = (4, 8)


def random_member(space: Space, seed: int) -> Architecture:
    """Any operations, 4 and 8 bits mixed, with and without ADQ; the same one for the same seed."""
    generator = np.random.default_rng((seed, len(space)))
    frame = Architecture(
        space=space,
        channels=int(generator.choice(CHANNELS[space])),
        blocks=int(generator.choice(BLOCKS)),
        scale=int(generator.choice(SCALES)),
        layers={},
        normalization="adq" if generator.random() < 0.5 else "none",
    )
    layers = {
        slot: Choice(str(generator.choice(OPERATIONS)), int(generator.choice(BITS)))
        for slot in slot_operations(frame)
    }
    return replace(frame, layers=layers)


def untrained_model(architecture: Architecture, seed: int) -> onnx.ModelProto:
    """What the export would write for onnxruntime after a training; image [n, 3, h, w] uint8 in and out."""
    layers, target = lower(architecture), TARGETS["onnxruntime"]
    parameters = UntrainedParameters(layers, seed)
    network = build_network(architecture.space, architecture.scale, layers, parameters)
    return write_onnx(fitted(network, target), target)


def write_members(space: str, count: int, folder: Path) -> list[Path]:
    """Write `count` members of `space` ("basic", "rfdn") and return their paths."""
    paths = []
    for seed in range(count):
        path = folder / f"{space}-{seed:03d}.onnx"
        onnx.save(untrained_model(random_member(SPACES[space], seed), seed), path)
        paths.append(path)
    return paths
