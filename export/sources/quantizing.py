"""A float network and what quantization made of it: the integer network, or its QDQ model alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto

from qnas.calibration.prepare.float_model import FloatModel
from qnas.calibration.ptq.integer_model import PtqOptions
from qnas.errors import ModelError
from qnas.export.from_qdq.reader import integer_network_of
from qnas.export.sources.source import Source
from qnas.integer.network import IntegerNetwork
from qnas.quantization.quantizers import FLOAT_BITS


@dataclass(frozen=True, eq=False)
class FloatSource(Source):
    """A float network. `model`: its QDQ model by `ptq`, uint8 in and out.

    `refusal` says why that is no integer network, empty where it is one.
    """

    network: FloatModel
    model: ModelProto
    ptq: PtqOptions
    refusal: str

    @property
    def scale(self) -> int:
        """The factor of upscaling."""
        return self.network.scale

    @property
    def channels(self) -> int:
        """The number of colours of its images: 3, or 1 of a grey one."""
        return self.network.channels

    @property
    def bits(self) -> set[int]:
        """The bits that its weights have, 32 among them where layers are kept in float."""
        if self.integer is not None:
            return super().bits
        return {
            self.ptq.weight_bits,
            *([4] if self.ptq.int4_layers else []),
            *([FLOAT_BITS] if self.ptq.float_layers else []),
        }

    @property
    def why_float(self) -> str:
        """The operation that is not integer, and what to do about it."""
        return self.refusal

    def qdq_model(self) -> ModelProto:
        """The QDQ model."""
        return self.model


def integers_in(model: ModelProto, path: Path) -> tuple[IntegerNetwork | None, str]:
    """The integer network of a QDQ model of the file `path`, or None and why there is none."""
    try:
        return integer_network_of(model, path.stem), ""
    except ModelError as error:
        return None, str(error)
