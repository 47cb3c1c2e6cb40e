"""found.pt -> checked ONNX model with its metadata."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import onnx

from qnas import __version__
from qnas.architecture import Architecture
from qnas.checkpoint import Found
from qnas.cost import network_cost
from qnas.errors import ModelError
from qnas.export.writer import GraphWriter
from qnas.layers import Layer
from qnas.lowering import lower
from qnas.network import Network
from qnas.quantization import FLOAT_BITS, GREY_LEVEL

OUTPUT_SIZES = ((1280, 720), (1920, 1080), (3840, 2160))  # width, height


def build_qdq(found: Found) -> onnx.ModelProto:
    """The integer model. Raises ModelError naming what would stay float."""
    architecture = found.architecture
    if not architecture.quantized:
        raise ModelError(
            "the network is full precision: train it with fewer bits, or use --format onnx-float32"
        )
    if architecture.residual_bits is None:
        raise ModelError(
            "the network keeps its residuals float: train it with residual_bits 8 to export integers"
        )
    floats = [layer.name for layer in found.network.layers if layer.op == "conv" and layer.bits == FLOAT_BITS]
    if floats:
        raise ModelError(
            f"layer {floats[0]} has 32 bits: give every layer at most 8, or use --format onnx-float32"
        )
    return GraphWriter(found.network).build(architecture.space, architecture.scale)


def build_float32(found: Found) -> onnx.ModelProto:
    """The float32 network of the same weights: what the integer model is to be faster than."""
    return GraphWriter(float_twin(found)).build(found.architecture.space, found.architecture.scale)


def float_twin(found: Found) -> Network:
    """The full-precision network with the weights of `found`, in `eval()`."""
    network = Network(lower(found.architecture.with_bits(FLOAT_BITS)))
    state = found.network.state_dict()
    network.load_state_dict({name: state[name] for name in network.state_dict()})
    return network.eval()


FORMATS: dict[str, Callable[[Found], onnx.ModelProto]] = {
    "onnx-qdq": build_qdq,
    "onnx-float32": build_float32,
}


def add_metadata(
    model: onnx.ModelProto, architecture: Architecture, layers: tuple[Layer, ...], source: Path
) -> None:
    """Everything a reader of the file may ask, as `metadata_props` named `qnas.*`."""
    scale = architecture.scale
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
