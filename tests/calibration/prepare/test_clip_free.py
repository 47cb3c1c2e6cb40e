"""Which clips at the end of a network are taken off, and why others stay."""

from math import inf
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from qnas.calibration.prepare.clip_free import TerminalClip, without_clip
from qnas.calibration.prepare.final_clip import find_final_clip
from qnas.calibration.prepare.float_model import FloatModel, Runner, read_float_model
from qnas.onnx.session import open_session
from qnas.testing.sr_modules import (
    abpn_like,
    espcn,
    every_operation,
    export,
    in_grey_levels,
    rfdn_like,
    xlsr_like,
)
from qnas.testing.text_models import text_model

SHUFFLE = 'DepthToSpace <blocksize = 2, mode = "DCR">'
UP = f"u = {SHUFFLE} (v)\n"
BY_HAND = """parts = Reshape (v, z)
    moved = Transpose <perm = [0, 3, 4, 1, 5, 2]> (parts)
    u = Reshape (moved, y)"""
CHANNELS_LAST = """last = Transpose <perm = [0, 2, 3, 1]> (v)
    parts = Reshape (last, p)
    moved = Transpose <perm = [0, 1, 3, 2, 4, 5]> (parts)
    wide = Reshape (moved, q)
    u = Transpose <perm = [0, 3, 1, 2]> (wide)"""
NUMBERS = """<float zero = {0}, float one = {1}, float six = {6}, float half = {0.5}, float two = {2},
 float white = {255}, float low = {-1}, float[1,3,1,1] each = {1, 1, 0.5}, float nearly = {0.9999999},
 float level = {0.996}, float below = {-0.1}, float[1] list = {1},
 int64[6] z = {0, 2, 2, 3, 20, 20}, int64[4] y = {0, 3, 40, 40},
 int64[6] p = {0, 20, 20, 2, 2, 3}, int64[4] q = {0, 40, 40, 3}>"""


def network_of(folder: Path, body: str, white: float = 1.0) -> FloatModel:
    """An image, amplified by `v = 1.5 image - 0.25 white`, four times in the channels, and then `body`."""
    graph = f"""
net (float[n, 3, 20, 20] image) => (float[n, 3, y, x] out) {NUMBERS[:-1]}, float gain = {{1.5}},
 float bias = {{{0.25 * white}}}>
{{
    four = Concat <axis = 1> (image, image, image, image)
    more = Mul (four, gain)
    v = Sub (more, bias)
    {body}
}}"""
    onnx.save(text_model(graph), folder / "network.onnx")
    return read_float_model(folder / "network.onnx", "0..1" if white == 1 else "0..255")


def saturated_alike(network: FloatModel, other: FloatModel) -> bool:
    """Whether both are the same network for an 8-bit output, and the first's image is clipped somewhere."""
    height, width = network.size or (20, 24)
    pixels = np.random.default_rng(0).uniform(0, 255, (2, height, width, 3)).astype(np.float32)
    wanted, found = Runner(network)(pixels), Runner(other)(pixels)
    assert found.min() < 0
    assert found.max() > 255
    return bool(np.allclose(np.clip(found, 0, 255), wanted, rtol=0, atol=1e-3))


MATCHED = {
    "Clip behind DepthToSpace": (f"{UP}out = Clip (u, zero, one)", "Clip 0..1"),
    "Clip before it": (f"u = Clip (v, zero, one)\n out = {SHUFFLE} (u)", "Clip 0..1, DepthToSpace"),
    "Relu, Min": (f"{UP}r = Relu (u)\n out = Min (r, one)", "Relu, Min 1"),
    "Max, Min": (f"{UP}r = Max (u, zero)\n out = Min (one, r)", "Max 0, Min 1"),
    "Min, Max": (f"{UP}r = Min (u, list)\n out = Max (r, zero)", "Min 1, Max 0"),
    "Min, Relu": (f"{UP}r = Min (u, one)\n out = Relu (r)", "Min 1, Relu"),
    "on both sides of it": (
        f"r = Relu (v)\n u = {SHUFFLE} (r)\n out = Min (u, one)", "Relu, DepthToSpace, Min 1"
    ),
    "Relu6, Min": (f"{UP}r = Clip (u, zero, six)\n out = Min (r, one)", "Clip 0..6, Min 1"),
    "one end each": (f"{UP}r = Clip (u, , one)\n out = Clip (r, zero)", "Clip 1, Clip 0"),
    "wider first": (
        f"{UP}r = Clip (u, low, two)\n out = Clip (r, zero, one)", "Clip -1..2, Clip 0..1"
    ),
    "nearly white": (f"{UP}out = Clip (u, zero, nearly)", "Clip 0..1"),
    "shifted": (
        f"{UP}a = Sub (u, half)\n b = Mul (a, two)\n c = Clip (b, low, one)\n d = Div (c, two)\n"
        " out = Add (d, half)",
        "Add 0.5",
    ),
    "by hand": (f"{BY_HAND}\n out = Clip (u, zero, one)", "Clip 0..1"),
    "before by hand": (
        "c = Min (v, one)\n" + BY_HAND.replace("(v", "(c") + "\n out = Relu (u)", "Min 1, DepthToSpace, Relu"
    ),
    "channels last": (f"{CHANNELS_LAST}\n out = Clip (u, zero, one)", "Clip 0..1"),
    "before channels last": (
        f"c = Clip (v, zero, one)\n {CHANNELS_LAST.replace('(v)', '(c)')}\n out = Identity (u)", "Clip 0..1"
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", MATCHED)
def test_a_clip_to_the_range_of_pixels_is_taken_off(tmp_path: Path, form: str) -> None:
    body, described = MATCHED[form]
    network = network_of(tmp_path, body)
    free, clip = without_clip(network)
    assert (clip.low, clip.high) == pytest.approx((0, 1))
    assert described in clip.explanation
    assert clip.nodes
    assert all(name in clip.explanation for name in clip.nodes)
    left = {node.op_type for node in free.model.graph.node}
    assert left <= {"Concat", "Mul", "Sub", "Div", "Add", "DepthToSpace", "Transpose", "Reshape"}
    assert free.output == free.model.graph.output[0].name == network.output
    assert saturated_alike(network, free)


@pytest.mark.parametrize(
    "body",
    [
        f"{UP}out = Clip (u, zero, white)",
        f"i = Div (v, white)\n u = {SHUFFLE} (i)\n c = Clip (u, zero, one)\n out = Mul (c, white)",
    ],
)
def test_in_grey_levels_the_range_is_0_to_255(tmp_path: Path, body: str) -> None:
    network = network_of(tmp_path, body, 255)
    free, clip = without_clip(network)
    assert (clip.low, clip.high, len(clip.nodes)) == (0, 255, 1)
    assert saturated_alike(network, free)


REFUSED = {
    "nothing": (f"out = {SHUFFLE} (v)", "no clip at the end", (-inf, inf)),
    "Relu alone": (f"{UP}out = Relu (u)", "on one side only, to 0..without end", (0, inf)),
    "Min alone": (f"{UP}out = Min (u, one)", "only, to minus without end..1", (-inf, 1)),
    "Relu6": (f"{UP}out = Clip (u, zero, six)", "clips, to 0..6 and not to", (0, 6)),
    "a grey level short": (f"{UP}out = Clip (u, zero, level)", "to 0..0.996", (0, 0.996)),
    "from below": (f"{UP}out = Clip (u, below, one)", "to -0.1..1", (-0.1, 1)),
    "scaled after": (
        f"{UP}c = Clip (u, zero, one)\n out = Add (c, half)", "to 0.5..1.5", (0.5, 1.5)
    ),
    "for each channel": (
        f"{UP}r = Relu (u)\n out = Min (r, each)", "for each channel", (-inf, inf)
    ),
    "computed": (
        f"{UP}m = ReduceMax <keepdims = 0> (u)\n out = Clip (u, zero, m)", "computed", (-inf, inf)
    ),
    "Sigmoid": (f"{UP}out = Sigmoid (u)", "Sigmoid (node out) bends all values", (-inf, inf)),
    "HardSigmoid": (f"{UP}out = HardSigmoid (u)", "bends all values", (-inf, inf)),
    "an Add behind": (
        f"{UP}c = Clip (u, zero, one)\n d = Tanh (c)\n out = Add (c, d)", "writes it", (-inf, inf)
    ),
    "times nothing": (f"{UP}c = Clip (u, zero, one)\n out = Mul (c, c)", "writes it", (-inf, inf)),
}  # fmt: skip


@pytest.mark.parametrize("form", REFUSED)
def test_any_other_end_stays_and_is_explained(tmp_path: Path, form: str) -> None:
    body, said, bounds = REFUSED[form]
    network = network_of(tmp_path, body)
    same, clip = without_clip(network)
    assert same is network
    assert clip == TerminalClip((), pytest.approx(bounds[0]), pytest.approx(bounds[1]), clip.explanation)
    assert said in clip.explanation
    assert clip.explanation.count("\n") == 0


def test_a_clip_to_the_other_unit_stays(tmp_path: Path) -> None:
    network = network_of(tmp_path, f"{UP}out = Clip (u, zero, white)")
    assert "to 0..255 and not to the pixels' range 0..1" in without_clip(network)[1].explanation


def test_a_clamp_that_something_else_reads_as_well_ends_the_walk() -> None:
    model = text_model("""
net (float[n] image) => (float[n] out) <float one = {1}>
{
    r = Relu (image)
    other = Tanh (r)
    out = Min (r, one)
}""")
    found = find_final_clip(model)
    assert (found.clamps, found.low, found.high) == (("",), -inf, 1)
    assert found.obstacle == "Relu (node r) is read by other as well"


def test_a_graph_that_is_a_ring_ends_the_walk() -> None:
    model = text_model("net (float[n] image) => (float[n] a) { a = Relu (b)\n b = Relu (a) }")
    assert find_final_clip(model).clamps == ()


STEPS = st.one_of(
    st.tuples(st.sampled_from(["Relu", "Identity"]), st.just(0.0)),
    st.tuples(st.sampled_from(["Min", "Max", "Add", "Sub"]), st.integers(-3, 3).map(float)),
    st.tuples(st.sampled_from(["Mul", "Div"]), st.sampled_from([-2.0, -0.5, 0.5, 1.0, 4.0])),
)


@settings(max_examples=20, deadline=None)
@given(st.lists(STEPS, min_size=1, max_size=7))
def test_the_bounds_of_a_chain_are_what_it_makes_of_the_largest_numbers(
    steps: list[tuple[str, float]],
) -> None:
    names = [f"t{i}" for i in range(len(steps) + 1)]
    lines, numbers = [], []
    for i, (op, number) in enumerate(steps):
        operand = "" if op in ("Relu", "Identity") else f", c{i}"
        numbers += [f"float c{i} = {{{number}}}"] if operand else []
        lines.append(f"{names[i + 1]} = {op} ({names[i]}{operand})")
    stored = f"<{', '.join(numbers)}>" if numbers else ""
    model = text_model(f"net (float[2] t0) => (float[2] {names[-1]}) {stored} {{ {chr(10).join(lines)} }}")
    found = find_final_clip(model)
    ends = open_session(model.SerializeToString(), 1).run(None, {"t0": np.array([-1e9, 1e9], np.float32)})[0]
    if not found.clamps:
        assert (found.low, found.high) == (-inf, inf)
        return
    for bound, end in zip((found.low, found.high), sorted(ends.tolist()), strict=True):
        assert end == pytest.approx(bound, abs=1e-4) if abs(bound) < inf else abs(end) > 1e6


@pytest.mark.parametrize(
    ("module", "count"),
    [
        (abpn_like(clip=True), 1),
        (in_grey_levels(abpn_like(clip=True)), 1),
        (xlsr_like(clip=True), 2),
        (espcn(clip=True), 1),
        (rfdn_like(clip=True), 1),
        (every_operation(clip=True), 1),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, nn.Module) else "",
)
def test_the_networks_of_the_papers_lose_their_clips(tmp_path: Path, module: nn.Module, count: int) -> None:
    network = read_float_model(export(module, tmp_path / "network.onnx"), f"0..{module.white:g}")  # type: ignore[arg-type]
    free, clip = without_clip(network)
    assert len(clip.nodes) == count
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 24, 32, 3)).astype(np.float32)
    assert np.allclose(Runner(free)(pixels).clip(0, 255), Runner(network)(pixels), rtol=0, atol=1e-3)
    assert find_final_clip(free.model).clamps == ()
    assert without_clip(free)[0] is free


# A rounding at the end ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "white", "operations"),
    [
        (f"{UP}out = Round (u)", 255.0, 0),
        (f"{UP}c = Clip (u, zero, white)\n out = Round (c)", 255.0, 0),
        (
            f"{UP}l = Mul (u, white)\n c = Clip (l, zero, white)\n r = Round (c)\n out = Div (r, white)",
            1.0,
            0,
        ),
        (f"{UP}out = Round (u)", 1.0, 1),  # not to grey levels: two of them
        (f"{UP}out = Floor (u)", 255.0, 1),  # not what a quantizer does
    ],
)
def test_a_round_to_grey_levels_at_the_end_is_the_outputs_quantizer(
    tmp_path: Path, body: str, white: float, operations: int
) -> None:
    network, _ = without_clip(network_of(tmp_path, body, white))
    kinds = [node.op_type for node in network.model.graph.node]
    assert len({"Round", "Floor"} & set(kinds)) == operations
    if not operations:
        assert "Clip" not in kinds
