"""Small ONNX models in text form, whose weights are only declared there: this gives them values."""

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser


def text_model(graph: str, opset: int = 21) -> ModelProto:
    """A model of `graph`; what it declares as `type[shape] name` and no node writes becomes a constant.

    Such constants of one dimension or none are 0.01 (float) or 0, others random in -8..7.
    """
    domains = f'"" : {opset}, "com.microsoft" : 1, "house" : 1'
    model = parser.parse_model(f"<ir_version: 10, opset_import: [{domains}]> {graph}")
    written = {name for node in model.graph.node for name in node.output}
    generator = np.random.default_rng(0)
    for value in model.graph.value_info:
        if value.name in written:
            continue
        kind = value.type.tensor_type.elem_type
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        fill = 0.01 if kind == TensorProto.FLOAT else 0
        values = np.full(shape, fill) if len(shape) < 2 else generator.integers(-8, 8, shape)
        tensor = numpy_helper.from_array(values.astype(helper.tensor_dtype_to_np_dtype(kind)), value.name)
        model.graph.initializer.append(tensor)
    del model.graph.value_info[:]
    return model


FLOAT_CONV = """
net (float[n, 3, h, w] image) => (float[n, 3, y, x] upscaled) <float[12, 3, 3, 3] k, float[12] b>
{
    c = Conv <pads = [1, 1, 1, 1]> (image, k, b)
    r = Relu (c)
    upscaled = DepthToSpace <blocksize = 2, mode = "CRD"> (r)
}"""

INTEGER_CONV = """
net (uint8[n, 3, h, w] image) => (uint8[n, 3, y, x] upscaled)
<float one = {0.00390625}, uint8 zero = {0}, int8[12, 3, 3, 3] k, float[12] scales, int8[12] zeros>
{
    i = DequantizeLinear (image, one, zero)
    w = DequantizeLinear <axis = 0> (k, scales, zeros)
    c = Conv <pads = [1, 1, 1, 1]> (i, w)
    q = QuantizeLinear (c, one, zero)
    upscaled = DepthToSpace <blocksize = 2, mode = "CRD"> (q)
}"""
