"""What a reader of an exported file may ask, as named strings: ONNX `metadata_props`, TFLite metadata."""

import hashlib
import json
from pathlib import Path

from qnas import __version__
from qnas.cost.network_cost import network_cost
from qnas.quantization.quantizers import GREY_LEVEL
from qnas.torch.checkpoint import Found

OUTPUT_SIZES = ((1280, 720), (1920, 1080), (3840, 2160))  # width, height


def properties(
    source: Path, scale: int, bits: set[int], found: Found | None, integer: bool
) -> dict[str, str]:
    """`qnas.*` keys of a file made from `source`; those of an architecture when that is known.

    `bits` of the weights; `integer`: whether images are uint8, else float32 in network units.
    """
    known = {
        "qnas.version": __version__,
        "qnas.bits": ",".join(map(str, sorted(bits))),
        "qnas.scale": str(scale),
        "qnas.color_order": "RGB",
        "qnas.range": "uint8 0..255" if integer else f"float32 0..{255 * GREY_LEVEL}",
        "qnas.input_scale": "1" if integer else str(GREY_LEVEL),
        "qnas.source_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
    }
    if found is None:
        return known
    costs = {}
    for width, height in OUTPUT_SIZES:
        cost = network_cost(found.network.layers, height // scale, width // scale)
        costs[f"{width}x{height}"] = {"macs": cost.macs, "bitops": cost.bitops}
    return known | {
        "qnas.architecture": found.architecture.to_json(),
        "qnas.cost_per_output_size": json.dumps(costs),
    }
