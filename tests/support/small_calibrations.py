"""A network, photographs and settings with which a calibration takes a second."""

from pathlib import Path

from qnas.calibration.calibrate import Settings
from qnas.images.files import write_png
from qnas.images.samples import sample_photographs
from qnas.testing.sr_modules import espcn, export

SETTINGS = Settings(patch=24, count=40, threads=1)


def make_network(folder: Path, clip: bool = True) -> Path:
    """ESPCN x2 of 8 channels, whose output leaves the nominal range in some patches."""
    return export(espcn(clip, channels=8, scale=2), folder / "espcn.onnx")


def make_photographs(folder: Path) -> Path:
    """Parts of five photographs, 72x48 pixels."""
    folder.mkdir()
    for name, image in sample_photographs():
        write_png(folder / f"{name}.png", image[100:148, 60:132])
    return folder
