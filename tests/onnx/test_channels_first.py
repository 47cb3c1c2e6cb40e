"""Networks with channels last, turned: the same values, and only the image and the output are transposed."""

from copy import deepcopy

import numpy as np
import pytest
from onnx import ModelProto

from qnas.onnx.channels_first import channels_first
from qnas.onnx.session import open_session
from qnas.onnx.shapes import infer_shapes
from qnas.testing.text_models import text_model

SIZES = ((11, 14), (7, 5))
# Of tensor a [N, H, W, 4], and b that is as large -> tensor c of four channels last.
OPERATIONS = {
    "a sum": "c = Add (a, b)",
    "a constant of each channel": "c = Mul (a, four)",
    "a slope of each channel": "c = PRelu (a, four)",
    "bounds": "c = Clip (a, low, high)",
    "least and largest": "t = Min (a, low) c = Max (t, b)",
    "a concatenation": "t = Concat <axis = 3> (a, b, a) c = Slice (t, two, six, last)",
    "a pick": "c = Gather <axis = -1> (a, back)",
    "halves": "p, q = Split <axis = 3, num_outputs = 2> (a) c = Concat <axis = -1> (q, p)",
    "a mean of channels": "t = ReduceMean (a, last) c = Sub (a, t)",
    "a mean of the image": "t = ReduceMean (a, sides) c = Mul (a, t)",
    "shares": "c = Softmax <axis = 3> (a)",
    "a margin": "t = Pad <mode = 'reflect'> (a, pads) c = Slice (t, cut, keep, both)",
    "a resize by factors": "t = Resize <mode = 'nearest'> (a, , s) c = Slice (t, ends_low, ends_high)",
    "a resize to a size": "z = Shape (b) c = Resize <mode = 'linear'> (a, , , z)",
    "bytes": "t = QuantizeLinear (a, fine, mid) c = DequantizeLinear (t, fine, mid)",
    "a cast": "t = Cast <to = 11> (a) c = Cast <to = 1> (t)",
    "copies": "t = Tile (a, twice) c = Gather <axis = 3> (t, some)",
}
HEAD = """
net (float[n, h, w, 3] image) => (float[n, y, x, 3] result)
<float[4, 3, 3, 3] k, float[4] bias, float[4] four = {0.5, -1, 2, 3}, float low = {-0.5}, float high = {0.7},
 int64[1] two = {2}, int64[1] six = {6}, int64[1] last = {-1}, int64[2] sides = {1, 2},
 int64[4] back = {3, 1, 0, 2},
 int64[8] pads = {0, 1, 2, 0, 0, 1, 1, 0}, int64[2] cut = {1, 2}, int64[2] keep = {-1, -1},
 int64[2] both = {1, -2},
 float[4] s = {1, 2, 2, 1}, int64[4] ends_low = {0, 0, 0, 0}, int64[4] ends_high = {9, 99, 99, 4},
 float fine = {0.02}, uint8 mid = {128}, int64[4] twice = {1, 1, 1, 2}, int64[4] some = {5, 2, 7, 0},
 float[3, 4, 1, 1] k2>
{
    first = Transpose <perm = [0, 3, 1, 2]> (image)
    conv = Conv <pads = [1, 1, 1, 1]> (first, k, bias)
    a = Transpose <perm = [0, 2, 3, 1]> (conv)
    b = Sigmoid (a)
"""
TAIL = """
    turned = Transpose <perm = [0, 3, 1, 2]> (c)
    out = Conv (turned, k2)
    result = Transpose <perm = [0, 2, 3, 1]> (out)
}"""


def written(model: ModelProto, image: np.ndarray) -> np.ndarray:
    session = open_session(model.SerializeToString(), threads=1, optimized=False)
    return np.asarray(session.run(None, {"image": image})[0])


def channels_of(model: ModelProto) -> int:
    return int(model.graph.input[0].type.tensor_type.shape.dim[3].dim_value)


def turned(model: ModelProto) -> ModelProto:
    result = deepcopy(model)
    shapes = infer_shapes(
        model, {"image": (1, *SIZES[0], model.graph.input[0].type.tensor_type.shape.dim[3].dim_value)}
    )
    assert channels_first(result.graph, shapes, "image")
    return result


def needed(model: ModelProto) -> list[str]:
    """The operations that the output depends on."""
    producers = {name: node for node in model.graph.node for name in node.output}
    waiting, found = [model.graph.output[0].name], {}
    while waiting:
        node = producers.get(waiting.pop())
        if node is not None and node.output[0] not in found:
            found[node.output[0]] = node.op_type
            waiting.extend(node.input)
    return sorted(found.values())


def same_values(model: ModelProto, result: ModelProto) -> None:
    channels = channels_of(model)
    for height, width in SIZES:
        image = np.random.default_rng(0).uniform(size=(2, height, width, channels)).astype(np.float32)
        np.testing.assert_allclose(written(result, image), written(model, image), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_on_channels_last_becomes_one_on_channels_first(operation: str) -> None:
    model = text_model(HEAD + OPERATIONS[operation].replace("'", '"') + TAIL)
    result = turned(model)
    same_values(model, result)
    assert needed(result).count("Transpose") == 2


@pytest.mark.parametrize("seed", range(4))
def test_regions_of_any_operations_keep_their_values(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lines, known = [], ["a", "b"]
    for number, name in enumerate(rng.choice(sorted(OPERATIONS), 6)):
        text = OPERATIONS[name].replace("'", '"')
        places = {"a": str(rng.choice(known)), "b": str(rng.choice(known))}
        for letter in "ptqzc":
            places[letter] = f"{letter}{number}"
        for old, new in places.items():
            for left in (" ", "("):
                for right in (" ", ",", ")"):
                    text = f" {text} ".replace(f"{left}{old}{right}", f"{left}@{new}{right}")
        lines.append(text.replace("@", ""))
        known.append(f"c{number}")
    model = text_model(HEAD + "\n".join(lines) + TAIL.replace("(c)", f"({known[-1]})"))
    same_values(model, turned(model))


def test_what_is_not_understood_reads_what_it_read() -> None:
    model = text_model(HEAD + "c = LpNormalization <axis = 3> (a)" + TAIL)
    result = turned(model)
    same_values(model, result)
    assert "LpNormalization" in needed(result)


def test_a_concatenation_of_the_image_itself_stands_behind_its_transpose() -> None:
    model = text_model("""
net (float[n, h, w, 3] image) => (float[n, y, x, 3] result)
{
    wide = Concat <axis = 3> (image, image, image, image)
    turned = Transpose <perm = [0, 3, 1, 2]> (wide)
    large = DepthToSpace <blocksize = 2> (turned)
    result = Transpose <perm = [0, 2, 3, 1]> (large)
}""")
    result = turned(model)
    same_values(model, result)
    assert needed(result) == ["Concat", "DepthToSpace", "Identity", "Transpose", "Transpose"]


def test_reshapes_of_a_grey_image_are_transposes() -> None:
    model = text_model("""
net (float[1, h, w, 1] image) => (float[1, y, x, 1] result)
<int64[4] first = {1, 1, 0, 0}, int64[5] last = {1, 1, 0, 0, 1}, int64[1] zero = {0}, float[4, 1, 3, 3] k>
{
    five = Unsqueeze (image, zero)
    turned = Reshape (five, first)
    conv = Conv <pads = [1, 1, 1, 1]> (turned, k)
    large = DepthToSpace <blocksize = 2> (conv)
    more = Reshape (large, last)
    result = Squeeze (more, zero)
}""")
    result = deepcopy(model)
    assert channels_first(result.graph, infer_shapes(model, {"image": (1, 11, 14, 1)}), "image")
    image = np.random.default_rng(0).uniform(size=(1, 7, 5, 1)).astype(np.float32)
    np.testing.assert_array_equal(written(result, image), written(model, image))
    assert needed(result) == ["Conv", "DepthToSpace", "Identity", "Transpose", "Transpose"]
