"""Trunks are found whole, and in float nothing is rounded in them."""

from dataclasses import replace

import numpy as np

from qnas.calibration.candidates import Candidate, with_trunks_in_float
from qnas.calibration.ptq.integer_model import PtqOptions, plan_layers, quantized
from qnas.calibration.ptq.trunks import trunks
from qnas.testing.small_ptq import patches, ranges_of, text_network

IMAGES = patches(2, 32)
NETWORK = """
net (float[n, 3, h, w] image) => (float[n, 3, h, w] upscaled)
<float[3, 3, 1, 1] k, int64[1] one = {1}>
{
    first = Conv (image, k)
    branch = Conv (first, k)
    second = Add (first, branch)
    bent = Relu (second)
    more = Conv (bent, k)
    third = Add (bent, more)
    NORM
    apart = Conv (normed, k)
    twice = Conv (apart, k)
    fourth = Add (apart, twice)
    upscaled = Conv (fourth, k)
}"""
KERNEL = np.eye(3).reshape(3, 3, 1, 1)
PLAIN = text_network(NETWORK.replace("NORM", "normed = Conv (third, k)"), k=KERNEL)
NORMED = text_network(
    NETWORK.replace("NORM", "mean = ReduceMean (third, one)\nnormed = Sub (third, mean)"), k=KERNEL
)


def sums_of(outputs: set[str]) -> set[str]:
    return {node.name for node in PLAIN.model.graph.node if set(node.output) <= outputs}


def test_sums_that_read_each_other_even_moved_are_one_trunk_and_others_another() -> None:
    found = trunks(plan_layers(PLAIN, PtqOptions()))
    assert [set(trunk) for trunk in found] == [sums_of({"second", "third"}), sums_of({"fourth"})]


def test_a_float_trunk_is_rounded_for_the_convolutions_that_read_it_alone() -> None:
    (trunk, _) = trunks(plan_layers(NORMED, PtqOptions()))
    model = quantized(NORMED, ranges_of(NORMED, IMAGES), PtqOptions(float_layers=trunk))
    writers = {name: node for node in model.graph.node for name in node.output}
    norm = next(node for node in model.graph.node if node.op_type == "ReduceMean")
    assert writers[norm.input[0]].op_type == "Add"
    sums = [node for node in model.graph.node if node.op_type == "Add" and node.name in trunk]
    assert len(sums) == 2


def test_trunks_in_float_are_a_candidate_where_no_format_has_all_in_integers() -> None:
    best = Candidate("best", PLAIN, {}, PtqOptions())
    assert with_trunks_in_float(best) is None
    found = with_trunks_in_float(replace(best, network=NORMED))
    assert found is not None
    assert found.name == "best, trunks in float"
    assert len(found.options.float_layers) == 3
    assert found.handicap > best.handicap
