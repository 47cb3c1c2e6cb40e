"""found.pt -> ONNX graphs, integer or float32."""

import onnx

from qnas.errors import ModelError
from qnas.export.float_writer import write_float32
from qnas.export.integers import integer_network, refuse_paper
from qnas.export.targets import TARGETS, Layout, Target, fitted
from qnas.export.to_onnx.writer import write_onnx
from qnas.network.lowering import lower
from qnas.quantization.quantizers import FLOAT_BITS
from qnas.torch.checkpoint import Found
from qnas.torch.network import Network


def integers_only(found: Found) -> Found:
    """`found` itself. Raises ModelError naming what would stay float."""
    architecture = found.architecture
    refuse_paper(architecture)
    if not architecture.quantized:
        raise ModelError(
            "the network is full precision: train it with fewer bits, or use --format onnx-float32"
        )
    if architecture.residual_bits is None:
        raise ModelError(
            "the network keeps its residuals float: calibrate 8-bit ones with --images IMAGES, or train it "
            "with residual_bits 8"
        )
    floats = [layer.name for layer in found.network.layers if layer.op == "conv" and layer.bits == FLOAT_BITS]
    if floats:
        raise ModelError(f"layer {floats[0]} has 32 bits: give it at most 8, or use --format onnx-float32")
    return found


def float_twin(found: Found) -> Found:
    """The full-precision network with the weights of `found`: what its integers are to be faster than.

    Raises ModelError.
    """
    refuse_paper(found.architecture)
    architecture = found.architecture.with_bits(FLOAT_BITS)
    network = Network(lower(architecture))
    state = found.network.state_dict()
    network.load_state_dict({name: state[name] for name in network.state_dict()})
    return Found(architecture, network.eval(), found.training)


def build_qdq(
    found: Found, target: Target = TARGETS["onnxruntime"], layout: Layout = "nchw"
) -> onnx.ModelProto:
    """The integer graph in the forms of `target`. Raises ModelError."""
    return write_onnx(fitted(integer_network(integers_only(found)), target), target, layout)


def build_float32(found: Found) -> onnx.ModelProto:
    """The graph of the float twin."""
    twin = float_twin(found)
    return write_float32(twin.network, found.architecture.space, found.architecture.scale)
