"""The run of a calibration: candidates, scores, the choice, calibration.json, the command."""

import json
import math
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from qnas.calibration import command
from qnas.calibration.calibrate import Run, Settings, best_of, calibrate, quantized_model, run
from qnas.calibration.candidates import (
    CLIPPED,
    CONTROL,
    LEAST_ERROR,
    NARROWER,
    NATURAL,
    PERCENTILE,
    TAMED,
    merged,
)
from qnas.calibration.cli import main
from qnas.calibration.document import (
    Score,
    from_json,
    read_calibration,
    to_json,
    write_calibration,
)
from qnas.calibration.judge import Judge, OneByOne, as_bytes
from qnas.calibration.patches import patches
from qnas.calibration.patches.patch_size import default_side
from qnas.calibration.patches.patches import Patches
from qnas.calibration.patches.representative import representative_set
from qnas.calibration.prepare.float_model import activations, read_float_model
from qnas.calibration.progress import Display, Show
from qnas.calibration.ptq.integer_model import quantized
from qnas.calibration.ranges.collection import collect
from qnas.calibration.ranges.histogram import Histogram
from qnas.calibration.ranges.range_rules import RULES
from qnas.calibration.ranges.ranges import Range
from qnas.calibration.sensitivity import sensitivity
from qnas.errors import CalibrationError, ImageError, UsageError
from qnas.images.files import write_png
from qnas.one_writer import one_writer
from qnas.testing.small_calibrations import SETTINGS, make_network, make_photographs
from qnas.testing.sr_modules import espcn, export
from qnas.testing.text_models import text_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("calibration")
    make_photographs(made / "photographs")
    make_network(made)
    return made


@pytest.fixture(scope="module")
def done(folder: Path) -> Run:
    return run(folder / "espcn.onnx", [folder / "photographs"], SETTINGS)


def ranges(run: Run, name: str) -> dict[str, Range]:
    return dict(next(each for each in run.found if each.name == name).ranges)


# Candidates ------------------------------------------------------------------------------------------------


def test_a_network_with_a_clip_has_six_candidates_and_a_control(done: Run) -> None:
    assert [each.name for each in done.found] == [
        TAMED, NATURAL, PERCENTILE, NARROWER, LEAST_ERROR, CLIPPED, CONTROL
    ]  # fmt: skip
    assert [each.eligible for each in done.found] == [True] * 6 + [False]
    counts = done.taming.counts
    assert counts.untouched > 0
    assert counts.tamed > 0


def test_natural_and_tamed_ranges_are_those_of_one_pass_over_all_their_patches(done: Run) -> None:
    names = activations(done.network)
    natural = collect(done.network, done.images.batches(16), names, Histogram)
    tamed = collect(done.network, done.taming.tamed(done.images.batches(16)), names, Histogram)
    for seen, wanted in ((done.watched.natural, natural), (done.watched.tamed, tamed)):
        assert {name: RULES["min-max"](each) for name, each in seen.items()} == {
            name: each.range() for name, each in wanted.items()
        }
        for name in names:
            np.testing.assert_array_equal(seen[name].counts, wanted[name].counts)


def test_the_control_sees_only_patches_in_range(done: Run) -> None:
    inside = [c for c, a in zip(done.images.crops, done.taming.contrasts, strict=True) if a == 1]
    images = replace(done.images, crops=tuple(inside))
    wanted = collect(done.network, images.batches(16), activations(done.network), Histogram)
    observed = set(wanted) - set(done.calibration.pinned)
    assert observed
    found = ranges(done, CONTROL)
    assert {name: found[name] for name in observed} == {name: wanted[name].range() for name in observed}


def test_input_output_and_what_moves_the_output_are_pinned_to_the_nominal_range(done: Run) -> None:
    for name in (TAMED, NATURAL, PERCENTILE, CONTROL):
        found = ranges(done, name)
        pinned = {tensor for tensor, each in found.items() if each == Range(0.0, 1.0)}
        # input, the convolution before DepthToSpace, output
        assert {done.network.input, done.network.output} < pinned
        assert len(pinned) == 3


def test_a_network_without_a_clip_has_no_clipped_candidate(folder: Path, tmp_path: Path) -> None:
    found = run(make_network(tmp_path, clip=False), [folder / "photographs"], SETTINGS)
    assert [each.name for each in found.found] == [TAMED, NATURAL, PERCENTILE, NARROWER, LEAST_ERROR, CONTROL]
    assert found.calibration.source.clip.nodes == ()


def test_the_clipped_candidate_has_the_wide_range_before_the_clip_and_the_nominal_one_behind(
    done: Run,
) -> None:
    original = done.judge.network
    clip = next(node for node in original.model.graph.node if node.op_type == "Clip")
    found = ranges(done, CLIPPED)
    wide = done.watched.natural[done.network.output]
    assert found[clip.input[0]] == Range(wide.low, wide.high)
    assert wide.low < -0.5 / 255
    assert found[clip.output[0]] == Range(0.0, 1.0)
    assert found[original.output] == Range(0.0, 1.0)


def test_merging_leaves_the_parts_as_they_are() -> None:
    one, two = Histogram(), Histogram()
    one.update(np.float32([1, 2]))
    two.update(np.float32([-5]))
    whole = merged({"t": one}, {"t": two})
    assert (whole["t"].low, whole["t"].high, whole["t"].total) == (-5, 2, 3)
    assert (one.low, one.total, two.total) == (1, 2, 1)


def test_patches_are_the_same_whether_kept_or_read_at_each_pass(
    done: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Patches.of(done.images)
    monkeypatch.setattr(patches, "KEPT_BYTES", 0)
    read = Patches.of(done.images)
    assert kept.kept is not None
    assert read.kept is None
    odd = [place % 2 == 1 for place in range(len(kept))]
    wanted = np.concatenate(list(done.images.batches(7)))
    for each in (kept, read):
        np.testing.assert_array_equal(np.concatenate(list(each.batches())), wanted)
        np.testing.assert_array_equal(np.concatenate(list(each.part(odd).batches())), wanted[1::2])


# The score and the choice ----------------------------------------------------------------------------------

TWICE = """
net (float[n, 3, h, w] image) => (float[n, 3, y, x] upscaled) <float[4] scales = {1, 1, 2, 2}>
{
    upscaled = Resize
        <mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor">
        (image, , scales)
}"""
TWICE_BUT_WRONG = """
net (uint8[n, 3, h, w] image) => (uint8[n, 3, y, x] upscaled)
<float[4] scales = {1, 1, 2, 2}, float off = {AMOUNT}>
{
    as_float = Cast <to = 1> (image)
    changed = Add (as_float, off)
    bytes = Cast <to = 2> (changed)
    upscaled = Resize
        <mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor">
        (bytes, , scales)
}"""


def judged(folder: Path, amount: int, threads: int = 1) -> float:
    """Score of a nearest-neighbour x2 that is `amount` grey levels off everywhere, on levels 100 to 150."""
    onnx.save(text_model(TWICE), folder / "twice.onnx")
    pixels = np.random.default_rng(0).integers(100, 150, (32, 32, 3)).astype(np.uint8)
    write_png(folder / "noise.png", pixels)
    images = representative_set([folder / "noise.png"], patch=16)
    network = read_float_model(folder / "twice.onnx", "0..1")
    return Judge(network, images, threads).psnr(text_model(TWICE_BUT_WRONG.replace("AMOUNT", str(amount))))


def test_the_score_is_the_psnr_of_all_values(tmp_path: Path) -> None:
    # 10 log10(255^2 / 1^2) = 48.1308, 10 log10(255^2 / 5^2) = 34.1514
    assert judged(tmp_path, 1) == 48.1308
    (tmp_path / "noise.png").unlink()
    assert judged(tmp_path, 5, threads=2) == 34.1514


def test_the_score_of_no_difference_is_infinite(tmp_path: Path) -> None:
    assert judged(tmp_path, 0) == math.inf


def test_bytes_are_rounded_half_to_even_and_clipped() -> None:
    assert as_bytes(np.float32([-3, 0.5, 1.5, 254.6, 300])).tolist() == [0, 0, 2, 255, 255]


@given(st.integers(1, 7), st.integers(1, 4))
@settings(max_examples=8)
def test_images_one_by_one_stay_in_order_on_any_number_of_threads(count: int, threads: int) -> None:
    images = np.arange(count * 12, dtype=np.float32).reshape(count, 2, 2, 3)
    seen: list[tuple[int, ...]] = []

    def twice(image: Any) -> Any:
        seen.append(image.shape)
        return image * 2

    np.testing.assert_array_equal(OneByOne(twice, threads)(images), images * 2)
    assert set(seen) == {(1, 2, 2, 3)}


def chosen(done: Run, *scores: tuple[str, float, bool]) -> str:
    blank = done.found[0]
    found = [replace(blank, name=name, eligible=eligible) for name, _, eligible in scores]
    return best_of(found, [Score(*each, *[True] * (len(each) == 2)) for each in scores]).name


def test_the_highest_score_wins_and_the_first_of_equals(done: Run) -> None:
    assert chosen(done, ("a", 40.0, True), ("b", 41.0, True), ("c", 41.0, True)) == "b"
    assert chosen(done, ("a", math.inf, True), ("b", math.inf, True)) == "a"


def test_a_candidate_that_keeps_its_clip_has_to_be_better_by_what_a_clip_is_worth(done: Run) -> None:
    found = [next(each for each in done.found if each.name == name) for name in (TAMED, CLIPPED)]
    for psnr, wanted in ((40.2, TAMED), (40.4, CLIPPED)):
        assert best_of(found, [Score(TAMED, 40.0, True), Score(CLIPPED, psnr, True)]).name == wanted


def test_ranges_that_cut_more_off_have_to_be_better_by_a_tenth_of_a_decibel(done: Run) -> None:
    found = [next(each for each in done.found if each.name == name) for name in (PERCENTILE, NARROWER)]
    for psnr, wanted in ((40.09, PERCENTILE), (40.11, NARROWER)):
        assert best_of(found, [Score(PERCENTILE, 40.0, True), Score(NARROWER, psnr, True)]).name == wanted


def test_the_control_is_never_chosen(done: Run) -> None:
    assert chosen(done, ("a", 40.0, True), ("control", 50.0, False)) == "a"


# calibration.json ------------------------------------------------------------------------------------------


def test_a_calibration_is_the_same_to_the_byte_on_one_and_two_threads_and_wherever_files_lie(
    done: Run, folder: Path, tmp_path: Path
) -> None:
    make_photographs(tmp_path / "elsewhere")
    path = tmp_path / "espcn.onnx"
    path.write_bytes((folder / "espcn.onnx").read_bytes())
    again = calibrate(path, [tmp_path / "elsewhere"], replace(SETTINGS, threads=2))
    assert to_json(again) == to_json(done.calibration)
    assert str(folder) not in to_json(done.calibration)


def test_another_seed_is_another_calibration(done: Run, folder: Path) -> None:
    other = calibrate(folder / "espcn.onnx", [folder / "photographs"], replace(SETTINGS, seed=1, count=8))
    assert other.manifest != done.calibration.manifest


def test_a_calibration_comes_back_from_its_file_as_it_was(done: Run, tmp_path: Path) -> None:
    write_calibration(done.calibration, tmp_path / "c.json")
    assert read_calibration(tmp_path / "c.json") == done.calibration


@given(
    st.dictionaries(
        st.text(max_size=5), st.tuples(st.floats(-1e24, 0), st.floats(0, 1e24)), min_size=1, max_size=4
    ),
    st.one_of(st.floats(0, 100).map(lambda x: round(x, 4)), st.just(math.inf)),
)
@settings(max_examples=30)
def test_every_range_and_score_comes_back_exactly(
    done: Run, found: dict[str, tuple[float, float]], psnr: float
) -> None:
    scores = (Score(done.calibration.chosen, psnr, True), Score("other", 1.0, False))
    wanted = replace(done.calibration, ranges={n: Range(*ends) for n, ends in found.items()}, scores=scores)
    assert from_json(to_json(wanted), "here") == wanted


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            ["format"],
            "qnas-bench",
            r"c\.json is no calibration \(format is 'qnas-bench', not 'qnas-calibration'\): make it again",
        ),
        (["version"], 4, "c.json is version 4 of the format, this is 3: make it again"),
        (["version"], True, "version True of the format"),
        (["source", "sha256"], 5, r"source\.sha256 is 5, not a text"),
        (["source", "clip", "nodes"], [1], r"source\.clip\.nodes\[0\] is 1, not a text"),
        (["source", "scale"], -1, "scale is -1, not a whole number"),
        (["decision", "chosen"], "another", "chosen is 'another', not one of the eligible"),
        (["decision", "chosen"], CONTROL, "chosen is .*, not one of the eligible"),
        (["decision", "scores"], {}, "scores is an object of 0, not a list"),
        (["quantization", "weight_bits"], 5, "weight_bits is 5, not one of 4, 8"),
        (["quantization", "weight_range"], "other", "weight_range is 'other', not"),
        (["quantization", "float_layers"], "all", "float_layers is 'all', not a list"),
        (["taming", "tamed"], 0.5, "tamed is 0.5, not a whole number"),
        (["ranges", "input"], [1, 0], r"ranges\.input is \[1, 0\], not in order"),
        (["ranges", "input"], [0, 1e400], r"not JSON \(Number out of range\)"),
        (["ranges", "input"], [False, 1], r"ranges\.input\[0\] is False, not a number"),
        (["ranges"], [], "ranges is a list of 0, not an object"),
        (["images", "manifest"], None, "manifest is None, not an object"),
    ],
)
def test_what_is_no_calibration_is_refused_with_its_place(
    done: Run, path: Sequence[str], value: object, message: str
) -> None:
    document = json.loads(to_json(done.calibration))
    del document["digest"]  # as one does who changes it on purpose
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    text = json.dumps(document).replace("Infinity", "1e400")
    with pytest.raises(CalibrationError, match=message) as caught:
        from_json(text, "c.json")
    assert str(caught.value).startswith("c.json")


@pytest.mark.parametrize(
    "path",
    [("quantization", "weight_bits"), ("quantization", "kept_clips"), ("decision", "scores", 0, "eligible")],
)
def test_a_key_that_is_missing_is_no_default(done: Run, path: Sequence[str | int]) -> None:
    document = json.loads(to_json(done.calibration))
    del document["digest"]  # as one does who changes it on purpose
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    with pytest.raises(CalibrationError, match=f"{path[-1]} is missing"):
        from_json(json.dumps(document), "c.json")


def test_a_change_is_noticed_unless_the_digest_is_taken_out(done: Run) -> None:
    document = json.loads(to_json(done.calibration))
    assert from_json(json.dumps(document), "c.json") == from_json(to_json(done.calibration), "c.json")
    document["ranges"]["input"][1] = 0.5
    message = 'c.json was changed after it was written .*qnas-calibrate, or take its "digest" out'
    with pytest.raises(CalibrationError, match=message):
        from_json(json.dumps(document), "c.json")
    del document["digest"]
    assert from_json(json.dumps(document), "c.json").ranges["input"].high == 0.5


@pytest.mark.parametrize("text", ["", "[]", "null", '{"version": NaN}', "[" * 100_000, "{}"])
def test_what_is_no_json_object_is_refused(text: str) -> None:
    with pytest.raises(CalibrationError):
        from_json(text, "c.json")


def test_a_missing_or_binary_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="cannot be read"):
        read_calibration(tmp_path / "none.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CalibrationError, match="UTF-8"):
        read_calibration(tmp_path / "binary.json")


# The integer model -----------------------------------------------------------------------------------------


def test_the_model_made_again_from_the_file_is_the_one_that_was_scored(done: Run, folder: Path) -> None:
    again = from_json(to_json(done.calibration), "here")
    model = quantized_model(folder / "espcn.onnx", again)
    assert model.SerializeToString() == done.model.SerializeToString()
    assert done.judge.psnr(model) == again.fidelity


def test_a_calibration_that_keeps_the_clip_makes_a_model_with_it(done: Run, folder: Path) -> None:
    kept = next(each for each in done.found if each.name == CLIPPED)
    calibration = replace(done.calibration, chosen=CLIPPED, options=kept.options, ranges=kept.ranges)
    model = quantized_model(folder / "espcn.onnx", calibration)
    assert "Clip" in {node.op_type for node in model.graph.node}
    assert "Clip" not in {node.op_type for node in quantized_model(
        folder / "espcn.onnx", done.calibration).graph.node}  # fmt: skip


def test_the_calibration_of_another_file_is_refused(done: Run, tmp_path: Path) -> None:
    path = export(espcn(True, channels=8, scale=2, seed=1), tmp_path / "other.onnx")
    with pytest.raises(CalibrationError, match=r"calibration is that of espcn\.onnx .*calibrate other\.onnx"):
        quantized_model(path, done.calibration)


# Inputs ----------------------------------------------------------------------------------------------------


def test_a_network_of_one_size_gets_patches_of_it(folder: Path, tmp_path: Path) -> None:
    path = export(espcn(True, channels=8, scale=2), tmp_path / "fixed.onnx", size=(16, 24))
    model = onnx.load(path)
    first, mask = model.graph.node[0], np.full((1, 3, 16, 24), 0.99, np.float32)  # a factor of every pixel
    masked = onnx.helper.make_node("Mul", [first.input[0], "mask"], ["masked"])
    first.input[0] = "masked"
    model.graph.node.insert(0, masked)
    model.graph.initializer.append(onnx.numpy_helper.from_array(mask, "mask"))
    onnx.save(model, path)
    found = run(path, [folder / "photographs"], Settings(count=8, threads=1))
    assert found.images.patch == (16, 24)
    with pytest.raises(UsageError, match=r"takes images of 24x16 alone: leave --patch out"):
        run(path, [folder / "photographs"], SETTINGS)


def test_hr_images_are_shrunk_by_the_scale_of_the_network(done: Run, folder: Path) -> None:
    found = run(folder / "espcn.onnx", [folder / "photographs"], replace(SETTINGS, hr=True, patch=12))
    assert found.images.hr_scale == 2
    assert done.images.hr_scale is None


def test_weights_of_four_bits_are_worse_than_of_eight(done: Run, folder: Path) -> None:
    found = run(folder / "espcn.onnx", [folder / "photographs"], replace(SETTINGS, weight_bits=4))
    assert found.calibration.options.weight_bits == 4
    assert found.calibration.fidelity < done.calibration.fidelity


def test_patches_that_judge_are_of_other_files_than_those_that_calibrate(done: Run) -> None:
    assert set(done.images.files).isdisjoint(done.judge.images.files)


def test_a_single_image_is_refused(folder: Path) -> None:
    with pytest.raises(ImageError, match="name two or more"):
        run(folder / "espcn.onnx", [folder / "photographs" / "coffee.png"], SETTINGS)


def test_small_images_get_smaller_patches(tmp_path: Path) -> None:
    sides = ((50, 300), (200, 61), (75, 75), (70, 400), (900, 900))
    for height, width in sides:
        write_png(tmp_path / f"{height}.png", np.zeros((height, width, 3), np.uint8))
    (tmp_path / "broken.png").write_bytes(b"none")
    # Short sides 900, 75, 70, 61, 50: three of five hold 70, whose multiple of 8 is 64; half of it is 35, of
    # which 32; a tenth 7, and 24 is the least.
    assert [default_side([tmp_path], shrunken) for shrunken in (1, 2, 10)] == [64, 32, 24]
    assert default_side([tmp_path / "900.png", tmp_path / "none.png"]) == 96
    assert default_side([tmp_path / "broken.png"]) == 96


def test_images_of_which_only_one_can_be_used_are_refused_with_the_reason(
    folder: Path, tmp_path: Path
) -> None:
    write_png(tmp_path / "small.png", np.zeros((8, 8, 3), np.uint8))
    images = [folder / "photographs" / "coffee.png", tmp_path / "small.png"]
    with pytest.raises(ImageError, match=r"coffee.png alone can be used.*small.png is 8x8 pixels"):
        run(folder / "espcn.onnx", images, SETTINGS)


# Layers in float -------------------------------------------------------------------------------------------


def test_layers_in_float_are_the_most_sensitive_ones_and_their_price_is_told(done: Run, folder: Path) -> None:
    found = run(folder / "espcn.onnx", [folder / "photographs"], replace(SETTINGS, fallback=2))
    calibration = found.calibration
    errors = sensitivity(
        done.best.network, done.best.ranges, done.best.options, done.patches.batches(), done.weights
    )
    assert calibration.options.float_layers == tuple(each.layer for each in errors[:2])
    assert tuple(each.layer for each in calibration.fallback) == calibration.options.float_layers
    assert calibration.fidelity == found.judge.psnr(found.model)
    assert found.model.ByteSize() == calibration.fallback[-1].bytes > done.model.ByteSize()
    assert from_json(to_json(calibration), "here") == calibration
    assert any(notice.startswith("2 layers left in float: ") for notice in found.notices)


def test_layers_that_are_named_stay_in_float_and_a_name_of_none_is_refused(folder: Path) -> None:
    chosen = replace(SETTINGS, float_layers=("/sec?nd/*",))
    found = run(folder / "espcn.onnx", [folder / "photographs"], chosen)
    layers = found.calibration.options.float_layers
    assert layers == ("/second/Conv",)
    model = quantized_model(folder / "espcn.onnx", found.calibration)
    stored = {tensor.name for tensor in model.graph.initializer}
    floats = [node.name for node in model.graph.node if node.op_type == "Conv" and node.input[1] in stored]
    assert floats == ["/second/Conv"]
    with pytest.raises(
        UsageError, match=r"--float-layer conv9: espcn.onnx has no such layer, name one like "
    ):
        run(folder / "espcn.onnx", [folder / "photographs"], replace(SETTINGS, float_layers=("conv9",)))


def test_a_target_takes_no_more_layers_than_it_needs_and_a_miss_is_told(done: Run, folder: Path) -> None:
    reached = done.calibration.fidelity + 0.001
    found = run(folder / "espcn.onnx", [folder / "photographs"], replace(SETTINGS, target=reached))
    *before, last = [kept.psnr for kept in found.calibration.fallback]
    assert last >= reached > max(before, default=0.0)
    missed = run(folder / "espcn.onnx", [folder / "photographs"], replace(SETTINGS, target=99, fallback=1))
    assert "--target-fidelity 99 is not reached" in missed.notices[-1]
    easy = run(folder / "espcn.onnx", [folder / "photographs"], replace(SETTINGS, target=20))
    assert easy.calibration == done.calibration


# 16 bits ------------------------------------------------------------------------------------------------


def test_all_tensors_but_the_pixels_get_16_bits_and_come_nearer(done: Run, folder: Path) -> None:
    found = run(folder / "espcn.onnx", [folder / "photographs"], replace(SETTINGS, activation_bits=(16,)))
    calibration = found.calibration
    assert calibration.fidelity > done.calibration.fidelity + 1
    wide = {name for name, bits in calibration.bits.items() if bits == 16}
    assert wide == set(calibration.ranges) - set(calibration.pinned)
    assert {score.name for score in calibration.scores}.isdisjoint({PERCENTILE, LEAST_ERROR})
    assert from_json(to_json(calibration), "here").bits == calibration.bits
    model = quantized_model(folder / "espcn.onnx", from_json(to_json(calibration), "here"))
    assert model.SerializeToString() == found.model.SerializeToString()


def test_a_target_gives_16_bits_to_no_more_tensors_than_it_needs(done: Run, folder: Path) -> None:
    """Halfway between 8 bits and 16 in all: some tensors, and one fewer of these misses it."""
    path, images = folder / "espcn.onnx", [folder / "photographs"]
    all_wide = run(path, images, replace(SETTINGS, activation_bits=(16,))).calibration.fidelity
    target = (done.calibration.fidelity + all_wide) / 2
    settings = replace(SETTINGS, activation_bits=(8, 16), target=target)
    found = run(path, images, settings)
    calibration = found.calibration
    assert calibration.fidelity >= target
    assert calibration.fidelity == found.judge.psnr(found.model)
    assert calibration.widening is not None
    names = [each.tensor for each in calibration.widening.tensors]
    assert 0 < len(names) < sum(name not in calibration.pinned for name in calibration.ranges)
    grid_of = found.grids.groups.of
    others = tuple(name for name in calibration.options.wide if grid_of(name) != grid_of(names[-1]))
    kept = replace(calibration.options, wide=others)
    fewer = quantized(found.best.network, calibration.ranges, kept, found.weights)
    assert found.judge.psnr(fewer) < target
    assert from_json(to_json(calibration), "here").widening == calibration.widening
    assert any(notice.startswith(f"16 bits for {names[0]}: ") for notice in found.notices)
    easy = run(path, images, replace(settings, target=20)).calibration
    assert set(easy.bits.values()) == {8}


def test_bits_that_a_target_decides_need_one(folder: Path) -> None:
    with pytest.raises(UsageError, match="name it with --target-fidelity"):
        run(folder / "espcn.onnx", [folder / "photographs"], replace(SETTINGS, activation_bits=(8, 16)))


@pytest.mark.parametrize("version", [1, 2])
def test_a_calibration_of_an_earlier_version_has_8_bits_throughout(
    done: Run, folder: Path, version: int
) -> None:
    document = json.loads(to_json(done.calibration))
    assert document["version"] == 3
    for name in (
        "digest",
        "int4_layers",
        "int4_inputs",
        "mixed",
        *(("bits", "wide") if version == 1 else ()),
    ):
        del document[name]
    old = from_json(json.dumps(document | {"version": version}), "here")
    model = quantized_model(folder / "espcn.onnx", old)
    assert model.SerializeToString() == done.model.SerializeToString()


# The command -----------------------------------------------------------------------------------------------


def invoke(folder: Path, *words: str) -> Any:
    arguments = [str(folder / "espcn.onnx"), str(folder / "photographs"), "--patch", "24", "--count", "16"]
    return CliRunner().invoke(main, [*arguments, "--threads", "1", *words])


def test_the_command_writes_the_calibration_its_page_and_every_score(folder: Path, tmp_path: Path) -> None:
    result = invoke(folder, "-o", str(tmp_path / "c.json"), "--html")
    assert result.exit_code == 0, result.output
    calibration = read_calibration(tmp_path / "c.json")
    for score in calibration.scores:
        assert f"{score.name} " in result.stdout
        assert f"{score.psnr:.2f}" in result.stdout
    assert result.stdout.count("chosen") == 1 + result.stdout.count("never chosen")
    assert (tmp_path / "c.html").read_text().startswith("<!DOCTYPE html>")


def test_an_output_that_another_process_writes_is_left_to_it(folder: Path, tmp_path: Path) -> None:
    with one_writer(tmp_path / "c.json"):
        result = invoke(folder, "-o", str(tmp_path / "c.json"))
    assert result.exit_code == 2
    assert result.stderr == f"error: another process writes {tmp_path / 'c.json'}: wait for it, or stop it\n"
    assert list(tmp_path.iterdir()) == []


def test_a_corrupt_image_among_many_is_reported_and_the_others_are_used(folder: Path, tmp_path: Path) -> None:
    photographs = make_photographs(tmp_path / "photographs")
    (photographs / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n no more")
    (tmp_path / "espcn.onnx").write_bytes((folder / "espcn.onnx").read_bytes())
    result = invoke(tmp_path)
    assert result.exit_code == 0, result.output
    assert "1 skipped, cannot be read: broken.png" in result.stdout
    document = json.loads((tmp_path / "espcn.calibration.json").read_text())
    assert [each[:2] for each in document["images"]["manifest"]["skipped"]] == [["broken.png", "unreadable"]]


def test_existing_files_are_refused_before_anything_runs(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "c.html").write_text("mine")
    result = invoke(folder, "-o", str(tmp_path / "c.json"), "--html")
    assert result.exit_code == 2
    assert "c.html exists: pass --force" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["c.html"]
    assert invoke(folder, "-o", str(tmp_path / "c.json"), "--html", "--force").exit_code == 0


def test_an_interruption_leaves_nothing_and_exits_with_130(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupting(Display):
        def step(self, what: str) -> Show:
            if what == "comparing":
                raise KeyboardInterrupt  # what Python does at Ctrl-C, at a place that is always the same
            return super().step(what)

    @contextmanager
    def bars() -> Any:
        yield Interrupting()

    monkeypatch.setattr(command, "bars", bars)
    result = invoke(folder, "-o", str(tmp_path / "c.json"), "--html")
    assert result.exit_code == 130
    assert list(tmp_path.iterdir()) == []


# The patches of another calibration ------------------------------------------------------------------------


def test_patches_of_a_calibration_are_taken_again_to_the_byte(
    folder: Path, done: Run, tmp_path: Path
) -> None:
    write_calibration(done.calibration, tmp_path / "first.json")
    again = replace(SETTINGS, patch=None, count=None, seed=9, crops_of=tmp_path / "first.json")
    found = run(folder / "espcn.onnx", [folder / "photographs"], again)
    assert to_json(found.calibration) == to_json(done.calibration)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"count": 9}, "--crops-of says which patches: leave --count out"),
        ({"hr": True}, "--crops-of says which patches: leave --hr out"),
    ],
)
def test_patches_of_a_calibration_and_a_choice_of_patches_exclude_each_other(
    folder: Path, done: Run, tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    write_calibration(done.calibration, tmp_path / "first.json")
    again = replace(SETTINGS, patch=None, count=None, crops_of=tmp_path / "first.json")
    with pytest.raises(UsageError, match=said):
        run(folder / "espcn.onnx", [folder / "photographs"], replace(again, **settings))


def test_patches_of_a_calibration_need_their_folder_as_it_was(
    folder: Path, done: Run, tmp_path: Path
) -> None:
    write_calibration(done.calibration, tmp_path / "first.json")
    again = replace(SETTINGS, patch=None, count=None, crops_of=tmp_path / "first.json")
    with pytest.raises(UsageError, match="give that folder alone"):
        run(folder / "espcn.onnx", sorted((folder / "photographs").iterdir()), again)
    changed = make_photographs(tmp_path / "photographs")
    first = sorted(changed.iterdir())[0]
    first.write_bytes(first.read_bytes() + b" ")
    with pytest.raises(ImageError, match=first.name):
        run(folder / "espcn.onnx", [changed], again)
