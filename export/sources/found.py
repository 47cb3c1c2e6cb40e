"""A found.pt -> its integer network; the one source that needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto

from qnas.export.checks.check import Trained
from qnas.export.integers import integer_network, refuse_paper
from qnas.export.metadata import architecture_properties
from qnas.export.model import build_float32, float_twin, integers_only
from qnas.export.options import Options
from qnas.export.residuals import with_residual_grids
from qnas.export.sources.source import Source
from qnas.export.trained import trained_reference
from qnas.images.evaluation import Image, pairs
from qnas.quantization.quantizers import FLOAT_BITS
from qnas.torch.checkpoint import Found, load_found
from qnas.torch.inference import calibrate_deviations, freezing_price, mean_psnr, narrowing_price
from qnas.torch.network import Network


@dataclass(frozen=True, eq=False)
class FoundSource(Source):
    """A trained network; `integer` is None when only its float twin was asked for.

    `before`: the network with float residuals that `found` was made of.
    """

    found: Found
    before: Network | None = None

    @property
    def scale(self) -> int:
        """The factor of upscaling."""
        return self.found.architecture.scale

    @property
    def channels(self) -> int:
        """Three: networks are trained on colours."""
        return 3

    @property
    def bits(self) -> set[int]:
        """The bits that its weights have; 32 of the float twin."""
        return {FLOAT_BITS} if self.integer is None else super().bits

    @property
    def inexact(self) -> frozenset[str]:
        """None: its scales are short, and its float twin is compared in float."""
        return frozenset()

    @property
    def trained(self) -> Trained:
        """The network that was trained, or its float twin."""
        found = self.found if self.integer is not None else float_twin(self.found)
        return trained_reference(found.network)

    def notes(self, options: Options, images: Sequence[tuple[str, Image]]) -> tuple[str, ...]:
        """What frozen deviations and 8-bit residuals cost on HR `images`, in dB."""
        if self.integer is None or not images:
            return ()
        notes: tuple[str, ...] = ()
        pictures = [image for _, image in images]
        if options.adq == "frozen" and self.found.network.deviations():
            price = freezing_price(self.found.network, pictures, self.scale)
            notes = (
                f"frozen deviations (ADQ) cost {price.psnr:.3f} dB PSNR-Y on these images: "
                f"{price.frozen:.3f} dB, per image {price.per_image:.3f} dB",
            )
        if (narrowed := narrowing_price(self.found.network, pictures, self.scale)) is not None:
            notes += (
                f"{narrowed.weights} weights of -128, on which ARM processors disagree, are -127: "
                f"{narrowed.psnr:.3f} dB PSNR-Y on these images",
            )
        if self.before is not None:
            before, after = (
                mean_psnr(each, pictures, self.scale) for each in (self.before, self.found.network)
            )
            notes += (
                f"8-bit residuals cost {before - after:.3f} dB PSNR-Y on these images: {after:.3f} dB, "
                f"float ones {before:.3f} dB",
            )
        return notes

    def properties(self, integer: bool) -> dict[str, str]:
        """The metadata of a file made of it, with its architecture and what that costs."""
        found = self.found if integer else float_twin(self.found)
        known = architecture_properties(found.architecture, found.network.layers)
        return super().properties(integer) | known

    def float_model(self) -> ModelProto:
        """The float32 twin as an ONNX graph."""
        return build_float32(self.found)


def read_found(path: Path, options: Options) -> FoundSource:
    """Read a found.pt; HR images decide what its training left open. Raises QnasError.

    Case 1: float residuals get 8-bit grids. Case 2: the deviations that ADQ freezes are the means of these.
    """
    found, images, adq = load_found(path), options.images, options.adq
    if options.formats == ("onnx-float32",):
        return FoundSource(path, None, found)
    architecture, before = found.architecture, None
    refuse_paper(architecture)
    if images is not None and adq == "frozen":  # Case 2
        calibrate_deviations(found.network, (lr for lr, _ in pairs(images, architecture.scale)))
    if images is not None and architecture.quantized and architecture.residual_bits is None:  # Case 1
        before = found.network
        found = with_residual_grids(found, (lr for lr, _ in pairs(images, architecture.scale)))
    integer = integer_network(integers_only(found), adq)
    found.network.per_image = adq == "per-image"
    return FoundSource(path, integer, found, before)
