"""What ONNX operations do to values: one table, from which everything that looks at graphs takes its sets.

No operation is taken for harmless because it is not here: what a set lacks is refused, reported, or left as
it is by whoever asks. Names are types alone; where the domain matters, whoever asks looks at it.
"""

# Each value that comes out is one that came in, or a constant. The data is the first input; of Concat, all.
MOVING = frozenset({
    "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Slice",
    "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
})  # fmt: skip
# ... and without Reshape or Transpose no value changes its place in an image.
CHANNEL_MOVING = MOVING - {"DepthToSpace", "Pad", "SpaceToDepth"}
# ... and all values that came in come out, each once.
PERMUTING = frozenset({"DepthToSpace", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
# ... or the largest of some. Bytes of one grid come in and go out.
PICKING = MOVING | {"MaxPool"}
# ... or the value nought in place of a negative one.
KEEPING = PICKING | {"Relu"}

# What may stand between a stored weight and the node that multiplies with it.
UNPACKING = frozenset({
    "Cast", "Clip", "DequantizeLinear", "Identity", "QuantizeLinear", "Reshape", "Squeeze", "Transpose",
    "Unsqueeze",
})  # fmt: skip

# One value out of each that comes in, or of several at the same place.
ELEMENTWISE = frozenset({
    "Abs", "Add", "And", "Ceil", "Celu", "Clip", "Cos", "Div", "Dropout", "Elu", "Equal", "Erf", "Exp",
    "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "LeakyRelu", "Less",
    "LessOrEqual", "Log", "LogSoftmax", "Max", "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "Not", "Or",
    "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Softmax", "Softplus",
    "Softsign", "Sqrt", "Sub", "Sum", "Swish", "Tanh", "ThresholdedRelu", "Xor",
})  # fmt: skip
# ... that bends all values, not only those outside a range.
BENDING = frozenset({"HardSigmoid", "HardSwish", "Sigmoid", "Softsign", "Tanh"})
# ... that makes whole numbers of them.
ROUNDING = frozenset({"Ceil", "Floor", "Round"})

POOLING = frozenset({
    "ArgMax", "ArgMin", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceSum", "ReduceSumSquare", "TopK",
})  # fmt: skip
RESIZING = frozenset({"Resize", "Upsample"})
SHAPES_AND_TYPES = frozenset({
    "CastLike", "Constant", "ConstantOfShape", "DynamicQuantizeLinear", "GatherElements", "GatherND", "Range",
    "ScatterElements", "ScatterND", "Shape", "Size", "Where",
})  # fmt: skip
MULTIPLYING = frozenset({"BatchNormalization", "Conv", "ConvTranspose", "Gemm", "MatMul"})
# What is near to itself where tensors are rounded to grids of 256 values: an error stays where it is made.
# Not so of coordinates (GridSample), of indices, or of what divides by a spread (InstanceNormalization).
ON_GRIDS = PICKING | ELEMENTWISE | POOLING | RESIZING | MULTIPLYING

# ... and that no integer runtime has a kernel for: between two of them a grid would only round.
FLOAT_ONLY = frozenset({
    "Div", "Erf", "Exp", "Log", "Pow", "Reciprocal", "ReduceMean", "ReduceSum", "ReduceSumSquare", "Sqrt",
    "Sub",
})  # fmt: skip

# ... and whose values do not grow with the image: of a window of fixed size, or a mean.
LOCAL = (PICKING | ELEMENTWISE | RESIZING | MULTIPLYING | {
    "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "InstanceNormalization", "LayerNormalization",
    "ReduceMax", "ReduceMean", "ReduceMin",
}) - {"LogSoftmax", "Softmax"}  # fmt: skip

# Operations that only a quantized model has, in whatever domain.
QUANTIZING = frozenset({
    "ConvInteger", "DequantizeLinear", "DynamicQuantizeLSTM", "DynamicQuantizeLinear",
    "DynamicQuantizeMatMul", "FakeQuantize", "MatMulInteger", "MatMulIntegerToFloat", "MatMulNBits",
    "QAttention", "QGemm", "QLinearAdd", "QLinearAveragePool", "QLinearConcat", "QLinearConv",
    "QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearMatMul", "QLinearMul", "QLinearReduceMean",
    "QLinearSigmoid", "QLinearSoftmax", "QLinearWhere", "Quant", "QuantizeLinear",
})  # fmt: skip
