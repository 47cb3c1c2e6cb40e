"""Small QDQ models in text form, and what they are read as."""

from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper, parser

from qnas.export.from_qdq.reader import InputRange, integer_network_of
from qnas.integer.network import IntegerNetwork

# What the models read: scales, zero points, weights. `eye` is the identity on three channels.
CONSTANTS = {
    "one": np.float32(1), "two": np.float32(2), "half": np.float32(0.5), "quarter": np.float32(0.25),
    "z": np.uint8(0), "i0": np.int8(0), "i128": np.int8(-128), "z10": np.uint8(10), "u0": np.uint8(0),
    "u15": np.uint8(15), "i_8": np.int8(-8), "i7": np.int8(7), "zero": np.float32(0),
    "hundred": np.float32(100),
    "eye": np.eye(3, dtype=np.int8).reshape(3, 3, 1, 1), "b": np.array([4, 0, -4], np.int32),
    "float_b": np.array([0.3, 0.2, -0.8], np.float32),
    "float_w": np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1),
    "slopes": np.array([0.1, 0.2, 0.3], np.float32).reshape(3, 1, 1), "scales3": np.float32([0.5, 1, 2]),
    "zeros3": np.zeros(3, np.int8), "up2": np.float32([1, 1, 2, 2]), "k12": np.ones((12, 3, 1, 1), np.int8),
    "i0_i0": np.array([0, 0]), "ends": np.array([9, 9]), "axes": np.array([2, 3]), "steps": np.array([-1, 1]),
    "edges": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "more": np.array([0, 0, 0, 0, 0, 1, 0, 0]),
    "u_eye": (128 + 5 * np.eye(3)).astype(np.uint8).reshape(3, 3, 1, 1), "z128": np.uint8(128),
    "huge": np.array([2**31 - 1] * 3, np.int32), "s16": np.int16(0), "tiny": np.float32(1e-5),
    "backwards": np.arange(255, -1, -1).astype(np.uint8),
}  # fmt: skip
READ = "q = QuantizeLinear(image, one, z) x = DequantizeLinear(q, one, z)"
EYE = "w = DequantizeLinear(eye, one, i0)"
WRITE = "p = QuantizeLinear(y, one, z) upscaled = DequantizeLinear(p, one, z)"


def text_model(
    body: str,
    opset: int = 13,
    image: str = "float[n, 3, h, w]",
    result: str = "float[n, 3, y, x]",
    **constants: np.ndarray,
) -> onnx.ModelProto:
    """A model of `body` from `image` to `upscaled`; constants that it names are initializers."""
    imports = f'"" : {opset}, "com.microsoft" : 1, "qonnx.custom_op.general" : 1'
    header = f"<ir_version: 8, opset_import: [{imports}]> net ({image} image) => ({result} upscaled)"
    model = parser.parse_model(f"{header} {{ {body} }}")
    named = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name)
        for name, value in (CONSTANTS | constants).items()
        if name in named
    )
    return model


def read(body: str, input_range: InputRange = "0..255", **options: Any) -> IntegerNetwork:
    return integer_network_of(text_model(body, **options), "net", input_range)


def kinds(network: IntegerNetwork) -> list[type]:
    return [type(node) for node in network.nodes]


def pixels(*values: int) -> np.ndarray:
    """uint8 [1, 3, 1, n]: the same values in all three channels."""
    return np.array([[[values]] * 3], np.uint8)
