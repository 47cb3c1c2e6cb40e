"""A network from a file, as the writers of every format read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from onnx import ModelProto

from qnas.errors import ModelError, UsageError
from qnas.export.checks.check import Trained
from qnas.export.checks.comparison import Comparison
from qnas.export.metadata import file_properties
from qnas.export.options import Options
from qnas.images.evaluation import Image
from qnas.integer.network import IntegerNetwork, short_scales, wide_layers
from qnas.runtimes.table import CHECKS

UNFUSED = frozenset({"onnxruntime-unoptimized", "reference"})  # they compute quantized graphs in float32


@dataclass(frozen=True, eq=False)
class Source:
    """A network whose file is `path`. `integer` is None where it has operations that integers have not."""

    path: Path
    integer: IntegerNetwork | None

    @property
    def scale(self) -> int:
        """The factor of upscaling."""
        return self._known().scale

    @property
    def channels(self) -> int:
        """The number of colours of its images: 3, or 1 of a grey one."""
        return self._known().nodes[0].channels

    @property
    def bits(self) -> set[int]:
        """The bits that its weights have."""
        return {node.bits for node, _ in self._known().convolutions()}

    @property
    def trained(self) -> Trained | None:
        """The trained network that files are compared with, where there is one."""
        return None

    @property
    def inexact(self) -> frozenset[str]:
        """The ids of runtimes whose arithmetic is exact, but not on its ONNX file.

        Scales that are not short have too many bits for sums in float32, and what computes in float at all
        rounds as its runtime does: no runtime sums up products of 16 bits in integers.
        """
        if self.integer is None or wide_layers(self.integer):
            return frozenset(CHECKS)
        return frozenset() if short_scales(self.integer) else UNFUSED

    def references(self) -> tuple[Comparison, ...]:
        """What files are compared with besides the interpreter and the trained network."""
        return ()

    def notes(self, options: Options, images: Sequence[tuple[str, Image]]) -> tuple[str, ...]:
        """What the report tells of the way to integers, and of its price on HR `images`."""
        return ()

    def properties(self, integer: bool) -> dict[str, str]:
        """The metadata of a file made of it; `integer`: whether its images are uint8."""
        return file_properties(self.path, self.scale, self.bits, integer)

    def float_model(self) -> ModelProto:
        """The float32 twin as an ONNX graph. Raises UsageError where there is none."""
        raise UsageError("--format onnx-float32 needs a found.pt: an integer model has no float twin")

    @property
    def why_float(self) -> str:
        """What keeps it from being an integer network, empty where it is one."""
        return ""

    def refuse(self, need: str) -> NoReturn:
        """Raise ModelError: `need`, of a format or an option, wants every operation in integers."""
        raise ModelError(f"{self.why_float}: {need}")

    def qdq_model(self) -> ModelProto:
        """The QDQ model that stands in where `integer` is None."""
        raise AssertionError(f"{self.path} is an integer network")

    def _known(self) -> IntegerNetwork:
        assert self.integer is not None
        return self.integer
