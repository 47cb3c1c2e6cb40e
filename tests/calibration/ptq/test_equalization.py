"""Channels of very different sizes are evened by powers of two, which change nothing of what is computed."""

from dataclasses import replace

import numpy as np
import pytest
from onnx import numpy_helper

from qnas.calibration.prepare.float_model import FloatModel, Runner
from qnas.calibration.ptq.equalization import equalized, find_equalization
from qnas.errors import CalibrationError
from qnas.testing.small_ptq import patches, text_network

CHANNELS = 8


def chain(between: str, sizes: np.ndarray, groups: int = 1) -> FloatModel:
    """Two convolutions around `between`, of `a` to `b`; channel c is sizes[c] times as large there."""
    rng = np.random.default_rng(0)
    first = rng.normal(size=(CHANNELS, 3, 3, 3)) * sizes.reshape(-1, 1, 1, 1)
    read = rng.normal(size=(groups * 3, CHANNELS // groups, 3, 3))
    read /= sizes.reshape(groups, 1, -1, 1, 1).repeat(3, axis=1).reshape(groups * 3, -1, 1, 1)
    graph = f"""
net (float[n, 3, h, w] image) => (float[n, {groups * 3}, h, w] upscaled)
<float[{CHANNELS}, 3, 3, 3] k, float[{CHANNELS}] kb, float[{groups * 3}, {CHANNELS // groups}, 3, 3] l,
 float[{CHANNELS}, 1, 1] slopes>
{{
    a = Conv <pads = [1, 1, 1, 1]> (image, k, kb)
    {between}
    upscaled = Conv <pads = [1, 1, 1, 1], group = {groups}> (b, l)
}}"""
    bias, slopes = rng.normal(size=CHANNELS) * sizes, rng.uniform(0.1, 0.9, (CHANNELS, 1, 1))
    return text_network(graph, k=first, kb=bias, l=read, slopes=slopes)


BETWEEN = {
    "nothing": "b = Identity (a)",
    "relu": "b = Relu (a)",
    "leaky relu": "b = LeakyRelu <alpha = 0.2> (a)",
    "prelu": "b = PRelu (a, slopes)",
    "max pool": "b = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (a)",
}
UNEVEN = 2.0 ** np.array([0, 6, -6, 3, -3, 0, 9, -1])


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("between", [name for name in BETWEEN if name != "nothing"])
def test_the_channels_become_even_and_the_network_computes_the_same_to_the_last_bit(
    between: str, groups: int
) -> None:
    network = chain(BETWEEN[between], UNEVEN, groups)
    found = find_equalization(network, [patches()])
    even = equalized(network, found)
    np.testing.assert_array_equal(Runner(even)(patches()), Runner(network)(patches()))
    largest = np.abs(Runner(even, ["a"]).tensors(patches())["a"]).max(axis=(0, 2, 3))
    assert largest.max() / largest.min() < 8 < UNEVEN.max() / UNEVEN.min()


def test_channels_that_are_even_are_left_as_they_are() -> None:
    assert find_equalization(chain(BETWEEN["relu"], np.ones(CHANNELS)), [patches()]) == {}


@pytest.mark.parametrize(
    "between",
    ["b = Sigmoid (a)", "r = Relu (a)\nb = Add (r, a)", "b = Clip (a, , )\nc = Neg (a)"],
    ids=["no homogeneous function", "read twice", "a clamp"],
)
def test_what_cannot_be_scaled_is_left_as_it_is(between: str) -> None:
    assert find_equalization(chain(between, UNEVEN), [patches()]) == {}


def test_dead_channels_are_no_reason_to_scale() -> None:
    network = chain(BETWEEN["relu"], UNEVEN)
    for tensor in network.model.graph.initializer:
        if tensor.name in ("k", "kb"):
            values = numpy_helper.to_array(tensor).copy()
            values[2] = 0
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    found = find_equalization(network, [patches()])
    assert found["Conv_0"][2] == 0


def test_a_channel_that_its_rectifier_makes_quiet_is_not_made_the_loudest_before_it() -> None:
    """Of slope 2^-8, all below zero: 2^-8 of the others behind the rectifier, as large as they before it."""
    network = chain(BETWEEN["prelu"], np.ones(CHANNELS))
    values = {each.name: numpy_helper.to_array(each).copy() for each in network.model.graph.initializer}
    values["slopes"][0], values["kb"][0] = 2.0**-8, -100
    values["l"][:, 0] *= 256  # what reads it wants it larger
    for each in network.model.graph.initializer:
        each.CopyFrom(numpy_helper.from_array(values[each.name], each.name))
    found = find_equalization(network, [patches()])
    assert found.get("Conv_0", (0,))[0] >= 0


def test_powers_of_another_network_are_refused() -> None:
    network = chain(BETWEEN["relu"], UNEVEN)
    for found in ({"elsewhere": (1, 2)}, {"Conv_0": (1, 2)}):
        with pytest.raises(CalibrationError, match="calibrate it again"):
            equalized(replace(network), found)
