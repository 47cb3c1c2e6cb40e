"""Any file of the road is a function of images: a found.pt, ONNX and TFLite, ours and those of others."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from qnas.errors import ModelError
from qnas.export.integers import integer_network
from qnas.export.targets import TARGETS
from qnas.export.to_onnx.writer import write_onnx
from qnas.export.to_tflite.writer import write_tflite
from qnas.onnx.session import open_session
from qnas.runtime_bench.image_models import open_image_model
from qnas.runtime_bench.upscale import load_upscaler, upscale
from qnas.testing.random_networks import noise, random_found
from qnas.testing.sr_modules import espcn, export
from qnas.testing.text_models import INTEGER_CONV, text_model
from qnas.torch.checkpoint import save_found


def test_a_found_pt_and_the_files_made_of_it_upscale_alike(tmp_path: Path) -> None:
    found = random_found("espcn-w8")
    save_found(tmp_path / "found.pt", found.architecture, found.network, {})
    network = integer_network(found)
    onnx.save(write_onnx(network, TARGETS["onnxruntime"], "nhwc"), tmp_path / "model.onnx")
    (tmp_path / "model.tflite").write_bytes(write_tflite(network, 16, 16, resizable=True).data)
    image, names = noise(21, 34), ("found.pt", "model.onnx", "model.tflite")
    first, *others = (upscale(load_upscaler(tmp_path / name), image) for name in names)
    assert first.shape == (21 * found.architecture.scale, 34 * found.architecture.scale, 3)
    for other in others:
        np.testing.assert_array_equal(other, first)


def test_a_float_model_of_others_is_read_in_the_range_that_it_has(tmp_path: Path) -> None:
    path = export(espcn(clip=True), tmp_path / "theirs.onnx")
    upscaler = load_upscaler(path)
    assert upscaler.note == "images are read as 0..1, where the final clip ends"
    image = noise(21, 34)
    session = open_session(path)
    x = image.transpose(2, 0, 1)[None].astype(np.float32) / 255
    wanted = 255 * session.run(None, {session.get_inputs()[0].name: x})[0][0].transpose(1, 2, 0)
    assert np.abs(upscale(upscaler, image) - np.clip(wanted, 0, 255)).max() < 0.51


def test_what_reads_no_colours_is_refused(tmp_path: Path) -> None:
    onnx.save(text_model(INTEGER_CONV.replace("n, 3, h, w", "n, 5, h, w")), tmp_path / "five.onnx")
    with pytest.raises(ModelError, match="one image input"):
        open_image_model(tmp_path / "five.onnx")
