"""What `read_float_model` finds out about a network, what it refuses, and what `Runner` makes of pixels."""

from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from qnas.calibration.prepare.float_model import Runner, activations, read_float_model
from qnas.calibration.prepare.sr_shape import find_shape
from qnas.errors import ModelError
from qnas.testing.sr_modules import abpn_like, export, in_grey_levels
from qnas.testing.text_models import FLOAT_CONV, INTEGER_CONV, text_model

NEAREST = """
net (float[n, 3, h, w] image) => (float[n, 3, y, x] upscaled)
{
    four = Concat <axis = 1> (image, image, image, image)
    upscaled = DepthToSpace <blocksize = 2, mode = "DCR"> (four)
}"""
NHWC = """
net (float[n, h, w, 1] image) => (float[n, y, x, 1] upscaled) <float[4] s = {1, 3, 3, 1}>
{
    upscaled = Resize <mode = "nearest"> (image, , s)
}"""
SAME_SIZE = "net (float[n, 3, h, w] image) => (float[n, 3, y, x] r) { r = Relu (image) }"
UNEVEN = """
net (float[n, 3, h, w] image) => (float[n, 3, y, x] r) <float[4] s = {1, 1, 2, 3}>
{
    r = Resize <mode = "nearest"> (image, , s)
}"""
UNPADDED = """
net (float[n, 3, h, w] image) => (float[n, 3, y, x] r)
<float[4] s = {1, 1, 2, 2}, int64[2] first = {3, 3}, int64[2] last = {-4, -4}, int64[2] axes = {2, 3}>
{
    inner = Slice (image, first, last, axes)
    r = Resize <mode = "nearest"> (inner, , s)
}"""
HALVES = UNEVEN.replace("2, 3}", "1.5, 1.5}")
GREY_OUT = """
net (float[n, 3, h, w] image) => (float[n, 1, y, x] r) <float[4] s = {1, 1, 2, 2}, int64[1] one = {1}>
{
    m = ReduceMean (image, one)
    r = Resize <mode = "nearest"> (m, , s)
}"""
CLASSES = """
net (float[n, 3, h, w] image) => (float[n, 3] r)
{
    m = GlobalAveragePool (image)
    r = Flatten (m)
}"""
ONE_SIZE_INSIDE = """
net (float[n, 3, h, w] image) => (float[n, 3, y, x] r) <int64[4] z = {1, 3, 20, 20}>
{
    r = Reshape (image, z)
}"""
OF_ONE_SIZE = """
net (float[1, 3, 20, 20] image) => (float[1, 3, 40, 40] upscaled)
<float[1, 3, 20, 20] k, float[4] s = {1, 1, 2, 2}>
{
    moved = Add (image, k)
    upscaled = Resize <mode = "nearest"> (moved, , s)
}"""
DYNAMIC = """
net (float[n, 3, h, w] image) => (float[n, 3, y, x] r)
{
    q, s, z = DynamicQuantizeLinear (image)
    r = Cast <to = 1> (q)
}"""
LOOP = """
net (float[n, 3, h, w] image) => (float[n, 3, y, x] r) <int64 n = {9000000000000}, bool t = {1}>
{
    l = Loop (n, t, image)
        <body = b (int64 i, bool c, float[1, 3, h, w] v) => (bool d, float[1, 3, h, w] u)
        { d = Identity (c)
          u = Relu (v) }>
    r = Relu (l)
}"""


def saved(folder: Path, graph: str | ModelProto, opset: int = 21) -> Path:
    path = folder / "network.onnx"
    onnx.save(graph if isinstance(graph, ModelProto) else text_model(graph, opset), path)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        read_float_model(path)
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    return message


# What it is as a network -----------------------------------------------------------------------------------


def test_layout_channels_scale_and_free_sizes_are_found(tmp_path: Path) -> None:
    network = read_float_model(saved(tmp_path, NEAREST))
    found = (network.layout, network.channels, network.scale, network.size, network.batched)
    assert found == ("nchw", 3, 2, None, True)
    assert (network.name, network.input, network.output) == ("network.onnx", "image", "upscaled")


def test_a_grey_network_with_channels_last_is_found(tmp_path: Path) -> None:
    network = read_float_model(saved(tmp_path, NHWC))
    assert (network.layout, network.channels, network.scale) == ("nhwc", 1, 3)
    pixels = np.arange(2 * 4 * 6, dtype=np.float32).reshape(2, 4, 6, 1)
    assert np.allclose(Runner(network)(pixels), pixels.repeat(3, axis=1).repeat(3, axis=2))


def test_a_network_whose_four_dimensions_are_all_free_is_found_by_running_it(tmp_path: Path) -> None:
    network = read_float_model(saved(tmp_path, NEAREST.replace("n, 3, h, w", "a, b, c, d")))
    assert (network.layout, network.channels, network.scale) == ("nchw", 3, 2)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_network_that_restores_has_the_scale_1(tmp_path: Path, channels: int) -> None:
    shape = f"float[n, {channels}, h, w]"
    graph = (
        f"net ({shape} image) => ({shape} r) {{ s = Sigmoid (image) t = Mul (s, image) r = Add (t, image) }}"
    )
    network = read_float_model(saved(tmp_path, graph), "0..1")
    assert (network.scale, network.channels) == (1, channels)
    assert Runner(network)(np.zeros((2, 21, 17, channels), np.float32)).shape == (2, 21, 17, channels)


def test_a_network_that_makes_no_image_is_refused(tmp_path: Path) -> None:
    noise = SAME_SIZE.replace("Relu (image)", "Neg (image)")
    assert "makes no image of the one that it reads" in refusal(saved(tmp_path, noise))


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_may_be_last_in_front_and_first_behind(tmp_path: Path, channels: int) -> None:
    graph = f"""
net (float[1, h, w, {channels}] image) => (float[1, {channels}, y, x] upscaled) <float[4] s = {{1, 1, 2, 2}}>
{{
    first = Transpose <perm = [0, 3, 1, 2]> (image)
    upscaled = Resize <mode = "nearest"> (first, , s)
}}"""
    network = read_float_model(saved(tmp_path, graph))
    assert (network.layout, network.channels, network.scale) == ("nhwc", channels, 2)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 21, 17, channels)).astype(np.float32)
    np.testing.assert_allclose(Runner(network)(pixels), pixels.repeat(2, axis=1).repeat(2, axis=2), atol=1e-3)


def test_a_size_that_the_operations_need_is_kept_and_any_number_of_images_goes_in(tmp_path: Path) -> None:
    network = read_float_model(saved(tmp_path, OF_ONE_SIZE), "0..1")
    assert (network.size, network.batched) == ((20, 20), True)
    pixels = np.full((3, 20, 20, 3), 100, np.float32)
    assert Runner(network)(pixels).shape == (3, 40, 40, 3)
    with pytest.raises(ModelError, match=r"network\.onnx does not run on 1x3x20x24 .*a size that it takes"):
        Runner(network)(pixels[:1, :, :1].repeat(24, axis=2))


def test_a_network_of_one_image_at_a_time_gets_them_one_by_one(tmp_path: Path) -> None:
    one = NEAREST.replace("DepthToSpace", "Reshape").replace(
        ' <blocksize = 2, mode = "DCR"> (four)', " (four, z)"
    )
    one = one.replace("x] upscaled)", "x] upscaled) <int64[4] z = {1, 3, 40, 40}>").replace("h, w", "20, 20")
    network = read_float_model(saved(tmp_path, one), "0..1")
    assert not network.batched
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 20, 20, 3)).astype(np.float32)
    run = Runner(network, ("four",))
    assert np.array_equal(run(pixels), np.concatenate([run(pixels[:1]), run(pixels[1:])]))
    assert run.tensors(pixels)["four"].shape == (2, 12, 20, 20)


# The value of white ----------------------------------------------------------------------------------------


def clipped_to(high: str) -> str:
    clip = "c = DepthToSpace"
    graph = NEAREST.replace("upscaled = DepthToSpace", clip).replace("}", "    upscaled = Clip (c, z, o)\n}")
    return graph.replace("x] upscaled)", f"x] upscaled) <float z = {{0}}, float o = {{{high}}}>")


@pytest.mark.parametrize("white", [1.0, 255.0])
def test_the_bound_of_a_final_clip_says_what_white_is(tmp_path: Path, white: float) -> None:
    assert read_float_model(saved(tmp_path, clipped_to(f"{white:g}"))).white == white


def biased(low: float) -> str:
    """A network with a convolution's bias of `low` in its own units, taken off again behind a Relu."""
    return f"""
net (float[n, 3, h, w] image) => (float[n, 3, y, x] upscaled)
<float up = {{{low}}}, float[4] s = {{1, 1, 2, 2}}>
{{
    moved = Sub (image, up)
    above = Relu (moved)
    back = Add (above, up)
    upscaled = Resize <mode = "linear"> (back, , s)
}}"""


@pytest.mark.parametrize(("bias", "white"), [(0.05, 1.0), (40.0, 255.0)])
def test_without_a_clip_the_unit_in_which_it_upscales_better_is_taken(
    tmp_path: Path, bias: float, white: float
) -> None:
    assert read_float_model(saved(tmp_path, biased(bias))).white == white


def test_small_biases_of_grey_levels_are_enough_to_tell_a_linear_output(tmp_path: Path) -> None:
    network = in_grey_levels(abpn_like(clip=False))
    network.last.bias.data += 1.5  # of 255, as training leaves them
    assert read_float_model(export(network, tmp_path / "linear.onnx")).white == 255


def test_where_both_units_give_the_same_white_is_one_unless_the_user_says_so(tmp_path: Path) -> None:
    path = saved(tmp_path, NEAREST)
    assert read_float_model(path).white == 1
    assert read_float_model(path, "0..255").white == 255


def waving(height: float) -> str:
    """A network that adds a wave of that height to what it upscales."""
    return f"""
net (float[n, 3, h, w] image) => (float[n, 3, y, x] upscaled)
<float height = {{{height}}}, float[4] s = {{1, 1, 2, 2}}>
{{
    wave = Sin (image)
    high = Mul (wave, height)
    sum = Add (image, high)
    upscaled = Resize <mode = "linear"> (sum, , s)
}}"""


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (biased(40.0), "images are read as 0..255 ("),
        (NEAREST, "images are read as 0..1: either range makes the same of them ("),
        # A wave of 60 is some 20 dB below white in 0..255, and far above it in 0..1.
        (waving(60), "WARNING: images are read as 0..1, which is a guess ("),
    ],
)
def test_how_white_was_found_is_told_and_a_guess_is_a_warning(
    tmp_path: Path, network: str, said: str
) -> None:
    assert read_float_model(saved(tmp_path, network)).white_found.startswith(said)


def test_weights_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    graph = biased(0.5).replace("float up = {0.5}", "float up = {nan}")
    assert refusal(saved(tmp_path, graph)).endswith("the weights 'up' hold NaN: export the network again")


def test_what_upscales_no_image_is_refused_unless_the_user_says_what_white_is(tmp_path: Path) -> None:
    path = saved(tmp_path, FLOAT_CONV)  # of random weights
    assert "upscales no image (" in (said := refusal(path))
    assert said.endswith("then say which: --input-range 0..1 or 0..255")
    assert read_float_model(path, "0..255").white == 255


def test_a_network_that_writes_another_unit_than_it_reads_is_told_so(tmp_path: Path) -> None:
    graph = clipped_to("255").replace("Clip (c, z, o)", "Mul (c, o)")
    assert "seems to read 0..1 and to write 0..255" in refusal(saved(tmp_path, graph))


@pytest.mark.parametrize("declared", ["n, 3, h, w", "1, 3, 40, 57"])
def test_a_network_that_leaves_out_a_border_grows_by_its_scale(declared: str) -> None:
    found = find_shape(text_model(UNPADDED.replace("n, 3, h, w", declared)), "unpadded")
    assert (found.scale, found.missing) == (2, 14)
    assert found.output_sides((40, 57)) == (66, 100)


# Refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        (UNEVEN, "one whole factor for both sides is needed"),
        (UNPADDED.replace("-4, -4", "-4, -5"), "one whole factor for both sides is needed"),
        (HALVES, "one whole factor for both sides is needed"),
        (GREY_OUT, "the channels have to be the same"),
        (CLASSES, "not float32 images"),
        (ONE_SIZE_INSIDE, "onnxruntime says: "),
        (NEAREST.replace("n, 3, h, w", "1, 4, 20, 20"), "grey (1) or RGB (3) channels are needed"),
        (NEAREST.replace("n, 3, h, w", "4, 3, h, w"), "reads 4 images at a time"),
        (SAME_SIZE.replace("n, 3, h, w", "h, w").replace("n, 3, y, x", "y, x"), "reads ?x?"),
        (INTEGER_CONV, "is quantized already (3 nodes such as DequantizeLinear): qnas-export takes it"),
        (DYNAMIC, "is quantized already (1 nodes such as DynamicQuantizeLinear): calibrate the float model"),
        (SAME_SIZE.replace("Relu", "house.Folded"), "house.Folded (node r), which is not of ONNX"),
        (SAME_SIZE.replace("image)", "image, float[n, 3, h, w] noise)", 1), "has 2 inputs (image, noise)"),
        (SAME_SIZE.replace(" r)", " r, float[n, 3, h, w] image)"), "has 2 outputs (r, image)"),
        (SAME_SIZE.replace("float", "double"), "is a float64 model"),
        (
            SAME_SIZE.replace("float", "uint8").replace("Relu", "Abs"),
            "reads uint8: a float32 network is needed",
        ),
        (LOOP, "the operation Loop (node l), which repeats or chooses parts"),
        ("net (float[n, 3, h, w] image) => (float[n, 3, h, w] image) { }", "has no operations"),
    ],
)
def test_what_is_no_float_network_of_images_is_refused_by_what_it_is(
    tmp_path: Path, graph: str, said: str
) -> None:
    assert said in refusal(saved(tmp_path, graph))


def test_no_file_and_what_is_no_model_are_refused(tmp_path: Path) -> None:
    assert "absent.onnx is not a file: name an .onnx model" in refusal(tmp_path / "absent.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\x08 no protobuf")
    assert "no readable ONNX model" in refusal(broken)


# Weights beside the file -----------------------------------------------------------------------------------


def with_weights_beside(folder: Path, weight: float) -> Path:
    graph = """
net (float[n, 3, h, w] image) => (float[n, 3, y, x] upscaled) <float[12, 3, 1, 1] k>
{
    c = Conv (image, k)
    upscaled = DepthToSpace <blocksize = 2, mode = "DCR"> (c)
}"""
    model = text_model(graph)
    kernel = np.tile(np.eye(3, dtype=np.float32) * weight, (4, 1)).reshape(12, 3, 1, 1)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(kernel, "k"))
    path = folder / "network.onnx"
    onnx.save(model, path, save_as_external_data=True, location="network.bin", size_threshold=0)
    return path


def test_weights_beside_the_file_are_read_and_are_part_of_its_hash(tmp_path: Path) -> None:
    path = with_weights_beside(tmp_path, 1.0)
    first, text = read_float_model(path), path.read_bytes()
    pixels = np.full((1, 2, 2, 3), 100, np.float32)
    assert np.allclose(Runner(first)(pixels), 100)
    beside = tmp_path / "network.bin"
    beside.write_bytes(np.where(np.frombuffer(beside.read_bytes(), "f4"), 0.9, 0).astype("f4").tobytes())
    second = read_float_model(path)
    assert np.allclose(Runner(second)(pixels), 90)
    assert path.read_bytes() == text
    assert first.sha256 != second.sha256


def test_missing_and_cut_weights_beside_the_file_are_refused(tmp_path: Path) -> None:
    path = with_weights_beside(tmp_path, 1.0)
    beside = tmp_path / "network.bin"
    beside.write_bytes(beside.read_bytes()[:20])
    refusal(path)
    beside.unlink()
    assert "keeps its weights in 'network.bin', which is not beside it: copy" in refusal(path)


def test_weights_outside_the_folder_are_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    path = with_weights_beside(folder, 1.0)
    (folder / "network.bin").rename(tmp_path / "network.bin")
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].external_data[0].value = "../network.bin"
    path.write_bytes(model.SerializeToString())
    assert "'../network.bin', which is not beside or below it" in refusal(path)


# Running ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("range_", "white"), [("0..1", 1.0), ("0..255", 255.0)])
def test_pixels_go_in_and_come_out_as_grey_levels(
    tmp_path: Path, range_: Literal["0..1", "0..255"], white: float
) -> None:
    network = read_float_model(saved(tmp_path, NEAREST), range_)
    pixels = np.array([0, 51, 255], np.float32).reshape(1, 1, 1, 3)
    assert network.feed(pixels).ravel().tolist() == pytest.approx([0, 0.2 * white, white])
    assert network.feed(pixels).shape == (1, 3, 1, 1)
    assert np.allclose(network.pixels(network.feed(pixels)), pixels)
    assert np.allclose(Runner(network)(pixels), pixels.repeat(2, axis=1).repeat(2, axis=2))


def test_asked_tensors_come_raw_in_the_order_asked(tmp_path: Path) -> None:
    network = read_float_model(saved(tmp_path, NEAREST), "0..255")
    pixels = np.arange(2 * 4 * 4 * 3, dtype=np.float32).reshape(2, 4, 4, 3)
    found = Runner(network, ("upscaled", "image", "four"), threads=2).tensors(pixels)
    assert list(found) == ["upscaled", "image", "four"]
    assert found["image"].tolist() == pixels.transpose(0, 3, 1, 2).tolist()
    assert found["four"].shape == (2, 12, 4, 4)
    assert np.array_equal(network.pixels(found["upscaled"]), Runner(network)(pixels))


def test_a_tensor_that_the_network_has_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"network\.onnx has no tensor 'five'"):
        Runner(read_float_model(saved(tmp_path, NEAREST)), ("five",))


def test_activations_are_what_an_image_determines_and_not_its_sizes(tmp_path: Path) -> None:
    sized = """
net (float[n, 3, h, w] image) => (float[n, 3, y, x] upscaled) <int64[4] two = {1, 1, 2, 2}>
{
    size = Shape (image)
    wide = Mul (size, two)
    r = Relu (image)
    upscaled = Resize <mode = "nearest"> (r, , , wide)
}"""
    assert activations(read_float_model(saved(tmp_path, sized))) == ("image", "r", "upscaled")


def test_inputs_that_are_weights_of_an_old_file_do_not_count(tmp_path: Path) -> None:
    model = onnx.load(with_weights_beside(tmp_path, 1.0))
    model.ir_version = 3
    model.opset_import[0].version = 13
    model.graph.input.append(helper.make_tensor_value_info("k", TensorProto.FLOAT, [12, 3, 1, 1]))
    del model.opset_import[1:]
    network = read_float_model(saved(tmp_path, model))
    assert [value.name for value in network.model.graph.input] == ["image"]
