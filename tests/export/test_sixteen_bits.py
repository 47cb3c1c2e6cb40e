"""Activations of 16 bits go the whole road, calibrated or made by others, and are judged as near."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from qnas.calibration.prepare.float_model import FloatModel, activations, read_float_model
from qnas.calibration.ptq.integer_model import PtqOptions, fitted_weights, quantized
from qnas.errors import ModelError
from qnas.export.cli import main
from qnas.export.from_qdq.reader import integer_network_of
from qnas.export.targets import TARGETS, fitted
from qnas.export.to_onnx.writer import write_onnx
from qnas.export.to_tflite.writer import write_tflite
from qnas.images.files import write_png
from qnas.integer.interpreter import run
from qnas.integer.network import IntegerNetwork, wide_layers
from qnas.onnx.cost import model_cost
from qnas.onnx.session import open_session
from qnas.testing import sr_modules
from qnas.testing.qdq_text import read, text_model
from qnas.testing.random_graphs import random_graph
from qnas.testing.random_networks import noise
from qnas.testing.random_windows import RandomWindows
from qnas.testing.small_ptq import patches, pixels_of, psnr, ranges_of
from qnas.tflite.cost import tflite_cost
from qnas.tflite.session import LiteRtSession

FAST, LITE = TARGETS["onnxruntime"], TARGETS["litert"]
# Float sums round where integer ones do not, and LiteRT's int16 kernels have multipliers of 16 bits: values
# of 16 bits are a step off, which takes some bytes behind them to the next one.
ORT_EQUAL, ORT_LEVELS = 0.99, 2
LITERT_EQUAL, LITERT_LEVELS = 0.85, 4


def some_wide(network: FloatModel, seed: int) -> tuple[IntegerNetwork, onnx.ModelProto]:
    """The integers of `network` with 16 bits in some of its tensors, and the QDQ model of it."""
    rng = np.random.default_rng(seed)
    share = rng.choice([0.2, 0.5, 0.8, 1.0])
    options = PtqOptions(wide=tuple(name for name in activations(network) if rng.random() < share))
    images = patches()
    ranges = ranges_of(network, images)
    weights = fitted_weights(network, ranges, options, [images])
    model = quantized(network, ranges, options, weights)
    return integer_network_of(model, "mixed"), model


def differences(found: np.ndarray, wanted: np.ndarray) -> tuple[float, int]:
    """(share of the values that are equal, largest difference in grey levels)."""
    apart = np.abs(found.astype(int) - wanted)
    return float((apart == 0).mean()), int(apart.max())


def check(network: FloatModel, seed: int) -> None:
    integers, _ = some_wide(network, seed)
    assert wide_layers(integers)
    model = write_onnx(fitted(integers, FAST), FAST)
    onnx.checker.check_model(model, full_check=True)
    photographs = patches(2, 48)[:, :, : 40 + seed]
    bytes_ = photographs.transpose(0, 3, 1, 2).astype(np.uint8)
    made = run(integers, bytes_).transpose(0, 2, 3, 1).astype(np.float32)
    assert psnr(made, pixels_of(network, photographs)) > 45
    rng = np.random.default_rng(seed)
    height, width = (int(n) for n in rng.integers(20, 50, 2))
    for image in (rng.integers(0, 256, (1, 3, height, width)).astype(np.uint8), bytes_[:1]):
        wanted = run(integers, image)
        for same in (fitted(integers, FAST), fitted(integers, LITE), integer_network_of(model, "back")):
            np.testing.assert_array_equal(run(same, image), wanted)
        by_onnxruntime = open_session(model.SerializeToString(), threads=1).run(None, {"image": image})[0]
        equal, levels = differences(by_onnxruntime, wanted)
        assert equal >= ORT_EQUAL
        assert levels <= ORT_LEVELS
        written = write_tflite(fitted(integers, LITE), *image.shape[2:])
        equal, levels = differences(LiteRtSession(written.data).run(image), wanted)
        assert equal >= LITERT_EQUAL
        assert levels <= LITERT_LEVELS


@pytest.mark.parametrize("seed", range(5))
def test_random_arithmetic_of_8_and_16_bits_is_near_in_both_formats(seed: int, tmp_path: Path) -> None:
    """Gates, sums, concatenations, means, tables of any function."""
    onnx.save(random_graph(seed), tmp_path / "random.onnx")
    check(read_float_model(tmp_path / "random.onnx", "0..1"), seed)


@pytest.mark.parametrize("seed", range(4))
def test_random_windows_of_8_and_16_bits_are_near_in_both_formats(seed: int, tmp_path: Path) -> None:
    """Strides, pools, paddings, crops, shuffles."""
    path = sr_modules.export(RandomWindows(seed).eval(), tmp_path / "network.onnx")
    check(read_float_model(path, "0..1"), seed)


def test_every_tensor_but_the_pixels_has_16_bits_where_all_are_to_and_costs_are_counted_so(
    tmp_path: Path,
) -> None:
    path = sr_modules.export(sr_modules.espcn(False, channels=8, scale=2), tmp_path / "network.onnx")
    network = read_float_model(path, "0..1")
    images = patches()
    options = PtqOptions(wide=activations(network))
    integers = integer_network_of(quantized(network, ranges_of(network, images), options), "wide")
    narrow = [node.name for node in integers.nodes if not node.output.is_wide]
    first, last = integers.nodes[0].name, integers.nodes[-1].name
    assert {first, last} <= {*narrow}
    assert all(node.output.zero_point == 2**15 for node in integers.nodes if node.output.is_wide)
    model = write_onnx(fitted(integers, TARGETS["portable"]), TARGETS["portable"])
    rows = model_cost(model, {"image": (1, 3, 16, 16)}).layers
    assert [row.activation_bits for row in rows] == [8, *[16] * (len(rows) - 1)]
    lite = tflite_cost(write_tflite(fitted(integers, LITE), 16, 16).data)
    assert [row.activation_bits for row in lite.layers] == [16] * len(lite.layers)


# Models of others -------------------------------------------------------------------------------------


class _Photographs(CalibrationDataReader):
    def __init__(self, name: str) -> None:
        self.feeds = iter([{name: (x[None] / 255).transpose(0, 3, 1, 2)} for x in patches(3)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.feeds, None)


@pytest.mark.parametrize(
    ("kind", "symmetric"), [(QuantType.QUInt16, False), (QuantType.QInt16, True)], ids=["uint16", "int16"]
)
def test_a_16_bit_model_of_onnxruntime_is_exported_and_compared_with_itself(
    kind: QuantType, symmetric: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sr_modules.export(sr_modules.espcn(True, channels=8, scale=2), tmp_path / "network.onnx", opset=21)
    quantize_static(
        "network.onnx", "theirs.onnx", _Photographs("input"), quant_format=QuantFormat.QDQ,
        activation_type=kind, weight_type=QuantType.QInt8, per_channel=True,
        extra_options={"ActivationSymmetric": symmetric},
    )  # fmt: skip
    (tmp_path / "images").mkdir()
    write_png(tmp_path / "images" / "noise.png", noise(64, 48))
    options = ["--format", "onnx-qdq", "--format", "tflite", "--check", "images", "--input-range", "0..1"]
    result = CliRunner().invoke(main, ["theirs.onnx", *options])
    assert result.exit_code == 0, result.output
    assert "near, not equal, in" in result.output
    report = json.loads(Path("theirs.qnas.parity.json").read_text())
    source = next(each for each in report["references"] if each["runtime"].startswith("source model"))
    assert source["against"]["interpreter"]["equal"] > ORT_EQUAL
    for file in report["files"]:
        assert all(
            each["against"]["interpreter"]["largest_difference"] <= LITERT_LEVELS for each in file["runtimes"]
        )


def test_16_bits_of_the_microsoft_domain_are_read_in_old_opsets() -> None:
    """Steps of 1/256 of a pixel, around 32768: what is rounded so are the pixels themselves."""
    body = """
        q = com.microsoft.QuantizeLinear(image, step, z16) x = com.microsoft.DequantizeLinear(q, step, z16)
        w = DequantizeLinear(eye, one, i0) y = Conv(x, w)
        p = com.microsoft.QuantizeLinear(y, step, z16) upscaled = com.microsoft.DequantizeLinear(p, step, z16)
    """
    network = read(body, step=np.float32(1 / 64), z16=np.uint16(2**15))
    assert [node.output.container for node in network.nodes] == [8, 16, 16, 8]
    image = np.random.default_rng(0).integers(0, 256, (1, 3, 5, 6)).astype(np.uint8)
    np.testing.assert_array_equal(run(network, image), image)


def test_weights_of_16_bits_are_refused_by_name() -> None:
    body = "q = QuantizeLinear(image, one, z) x = DequantizeLinear(q, one, z) "
    body += "w = DequantizeLinear(wide, one, i16) upscaled = Conv(x, w)"
    wide = np.full((3, 3, 1, 1), 300, np.int16)
    with pytest.raises(ModelError, match=r"Conv .* has weights 300 .. 300 steps from zero"):
        integer_network_of(text_model(body, opset=21, wide=wide, i16=np.int16(0)), "net")
