"""qnas-inspect: what it says of a network, of files of three kinds, and on a page."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result

from qnas.cost.network_cost import network_cost
from qnas.errors import ModelError, UsageError
from qnas.export.inspect import inspect
from qnas.export.inspect_cli import main
from qnas.export.inspection.inspection import Inspection, Request
from qnas.export.inspection.layer_rows import LayerRow, network_rows
from qnas.export.inspection.report import as_page, engineering, percent, scale_words, show
from qnas.export.integers import integer_network
from qnas.export.targets import TARGETS
from qnas.export.to_onnx.writer import write_onnx
from qnas.export.to_tflite.writer import write_tflite
from qnas.html_page import Markup, element, histogram, page, table
from qnas.images.files import write_png
from qnas.integer.convolution import Conv, convolution_words
from qnas.integer.network import IntegerNetwork
from qnas.integer.nodes import DepthToSpace, ImageInput, Pad, Table
from qnas.integer.windows import NO_SIDES, Size
from qnas.quantization.quantizers import QuantParams
from qnas.terminal import Terminal
from qnas.testing.random_networks import random_found
from qnas.testing.text_models import FLOAT_CONV, text_model
from qnas.torch.checkpoint import save_found

WHITE = np.full((4, 6, 3), 255, np.uint8)


def grid(exponent: int, high: int = 255) -> QuantParams:
    return QuantParams(np.float32(2.0**exponent), 0, 0, high)


PIXELS = grid(-8)


def two_layers(name: str = "first") -> IntegerNetwork:
    """A 3x3 convolution of 3 -> 2 channels at 4 bits, a 1x1 one of 2 -> 12 at 8 bits, a shuffle by 2."""
    first = np.zeros((2, 3, 3, 3), np.int8)
    first[0, 0, 1, 1], first[1, 2, 1, 1] = 7, -8
    second = np.full((12, 2, 1, 1), 127, np.int8)
    return IntegerNetwork(
        "hand-made",
        2,
        (
            ImageInput("image", (), 3, PIXELS),
            Conv(
                name, ("image",), 2, grid(-2, high=15),
                weight=first, weight_scale=np.float32([0.5, 0.25]), bias=np.int32([1000, 0]),
                bits=4, padding=(1, 1, 1, 1),
            ),
            Conv(
                "second", (name,), 12, PIXELS,
                weight=second, weight_scale=np.full(12, 2.0**-8, np.float32), bias=np.zeros(12, np.int32),
                bits=8,
            ),
            DepthToSpace("upscaled", ("second",), 3, PIXELS, factor=2),
        ),
    )  # fmt: skip


def rows_of(network: IntegerNetwork, *images: np.ndarray) -> dict[str, LayerRow]:
    return {row.name: row for row in network_rows(network, 4, 6, images)}


# Rows ----------------------------------------------------------------------------------------------------


def test_every_column_of_a_hand_made_convolution_is_what_pencil_and_paper_say() -> None:
    row = rows_of(two_layers(), WHITE)["first"]
    assert (row.operation, row.shape) == ("conv 3x3", (2, 4, 6))
    assert (row.weight_bits, row.activation_bits) == (4, 8)
    assert row.weight_scale == (0.25, 0.5)
    assert (row.macs, row.bitops) == (54 * 24, 54 * 24 * 4 * 8)
    assert (row.weight_bytes, row.bias_bytes) == (27, 8)  # two weights share a byte, a bias has four
    assert (row.weight_low, row.weight_counts) == (-8, (1, *[0] * 7, 52, *[0] * 6, 1))
    assert row.unused_levels == 13
    # 7 * 255 + 1000 = 2785 needs 12 bits and a sign.
    assert row.accumulator_bits == 13
    # On white, channel 0 is 2785 * (0.5 / 256) / 0.25 = 21.8, cut at 15; channel 1 is negative, cut at 0.
    assert row.output_counts == (24, *[0] * 14, 24)
    assert row.saturation == (0.5, 0.5)
    assert not row.saturating_pairs  # 7 * 255


def test_a_second_layer_reads_the_grid_of_the_first() -> None:
    rows = rows_of(two_layers())
    row = rows["second"]
    assert (row.operation, row.shape) == ("conv 1x1", (12, 4, 6))
    assert (row.weight_bits, row.activation_bits) == (8, 4)
    assert (row.macs, row.bitops) == (24 * 24, 24 * 24 * 8 * 4)
    assert (row.weight_bytes, row.bias_bytes) == (24, 48)
    assert row.unused_levels == 255
    assert row.accumulator_bits == 13  # 2 * 127 * 15 = 3810
    assert row.saturation is None  # no image was given
    shuffle = rows["upscaled"]
    assert (shuffle.operation, shuffle.shape, shuffle.macs) == ("depth to space 2", (3, 8, 12), 0)
    assert shuffle.unused_levels is None


@pytest.mark.parametrize(("weight", "warned"), [(64, False), (65, True)])
def test_pairs_that_may_leave_16_bits_are_marked(weight: int, warned: bool) -> None:
    """2 * 64 * 255 = 32640 is below 2^15, 2 * 65 * 255 = 33150 is not."""
    network = two_layers()
    image, first, *rest = network.nodes
    assert isinstance(first, Conv)
    loud = replace(first, weight=np.full_like(first.weight, weight), bits=8)
    row = rows_of(replace(network, nodes=(image, loud, *rest)))["first"]
    assert row.saturating_pairs is warned


def test_an_image_without_anything_left_is_refused() -> None:
    network = two_layers()
    image, first, *rest = network.nodes
    assert isinstance(first, Conv)
    unpadded = replace(network, nodes=(image, replace(first, padding=NO_SIDES), *rest))
    with pytest.raises(UsageError, match="2x9 pixels are too few"):
        network_rows(unpadded, 2, 9, ())
    with pytest.raises(UsageError, match="1x6 pixels are too few"):
        network_rows(unpadded, 4, 6, [WHITE[:1]])


@pytest.mark.parametrize(
    ("weight", "groups", "stride", "words"),
    [
        ((8, 3, 5, 5), 1, (1, 1), "conv 5x5"),
        ((6, 2, 3, 1), 3, (1, 1), "conv 3x1 /3 groups"),
        ((6, 1, 3, 3), 6, (2, 2), "depthwise 3x3 stride 2"),
        ((6, 3, 3, 3), 1, (1, 2), "conv 3x3 stride 1x2"),
        ((6, 1, 1, 1), 6, (1, 1), "depthwise 1x1"),
        ((1, 1, 1, 1), 1, (1, 1), "conv 1x1"),
    ],
)
def test_a_convolution_is_said_in_words(
    weight: tuple[int, ...], groups: int, stride: Size, words: str
) -> None:
    assert convolution_words(weight, groups, stride) == words


def test_operations_that_hold_something_say_what() -> None:
    table_node = Table("t", ("x",), 3, PIXELS, table=np.zeros(256, np.uint8), function="sigmoid")
    assert table_node.words == "table sigmoid"
    assert Pad("p", ("x",), 3, PIXELS, (1, 1, 1, 1), "edge").words == "pad edge 1"
    assert Pad("p", ("x",), 4, PIXELS).words == "pad channels"
    norm = Conv(
        "n", ("x",), 2, PIXELS, np.ones((2, 1, 1, 1), np.int8), np.ones(2, np.float32), np.zeros(2, np.int32),
        8, groups=2,
    )  # fmt: skip
    assert norm.words == "batch norm"


# Files ---------------------------------------------------------------------------------------------------


def test_found_pt_of_espcn_costs_what_the_paper_says(tmp_path: Path) -> None:
    path = saved(tmp_path, "espcn-w8")
    inspection = inspect(path, Request(32, 32))
    assert inspection.macs == 37_945_344  # QuantNAS, table 1
    assert inspection.bitops == 64 * 37_945_344
    assert (inspection.kind, inspection.file_bytes) == ("found.pt", path.stat().st_size)
    assert inspection.images == ("astronaut", "chelsea", "coffee", "rocket", "motorcycle")
    assert all(row.saturation is not None for row in inspection.rows)


@pytest.mark.parametrize("name", ["basic-adq-w48-example", "rfdn-adq-w48-example"])
def test_costs_are_those_of_the_architecture(name: str) -> None:
    found = random_found(name)
    cost = network_cost(found.network.layers, 24, 32)
    rows = network_rows(integer_network(found), 24, 32, ())
    assert sum(row.macs for row in rows) == cost.macs
    assert sum(row.bitops for row in rows) == cost.bitops
    assert sum(row.weight_bytes for row in rows) == cost.weight_bytes


def test_a_float_network_has_its_costs_and_a_note(tmp_path: Path) -> None:
    inspection = inspect(saved(tmp_path, "espcn-w32"), Request(32, 32))
    assert inspection.macs == 37_945_344
    assert inspection.bitops == 32 * 32 * 37_945_344
    assert [row.operation for row in inspection.rows if row.macs] == ["conv 5x5", "conv 3x3", "conv 3x3"]
    (note,) = inspection.notes
    assert note.startswith("no integer network")


@pytest.mark.parametrize("name", ["espcn-w4", "basic-w48-example"])
def test_onnx_says_of_a_network_what_its_found_pt_says(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path, name)
    network = integer_network(random_found(name))
    onnx.save(write_onnx(network, TARGETS["onnxruntime"]), tmp_path / "model.onnx")
    ours, theirs = (inspect(each, Request(16, 24)) for each in (path, tmp_path / "model.onnx"))
    assert theirs.kind == "ONNX"
    assert theirs.notes == ()
    for mine, other in zip(convolutions(ours), convolutions(theirs), strict=True):
        assert replace(mine, name="", output=None) == replace(other, name="", output=None)


def test_an_onnx_model_of_floats_has_the_rows_of_its_graph_and_a_note(tmp_path: Path) -> None:
    path = tmp_path / "float.onnx"
    onnx.save(text_model(FLOAT_CONV), path)
    inspection = inspect(path, Request(8, 5))
    conv, relu, shuffle = inspection.rows
    assert (conv.operation, conv.shape, conv.macs) == ("Conv 3x3", (12, 8, 5), 324 * 40)
    assert (conv.weight_bits, conv.activation_bits, conv.bitops) == (32, 32, 1024 * conv.macs)
    assert (conv.weight_bytes, conv.bias_bytes, conv.weight_counts) == (4 * 324, 48, ())
    assert (relu.operation, relu.shape, relu.macs) == ("Relu", (12, 8, 5), 0)
    assert (shuffle.operation, shuffle.shape) == ("DepthToSpace", (3, 16, 10))
    assert inspection.notes[0].startswith("no integer network of ours, so only what the graph says: ")


QLINEAR_CONV = """
net (uint8[n, 3, h, w] image) => (uint8[n, 3, y, x] upscaled)
<float one = {0.00390625}, uint8 zero = {0}, int8[12, 3, 3, 3] k, float[12] scales, int8[12] zeros>
{
    c = QLinearConv <pads = [1, 1, 1, 1]> (image, one, zero, k, scales, zeros, one, zero)
    upscaled = DepthToSpace <blocksize = 2, mode = "CRD"> (c)
}"""


def test_foreign_integer_weights_of_a_graph_have_levels(tmp_path: Path) -> None:
    """onnxruntime's own QLinearConv is no operation of ours; its weights are signed integers all the same."""
    path = tmp_path / "foreign.onnx"
    onnx.save(text_model(QLINEAR_CONV), path)
    conv = inspect(path, Request(8, 8)).rows[0]
    values = np.random.default_rng(0).integers(-8, 8, (12, 3, 3, 3))  # those of `text_model`
    assert (conv.operation, conv.weight_low) == ("QLinearConv 3x3", -128)
    assert conv.weight_counts == tuple(int((values == level).sum()) for level in range(-128, 128))


def test_operations_that_nobody_knows_are_named_and_the_rest_is_shown(tmp_path: Path) -> None:
    graph = """
    net (uint8[n, 3, h, w] image) => (float[n, 3, y, x] upscaled)
    <float one = {0.00390625}, uint8 zero = {0}, int8[12, 3, 3, 3] k, float[12] scales, int8[12] zeros>
    {
        i = DequantizeLinear (image, one, zero)
        w = DequantizeLinear <axis = 0> (k, scales, zeros)
        c = Conv <pads = [1, 1, 1, 1]> (i, w)
        upscaled = house.Thing (c)
    }"""
    path = tmp_path / "foreign.onnx"
    onnx.save(text_model(graph), path)
    inspection = inspect(path, Request(8, 8))
    conv, thing = inspection.rows
    assert (conv.weight_bits, conv.activation_bits) == (8, 8)
    assert conv.weight_scale == pytest.approx((0.01, 0.01))
    assert (thing.operation, thing.shape) == ("house.Thing", None)
    assert inspection.notes[1] == "not in MACs: house.Thing"
    show(inspection, Terminal(width=100))


def test_a_graph_that_was_tampered_with_is_refused(tmp_path: Path) -> None:
    model = text_model(QLINEAR_CONV)
    weights = next(tensor for tensor in model.graph.initializer if tensor.name == "k")
    weights.raw_data = weights.raw_data[:5]
    onnx.save(model, tmp_path / "broken.onnx")
    with pytest.raises(ModelError, match=r"broken\.onnx is damaged \(ValueError\): export it again"):
        inspect(tmp_path / "broken.onnx", Request(8, 8))


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(text_model(FLOAT_CONV).SerializeToString().replace(b"Relu", b"Re\xffu"))
    with pytest.raises(
        ModelError, match=r"broken\.onnx is no readable ONNX model \(names that are no text\)"
    ):
        inspect(path, Request(8, 8))


def test_without_sample_photographs_there_are_no_levels_and_a_note(
    monkeypatch: pytest.MonkeyPatch, espcn: Path
) -> None:
    monkeypatch.setattr("qnas.images.samples.find_spec", lambda name: None)
    inspection = inspect(espcn, Request(8, 8))
    assert [row.saturation for row in inspection.rows] == [None] * 5
    assert inspection.notes == (
        "no levels of outputs: the sample photographs are in scikit-image: pip install scikit-image",
    )


# TFLite --------------------------------------------------------------------------------------------------


def test_a_tflite_file_says_of_convolutions_what_the_network_says(tmp_path: Path) -> None:
    network = integer_network(random_found("basic-w48-example"))
    path = tmp_path / "model.tflite"
    path.write_bytes(write_tflite(network, 16, 24).data)
    ours = [row for row in network_rows(network, 16, 24, ()) if row.macs]
    theirs = {row.name: row for row in convolutions(inspect(path, Request(64, 64)))}
    assert len(ours) == 15  # 2 of the head, 3 of each of 3 blocks, 2 that upsample, 2 of the tail
    for mine in ours:
        other = theirs[mine.name]
        assert other.weight_bytes == sum(mine.weight_counts)  # 4-bit weights lie in bytes
        same = {"operation": mine.operation, "output": None, "weight_bytes": mine.weight_bytes}
        assert other.operation.removesuffix(" relu") == mine.operation
        assert replace(other, **same) == replace(mine, output=None)


def test_without_ai_edge_litert_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(write_tflite(two_layers(), 4, 6).data)
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(UsageError, match=r"pip install 'qnas\[tflite\]'"):
        inspect(path, Request(8, 8))


# The command ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def espcn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("found"), "espcn-w4")


def saved(folder: Path, name: str) -> Path:
    found = random_found(name)
    path = folder / f"{name}.pt"
    save_found(path, found.architecture, found.network, {})
    return path


def convolutions(inspection: Inspection) -> list[LayerRow]:
    return [
        replace(row, output=None, output_counts=(), saturating_pairs=False)
        for row in inspection.rows
        if row.macs
    ]


def command(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments])


def test_the_tables_fit_one_hundred_columns_and_end_in_totals(espcn: Path) -> None:
    result = command(espcn, "--size", "32x32")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert max(len(line) for line in lines[1:]) <= 100  # the first names the file
    (total,) = (line.split() for line in lines if line.split()[:1] == ["total"])
    # 5*5*3*64 + 3*3*64*32 + 3*3*32*48 weights at half a byte; 64 + 32 + 48 biases at four.
    assert total == ["total", "37.95M", "685.8M", "18,528", "576"]


def test_json_has_every_row_and_the_totals(espcn: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for k in range(6):
        write_png(folder / f"{k}.png", np.full((32, 40, 3), 40 * k, np.uint8))
    result = command(espcn, "--size", "8x6", "--json", "--images", folder)
    document = json.loads(result.stdout)
    assert (document["format"], document["version"], document["size"]) == ("qnas-inspect", 1, [8, 6])
    assert document["images"] == [f"{k}.png" for k in range(5)]
    assert document["notes"] == ["levels counted on the first 5 images, 1 left out"]
    layers = document["layers"]
    assert document["totals"]["macs"] == sum(layer["macs"] for layer in layers)
    image = layers[0]
    assert image["output"] == {"scale": 2.0**-8, "zero_point": 0, "low": 0, "high": 255}
    # 32x40 images at a scale of 4 are 8x10, of which 8x6 are taken; one of the five is black.
    assert image["output_counts"][0] == 8 * 6 * 3
    assert image["saturation"] == [0.2, 0]


def test_the_page_is_written_whole_and_not_twice(espcn: Path, tmp_path: Path) -> None:
    target = tmp_path / "page.html"
    assert command(espcn, "--size", "8x8", "--html", target).exit_code == 0
    written = target.read_text()
    assert written.count('<figure class="histogram">') == 2 * 3  # weights and outputs of three convolutions
    refused = command(espcn, "--html", target)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "exists: pass --force" in refused.stderr
    assert target.read_text() == written


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("missing.onnx", None),
        ("readme.txt", b"text"),
        ("text.onnx", b"text"),
        ("empty.onnx", b""),
        ("text.tflite", b"some text that is no flatbuffer"),
        ("short.tflite", b"\x1c\0\0\0TFL3" + 20 * b"\1"),
        ("text.pt", b"text"),
    ],
)
def test_a_wrong_file_is_one_line_and_exit_code_2(tmp_path: Path, name: str, content: bytes | None) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    result = command(path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.fullmatch(rf"error: .*{name}.*\n", result.stderr)


@pytest.mark.parametrize("size", ["64", "0x8", "8x8x8", "axb", "5000x5", "-1x4"])
def test_a_wrong_size_is_one_line_and_exit_code_2(espcn: Path, size: str) -> None:
    result = command(espcn, f"--size={size}")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "64x64" in result.stderr


# The page ------------------------------------------------------------------------------------------------


def test_names_of_a_file_can_do_nothing_to_the_page_or_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = "<script>alert('x')</script>\x1b[2J[red]"
    rows = network_rows(two_layers(name), 4, 6, [WHITE])
    inspection = Inspection("<b>.pt", "found.pt", 1, rows, (4, 6), ("<i>.png",), ("<u>",))
    written = as_page(inspection)
    assert not re.search(r"<(script|b|i|u)>", written)
    assert "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;" in written
    show(inspection, Terminal(width=200))
    printed = capsys.readouterr().out
    assert "<script>alert('x')</script>?[2J[red]" in printed
    assert "\x1b" not in printed


def test_a_page_needs_no_script_and_nothing_from_elsewhere() -> None:
    written = as_page(Inspection("a.pt", "found.pt", 1, network_rows(two_layers(), 4, 6, [WHITE])))
    assert "default-src 'none'" in written
    assert not re.search(r"<script|<link|src=|href=|url\(|@import|https?:", written)


def test_elements_escape_what_is_not_markup() -> None:
    assert element("p", "a < b", Markup("<br>"), class_="x", data_name='"') == (
        '<p class="x" data-name="&quot;">a &lt; b<br></p>'
    )
    assert element("p", id=None) == "<p></p>"
    assert "<title>a &amp; b</title>" in page("a & b")


def test_a_table_has_its_numbers_at_the_right() -> None:
    assert table(["name", "n"], [["a", 1]], footer=["total", 1]) == (
        '<div class="wide"><table><thead><tr><th>name</th><th class="number">n</th></tr></thead>'
        '<tbody><tr><td>a</td><td class="number">1</td></tr></tbody>'
        '<tfoot><tr><td>total</td><td class="number">1</td></tr></tfoot></table></div>'
    )


def test_a_histogram_has_bars_for_used_levels_and_marks_for_unused_ones() -> None:
    """60 units are the highest bar: 4 counts; 1 count is a quarter of them, or half with square roots."""
    plain, root = (histogram([4, 0, 1], -1, "levels", root=root) for root in (False, True))
    assert 'class="bar" d="M0 60v-60h0.9V60zM2 60v-15h0.9V60z"' in plain
    assert 'class="bar" d="M0 60v-60h0.9V60zM2 60v-30h0.9V60z"' in root
    assert 'class="empty" d="M1 62h0.9v4h-0.9z"' in plain
    assert "<span>-1</span><span>most 4</span><span>1</span>" in plain


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0"), (999, "999"), (38_400, "38.4k"), (999_960, "1M"), (2 * 10**16, "20P")]
)
def test_counts_have_four_digits_and_a_letter(count: int, words: str) -> None:
    assert engineering(count) == words


def test_scales_and_shares_are_short_but_never_wrongly_zero() -> None:
    assert [scale_words(scale) for scale in (2.0**-8, 1.0, 0.003)] == ["2^-8", "2^0", "0.003"]
    assert [percent(share) for share in (0, 0.00005, 0.1234, 1)] == ["0", "<0.01%", "12.34%", "100.00%"]
