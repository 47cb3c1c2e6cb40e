"""Convolutions that read 4 bits, in networks of every kind: the same bytes in both formats."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qnas.calibration.prepare.float_model import FloatModel
from qnas.calibration.ptq.int4_inputs import Int4Input
from qnas.calibration.ptq.integer_model import PtqOptions, plan_layers, quantized
from qnas.errors import ModelError
from qnas.export.from_qdq.reader import integer_network_of
from qnas.export.targets import TARGETS, fitted
from qnas.export.to_onnx.writer import write_onnx
from qnas.export.to_tflite.writer import write_tflite
from qnas.integer.convolution import Conv
from qnas.integer.interpreter import run
from qnas.integer.network import IntegerNetwork
from qnas.onnx.cost import model_cost
from qnas.onnx.session import open_session
from qnas.testing.small_ptq import NETWORKS, float_network, patches, ranges_of, text_network
from qnas.tflite.session import LiteRtSession

IMAGES = patches()


def inputs_of(network: FloatModel, every: int = 1) -> tuple[Int4Input, ...]:
    """Each convolution, or every second, that reads other than the pixels, with the range that it reads."""
    plan, ranges = plan_layers(network, PtqOptions()), ranges_of(network, IMAGES)
    nodes = [node for node in plan.graph.nodes if node.name in plan.weighted & plan.integer]
    read = [(node.name, ranges[node.input[0]]) for node in nodes if node.input[0] != network.input]
    return tuple(Int4Input(name, each.low, each.high) for name, each in read[::every])


def integers_of(network: FloatModel, inputs: tuple[Int4Input, ...]) -> IntegerNetwork:
    options = PtqOptions(int4_layers=tuple(each.layer for each in inputs), int4_inputs=inputs)
    return integer_network_of(quantized(network, ranges_of(network, IMAGES), options), "network")


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("name", NETWORKS)
def test_both_formats_compute_the_bytes_of_the_definition(name: str, every: int, tmp_path: Path) -> None:
    network = float_network(name, tmp_path)
    inputs = inputs_of(network, every)
    integers = integers_of(network, inputs)
    wide = {node.name: read.output.high for node, read in integers.convolutions()}
    assert all(wide[each.layer] == 15 for each in inputs)
    pixels = IMAGES[:1].astype(np.uint8).transpose(0, 3, 1, 2)
    wanted = run(integers, pixels)
    model = write_onnx(fitted(integers, TARGETS["onnxruntime"]), TARGETS["onnxruntime"])
    found = open_session(model.SerializeToString(), threads=1).run(None, {"image": pixels})[0]
    np.testing.assert_array_equal(found, wanted)
    tflite = write_tflite(fitted(integers, TARGETS["litert"]), *pixels.shape[2:])
    np.testing.assert_array_equal(LiteRtSession(tflite.data).run(pixels), wanted)


def test_the_counter_of_files_finds_4_bits_of_both(tmp_path: Path) -> None:
    network = float_network("xlsr with a clip", tmp_path)
    inputs = inputs_of(network)
    options = PtqOptions(int4_layers=tuple(each.layer for each in inputs), int4_inputs=inputs)
    model = quantized(network, ranges_of(network, IMAGES), options)
    rows = model_cost(model, {network.input: network.shape(16, 16)}).layers
    bits = {row.name: (row.weight_bits, row.activation_bits) for row in rows}
    assert bits == {row.name: (8, 8) for row in rows} | {each.layer: (4, 4) for each in inputs}


FORK = """
network (float[N, 3, H, W] image) => (float[N, 3, H, W] upscaled)
<float[4, 3, 1, 1] a, float[4, 4, 1, 1] b, float[4, 4, 1, 1] c, float[3, 4, 1, 1] d> {
    x = Conv(image, a)
    r = Relu(x)
    y = Conv(r, b)
    z = Conv(r, c)
    s = Add(y, z)
    upscaled = Conv(s, d)
}"""


def fork() -> FloatModel:
    rng = np.random.default_rng(0)
    shapes = {"a": (4, 3, 1, 1), "b": (4, 4, 1, 1), "c": (4, 4, 1, 1), "d": (3, 4, 1, 1)}
    weights = {name: np.abs(rng.normal(size=shape)) * 0.3 for name, shape in shapes.items()}
    return text_network(FORK, **{name: each.astype(np.float32) for name, each in weights.items()})


def convolutions(inputs: tuple[Int4Input, ...]) -> int:
    return sum(isinstance(node, Conv) for node in integers_of(fork(), inputs).nodes)


def test_what_4_bit_layers_alone_read_is_written_so_and_all_else_is_rounded_in_front() -> None:
    y, z, last = inputs_of(fork())
    assert (y.low, y.high) == (z.low, z.high)
    assert convolutions(()) == 4
    assert convolutions((y, z)) == 4  # r is written in 16 levels
    assert convolutions((y,)) == 5  # z reads it in 8 bits
    assert convolutions((y, replace(z, high=z.high / 2))) == 6  # both read it in levels of their own
    assert convolutions((last,)) == 5  # a sum keeps its scale


def test_a_layer_that_is_not_there_is_refused() -> None:
    network = fork()
    with pytest.raises(ModelError, match="has no layer 'nowhere'"):
        quantized(
            network, ranges_of(network, IMAGES), PtqOptions(int4_inputs=(Int4Input("nowhere", 0.0, 1.0),))
        )
