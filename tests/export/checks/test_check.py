"""Parity of written files: differences counted by hand, layers named, a verdict that a build can rely on."""

import base64
import io
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from qnas.errors import ImageError, ModelError, UsageError
from qnas.export.checks import check as check_module
from qnas.export.checks.cases import Case, Effort, Window, windows
from qnas.export.checks.check import WrittenFile, check, check_images
from qnas.export.checks.comparison import Comparison
from qnas.export.checks.html import check_page
from qnas.export.checks.layers import sqnr
from qnas.export.checks.report import CheckReport, share
from qnas.export.checks.table import show_report
from qnas.export.integers import integer_network
from qnas.export.model import build_float32, float_twin
from qnas.export.targets import TARGETS, fitted
from qnas.export.to_onnx.writer import write_onnx
from qnas.export.trained import trained_reference
from qnas.images.files import write_png
from qnas.integer.convolution import Conv
from qnas.integer.interpreter import trace, upscaler
from qnas.integer.network import IntegerNetwork
from qnas.integer.nodes import Add, DepthToSpace, ImageInput, IntegerNode, Interpolate, MaxPool
from qnas.quantization.quantizers import QuantParams
from qnas.runtimes.runtime import Check, Runner, planes
from qnas.runtimes.table import CHECKS
from qnas.terminal import Terminal
from qnas.testing.random_networks import noise, random_found

GREY = QuantParams(np.float32(2**-8), 0, 0, 255)
PHOTOGRAPH = [("noise", noise(8, 8))]  # 4 x 4 LR pixels, 8 x 8 x 3 = 192 values at twice the size


def doubling(weight_scale: float = 1.0) -> IntegerNetwork:
    """Every pixel four times: a 1x1 convolution of weights 1 and a shuffle."""
    weight = np.repeat(np.eye(3, dtype=np.int8), 4, axis=0).reshape(12, 3, 1, 1)
    scale, bias = np.full(12, weight_scale, np.float32), np.zeros(12, np.int32)
    nodes = (
        ImageInput("image", (), 3, GREY),
        Conv("phases", ("image",), 12, GREY, weight, scale, bias, bits=8),
        DepthToSpace("large", ("phases",), 3, GREY, 2),
    )
    return IntegerNetwork("doubling", 2, nodes)


def runner_of(network: IntegerNetwork, change: Callable[[np.ndarray], None]) -> Runner:
    """The interpreter with its output, and the tensor `phases`, edited in place."""

    def upscale(image: np.ndarray) -> np.ndarray:
        result = upscaler(network)(image).copy()
        change(result)
        return result

    def tensors(image: np.ndarray, nodes: Sequence[IntegerNode]) -> dict[str, np.ndarray]:
        found = {node.name: tensor.copy() for node, tensor in trace(network, planes(image))}
        change(found["phases"])
        found["large"] = planes(upscale(image))
        return {node.name: found[node.name] for node in nodes}

    return Runner(upscale, trace=tensors)


def two_more(pixels: np.ndarray) -> None:
    """One value, two levels off."""
    first = pixels.reshape(-1)[:1] if pixels.flags.c_contiguous else pixels[:1, 0, 0]
    first += np.where(first < 128, 2, -2).astype(np.int8).view(np.uint8)


@pytest.fixture
def written(tmp_path: Path) -> WrittenFile:
    path = tmp_path / "model.onnx"
    onnx.save(write_onnx(doubling(), TARGETS["onnxruntime"]), path)
    return WrittenFile(path)


def only(monkeypatch: pytest.MonkeyPatch, check: Check) -> None:
    """Make it the one check of files."""
    monkeypatch.setattr("qnas.export.checks.check.checks_of", lambda suffix: {"fake": check})
    monkeypatch.setitem(CHECKS, "fake", check)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes a runtime of that name and behaviour the only one for ONNX files."""

    def install(change: Callable[[np.ndarray], None], package: str = "numpy", exact: bool = True) -> None:
        only(monkeypatch, Check("fake", ".onnx", package, lambda data: runner_of(doubling(), change), exact))

    return install


def shown(report: CheckReport) -> str:
    console = Terminal(width=300, record=True, file=io.StringIO())
    show_report(report, console)
    return console.export_text()


# Counting --------------------------------------------------------------------------------------------------


def test_one_value_of_192_two_levels_off_is_counted_as_that(written: WrittenFile, fake: Callable) -> None:
    fake(two_more)
    report = check([written], doubling(), None, PHOTOGRAPH)
    (result,) = report.files[0].runtimes
    difference = result.against["interpreter"]
    assert (difference.values, difference.differing, difference.largest) == (192, 1, 2)
    assert difference.equal == 1 - 1 / 192
    assert difference.psnr == pytest.approx(10 * math.log10(255**2 * 192 / 2**2))
    assert result.psnr_y == pytest.approx(report.references[0].psnr_y, abs=0.2)


@pytest.mark.parametrize(
    ("min_equal", "max_steps", "miss"),
    [
        (191 / 192, 2, None),
        (0.9, 1, "a value differs by 2 grey levels, more than 1"),
        (0.999, 2, "99.4792% of the values are equal, not 99.9000%"),
    ],
)
def test_thresholds_decide_the_verdict(
    written: WrittenFile, fake: Callable, min_equal: float, max_steps: int, miss: str | None
) -> None:
    fake(two_more)
    report = check([written], doubling(), None, PHOTOGRAPH, min_equal=min_equal, max_steps=max_steps)
    expected = () if miss is None else (f"model.onnx in fake: against interpreter {miss}",)
    assert report.misses == expected
    assert report.passed == (miss is None)
    assert ("passed" if miss is None else miss) in shown(report)


def test_what_rounds_scales_of_many_bits_has_to_be_near_and_is_called_so(
    written: WrittenFile, fake: Callable
) -> None:
    """Two levels in one of 192 values: 10 log10(255^2 * 192 / 4) = 65 dB."""
    fake(two_more)
    report = check([replace(written, inexact=frozenset({"fake"}))], doubling(), None, PHOTOGRAPH)
    assert report.passed
    text = "in fake: at least 99.4792% of the values equal, at most 2 grey levels apart, 64.9 dB at least"
    assert text in shown(report)
    assert "passed" not in shown(report)
    assert "passed" not in check_page(report)


def test_near_is_not_called_passed_however_few_values_differ(written: WrittenFile, fake: Callable) -> None:
    fake(two_more)
    loose, inexact = {"min_equal": 0.5, "max_steps": 9}, replace(written, inexact=frozenset({"fake"}))
    assert "passed" not in shown(check([inexact], doubling(), None, PHOTOGRAPH, **loose))
    fake(lambda pixels: None)
    assert "passed in fake" in shown(check([inexact], doubling(), None, PHOTOGRAPH, **loose))


def test_what_is_far_from_its_network_fails_however_it_rounds(written: WrittenFile, fake: Callable) -> None:
    def brighter(pixels: np.ndarray) -> None:
        np.clip(pixels.astype(np.int16) + 40, 0, 255, out=pixels, casting="unsafe")

    fake(brighter)
    report = check([replace(written, inexact=frozenset({"fake"}))], doubling(), None, PHOTOGRAPH)
    (miss,) = report.misses
    assert re.match(
        r"model.onnx in fake: against interpreter 1\d.\d dB, less than 40.0 dB: another network", miss
    )


def test_a_verdict_names_the_runtimes_that_it_covers(written: WrittenFile, fake: Callable) -> None:
    fake(lambda pixels: None)
    report = check([written], doubling(), None, PHOTOGRAPH)
    assert "passed in fake: at least 100.0000% equal, at most 0 grey levels apart" in shown(report)
    assert "passed in fake" in check_page(report)


def test_a_reference_that_is_to_be_near_and_is_not_fails_the_check(
    written: WrittenFile, fake: Callable
) -> None:
    """The source of an export, or a float model away from the size of its patches."""
    fake(lambda pixels: None)
    black = Runner(lambda image: np.zeros((2 * image.shape[0], 2 * image.shape[1], 3), np.uint8))
    source = Comparison("source model", "", False, black, ("interpreter",), near=40.0)
    report = check([written], doubling(), None, PHOTOGRAPH, given=[source])
    assert report.misses[0].startswith("source model: against interpreter ")
    assert "less than 40.0 dB" in report.misses[0]


def test_a_runtime_of_another_arithmetic_decides_only_when_it_is_named(
    written: WrittenFile, fake: Callable
) -> None:
    fake(two_more, exact=False)
    report = check([written], doubling(), None, PHOTOGRAPH)
    assert "differs, not gated" in shown(report)
    assert report.misses == ("model.onnx: no runtime that decides is installed and runs such files",)
    named = check([written], doubling(), None, PHOTOGRAPH, gate=["fake"])
    assert named.misses[0].startswith("model.onnx in fake: against interpreter 99.4792%")


def test_what_is_not_installed_is_named_and_passes_nothing(written: WrittenFile, fake: Callable) -> None:
    fake(two_more, package="no_such_package")
    report = check([written], doubling(), None, PHOTOGRAPH)
    assert report.files[0].not_checked == ("fake: no_such_package is not installed",)
    assert "not checked: fake: no_such_package is not installed" in shown(report)
    assert not report.passed


def test_a_file_that_no_runtime_opens_fails_without_a_traceback(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"no model at all")
    report = check([WrittenFile(path)], doubling(), None, PHOTOGRAPH, layers=True)
    gated = [result for result in report.files[0].runtimes if result.gated]
    assert len(gated) == 3
    assert all("broken.onnx is no readable ONNX model" in result.error for result in gated)
    assert report.misses == tuple(f"broken.onnx in {r.runtime}: {r.error}" for r in gated)
    assert gated[0].error in shown(report)
    json.dumps(report.to_json(), allow_nan=False)
    assert "is no readable ONNX model" in check_page(report)


def test_an_output_of_another_size_is_an_error_of_the_file(
    written: WrittenFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    thrice = Runner(lambda image: np.zeros((3 * image.shape[0], 3 * image.shape[1], 3), np.uint8))
    only(monkeypatch, Check("fake", ".onnx", "numpy", lambda data: thrice))
    report = check([written], doubling(), None, PHOTOGRAPH)
    assert report.misses == ("model.onnx in fake: it makes 12x12 pixels where 8x8 are expected",)


def test_a_share_below_one_is_never_shown_as_all() -> None:
    assert (share(1.0), share(1 - 1e-9), share(0.5)) == ("100.0000%", "<100%", "50.0000%")


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        ((None, None, PHOTOGRAPH, None), "needs a network"),
        ((doubling(), None, [], None), "at least one image"),
        ((doubling(), None, PHOTOGRAPH, ["tensorrt"]), "no runtime 'tensorrt': name some of onnxruntime, "),
    ],
)
def test_a_check_that_means_nothing_is_refused(arguments: tuple, advice: str) -> None:
    *given_arguments, gate = arguments
    with pytest.raises(UsageError, match=advice):
        check([], *given_arguments, gate=gate)


# Layers ----------------------------------------------------------------------------------------------------


def test_sqnr_is_the_ratio_of_signal_to_noise_in_decibels() -> None:
    assert (sqnr(100, 1), sqnr(5, 0), sqnr(0, 3)) == (20.0, math.inf, -math.inf)


def test_the_first_layer_that_differs_is_named_with_its_sqnr(written: WrittenFile, fake: Callable) -> None:
    fake(two_more)
    report = check([written], doubling(), None, PHOTOGRAPH, layers=True)
    (table,) = report.files[0].layers
    assert [layer.name for layer in table.layers] == ["phases", "large"]
    first = table.first_difference
    lr = Case.of("", PHOTOGRAPH[0][1], 2, {}).lr.astype(float)
    assert (first.name, first.operation, first.differing, first.largest) == ("phases", "Conv", 1, 2)
    assert first.sqnr == pytest.approx(10 * math.log10(4 * (lr**2).sum() / 4))
    assert "the first of 2 layers that differs is phases (Conv): 1 of 192 values" in shown(report)


def test_a_runtime_that_computes_otherwise_when_its_layers_are_let_out_is_said_to(
    written: WrittenFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = doubling()
    other = runner_of(network, two_more)
    runner = Runner(upscaler(network), trace=other.trace)
    only(monkeypatch, Check("fake", ".onnx", "numpy", lambda data: runner))
    report = check([written], network, None, PHOTOGRAPH, layers=True)
    assert report.passed  # of the file as it is
    assert "with its layers let out it computes other pixels than without" in shown(report)


def test_a_runtime_that_cannot_let_its_layers_out_still_has_its_pixels(
    written: WrittenFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(image: np.ndarray, nodes: Sequence[IntegerNode]) -> dict[str, np.ndarray]:
        raise ModelError("too many outputs")

    runner = Runner(upscaler(doubling()), trace=refuse)
    only(monkeypatch, Check("fake", ".onnx", "numpy", lambda data: runner))
    report = check([written], doubling(), None, PHOTOGRAPH, layers=True)
    assert report.passed
    assert "layers in fake: too many outputs" in shown(report)


def test_near_ties_are_counted_per_layer(written: WrittenFile) -> None:
    ones = [("ones", np.ones((8, 8, 3), np.uint8))]
    exact = check([written], doubling(0.5), None, ones, layers=True)
    assert exact.near_ties == {"phases": 0}  # exact ties round alike everywhere
    report = check([written], doubling(np.nextafter(np.float32(0.5), np.float32(1))), None, ones, layers=True)
    assert report.near_ties == {"phases": 192}
    assert report.files[0].layers[0].layers[0].near_ties == 192
    assert "values within 2^-20 of a rounding tie: 192" in shown(report)


def test_a_changed_weight_is_found_in_every_runtime_and_its_layer_is_named(tmp_path: Path) -> None:
    found = random_found("espcn-w8")
    integer = integer_network(found)
    model = write_onnx(integer, TARGETS["portable"])
    (tensor,) = (t for t in model.graph.initializer if t.name == "conv_1.weight")
    weight = onnx.numpy_helper.to_array(tensor).copy()
    weight.flat[0] += 40 if weight.flat[0] < 80 else -40
    tensor.CopyFrom(onnx.numpy_helper.from_array(weight, tensor.name))
    path = tmp_path / "changed.onnx"
    onnx.save(model, path)
    report = check(
        [WrittenFile(path)],
        integer,
        trained_reference(found.network),
        [("noise", noise(64, 64))],
        layers=True,
    )
    gated = [result for result in report.files[0].runtimes if result.gated]
    assert [len(result.misses(report.thresholds)) for result in gated] == [2, 2, 2]  # both references
    tables = report.files[0].layers[:3]
    assert [table.first_difference.name for table in tables] == ["conv_1"] * 3
    assert [table.unseen for table in tables] == [()] * 3


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_a_trained_network_agrees_with_its_file_in_every_layer(tmp_path: Path, layout: str) -> None:
    found = random_found("basic-w48-example")
    integer = integer_network(found)
    walked = fitted(integer, TARGETS["onnxruntime"])
    path = tmp_path / "model.onnx"
    onnx.save(write_onnx(walked, TARGETS["onnxruntime"], layout), path)
    files = [WrittenFile(path, walked)]
    report = check(files, integer, trained_reference(found.network), [("noise", noise(64, 52))], layers=True)
    assert report.misses == ()
    for table in report.files[0].layers[:3]:
        assert table.first_difference is None
        assert table.unseen == ()
        assert len(table.layers) == len(walked.nodes) - 1
    assert report.files[0].fusion.integer == report.files[0].fusion.total > 0
    torch = report.references[1]
    assert (torch.runtime, torch.against["interpreter"].differing) == ("torch", 0)


def test_the_float_twin_is_compared_with_torch(tmp_path: Path) -> None:
    found = random_found("espcn-w8")
    path = tmp_path / "float.onnx"
    onnx.save(build_float32(found), path)
    twin = trained_reference(float_twin(found).network)
    report = check(
        [WrittenFile(path)], None, twin, [("noise", noise(64, 64))],
        layers=True, min_equal=0.99, max_steps=1,
    )  # fmt: skip
    assert report.misses == ()
    assert report.near_ties is None
    assert report.files[0].layers == ()
    assert [list(result.against) for result in report.files[0].runtimes[:3]] == [["torch"]] * 3


def test_openvino_is_reported_and_not_gated(written: WrittenFile) -> None:
    pytest.importorskip("openvino")
    report = check([written], doubling(), None, PHOTOGRAPH, layers=True)
    result = report.files[0].runtimes[-1]
    assert (result.runtime, result.gated, result.against["interpreter"].differing) == ("OpenVINO", False, 0)
    assert [layer.name for layer in report.files[0].layers[-1].layers] == ["phases", "large"]


# TFLite ----------------------------------------------------------------------------------------------------


def test_a_tflite_file_is_exact_in_xnnpack_and_its_layers_are_read_in_its_own_channel_order(
    tmp_path: Path,
) -> None:
    pytest.importorskip("ai_edge_litert")
    from qnas.export.to_tflite.writer import write_tflite

    found = random_found("espcn-w4")
    integer = integer_network(found)
    assert any(isinstance(node, DepthToSpace) for node in integer.nodes)  # or the order would not matter
    path = tmp_path / "model.tflite"
    path.write_bytes(write_tflite(integer, 12, 10).data)
    report = check(
        [WrittenFile(path)],
        integer,
        trained_reference(found.network),
        [("noise", noise(100, 90))],
        layers=True,
    )
    delegated, builtin = report.files[0].runtimes
    assert report.misses == ()
    assert delegated.against["interpreter"].values == 2 * 2 * 12 * 10 * 16 * 3  # four tiles of 25 x 22 pixels
    assert builtin.gated is False
    inside, outside = report.files[0].layers
    assert inside.note == "not available inside XNNPACK"
    assert [layer.name for layer in outside.layers] == [node.name for node in integer.nodes[1:]]
    assert all(layer.sqnr > 15 for layer in outside.layers)  # its own rounding, and not another order
    done, of = report.files[0].delegated
    assert done == of > 0
    assert f"nodes that XNNPACK runs: {of} of {of}" in shown(report)


# Which parts are compared ----------------------------------------------------------------------------------

ANY = Runner(lambda image: image)


def test_a_runtime_of_any_size_gets_the_centre() -> None:
    assert windows(300, 200, ANY, Effort(100**2), first=True) == [Window(100, 50, 100, 100)]
    assert windows(30, 20, ANY, Effort(100**2), first=True) == [Window(0, 0, 30, 20)]


def test_a_fixed_size_larger_than_its_share_is_checked_on_the_first_image_alone() -> None:
    runner = Runner(lambda image: image, size=(64, 48))
    assert windows(100, 100, runner, Effort(40**2), first=True) == [Window(18, 26, 64, 48)]
    assert windows(100, 100, runner, Effort(40**2), first=False) == []


@given(
    st.integers(1, 300), st.integers(1, 300), st.integers(1, 64), st.integers(1, 64),
    st.floats(1, 1e6), st.booleans(),
)  # fmt: skip
def test_tiles_have_the_fixed_size_and_lie_side_by_side_inside_the_image(
    height: int, width: int, tall: int, wide: int, pixels: float, slow: bool
) -> None:
    runner = Runner(lambda image: image, size=(tall, wide), slow=slow)
    found = windows(height, width, runner, Effort(pixels), first=True)
    assert found
    assert {(w.height, w.width) for w in found} == {(tall, wide)}
    assert len({(w.top, w.left) for w in found}) == len(found)
    assert all((w.top - found[0].top) % tall == (w.left - found[0].left) % wide == 0 for w in found)
    if tall <= height and wide <= width:
        assert all(w.top >= 0 <= w.left for w in found)
        assert all(w.top + tall <= height and w.left + wide <= width for w in found)


def test_an_image_smaller_than_the_fixed_size_repeats_its_edge_and_only_itself_is_rated() -> None:
    case = Case.of("small", noise(8, 8), 2, {})
    part = case.part(Window(0, 0, 6, 5))
    np.testing.assert_array_equal(part[:4, :4], case.lr)
    np.testing.assert_array_equal(part[4:, :4], np.repeat(case.lr[3:], 2, axis=0))
    np.testing.assert_array_equal(part[:, 4], part[:, 3])
    np.testing.assert_array_equal(case.photograph(Window(0, 0, 6, 5)), case.hr)


def pooling(kernel: int) -> IntegerNetwork:
    """Twice the size of the image plus its own maximum; needs `kernel` pixels a side."""
    image, phases, large = doubling().nodes
    small = MaxPool("small", ("image",), 3, GREY, (kernel, kernel), (1, 1))
    tall = Interpolate("tall", ("small", "image"), 3, GREY, 2)
    wide = Interpolate("wide", ("tall", "image"), 3, GREY, 3)
    total = Add("total", ("image", "wide"), 3, GREY)
    nodes = (image, small, tall, wide, total, replace(phases, inputs=("total",)), large)
    return replace(doubling(), nodes=nodes)


def test_a_network_that_needs_many_pixels_is_given_them(tmp_path: Path) -> None:
    network = pooling(40)
    path = tmp_path / "pooling.onnx"
    onnx.save(write_onnx(network, TARGETS["onnxruntime"]), path)
    report = check([WrittenFile(path)], network, None, [("noise", noise(130, 120))], layers=True)
    assert report.misses == ()
    assert report.files[0].layers[2].first_difference is None  # the reference evaluator, which gets the least
    with pytest.raises(ImageError, match="small is 39x60 pixels small for the network"):
        check([], network, None, [("small", noise(120, 78))])


def test_images_come_from_the_folder_or_from_a_made_up_one_that_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_png(tmp_path / "b.png", noise(8, 8))
    ((name, image),), notes = check_images(tmp_path)
    assert (name, notes) == ("b.png", ())
    np.testing.assert_array_equal(image, noise(8, 8))

    def none() -> None:
        raise UsageError("no photographs here")

    monkeypatch.setattr(check_module, "sample_photographs", none)
    ((name, image),), notes = check_images(None)
    assert (name, image.shape, notes) == (
        "random blocks", (512, 512, 3), ("compared on a made-up image: no photographs here",),
    )  # fmt: skip


# Reports ---------------------------------------------------------------------------------------------------


def test_json_is_strict_and_says_what_was_found(written: WrittenFile, fake: Callable) -> None:
    fake(two_more)
    report = check([written], doubling(), None, PHOTOGRAPH, layers=True, notes=("a note",))
    document = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert (document["format"], document["version"], document["passed"]) == ("qnas-parity", 2, False)
    assert document["thresholds"] == {"min_equal": 1.0, "max_steps": 0}
    assert (document["images"], document["notes"]) == (["noise"], ["a note"])
    (file,) = document["files"]
    assert file["runtimes"][0]["against"]["interpreter"]["differing"] == 1
    assert file["layers"][0]["first_difference"] == "phases"
    assert file["fusion"] == {"total": 1, "integer": 1, "float_ops": []}
    assert "note: a note" in shown(report)
    assert "note: a note" in check_page(report)


def test_an_infinite_psnr_is_null_in_json_and_equal_in_the_table(written: WrittenFile) -> None:
    report = check([written], doubling(), None, PHOTOGRAPH)
    result = report.to_json()["files"][0]["runtimes"][0]
    assert result["against"]["interpreter"]["psnr"] is None
    assert re.search(r"onnxruntime .* interpreter .* 192 .* 100\.0000% .* 0 .* equal .* pass", shown(report))


def test_the_page_is_self_contained_and_shows_the_difference(written: WrittenFile, fake: Callable) -> None:
    fake(two_more)
    page = check_page(check([written], doubling(), None, PHOTOGRAPH, layers=True))
    assert "<script" not in page
    assert re.findall(r'(?:src|href)="(?!data:)', page) == []
    pictures = re.findall(r"data:image/png;base64,([\w+/=]+)", page)
    expected, got, amplified = (
        np.asarray(Pillow.open(io.BytesIO(base64.b64decode(picture)))) for picture in pictures
    )
    assert (expected != got).sum() == 1
    assert amplified.max() == 254  # 2 levels, 127 times
    assert "FAILED" in page


def test_the_page_of_an_exact_file_has_no_pictures(written: WrittenFile) -> None:
    page = check_page(check([written], doubling(), None, PHOTOGRAPH, layers=True))
    assert "<img" not in page
    assert "all 2 layers are equal" in page


def test_names_are_text_in_the_page_and_in_the_terminal(tmp_path: Path, fake: Callable) -> None:
    fake(two_more)
    path = tmp_path / "[red]<b>&.onnx"
    onnx.save(write_onnx(doubling(), TARGETS["onnxruntime"]), path)
    report = check([WrittenFile(path)], doubling(), None, [("<i>", noise(8, 8))])
    page = check_page(report)
    assert "<b>" not in page
    assert "<i>" not in page
    assert "[red]&lt;b&gt;&amp;.onnx" in page
    assert "[red]<b>&.onnx (1 images)" in shown(report)


def test_a_runtime_that_stops_half_way_keeps_no_numbers(
    written: WrittenFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def upscale(image: np.ndarray) -> np.ndarray:
        seen.append(1)
        if len(seen) > 1:
            raise ModelError("out of memory")
        return upscaler(doubling())(image)

    only(monkeypatch, Check("fake", ".onnx", "numpy", lambda data: Runner(upscale)))
    report = check([written], doubling(), None, PHOTOGRAPH * 3)
    (result,) = report.files[0].runtimes
    assert (result.error, dict(result.against), len(seen)) == ("out of memory", {}, 2)
    assert report.misses == ("model.onnx in fake: out of memory",)
