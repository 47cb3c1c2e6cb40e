"""What a reader of an exported file may ask, as named strings: ONNX `metadata_props`, TFLite metadata."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from qnas import __version__
from qnas.cost.network_cost import network_cost
from qnas.network.architecture import Architecture
from qnas.network.layers import Layer
from qnas.quantization.quantizers import GREY_LEVEL

OUTPUT_SIZES = ((1280, 720), (1920, 1080), (3840, 2160))  # width, height


def file_properties(source: Path, scale: int, bits: set[int], integer: bool) -> dict[str, str]:
    """Return the `qnas.*` keys of a file made from `source`, whose weights have `bits`.

    `integer`: whether images are uint8, else float32 in network units.
    """
    return {
        "qnas.version": __version__,
        "qnas.bits": ",".join(map(str, sorted(bits))),
        "qnas.scale": str(scale),
        "qnas.color_order": "RGB",
        "qnas.range": "uint8 0..255" if integer else f"float32 0..{255 * GREY_LEVEL}",
        "qnas.input_scale": "1" if integer else str(GREY_LEVEL),
        "qnas.source_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
    }


def architecture_properties(architecture: Architecture, layers: Sequence[Layer]) -> dict[str, str]:
    """Return the keys of a file whose architecture is known: that, and what its `layers` cost by size."""
    costs = {}
    for width, height in OUTPUT_SIZES:
        cost = network_cost(layers, height // architecture.scale, width // architecture.scale)
        costs[f"{width}x{height}"] = {"macs": cost.macs, "bitops": cost.bitops}
    return {
        "qnas.architecture": architecture.to_json(),
        "qnas.cost_per_output_size": json.dumps(costs),
    }
