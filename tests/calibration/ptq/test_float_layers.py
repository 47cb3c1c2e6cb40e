"""Which layers compute in float, and that nothing is rounded between two of them."""

from dataclasses import replace

import numpy as np
import pytest

from qnas.calibration.ptq.integer_model import PtqOptions, plan_layers, quantized
from qnas.testing.small_ptq import patches, ranges_of, text_network

IMAGES = patches(2, 32)
NETWORK = """
net (float[n, 3, h, w] image) => (float[n, 3, h, w] upscaled)
<float[3, 3, 1, 1] k1, float[3, 3, 1, 1] k2, float two = {2}, float half = {0.5},
 int64[1] one = {1}, int64[2] sides = {2, 3}>
{
    first = Conv (image, k1)
    OPERATIONS
    upscaled = Conv (last, k2)
}"""
KERNEL = np.eye(3).reshape(3, 3, 1, 1)
WRITTEN_OUT = {
    "a layer norm": """
        mean = ReduceMean (first, one)
        apart = Sub (first, mean)
        squared = Pow (apart, two)
        variance = ReduceMean (squared, one)
        spread = Sqrt (variance)
        last = Div (apart, spread)""",
    "a GELU": """
        scaled = Div (first, two)
        bent = Erf (scaled)
        more = Add (bent, half)
        gated = Mul (first, more)
        last = Mul (gated, half)""",
    "sums over the image": """
        total = ReduceSum (first, sides)
        share = Div (first, total)
        scaled = Mul (share, total)
        last = LeakyRelu (scaled)""",
}


@pytest.mark.parametrize("operations", WRITTEN_OUT.values(), ids=WRITTEN_OUT)
def test_between_operations_that_are_float_in_any_case_nothing_is_rounded(operations: str) -> None:
    network = text_network(NETWORK.replace("OPERATIONS", operations), k1=KERNEL, k2=KERNEL)
    model = quantized(network, ranges_of(network, IMAGES))
    written = {node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    assert written == {"first", "last", "upscaled"}


def test_a_function_of_two_tensors_keeps_the_grids_of_what_integers_add() -> None:
    """Only what is computed of one tensor is one function: a sum of two others runs in integers."""
    operations = "root = Sqrt (image)\nsecond = Conv (root, k2)\nlast = Add (first, second)"
    network = text_network(NETWORK.replace("OPERATIONS", operations), k1=KERNEL, k2=KERNEL)
    model = quantized(network, ranges_of(network, IMAGES))
    written = {node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    assert written == {"root", "first", "second", "last", "upscaled"}


def test_what_touches_a_tensor_that_depends_on_the_size_of_the_image_is_float() -> None:
    text = NETWORK.replace("OPERATIONS", "scaled = Mul (first, first)\nlast = LeakyRelu (scaled)")
    network = text_network(text, k1=KERNEL, k2=KERNEL)
    plan = plan_layers(replace(network, size_dependent=frozenset({"scaled"})), PtqOptions())
    names = {node.output[0]: node.name for node in plan.graph.nodes}
    assert plan_layers(network, PtqOptions()).integer == set(names.values())
    assert plan.integer == {names["first"], names["upscaled"]}
