"""What several tests share: one torch thread, repeatable properties, pictures, calibrated networks."""

from collections.abc import Callable
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

from qnas.images.files import write_png
from qnas.images.samples import sample_photographs
from qnas.network.architecture import Architecture
from qnas.network.lowering import lower
from qnas.testing.places import REFERENCE
from qnas.torch.inference import to_network
from qnas.torch.network import Network

torch.set_num_threads(1)
hypothesis.settings.register_profile("house", deadline=None, derandomize=True, max_examples=60)
hypothesis.settings.load_profile("house")


@pytest.fixture(scope="session")
def reference() -> Path:
    """The folder of the reference vectors: outputs of the released code of the QuantNAS paper."""
    if not REFERENCE.is_dir():
        pytest.skip(f"no reference vectors in {REFERENCE}: set QNAS_REFERENCE")
    return REFERENCE


@pytest.fixture(scope="session")
def picture() -> torch.Tensor:
    """Two photographs of odd size as a network reads them: [2, 3, 17, 19]."""
    _, pixels = sample_photographs()[0]
    return to_network(np.stack([pixels[:51:3, :57:3], pixels[150:201:3, 200:257:3]]))


@pytest.fixture(scope="session")
def calibrated(picture: torch.Tensor) -> Callable[[Architecture], Network]:
    """Builds a network of random weights, its activation scales and statistics from `picture`."""

    def build(architecture: Architecture) -> Network:
        torch.manual_seed(0)
        network = Network(lower(architecture))
        with torch.no_grad(), network.calibrated_by_data():
            network.train()(picture)
        return network

    return build


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder of three smooth pictures of 64x72 pixels."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    y, x = np.mgrid[:64, :72]
    for k in range(3):
        waves = [np.sin(x / (3 + k + c)) + np.cos(y / (5 - k + c)) for c in range(3)]
        write_png(folder / f"{k}.png", np.round(127 + 60 * np.stack(waves, 2)).astype(np.uint8))
    return folder
