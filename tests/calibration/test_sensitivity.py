"""Which layer integers hurt is measured, layer by layer, and its remedy is taken first."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto

from qnas.calibration.prepare.float_model import FloatModel, Runner
from qnas.calibration.ptq.integer_model import IntegerRunner, PtqOptions, quantized
from qnas.calibration.sensitivity import fallback, mac_shares, sensitivity
from qnas.testing.small_ptq import float_network, patches, ranges_of, text_network

CHAIN = """
net (float[n, 3, h, w] image) => (float[n, 3, h, w] upscaled)
<float[4, 3, 1, 1] k1, float[4, 4, 1, 1] k2, float[3, 4, 1, 1] k3>
{
    a = Conv (image, k1)
    b = Conv (a, k2)
    upscaled = Conv (b, k3)
}"""
IMAGES = patches(count=4)
EXACT = np.eye(4)[:, :, None, None]  # the scale of a channel is its only weight: 4 bits hold it


def chain(second: np.ndarray = EXACT) -> FloatModel:
    return text_network(CHAIN, k1=EXACT[:, :3], k2=second, k3=EXACT[:3] * 0.99)


def test_the_layer_whose_weights_do_not_fit_their_bits_is_the_worst() -> None:
    """Rows of 1 and 0.064 in steps of 1/7: the second weight is lost."""
    network = chain(EXACT + 0.064 * np.roll(EXACT, 1, axis=1))
    options = PtqOptions(weight_bits=4, weight_range="max")
    errors = sensitivity(network, ranges_of(network, IMAGES), options, [IMAGES])
    assert errors[0].tensor == "b"
    assert errors[0].alone < min(each.alone for each in errors[1:]) - 10


def test_sqnr_is_that_of_the_bytes_of_the_integer_model() -> None:
    network = chain()
    ranges = ranges_of(network, IMAGES)
    errors = sensitivity(network, ranges, PtqOptions(), [IMAGES])
    (last,) = [each for each in errors if each.tensor == "upscaled"]
    wanted = Runner(network)(IMAGES).astype(np.float64)
    noise = wanted - IntegerRunner(network, quantized(network, ranges))(IMAGES)
    assert last.everything == pytest.approx(
        10 * np.log10(np.square(wanted).sum() / np.square(noise).sum()), abs=1e-3
    )


def test_shares_of_macs_are_those_of_the_filters() -> None:
    """3 x 4, 4 x 4 and 4 x 3 products a pixel."""
    assert sorted(mac_shares(chain(), PtqOptions()).values()) == pytest.approx([0.3, 0.3, 0.4])


def test_layers_go_to_float_until_the_target_and_never_for_nothing(tmp_path: Path) -> None:
    network = float_network("rfdn", tmp_path)
    ranges, options = ranges_of(network, IMAGES), PtqOptions(weight_bits=4)
    wanted = np.clip(np.rint(Runner(network)(IMAGES)), 0, 255)

    def score(model: ModelProto) -> float:
        return float(-np.square(wanted - IntegerRunner(network, model)(IMAGES)).mean())

    start = score(quantized(network, ranges, options))
    assert fallback(network, ranges, options, [IMAGES], score, target=start) == (options, ())
    chosen, steps = fallback(network, ranges, options, [IMAGES], score, target=0.8 * start)
    assert steps[-1].score >= 0.8 * start > max((step.score for step in steps[:-1]), default=start)
    assert chosen == replace(options, float_layers=tuple(step.layer for step in steps))
    assert all(0 < step.macs < 1 for step in steps)
    _, two = fallback(network, ranges, options, [IMAGES], score, layers=2)
    assert len(two) == 2
