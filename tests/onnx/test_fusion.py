"""What onnxruntime makes of quantized and float convolutions."""

from pathlib import Path

import onnx
import pytest

from qnas.errors import ModelError
from qnas.onnx.fusion import FusionReport, count_in_graph, count_integer_convolutions
from qnas.testing.text_models import FLOAT_CONV, INTEGER_CONV, text_model


def saved(folder: Path, graph: str) -> Path:
    path = folder / "model.onnx"
    onnx.save(text_model(graph), path)
    return path


def test_quantized_convolution_runs_in_integers(tmp_path: Path) -> None:
    assert count_integer_convolutions(saved(tmp_path, INTEGER_CONV)) == FusionReport(1, 1, ())


def test_float_convolution_does_not(tmp_path: Path) -> None:
    assert count_integer_convolutions(saved(tmp_path, FLOAT_CONV)) == FusionReport(1, 0, ())


def test_convolution_with_a_float_operation_before_its_quantizer_does_not(tmp_path: Path) -> None:
    graph = INTEGER_CONV.replace("q = QuantizeLinear (c,", "f = Sqrt (c)\n    q = QuantizeLinear (f,")
    assert count_integer_convolutions(saved(tmp_path, graph)) == FusionReport(1, 0, ("1 Sqrt",))


def test_four_bit_weights_behind_a_cast_run_in_integers(tmp_path: Path) -> None:
    graph = INTEGER_CONV.replace("int8[12, 3, 3, 3] k", "int4[12, 3, 3, 3] k4").replace(
        "    w = ", "    k = Cast <to = 3> (k4)\n    w = "
    )
    assert count_integer_convolutions(saved(tmp_path, graph)) == FusionReport(1, 1, ())


def test_integer_operations_and_data_movement_are_no_float_operations() -> None:
    graph = """
    net (uint8[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y) <int8[4, 8, 3, 3] k, float s, uint8 z, int8 n>
    {
        c = com.microsoft.QLinearConcat <axis = 1> (s, z, x, s, z, x, s, z)
        q = com.microsoft.QLinearConv (c, s, z, k, s, n, s, z)
        p = MaxPool <kernel_shape = [2, 2]> (q)
        d = DequantizeLinear (p, s, z)
        t = Transpose (d)
        a = Resize (t)
        y = Resize (a)
    }"""
    assert count_in_graph(text_model(graph)) == FusionReport(1, 1, ("2 Resize",))


def test_missing_model_raises(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a file"):
        count_integer_convolutions(tmp_path / "missing.onnx")
