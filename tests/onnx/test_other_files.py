"""Files that are no ONNX models are told what they are, and what to do with them."""

import json
import zipfile
from pathlib import Path

import pytest

from qnas.errors import ModelError
from qnas.onnx.files import read_model
from qnas.testing.places import EXAMPLES


def archive(path: Path, **entries: bytes) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for name, data in entries.items():
            file.writestr(name.replace("__", "/").replace("_dot_", "."), data)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x89HDF\r\n\x1a\n", "a Keras (HDF5) file: convert the network to ONNX or TFLite first"),
        (b"\x89PNG\r\n\x1a\n", "an image: name the network first, then the images"),
        (b"\x80\x04\x95", "a Python pickle, which is never opened"),
        (json.dumps({"format": "qnas-calibration"}).encode(), "with --calibration"),
        (b'{"a": 1}', "a JSON document"),
        (b"\x1c\x00\x00\x00TFL3", "a TFLite file"),
    ],
)
def test_a_file_of_another_kind_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ModelError) as caught:
        read_model(tmp_path / "model.onnx")
    assert "model.onnx is no ONNX model but " in str(caught.value)
    assert said in str(caught.value)


def test_archives_are_told_apart_by_the_names_in_them(tmp_path: Path) -> None:
    archive(tmp_path / "torch.onnx", archive__data_dot_pkl=b"\x80\x02 of somebody")
    archive(tmp_path / "keras.onnx", model_dot_weights_dot_h5=b"")
    archive(tmp_path / "other.onnx", a=b"")
    said = {"torch": "a PyTorch file: export the network", "keras": "a Keras file", "other": "a zip archive"}
    for name, what in said.items():
        with pytest.raises(ModelError, match=f"{name}.onnx is no ONNX model but {what}"):
            read_model(tmp_path / f"{name}.onnx")


def test_a_found_pt_is_for_the_export() -> None:
    with pytest.raises(ModelError, match=r"a found\.pt of qnas-train: qnas-export takes it as it is"):
        read_model(EXAMPLES / "espcn-w8" / "found.pt")
