"""found.pt -> checked ONNX model with its metadata."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import onnx

from qnas import __version__
from qnas.checkpoint import Found
from qnas.cost import network_cost
from qnas.errors import ModelError
from qnas.export.writer import GraphWriter
from qnas.lowering import lower
from qnas.network import Network
from qnas.quantization import FLOAT_BITS, GREY_LEVEL

OUTPUT_SIZES = ((1280, 720), (1920, 1080), (3840, 2160))  # width, height


def integers_only(found: Found) -> Found:
    """`found` itself. Raises ModelError naming what would stay float."""
    architecture = found.architecture
    if not architecture.quantized:
        raise ModelError(
            "the network is full precision: train it with fewer bits, or use --format onnx-float32"
        )
    if architecture.residual_bits is None:
        raise ModelError("the network keeps its residuals float: train it with residual_bits 8")
    floats = [layer.name for layer in found.network.layers if layer.op == "conv" and layer.bits == FLOAT_BITS]
    if floats:
        raise ModelError(f"layer {floats[0]} has 32 bits: give it at most 8, or use --format onnx-float32")
    return found


def float_twin(found: Found) -> Found:
    """The full-precision network with the weights of `found`: what its integers are to be faster than."""
    architecture = found.architecture.with_bits(FLOAT_BITS)
    network = Network(lower(architecture))
    state = found.network.state_dict()
    network.load_state_dict({name: state[name] for name in network.state_dict()})
    return Found(architecture, network.eval(), found.training)


FORMATS: dict[str, Callable[[Found], Found]] = {"onnx-qdq": integers_only, "onnx-float32": float_twin}


def build(found: Found) -> onnx.ModelProto:
    """The graph of `found`, without metadata: integers throughout, or float32 at full precision."""
    return GraphWriter(found.network).build(found.architecture.space, found.architecture.scale)


def build_qdq(found: Found) -> onnx.ModelProto:
    """The integer graph. Raises ModelError."""
    return build(integers_only(found))


def build_float32(found: Found) -> onnx.ModelProto:
    """The graph of the float twin."""
    return build(float_twin(found))


def add_metadata(model: onnx.ModelProto, found: Found, source: Path) -> None:
    """Everything a reader of the file may ask, as `metadata_props` named `qnas.*`."""
    architecture, layers, scale = found.architecture, found.network.layers, found.architecture.scale
    costs = {}
    for width, height in OUTPUT_SIZES:
        cost = network_cost(layers, height // scale, width // scale)
        costs[f"{width}x{height}"] = {"macs": cost.macs, "bitops": cost.bitops}
    integer = model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    properties = {
        "qnas.version": __version__,
        "qnas.architecture": architecture.to_json(),
        "qnas.bits": ",".join(str(b) for b in sorted({layer.bits for layer in layers if layer.op == "conv"})),
        "qnas.scale": str(scale),
        "qnas.color_order": "RGB",
        "qnas.range": "uint8 0..255" if integer else f"float32 0..{255 * GREY_LEVEL}",
        "qnas.input_scale": "1" if integer else str(GREY_LEVEL),
        "qnas.cost_per_output_size": json.dumps(costs),
        "qnas.source_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
    }
    onnx.helper.set_model_props(model, properties)
