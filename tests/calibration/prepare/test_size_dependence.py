"""Tensors whose values grow or fall with the size of the image are told from those that do not."""

import numpy as np
import pytest
from onnx import numpy_helper

from qnas.calibration.prepare.size_dependence import size_dependent
from qnas.testing.text_models import text_model

IMAGE = np.random.default_rng(0).uniform(0.2, 1, (1, 3, 12, 20)).astype(np.float32)


def found(body: str, *tensors: str) -> frozenset[str]:
    """Of a network whose `body` computes `tensors` of `image`."""
    ends = "(float[n, 3, h, w] image) => (float[n, c, y, x] out)"
    constants = "int64[2] sides = {2, 3}, int64[1] columns = {-1}, float half = {0.5}"
    model = text_model(
        f"net {ends} <{constants}, float[3, 3, 3, 3] weight> {{ {body}\nout = Identity (image) }}"
    )
    kept = [each for each in model.graph.initializer if each.name != "weight"]
    weight = np.random.default_rng(1).normal(size=(3, 3, 3, 3)).astype(np.float32)
    del model.graph.initializer[:]
    model.graph.initializer.extend([*kept, numpy_helper.from_array(weight, "weight")])
    return size_dependent(model, tensors, IMAGE, (2, 3))


def test_a_sum_over_the_image_and_its_root_depend_on_the_size() -> None:
    body = "s = ReduceSum (image, sides)\nr = Sqrt (s)\nc = ReduceSum <keepdims = 1> (image, columns)"
    assert found(body, "s", "r", "c") == {"s", "r", "c"}


def test_a_share_of_the_whole_image_depends_on_the_size() -> None:
    body = "s = ReduceSum (image, sides)\nshare = Div (image, s)"
    assert found(body, "s", "share") == {"s", "share"}


@pytest.mark.parametrize(
    "body",
    [
        "t = Conv <pads = [1, 1, 1, 1]> (image, weight)",
        "t = GlobalAveragePool (image)",
        "t = InstanceNormalization (image, ones, ones)",
        "a = ReduceSum (image, sides)\nb = ReduceSum (a, sides)\nc = Mul (image, a)\nt = Div (c, b)",
    ],
    ids=["convolution", "mean", "spread", "sums that cancel"],
)
def test_what_is_alike_everywhere_does_not(body: str) -> None:
    if "ones" in body:
        body = "ones = Constant <value_floats = [1.0, 1.0, 1.0]> ()\n" + body
    assert found(body, "t") == frozenset()


def test_a_filter_that_answers_to_edges_alone_does_not() -> None:
    """What surrounds the image has edges of its own, so that its largest value says nothing."""
    body = "e = Conv <pads = [1, 1, 1, 1]> (image, weight)\np = Mul (e, e)\nq = Mul (p, p)\nt = Mul (q, q)"
    assert found(body, "e", "p", "q", "t") == frozenset()


def test_nothing_is_found_where_the_network_takes_one_size_alone() -> None:
    model = text_model("""
net (float[n, 3, h, w] image) => (float[n, 3, y, x] out)
<int64[4] shape = {1, 3, 12, 20}, int64[2] sides = {2, 3}>
{
    s = ReduceSum (image, sides)
    out = Reshape (image, shape)
}""")
    assert size_dependent(model, ("s", "out"), IMAGE, (2, 3)) == frozenset()
