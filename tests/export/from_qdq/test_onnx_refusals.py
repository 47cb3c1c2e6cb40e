"""QDQ models that are not within the integer network are refused by the name of what does not fit."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from qnas.errors import ModelError
from qnas.export.from_qdq.reader import integer_network_of, read_qdq
from qnas.integer.convolution import Conv
from qnas.integer.nodes import ImageInput
from qnas.testing.qdq_text import EYE, READ, WRITE, kinds, read, text_model

MORE = {
    "scales2": np.ones(2, np.float32), "z2": np.zeros(2, np.int8), "huge_b": np.float32([1e10, 0, 0]),
    "many": np.arange(4, dtype=np.float32), "far": np.float32([1e9, 0, 0]).reshape(3, 1, 1),
}  # fmt: skip
FOREIGN = {
    "[g] y = GlobalMaxPool(x)": r"GlobalMaxPool \(node g\) is not an operation .*: it has Abs",
    "[n] y = qonnx.custom_op.general.Quant(x, one, zero, one)": r"general.Quant \(node n\).*export as QCDQ",
    "[f] y = FakeQuantize(x)": r"FakeQuantize \(node f\).*QDQ format",
    "[c] y = com.microsoft.QLinearAdd(x, x)": r"QLinearAdd \(node c\).*QDQ format",
    "[d] y, t, u = DynamicQuantizeLinear(x)": r"DynamicQuantizeLinear \(node d\).*statically",
    "[s] y = Squeeze(x)": r"Squeeze \(node s\) is not an operation",
}
UNFIT = {
    "[m] y = ReduceMean <axes = [1]> (x)": r"ReduceMean \(node m\) over the axes \[1\] is not an operation",
    "m = GlobalAveragePool(x) [a] y = Add(x, m)": r"Add \(node a\) adds a value per channel or image",
    '[r] y = Resize <mode = "cubic"> (x, , up2)': r"Resize \(node r\) in mode cubic, half_pixel is not",
    '[r] y = Resize <mode = "linear"> (x, , scales3)': r"Resize \(node r\) has the scales \[0.5",
    "[c] y = Conv(x, float_w)": r"Conv \(node c\) has float weights 'float_w': quantize them",
    "[c] t = Conv(x, w) [a] y = Add(t, x)": r"Add \(node a\) reads 't'.*output of Conv \(node c\)",
    "[l] t = Sigmoid(x) [c] y = Conv(t, w)": r"Conv \(node c\) reads 't', .*quantize the output of Sigmoid",
    "[a] y = Add(x, many)": r"Add \(node a\) computes with several constants: a single number or",
    "[m] y = Max(x, slopes)": r"Max \(node m\) computes with several constants",
    "[b] y = BatchNormalization(x, scales3, scales2, scales3, scales3)": r"BatchNorm.* other statistics than",
    "[l] y = Add(x, far)": r"Add \(node l\) has constants out of all proportion",
    "[m] y = MaxPool <kernel_shape = [2, 2], pads = [2, 1, 1, 1]> (x)": r"MaxPool .* windows outside",
    "[m] y = MaxPool <kernel_shape = [2, 2], dilations = [2, 2]> (x)": r"MaxPool \(node m\) has dilations",
    "[m] y = AveragePool <kernel_shape = [2, 2], pads = [1, 1, 1, 1]> (x)": r"fewer pixels at the border",
    "[m] y = AveragePool <kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1> (x)": r"rounds its size up",
    "t = Neg(x) [m] y = MaxPool <kernel_shape = [2, 2]> (t)": r"MaxPool .* reads 't', which is on no grid",
    "[c] y = Conv <pads = [0, 0, 1]> (x, w)": r"Conv \(node c\) has the padding \[0, 0, 1\]",
    "[c] y = Conv <pads = [9, 9, 9, -9]> (x, w)": r"Conv \(node c\) has the padding .* none below zero",
    "[c] y = Conv <strides = [1]> (x, w)": r"Conv \(node c\) has the strides \[1\]",
    "[c] y = Conv <group = 3> (x, w)": r"Conv \(node c\) has weights \(3, 3, 1, 1\) in 3 groups",
    "[c] y = Conv(x, w, huge_b)": r"Conv \(node c\) has a bias beyond 32 bits",
    '[p] y = Pad <mode = "wrap"> (x, edges)': r"Pad \(node p\) of .* in mode wrap is not",
    "[p] y = Pad(x, edges, one)": r"Pad \(node p\) adds values of 1.0: only zeros",
    "[s] y = Slice(x, i0_i0, ends, axes, steps)": r"Slice \(node s\) takes every \[-1, 1\] along axes",
    "[c] y = Conv(x, w, one)": r"Conv \(node c\) has a bias \(\) for 3 channels",
    "[c] y = Conv <kernel_shape = [3, 3]> (x, w)": r"Conv \(node c\) has another kernel than its weights",
    '[c] y = Conv <auto_pad = "SAME_UPPER", strides = [2, 2]> (x, w)': r"SAME_UPPER at steps",
    "v = DequantizeLinear <axis = 1> (eye, scales3, zeros3) [c] y = Conv(x, v)": r"scales along axis 1",
    "[r] y = Relu(q)": r"Relu \(node r\) reads 'q', which is no float tensor: dequantize it",
    "[q2] t = QuantizeLinear(q, one, z) y = DequantizeLinear(t, one, z)": r"quantizes 'q', which is no float",
    "[d] y = DequantizeLinear(x, one, z)": r"\(node d\) dequantizes 'x', which is no integer",
    "[d] y = DequantizeLinear(q, one, i0)": r"DequantizeLinear \(node d\) has a zero point of another type",
    "[d] v = DequantizeLinear(eye, scales2, z2) y = Conv(x, v)": r"has 2 scales for a tensor \(3, 3, 1, 1\)",
    "t = Add(x, one) [p] y = Pad(t, more)": r"Pad \(node p\) adds values of 0.0: only zeros",
    "[d] y = DepthToSpace <blocksize = 2> (x)": r"DepthToSpace \(node d\) has 3 channels for a factor of 2",
    "[k] y = Concat <axis = 2> (x, x)": r"Concat \(node k\) joins another axis",
    "[t] y = Transpose <perm = [0, 1, 3, 2]> (x)": r"Transpose \(node t\) by \[0, 1, 3, 2\] is not",
    "[m] y = MatMul(x, x)": r"MatMul \(node m\) is only an operation",
    "[q] t = QuantizeLinear(x, x, z) y = DequantizeLinear(t, one, z)": r"\(node q\) computes its scale",
    "[q] t = QuantizeLinear(x, scales3, z) y = DequantizeLinear(t, one, z)": r"has a scale per channel",
    "[q] t = QuantizeLinear(x, zero, z) y = DequantizeLinear(t, one, z)": r"has a float scale.*positive",
    "[t] k = Cast <to = 6> (q) [g] v = Gather(slopes, k) y = Relu(v)": r"Gather \(node g\) is no table",
    "[k] v = Cast <to = 10> (x) [g] y = Relu(v)": r"Cast \(node k\) to float16 is not",
    "[r] y = Div(x, zero)": r"Div \(node r\) makes values that are not finite",
    "k = Concat <axis = 1> (x, x) [a] y = Add(x, k)": r"Add \(node a\) combines tensors of 3 and 6 channels",
}


@pytest.mark.parametrize("body", [*FOREIGN, *UNFIT])
def test_what_the_integer_network_has_not_is_refused_by_name(body: str) -> None:
    with pytest.raises(ModelError, match=(FOREIGN | UNFIT)[body]) as caught:
        read(f"{READ} {EYE} {body} {WRITE}", **MORE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "options", "message"),
    [
        ("upscaled = Relu(image)", {"opset": 9}, r"opset \[9\]: opset 10 to 25"),
        ("upscaled = Relu(image)", {"image": "float[n, 2, h, w]"}, r"\[None, 2, None, None\]: an RGB or"),
        ("upscaled = Relu(image)", {"image": "double[n, 3, h, w]"}, "double: an image is uint8"),
        ("upscaled = Add(image, other)", {"image": "float[1, 3, 8, 8] other, float[1, 3, 8, 8]"},
         "has 2 inputs"),
        ("upscaled = Identity(float_w)", {}, "does not depend on the image"),
        ("upscaled = Relu(two_of) two_of = Relu(image)", {}, "not valid ONNX"),
        ("upscaled = Concat <axis = 1> (image, image)", {}, "has 6 channels: the image has 3"),
        (f"{READ} {EYE} upscaled = Conv <strides = [2, 2]> (x, w)", {}, "no whole multiple of the image"),
        (f"{READ} w = DequantizeLinear <block_size = 1> (eye, one, i0) upscaled = Conv(x, w)", {"opset": 21},
         r"DequantizeLinear .* has scales per block"),
        ("q = QuantizeLinear <output_dtype = 17> (image, one) upscaled = DequantizeLinear(q, one)",
         {"opset": 21}, r"QuantizeLinear \(node q\) is of type float8e4m3fn"),
        (f"{READ} w = DequantizeLinear(u_eye, one, z) upscaled = Conv(x, w)", {},
         r"has weights 128 \.\. 133 steps"),
        (f"{READ} {EYE} hb = DequantizeLinear(huge, one) y = Conv(x, w, hb) {WRITE}", {},
         "the sums of y may reach 2147483902, beyond 32 bits"),
        ("t = Transpose <perm = [0, 2, 3, 1]> (image) upscaled = MaxPool <kernel_shape = [1, 1]> (t)", {},
         r"MaxPool \(node upscaled\) reads channels last"),
    ],
)  # fmt: skip
def test_models_that_do_not_fit_are_refused(body: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read(body, **options)


def test_what_the_output_does_not_need_may_be_anything() -> None:
    network = read(f"{READ} {EYE} y = Conv(x, w) {WRITE} unused = GlobalAveragePool(x)")
    assert kinds(network) == [ImageInput, Conv]


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(ModelError, match="no readable ONNX model"):
        read_qdq(path)
    model = text_model(f"{READ} {EYE} y = Conv(x, w) {WRITE}")
    next(t for t in model.graph.initializer if t.name == "eye").raw_data = b"short"
    onnx.save(model, path)
    with pytest.raises(ModelError, match=r"the constant 'eye' is damaged|not valid ONNX"):
        read_qdq(path)


def test_functions_of_the_model_are_refused_by_name() -> None:
    model = text_model(f"{READ} {EYE} y = Conv(x, w) {WRITE}")
    model.functions.add(name="block", domain="house")
    with pytest.raises(ModelError, match="calls its own function 'block': inline it"):
        integer_network_of(model, "net")
