"""Tiled upscaling equals upscaling in one piece, and what is no super-resolution model is refused."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import onnx.parser
import pytest
from click.testing import CliRunner
from PIL import Image as Pillow

from qnas.errors import ModelError, UsageError
from qnas.images.files import read_image, read_image_with_alpha, write_png
from qnas.images.resize import resize_bicubic
from qnas.onnx.session import open_session
from qnas.runtime_bench.upscale import Upscaler, load_upscaler, tile_spans, upscale, upscale_alpha
from qnas.runtime_bench.upscale_cli import main

PIXELS = "[batch, 3, height, width] image) => ("
DOUBLE = 'Resize <mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">'


def save(folder: Path, text: str, input_scale: str | None = None, **weights: np.ndarray) -> Path:
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 21]> {text}')
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(value, name) for name, value in weights.items()
    )
    if input_scale is not None:
        onnx.helper.set_model_props(model, {"qnas.input_scale": input_scale})
    path = folder / "model.onnx"
    onnx.save(model, path)
    return path


def nearest_uint8(folder: Path) -> Path:
    graph = f"g (uint8{PIXELS}uint8[batch, 3, h, w] upscaled) <float[4] scales = {{1, 1, 2, 2}}>"
    return save(folder, f"{graph} {{ upscaled = {DOUBLE} (image, , scales) }}")


def one_and_a_half(folder: Path, input_scale: str | None = "0.00390625") -> Path:
    graph = (
        f"g (float{PIXELS}float[batch, 3, h, w] y) <float[4] scales = {{1, 1, 2, 2}}, float factor = {{1.5}}>"
    )
    return save(
        folder, f"{graph} {{ large = {DOUBLE} (image, , scales) y = Mul (large, factor) }}", input_scale
    )


def two_convolutions(folder: Path) -> Path:
    """x2, with a reach of 2 + 1 = 3 input pixels."""
    rng = np.random.default_rng(0)
    wide = rng.normal(0, 0.2, (8, 3, 5, 5)).astype(np.float32)
    narrow = rng.normal(0, 0.2, (12, 8, 3, 3)).astype(np.float32)
    body = """{
        a = Conv <pads = [2, 2, 2, 2]> (image, wide)
        b = Relu (a)
        c = Conv <pads = [1, 1, 1, 1]> (b, narrow)
        y = DepthToSpace <blocksize = 2> (c)
    }"""
    graph = f"g (float{PIXELS}float[batch, 3, h, w] y) {body}"
    return save(folder, graph, "0.00390625", wide=wide, narrow=narrow)


def photograph(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_a_grey_model_doubles_luma_and_bicubic_interpolation_the_colours(tmp_path: Path) -> None:
    graph = "g (uint8[batch, 1, height, width] image) => (uint8[batch, 1, h, w] upscaled)"
    body = f"<float[4] scales = {{1, 1, 2, 2}}> {{ upscaled = {DOUBLE} (image, , scales) }}"
    upscaler = load_upscaler(save(tmp_path, f"{graph} {body}"), threads=1)
    assert (upscaler.channels, upscaler.scale) == (1, 2)
    gray = np.repeat(photograph(9, 14)[:, :, :1], 3, axis=2)
    np.testing.assert_array_equal(upscaler(gray), gray.repeat(2, 0).repeat(2, 1))
    red = np.full((9, 14, 3), (200, 40, 30), np.uint8)
    np.testing.assert_array_equal(upscaler(red), red.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (33, 20)])
def test_a_uint8_model_doubles_images_of_any_size(tmp_path: Path, size: tuple[int, int]) -> None:
    upscaler = load_upscaler(nearest_uint8(tmp_path), threads=1)
    assert (upscaler.scale, upscaler.smallest) == (2, 1)
    image = photograph(*size)
    expected = image.repeat(2, axis=0).repeat(2, axis=1)
    assert np.array_equal(upscale(upscaler, image, tile=16, overlap=0), expected)


def test_a_float_model_is_scaled_rounded_half_to_even_and_clipped(tmp_path: Path) -> None:
    upscaler = load_upscaler(one_and_a_half(tmp_path), threads=1)
    image = np.array([[[1, 3, 5], [100, 170, 255]]], np.uint8)  # times 1.5: 1.5 4.5 7.5, 150 255 382.5
    assert upscale(upscaler, image)[0, ::2].tolist() == [[2, 4, 8], [150, 255, 255]]


@pytest.mark.parametrize("tile", [7, 10, 16, 50])
def test_tiles_give_exactly_what_one_piece_gives_when_the_overlap_is_the_reach(
    tmp_path: Path, tile: int
) -> None:
    upscaler = load_upscaler(two_convolutions(tmp_path), threads=1)
    image = photograph(37, 50)
    whole = upscale(upscaler, image, tile=64)
    assert len(np.unique(whole)) > 100  # not all clipped
    assert np.array_equal(upscale(upscaler, image, tile, overlap=3), whole)


def test_an_overlap_below_the_reach_shows(tmp_path: Path) -> None:
    upscaler = load_upscaler(two_convolutions(tmp_path), threads=1)
    image = photograph(37, 50)
    assert not np.array_equal(upscale(upscaler, image, tile=16, overlap=2), upscale(upscaler, image, tile=64))


def test_the_model_sees_tiles_of_one_size_only(tmp_path: Path) -> None:
    upscaler = load_upscaler(nearest_uint8(tmp_path), threads=1)
    shapes: set[tuple[int, ...]] = set()

    def run(image: np.ndarray) -> np.ndarray:
        shapes.add(image.shape)
        return upscaler.run(image)

    upscale(dataclasses.replace(upscaler, run=run), photograph(100, 61), tile=32, overlap=5)
    assert shapes == {(32, 32, 3)}


def test_spans_of_ten_pixels_are_as_drawn_by_hand() -> None:
    spans = [dataclasses.astuple(span) for span in tile_spans(10, tile=6, overlap=1)]
    assert spans == [(0, 6, 0, 5), (4, 10, 5, 10)]
    spans = [dataclasses.astuple(span) for span in tile_spans(10, tile=5, overlap=1)]
    assert spans == [(0, 5, 0, 4), (3, 8, 4, 7), (5, 10, 7, 10)]  # the last is shifted back to the end


def test_a_tile_of_two_overlaps_is_refused() -> None:
    with pytest.raises(
        UsageError, match="a tile of 32 pixels is not larger than two overlaps of 16: raise --tile"
    ):
        tile_spans(100, tile=32, overlap=16)


def test_an_image_too_small_for_a_pooling_layer_is_padded_with_its_edge(tmp_path: Path) -> None:
    body = f"""{{
        pooled = MaxPool <kernel_shape = [7, 7], strides = [3, 3]> (image)
        peak = GlobalMaxPool (pooled)
        large = {DOUBLE} (image, , scales)
        y = Max (large, peak)
    }}"""
    graph = f"g (float{PIXELS}float[batch, 3, h, w] y) <float[4] scales = {{1, 1, 2, 2}}> {body}"
    upscaler = load_upscaler(save(tmp_path, graph, "0.00390625"), threads=1)
    assert upscaler.smallest == 8  # of the probed sizes the first from 7
    image = np.array([[[9, 50, 200]]], np.uint8)
    assert np.array_equal(upscale(upscaler, image), np.broadcast_to(image, (2, 2, 3)))


def test_a_network_of_even_sides_gets_the_edge_repeated(tmp_path: Path) -> None:
    """It takes pixels apart in twos, as networks that shuffle them down first do."""
    body = """{
        parts = SpaceToDepth <blocksize = 2> (image)
        mixed = Gather <axis = 1> (parts, order)
        again = DepthToSpace <blocksize = 2> (mixed)
        y = Resize <mode = "nearest"> (again, , scales)
    }"""
    order = (
        "int64[12] order = {3, 4, 5, 0, 1, 2, 9, 10, 11, 6, 7, 8}"  # the two columns of a block change places
    )
    constants = f"<float[4] scales = {{1, 1, 2, 2}}, {order}>"
    graph = f"g (float{PIXELS}float[batch, 3, h, w] y) {constants} {body}"
    upscaler = load_upscaler(save(tmp_path, graph, "0.00390625"), threads=1)
    assert (upscaler.smallest, upscaler.multiple) == (8, 2)
    image = photograph(63, 97)
    columns = np.arange(98) ^ 1
    exchanged = np.pad(image, ((0, 0), (0, 1), (0, 0)), mode="edge")[:, columns][:, :97]
    assert np.array_equal(upscale(upscaler, image), exchanged.repeat(2, axis=0).repeat(2, axis=1))
    assert upscaler.overlap == 16
    assert np.array_equal(upscale(upscaler, image, tile=37, overlap=3), upscaler(image))


@pytest.mark.parametrize("size", [(63, 97), (1, 1), (2, 5)])
def test_a_network_that_leaves_out_a_border_gets_the_edge_repeated(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    """Three pixels of its image, and one of its output."""
    body = """{
        inner = Slice (image, first, last, axes)
        large = Resize <mode = "nearest"> (inner, , scales)
        y = Slice (large, one, minus, axes)
    }"""
    ends = (
        "int64[2] first = {3, 3}, int64[2] last = {-3, -3}, int64[2] one = {1, 1}, int64[2] minus = {-1, -1}"
    )
    constants = f"<float[4] scales = {{1, 1, 2, 2}}, int64[2] axes = {{2, 3}}, {ends}>"
    graph = f"g (float{PIXELS}float[batch, 3, h, w] y) {constants} {body}"
    upscaler = load_upscaler(save(tmp_path, graph, "0.00390625"), threads=1)
    assert (upscaler.scale, upscaler.missing) == (2, 14)
    image = photograph(*size)
    doubled = image.repeat(2, axis=0).repeat(2, axis=1)
    assert np.array_equal(upscale(upscaler, image), doubled)
    assert np.array_equal(upscale(upscaler, image, tile=32, overlap=8), doubled)


@pytest.mark.parametrize("side", [16, 32, 64])
def test_tiles_of_a_network_of_large_blocks_are_whole_blocks(tmp_path: Path, side: int) -> None:
    body = f"""{{
        parts = SpaceToDepth <blocksize = {side}> (image)
        again = DepthToSpace <blocksize = {side}> (parts)
        y = Resize <mode = "nearest"> (again, , scales)
    }}"""
    graph = f"g (float{PIXELS}float[batch, 3, h, w] y) <float[4] scales = {{1, 1, 2, 2}}> {body}"
    upscaler = load_upscaler(save(tmp_path, graph, "0.00390625"), threads=1)
    assert (upscaler.multiple, upscaler.overlap) == (side, 16)
    image = photograph(301, 270)
    assert np.array_equal(upscale(upscaler, image), image.repeat(2, axis=0).repeat(2, axis=1))


def reaching(folder: Path, pixels: int, operation: str = "") -> Upscaler:
    """A model that adds a little of two pixels so far away to each, or what `operation` makes of `far`."""
    side = 2 * pixels + 1
    kernel = np.zeros((3, 1, side, side), np.float32)
    kernel[:, :, 0, 0] = kernel[:, :, pixels, -1] = 0.25
    body = f"""<float[4] scales = {{1, 1, 2, 2}}, float[3, 1, {side}, {side}] k> {{
        far = Conv <group = 3, pads = [{pixels}, {pixels}, {pixels}, {pixels}]> (image, k)
        {operation or "more = Identity (far)"}
        sum = Add (image, more)
        y = Resize <mode = "nearest"> (sum, , scales)
    }}"""
    graph = f"g (float{PIXELS}float[batch, 3, h, w] y) {body}"
    return load_upscaler(save(folder, graph, "0.00390625", k=kernel), threads=1)


@pytest.mark.parametrize(("pixels", "overlap"), [(2, 16), (16, 16), (17, 32), (33, 64)])
def test_the_overlap_of_tiles_is_as_far_as_the_model_looks(tmp_path: Path, pixels: int, overlap: int) -> None:
    assert reaching(tmp_path, pixels).overlap == overlap


@pytest.mark.parametrize(
    "operation",
    [
        "more = GlobalAveragePool (far)",
        "more = GlobalMaxPool (far)",
        "more = InstanceNormalization (far, o, o)",
    ],
)
def test_a_model_that_looks_at_the_whole_image_runs_in_one_piece(tmp_path: Path, operation: str) -> None:
    constant = "o = Constant <value_floats = [0.2, 0.2, 0.2]> ()\n" if "(far, o" in operation else ""
    upscaler = reaching(tmp_path, 1, constant + operation)
    assert upscaler.overlap is None
    image = np.clip(np.add.outer(np.arange(70), np.arange(90))[..., None] + photograph(70, 90) // 4, 0, 255)
    image = image.astype(np.uint8)
    assert np.array_equal(upscale(upscaler, image, tile=40), upscaler(image))
    assert not np.array_equal(upscale(upscaler, image, tile=40, overlap=16), upscaler(image))


def test_the_command_says_that_an_image_runs_in_one_piece_or_that_tiles_may_show(tmp_path: Path) -> None:
    reaching(tmp_path, 1, "more = GlobalMaxPool (far)")
    write_png(tmp_path / "in.png", photograph(40, 60))
    arguments = [str(tmp_path / "model.onnx"), str(tmp_path / "in.png"), "-o", str(tmp_path / "out.png")]
    for more, said in (((), "looks at the whole image"), (("--overlap", "4"), "tiles may show")):
        result = CliRunner().invoke(main, [*arguments, "--tile", "32", "--force", *more])
        assert result.exit_code == 0
        assert said in result.stderr


def test_alpha_in_tiles_is_bicubic_in_one_piece() -> None:
    alpha = photograph(41, 23)[:, :, 0]
    assert np.array_equal(upscale_alpha(alpha, scale=4, tile=16), resize_bicubic(alpha, (164, 92)))


REFUSED = {
    "two channels": (
        "g (uint8[n, 2, h, w] x) => (uint8[n, 2, h, w] y) { y = Identity (x) }",
        r"\['n', 2, 'h', 'w'\]",
    ),
    "flat": ("g (float[n, 3] x) => (float[n, 3] y) { y = Identity (x) }", "shape"),
    "fixed": ("g (uint8[1, 3, 8, 9] x) => (uint8[1, 3, 8, 9] y) { y = Identity (x) }", "only images of 9x8"),
    "batch": ("g (uint8[2, 3, h, w] x) => (uint8[2, 3, h, w] y) { y = Identity (x) }", "shape"),
    "two": (
        "g (uint8[n, 3, h, w] x, uint8[n, 3, h, w] z) => (uint8[n, 3, h, w] y) { y = Identity (x) }",
        "2 inputs",
    ),
    "int": ("g (int32[n, 3, h, w] x) => (int32[n, 3, h, w] y) { y = Identity (x) }", r"tensor\(int32\)"),
    "smaller": (
        "g (uint8[n, 3, h, w] x) => (uint8[n, 3, i, j] y) "
        "{ y = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x) }",
        "makes 32x32 pixels of 65x64",
    ),
    "classes": (
        "g (float[n, 3, h, w] x) => (float[n, 3, 1, 1] y) { y = GlobalAveragePool (x) }",
        "no super-resolution",
    ),
    "vector": ("g (float[n, 3, h, w] x) => (float[n, k] y) { y = Flatten (x) }", r"shape \[1, 12480\]"),
    "infinite": (
        "g (float[n, 3, h, w] x) => (float[n, 3, h, w] y) { z = Log (x) y = Identity (z) }",
        "not finite",  # the probe is black
    ),
}


@pytest.mark.parametrize("channels", [1, 3])
def test_a_model_that_restores_keeps_the_size_and_the_colours(tmp_path: Path, channels: int) -> None:
    shape = f"uint8[n, {channels}, h, w]"
    upscaler = load_upscaler(save(tmp_path, f"g ({shape} x) => ({shape} y) {{ y = Identity (x) }}"))
    image = photograph(70, 61)
    assert upscaler.scale == 1
    assert np.array_equal(upscale(upscaler, image, tile=48, overlap=8), image)


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_super_resolution_model_is_refused_with_its_name(tmp_path: Path, case: str) -> None:
    text, reason = REFUSED[case]
    with pytest.raises(ModelError, match=rf"model\.onnx .*{reason}"):
        load_upscaler(save(tmp_path, text, "0.00390625"), threads=1)


@pytest.mark.parametrize("written", ["wide", "0", "-1", "nan"])
def test_a_float_model_without_a_usable_input_scale_is_refused(tmp_path: Path, written: str) -> None:
    with pytest.raises(ModelError, match=r"set its metadata qnas\.input_scale"):
        load_upscaler(one_and_a_half(tmp_path, written), threads=1)


def test_a_missing_and_a_damaged_model_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gone\.onnx is not a file"):
        open_session(tmp_path / "gone.onnx")
    path = nearest_uint8(tmp_path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(
        ModelError, match=r"model\.onnx is no readable ONNX model \(DecodeError\): export it again"
    ) as caught:
        open_session(path)
    assert "\n" not in str(caught.value)


def test_open_session_takes_bytes_and_writes_the_graph_that_really_runs(tmp_path: Path) -> None:
    text = "g (float[n, 3, h, w] x) => (float[n, 3, h, w] y) { z = Identity (x) w = Neg (z) y = Neg (w) }"
    model = save(tmp_path, text).read_bytes()
    counts = []
    for optimized in (False, True):
        open_session(model, threads=1, optimized=optimized, optimized_model_path=tmp_path / "really.onnx")
        counts.append(len(onnx.load(tmp_path / "really.onnx").graph.node))
    assert counts[0] == 3
    assert counts[1] < 3


def command(*arguments: object) -> Any:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_command_upscales_and_keeps_alpha(tmp_path: Path) -> None:
    image, alpha = photograph(30, 20), photograph(30, 20)[:, :, 1]
    write_png(tmp_path / "in.png", image, alpha)
    model, output = nearest_uint8(tmp_path), tmp_path / "out.png"
    result = command(model, tmp_path / "in.png", "-o", output, "--tile", 16, "--overlap", 2, "--threads", 1)
    assert result.exit_code == 0, result.output
    assert result.output == f"{output}: 20x30 -> 40x60\n"
    large, large_alpha = read_image_with_alpha(output)
    assert np.array_equal(large, image.repeat(2, axis=0).repeat(2, axis=1))
    assert large_alpha is not None
    assert np.array_equal(large_alpha, resize_bicubic(alpha, (60, 40)))


def test_the_command_replaces_its_output_only_when_forced(tmp_path: Path) -> None:
    model, output = nearest_uint8(tmp_path), tmp_path / "out.png"
    write_png(tmp_path / "in.png", photograph(4, 4))
    output.write_bytes(b"mine")
    refused = command(model, tmp_path / "in.png", "-o", output)
    assert refused.exit_code == 2
    assert "--force" in refused.stderr
    assert output.read_bytes() == b"mine"
    assert command(model, tmp_path / "in.png", "-o", output, "--force").exit_code == 0
    assert read_image_with_alpha(output)[0].shape == (8, 8, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("model.onnx", "gone.png", "-o", "out.png"), "gone.png is not a file"),
        (("gone.onnx", "in.png", "-o", "out.png"), "gone.onnx is not a file"),
        (("in.png", "in.png", "-o", "out.png"), "in.png is no ONNX model but an image"),
        (("model.onnx", "in.png", "-o", "out.jpg"), "let its name end in .png"),
        (("model.onnx", "in.png", "-o", "nowhere/out.png"), "does not exist"),
        (("model.onnx", "in.png", "-o", "out.png", "--tile", "8", "--overlap", "4"), "raise --tile"),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    nearest_uint8(tmp_path)
    write_png(tmp_path / "in.png", photograph(4, 4))
    monkeypatch.chdir(tmp_path)
    result = command(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out.png").exists()


def test_help_states_the_memory_bound_without_loading_anything_heavy() -> None:
    code = (
        "import sys; from qnas.runtime_bench.upscale_cli import main; "
        "main(['--help'], standalone_mode=False); "
        "sys.exit(any(name in sys.modules for name in ('onnxruntime', 'numpy', 'PIL', 'torch')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "TILE x TILE pixels" in done.stdout


def test_a_folder_is_upscaled_image_by_image_and_nothing_of_another_model_is_left_in_it(
    tmp_path: Path,
) -> None:
    model = nearest_uint8(tmp_path)
    (tmp_path / "small").mkdir()
    for name in ("a", "b"):
        write_png(tmp_path / "small" / f"{name}.png", photograph(9, 12))
    arguments = [str(model), str(tmp_path / "small"), "-o", str(tmp_path / "large")]
    first = CliRunner().invoke(main, arguments)
    assert first.exit_code == 0, first.output
    assert "2 of 2: " in first.output
    assert read_image(tmp_path / "large" / "a.png").shape == (18, 24, 3)
    again = CliRunner().invoke(main, arguments)
    assert (again.exit_code, "a.png" in again.output, "--force" in again.output) == (2, True, True)
    assert CliRunner().invoke(main, [*arguments, "--force"]).exit_code == 0


def test_two_images_that_would_be_one_file_are_refused(tmp_path: Path) -> None:
    model = nearest_uint8(tmp_path)
    (tmp_path / "small").mkdir()
    for name in ("a.png", "a.bmp"):
        Pillow.fromarray(photograph(9, 12)).save(tmp_path / "small" / name)
    result = CliRunner().invoke(main, [str(model), str(tmp_path / "small"), "-o", str(tmp_path / "large")])
    assert (result.exit_code, "a.png is named for two outputs" in result.output) == (2, True)
