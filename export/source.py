"""What an export begins with: a file, and the network that it holds or that calibration makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from onnx import ModelProto

from qnas.errors import UsageError
from qnas.export.from_qdq.reader import InputRange, integer_network_of
from qnas.export.integers import Adq, integer_network, refuse_paper
from qnas.export.model import float_twin, integers_only
from qnas.export.residuals import with_residual_grids
from qnas.images.evaluation import pairs
from qnas.integer.network import IntegerNetwork
from qnas.onnx.operations import QUANTIZING
from qnas.onnx.shapes import read_model
from qnas.torch.checkpoint import Found, load_found
from qnas.torch.inference import calibrate_deviations
from qnas.torch.network import Network

if TYPE_CHECKING:
    from qnas.export.float_source import Calibrated

Kind = Literal["found", "qdq", "float"]


@dataclass(frozen=True, eq=False)
class Source:
    """A network from a file.

    `integer` is None when only the float twin was asked for, or when `calibrated` has operations that the
    integer network has not. `before`: the network with float residuals that `found` was made of.
    """

    path: Path
    found: Found | None = None
    integer: IntegerNetwork | None = None
    calibrated: Calibrated | None = None
    before: Network | None = None

    @property
    def scale(self) -> int:
        """The factor of upscaling."""
        if self.integer is not None:
            return self.integer.scale
        if self.calibrated is not None:
            return self.calibrated.network.scale
        assert self.found is not None
        return self.found.architecture.scale

    @property
    def channels(self) -> int:
        """Of its images."""
        if self.integer is not None:
            return self.integer.nodes[0].channels
        return 3 if self.calibrated is None else self.calibrated.network.channels

    @property
    def trained(self) -> Network | None:
        """The network that was trained, to compare files with."""
        if self.found is None:
            return None
        return self.found.network if self.integer is not None else float_twin(self.found).network


def kind_of(path: Path) -> Kind:
    """A found.pt, or what kind of ONNX model. Raises ModelError when that cannot be read."""
    return "found" if path.suffix != ".onnx" else onnx_kind(read_model(path))


def onnx_kind(model: ModelProto) -> Kind:
    """Whether anything in it is quantized."""
    return "qdq" if any(node.op_type in QUANTIZING for node in model.graph.node) else "float"


def read_qdq_source(path: Path, input_range: InputRange) -> Source:
    """A QDQ model made elsewhere. Raises ModelError."""
    return Source(path, integer=integer_network_of(read_model(path), path.stem, input_range))


def read_found_source(path: Path, float_only: bool, adq: Adq, images: Path | None) -> Source:
    """A found.pt; HR `images` decide what its training left open. Raises QnasError.

    Case 1: float residuals get 8-bit grids. Case 2: the deviations that ADQ freezes are the means of these.
    """
    found = load_found(path)
    if float_only:
        return Source(path, found)
    architecture, before = found.architecture, None
    refuse_paper(architecture)
    if images is not None and adq == "frozen":  # Case 2
        calibrate_deviations(found.network, (lr for lr, _ in pairs(images, architecture.scale)))
    if images is not None and architecture.quantized and architecture.residual_bits is None:  # Case 1
        before = found.network
        found = with_residual_grids(found, (lr for lr, _ in pairs(images, architecture.scale)))
    integer = integer_network(integers_only(found), adq)
    found.network.per_image = adq == "per-image"
    return Source(path, found, integer, before=before)


def refuse_unfit(
    kind: Kind, path: Path, formats: tuple[str, ...], calibration: Path | None, images: Path | None
) -> None:
    """Raises UsageError where options and the kind of SOURCE do not go together."""
    if kind != "found" and "onnx-float32" in formats:
        raise UsageError("--format onnx-float32 needs a found.pt: an integer model has no float twin")
    if kind != "float" and calibration is not None:
        raise UsageError(f"--calibration is for a float model.onnx, and {path} is none: leave it out")
    if kind == "float" and calibration is None and images is None:
        raise UsageError(
            f"{path} is a float model: calibrate it with --images IMAGES, photographs like those to come, or "
            "give --calibration of qnas-calibrate"
        )
