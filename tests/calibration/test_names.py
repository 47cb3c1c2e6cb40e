"""Whatever a network's tensors and nodes are called, its integers are the same: no name is made up twice."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import GraphProto, ModelProto, numpy_helper

from qnas.calibration.calibrate import Settings, calibrate, quantized_model
from qnas.calibration.document import write_calibration
from qnas.export.cli import main
from qnas.export.from_qdq.reader import integer_network_of
from qnas.integer.interpreter import run
from qnas.onnx.names import Names
from qnas.testing.random_networks import noise
from qnas.testing.small_calibrations import make_photographs
from qnas.testing.text_models import text_model

SETTINGS = Settings(count=10, threads=1, input_range="0..1")
Scheme = Callable[[GraphProto], None]

# Of one size, so that the shuffle by hand has constant shapes. Every rewrite that makes up names has work.
NETWORK = """
net (float[1, 3, 16, 24] image) => (float[1, 3, 64, 96] upscaled)
<float[8, 3, 3, 3] k1, float[8] b1, float[8] gain, float[8] shift, float[8] mean, float[8] variance,
 float slope = {0.25}, float[8, 8, 3, 3] k2, int64[4] sizes = {1, 8, 16, 24}, float[8, 1, 1] offset,
 float third = {3}, int64[1] from = {7}, int64[1] to = {-9}, int64[1] axis = {1}, int64[1] back = {-1},
 float[8, 8, 4, 4] k3, float[8] b3, float low = {-4}, float high = {4}, float half = {0.5},
 float[12, 8, 3, 3] k4, float[12] b4, int64[6] six = {1, 3, 2, 2, 32, 48}, int64[4] four = {1, 3, 64, 96},
 float[8, 3, 3, 3] k5, float zero = {0}, float one = {1}>
{
    first = Conv <pads = [1, 1, 1, 1]> (image, k1, b1)
    positive = Relu (first)
    normed = BatchNormalization (positive, gain, shift, mean, variance)
    bent = PRelu (normed, slope)
    small = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (bent)
    scaled = Mul (small, third)
    mask = Conv <pads = [1, 1, 1, 1]> (scaled, k2)
    wide = Resize <mode = "linear"> (mask, , , sizes)
    gate = Sigmoid (wide)
    gated = Mul (bent, gate)
    moved = Sub (gated, offset)
    turned = Slice (moved, from, to, axis, back)
    more = Conv <pads = [1, 1, 1, 1]> (image, k5)
    both = Add (turned, more)
    tall = ConvTranspose <strides = [2, 2], pads = [1, 1, 1, 1]> (both, k3, b3)
    held = Clip (tall, low, high)
    halved = Mul (held, half)
    last = Conv <pads = [1, 1, 1, 1]> (halved, k4, b4)
    blocks = Reshape (last, six)
    sorted = Transpose <perm = [0, 1, 4, 2, 5, 3]> (blocks)
    shuffled = Reshape (sorted, four)
    upscaled = Clip (shuffled, zero, one)
}"""


def plain_network() -> ModelProto:
    """NETWORK with lively weights, every node named after its number."""
    model, rng = text_model(NETWORK, opset=17), np.random.default_rng(0)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.ndim:
            spread = rng.normal(0, 0.6 / np.sqrt(max(values[0].size, 4)), values.shape).astype(np.float32)
            spread = np.abs(spread) + 1 if tensor.name in ("gain", "variance") else spread
            spread = spread + np.float32(0.5) if tensor.name == "b4" else spread
            tensor.CopyFrom(numpy_helper.from_array(spread, tensor.name))
    for number, node in enumerate(model.graph.node):
        node.name = f"node{number}"
    return model


def tensors(graph: GraphProto) -> list[str]:
    written = [name for node in graph.node for name in node.output]
    return [*(value.name for value in (*graph.input, *graph.initializer)), *written]


def renamed(graph: GraphProto, names: dict[str, str]) -> None:
    assert len(set(names.values())) == len(names)
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]


def all_tensors(write: Callable[[int, str], str]) -> Scheme:
    return lambda graph: renamed(graph, {name: write(i, name) for i, name in enumerate(tensors(graph))})


def all_nodes(write: Callable[[int], str]) -> Scheme:
    def rename(graph: GraphProto) -> None:
        for number, node in enumerate(graph.node):
            node.name = write(number)

    return rename


def named_as_ours(share: float, seed: int) -> Scheme:
    """Some tensors, and constants first of all, are called as the calibration calls its own."""

    def rename(graph: GraphProto) -> None:
        rng, made, old = np.random.default_rng(seed), list(OURS), tensors(graph)
        rng.shuffle(made)
        taken = [name for name in old if rng.random() < share]
        renamed(graph, dict(zip(taken, made, strict=False)))

    return rename


def swapped_ends(graph: GraphProto) -> None:
    renamed(graph, {"image": "upscaled", "upscaled": "image", "first": "image.uint8", "last": "image.value"})


OURS: set[str] = set()  # filled by `plain`
SCHEMES: dict[str, Scheme] = {
    **{f"ours {seed}": named_as_ours(0.6, seed) for seed in range(4)},
    "all of ours": named_as_ours(1.0, 4),
    "ends of ours, swapped": swapped_ends,
    "digits": all_tensors(lambda number, _: str(number)),
    "digits backwards": all_tensors(lambda number, _: str(60 - number)),
    "paths": all_tensors(lambda number, name: f"/net/body.{number}/{name}_output_0:0"),
    "unicode": all_tensors(lambda number, name: f"größe {name} 像素 {number}"),
    "of writers": all_tensors(
        lambda number, name: f"{('zero_point', 'scale', 'uint8', 'float', 'edge')[number % 5]}_{number // 5}"
    ),
    "nodes without names": all_nodes(lambda number: ""),
    "nodes of one name": all_nodes(lambda number: "conv"),
    "nodes named as tensors": all_nodes(lambda number: ("first", "image", "k1", "first_1")[number % 4]),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("names")
    make_photographs(folder / "images")
    return folder


def calibrated(folder: Path, model: ModelProto) -> ModelProto:
    """The integer model of `model`, which was calibrated; both lie in `folder`."""
    onnx.save(model, folder / "network.onnx")
    found = calibrate(folder / "network.onnx", [folder.parent / "images"], SETTINGS)
    write_calibration(found, folder / "network.json")
    return quantized_model(folder / "network.onnx", found)


@pytest.fixture(scope="module")
def plain(folder: Path) -> ModelProto:
    (folder / "plain").mkdir()
    original = plain_network()
    model = calibrated(folder / "plain", original)
    known = {*tensors(original.graph)}
    OURS.update(sorted({*tensors(model.graph)} - known), (node.name for node in model.graph.node))
    OURS.difference_update(known)
    return model


def without_names(model: ModelProto) -> bytes:
    """`model` with every tensor called by the place where it is first mentioned, and nodes not at all."""
    plain = ModelProto()
    plain.CopyFrom(model)
    graph = plain.graph
    mentioned = [name for node in graph.node for name in (*node.input, *node.output)]
    order = [*(value.name for value in graph.input), *mentioned]
    stored = {tensor.name: tensor for tensor in graph.initializer}
    initializers = [stored[name] for name in dict.fromkeys(order) if name in stored]
    for node in graph.node:
        node.name = ""
    del graph.value_info[:]
    renamed(graph, {name: f"{i}" for i, name in enumerate(dict.fromkeys(filter(None, order)))})
    kept = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in initializers]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    graph.name = ""
    return plain.SerializeToString(deterministic=True)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_network_of_any_names_is_calibrated_as_its_plainly_named_twin(
    folder: Path, plain: ModelProto, scheme: str
) -> None:
    here = folder / scheme
    here.mkdir()
    original = plain_network()
    SCHEMES[scheme](original.graph)
    model = calibrated(here, original)
    onnx.checker.check_model(model, full_check=True)
    assert without_names(model) == without_names(plain)
    names = [node.name for node in model.graph.node]
    assert len({*names}) == len(names)
    formats = ("--format", "onnx-qdq", "--format", "tflite", "--calibration", str(here / "network.json"))
    result = CliRunner().invoke(main, [str(here / "network.onnx"), *formats, "--no-parity"])
    assert result.exit_code == 0, result.output
    assert (here / "network.qnas.tflite").stat().st_size > 1000
    exported = onnx.load(here / "network.qnas.onnx")
    onnx.checker.check_model(exported, full_check=True)
    image = noise(16, 24).transpose(2, 0, 1)[None].copy()
    wanted, got = (run(integer_network_of(each, "n"), image) for each in (plain, exported))
    np.testing.assert_array_equal(got, wanted)
    assert len(np.unique(got)) > 40


def test_a_name_is_given_away_once() -> None:
    names = Names(["x", "x_1"], ["n"])
    assert [names.tensor("x"), names.tensor("x"), names.tensor("y"), names.tensor("y")] == [
        "x_2", "x_3", "y", "y_1",
    ]  # fmt: skip
    assert (names.node("x"), names.node("n")) == ("x", "n_1")


def test_names_inside_a_branch_are_taken_as_well() -> None:
    inner = onnx.parser.parse_graph("then () => (float y) <float held = {1}> { y = Identity (held) }")
    outer = onnx.parser.parse_graph("net (bool b) => (float z) <float[2] k = {1, 2}> { w = Relu (k) }")
    branches = {"then_branch": inner, "else_branch": inner}
    outer.node.append(onnx.helper.make_node("If", ["b"], ["z"], "choice", **branches))
    names = Names.of(outer)
    asked = ["b", "z", "k", "w", "y", "held", "free"]
    assert [names.tensor(name) for name in asked] == ["b_1", "z_1", "k_1", "w_1", "y_1", "held_1", "free"]
    assert names.node("choice") == "choice_1"
