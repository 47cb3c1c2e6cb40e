"""Every value of every tensor is seen once, whatever the batches, the threads and the memory."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qnas.calibration.prepare.float_model import FloatModel, Runner, activations
from qnas.calibration.ranges.collection import TILE_STEP, _spans, collect
from qnas.calibration.ranges.histogram import Histogram
from qnas.calibration.ranges.range_rules import RULES
from qnas.errors import ImageError, ModelError
from qnas.testing.small_ptq import float_network, patches, text_network

IMAGES = patches(count=6)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> FloatModel:
    return float_network("abpn", tmp_path_factory.mktemp("network"))


def seen(network: FloatModel, *batches: np.ndarray, threads: int = 1) -> dict[str, bytes]:
    found = collect(network, batches, activations(network), Histogram, threads)
    return {name: each.counts.tobytes() + repr(each.range()).encode() for name, each in found.items()}


def test_ranges_and_counts_are_those_of_all_values(network: FloatModel) -> None:
    names = activations(network)
    found = collect(network, [IMAGES], names, Histogram)
    values = Runner(network, names).tensors(IMAGES)
    assert list(found) == list(names)
    for name, observer in found.items():
        assert observer.total == values[name].size
        assert (observer.range().low, observer.range().high) == (values[name].min(), values[name].max())


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_neither_batches_nor_threads_change_a_bit(network: FloatModel, threads: int) -> None:
    once = seen(network, IMAGES)
    assert seen(network, IMAGES[:1], IMAGES[1:4], IMAGES[4:], threads=threads) == once


def test_images_of_many_sizes_are_seen_together(network: FloatModel) -> None:
    batches = [IMAGES[:2], IMAGES[2:3, :24, :17]]
    found = collect(network, batches, [network.input], Histogram)[network.input]
    assert found.total == sum(batch.size for batch in batches)


def test_of_large_images_equal_tiles_run_that_leave_nothing_out() -> None:
    """200x140 pixels, of which 128x128 at most at once: four tiles of 112x80, which overlap."""
    network = text_network(
        "net (float[n, 3, h, w] image) => (float[n, 3, h, w] upscaled) { upscaled = Relu (image) }",
        white=255.0,
    )
    image = np.random.default_rng(0).uniform(0, 255, (1, 200, 140, 3)).astype(np.float32)
    found = collect(network, [image], ["image"], Histogram, held_bytes=1)["image"]
    assert (found.range().low, found.range().high) == (image.min(), image.max())
    assert found.total == 4 * 112 * 80 * 3


@given(st.integers(1, 3000), st.integers(1, 60).map(lambda n: n * TILE_STEP))
@settings(max_examples=100, deadline=None)
def test_spans_are_equal_cover_the_side_and_are_not_too_long(side: int, longest: int) -> None:
    spans = _spans(side, longest)
    sizes = {span.stop - span.start for span in spans}
    assert len(sizes) == 1
    assert sizes.pop() <= min(side, longest)
    assert set().union(*(range(span.start, span.stop) for span in spans)) == set(range(side))


def test_progress_ends_at_all_images(network: FloatModel) -> None:
    told: list[int] = []
    collect(network, [IMAGES], [network.output], Histogram, on_batch=told.append)
    assert told == sorted(told)
    assert told[-1] == len(IMAGES)


def test_each_tensor_may_have_its_own_observer(network: FloatModel) -> None:
    made = {network.input: Histogram, network.output: lambda: Histogram(RULES["percentile"])}
    found = collect(network, [IMAGES], list(made), made)
    full = collect(network, [IMAGES], [network.output], Histogram)[network.output].range()
    assert found[network.output].range().high < full.high


def test_a_value_that_is_no_number_is_refused_with_its_tensor() -> None:
    network = text_network(
        "net (float[n, 3, h, w] image) => (float[n, 3, h, w] upscaled) { upscaled = Log (image) }"
    )
    with pytest.raises(ModelError, match=r"tensor 'upscaled' of text.*input range"):
        collect(network, [np.zeros((1, 8, 8, 3), np.float32)], ["upscaled"], Histogram)


def test_no_image_is_refused(network: FloatModel) -> None:
    with pytest.raises(ImageError, match="no image to calibrate with"):
        collect(network, [], [network.output], Histogram)


def test_a_tensor_that_is_not_there_is_refused(network: FloatModel, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no tensor 'nowhere'"):
        collect(network, [IMAGES], ["nowhere"], Histogram)
