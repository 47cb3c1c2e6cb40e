"""What the one view of ONNX graphs says of tensors, constants and clamps."""

from math import inf

import numpy as np
import pytest
from onnx import helper, numpy_helper

from qnas.onnx import operations
from qnas.onnx.graph import Clamp, Graph, attributes
from qnas.testing.text_models import text_model


def graph(body: str, stored: str = "") -> Graph:
    return Graph(
        text_model(f"net (float[n, 3] x, float[n, 3] z) => (float[n, 3] y) <{stored}> {{ {body} }}").graph
    )


NUMBERS = "float low = {-1}, float high = {2}, float[2] two = {1, 2}, int64 whole = {3}"


@pytest.mark.parametrize(
    ("node", "low", "high"),
    [
        ("Relu (x)", 0, inf), ("Clip (x, low, high)", -1, 2), ("Clip (x, , high)", -inf, 2),
        ("Clip (x)", -inf, inf),
        ("Min (x, high)", -inf, 2), ("Max (low, x)", -1, inf), ("Max (low, x, high)", 2, inf),
    ],
)  # fmt: skip
def test_a_clamp_is_known_by_its_constant_bounds(node: str, low: float, high: float) -> None:
    found = graph(f"y = {node}", NUMBERS)
    assert found.clamp(found.nodes[0]) == Clamp("x", low, high)


@pytest.mark.parametrize(
    "node",
    [
        "Min (x, z)",
        "Min (x, z, high)",
        "Clip (x, z)",
        "Clip (x, two)",
        "Max (x, two)",
        "Max (x, whole)",
        "Tanh (x)",
    ],
)  # fmt: skip
def test_what_has_computed_or_several_bounds_is_no_clamp(node: str) -> None:
    found = graph(f"y = {node}", NUMBERS)
    assert found.clamp(found.nodes[0]) is None


def test_bounds_of_opsets_before_11_are_attributes() -> None:
    node = helper.make_node("Clip", ["x"], ["y"], min=0.0, max=6.0)
    assert graph("y = Identity (x)").clamp(node) == Clamp("x", 0, 6)


@pytest.mark.parametrize(
    ("node", "operand"),
    [
        ("Mul (x, high)", ("x", 2.0)), ("Mul (high, x)", ("x", 2.0)), ("Div (x, high)", ("x", 2.0)),
        ("Div (high, x)", None), ("Sub (high, x)", None), ("Mul (x, two)", None), ("Mul (x, z)", None),
    ],
)  # fmt: skip
def test_a_scalar_operand_is_one_constant_float(node: str, operand: tuple[str, float] | None) -> None:
    found = graph(f"y = {node}", NUMBERS)
    assert found.scalar_operand(found.nodes[0]) == operand


def test_constants_are_initializers_and_what_constant_nodes_hold() -> None:
    found = graph("c = Constant <value = float[2] {5, 6}> () y = Add (x, c)", NUMBERS)
    assert set(found.constants) == {"low", "high", "two", "whole", "c"}
    np.testing.assert_array_equal(found.array("c"), [5, 6])
    assert [found.number(name) for name in ("whole", "two", "x")] == [3.0, None, None]


def test_readers_and_uses_count_what_reads_a_tensor_and_the_output() -> None:
    found = graph("a = Relu (x) b = Add (a, a) y = Mul (a, b) unread = Tanh (b)")
    assert [node.op_type for node in found.readers["a"]] == ["Add", "Mul"]
    assert (found.uses["a"], found.uses["y"], found.uses["unread"]) == (3, 1, 0)
    assert [node.op_type for node in found.needed] == ["Relu", "Add", "Mul"]


def test_inputs_that_are_constants_too_are_no_inputs() -> None:
    found = graph("y = Add (x, z)")
    found.proto.initializer.append(numpy_helper.from_array(np.float32(1), "z"))
    assert [value.name for value in found.inputs] == ["x"]


def test_attributes_are_values_and_texts() -> None:
    node = helper.make_node("DepthToSpace", ["x"], ["y"], blocksize=2, mode="CRD")
    assert attributes(node) == {"blocksize": 2, "mode": "CRD"}


def test_what_moves_values_only_is_in_every_wider_set() -> None:
    assert operations.CHANNEL_MOVING | operations.PERMUTING < operations.MOVING
    assert operations.MOVING < operations.PICKING < operations.KEEPING
    assert operations.BENDING < operations.ELEMENTWISE
    assert not operations.QUANTIZING & operations.ON_GRIDS
