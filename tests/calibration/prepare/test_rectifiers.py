"""Rectifiers written in several operations become one; what is none stays."""

import numpy as np
import pytest

from qnas.calibration.prepare.rectifiers import rectifiers_as_one
from qnas.onnx.session import open_session
from qnas.testing.text_models import text_model

FORMS = {  # of x -> y, and the operation that writes y then
    "p = Relu (x) a = Abs (x) d = Sub (x, a) n = Mul (d, slopes) y = Add (p, n)": "PRelu",
    "m = Neg (x) r = Relu (m) n = Mul (slopes, r) p = Relu (x) y = Sub (p, n)": "PRelu",
    "n = Mul (x, slopes) y = Max (x, n)": "Max",  # one slope is above 1
    "n = Mul (x, tenth) y = Max (n, x)": "LeakyRelu",
    "n = Div (x, ten) y = Max (n, x)": "LeakyRelu",
    "a = Abs (x) s = Add (a, x) y = Mul (s, tenth)": "Mul",
    "m = Neg (x) r = Relu (m) y = Add (x, r)": "Relu",
    "r = Relu (x) y = Add (x, r)": "Add",  # twice the positive values
    "n = Mul (x, zeros) y = Max (x, n)": "Max",
    "n = Add (x, tenth) y = Max (x, n)": "Max",
}


@pytest.mark.parametrize("form", FORMS)
def test_what_bends_at_zero_is_one_operation(form: str) -> None:
    model = text_model(f"""
net (float[n, 3, h, w] x) => (float[n, 3, h, w] y)
<float[3, 1, 1] slopes = {{0.1, -0.2, 1.5}}, float tenth = {{0.1}}, float ten = {{10}},
 float[3, 1, 1] zeros = {{0, 0, 0}}>
{{ {form} }}""")
    x = np.random.default_rng(0).normal(size=(1, 3, 9, 8)).astype(np.float32)
    (wanted,) = open_session(model.SerializeToString(), threads=1).run(None, {"x": x})
    rectifiers_as_one(model.graph)
    assert model.graph.node[-1].op_type == FORMS[form]
    (found,) = open_session(model.SerializeToString(), threads=1).run(None, {"x": x})
    np.testing.assert_allclose(found, wanted, atol=1e-6)
