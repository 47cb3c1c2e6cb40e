"""What becomes of a float network in each format, found out before anybody calibrates it.

The real road on the numbers of `placeholder_model`: what is told was done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from qnas.calibration.placeholders import placeholder_model
from qnas.calibration.prepare.float_model import FloatModel
from qnas.calibration.ptq.integer_model import PtqOptions
from qnas.errors import ModelError, QnasError
from qnas.export.formats.table import FORMATS
from qnas.export.options import Options
from qnas.export.sources.quantizing import FloatSource, integers_in
from qnas.runtimes.table import checks_of

ALL = Options(("onnx-qdq", "tflite"))


@dataclass(frozen=True)
class Outlook:
    """One format. `refusal`: why the export will refuse it, empty where it works; `data`: such a file.

    `notes`: what the export will say of a TFLite file; of an ONNX file that depends on the numbers in it.
    """

    format: str
    refusal: str
    data: bytes = b""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Foresight:
    """All formats. `floating`: the layers that the QDQ model computes in float, and why."""

    outlooks: tuple[Outlook, ...]
    floating: Mapping[str, str]

    @property
    def works(self) -> bool:
        """Whether any format does."""
        return any(not each.refusal for each in self.outlooks)


def foresee(path: Path, network: FloatModel, ptq: PtqOptions, options: Options = ALL) -> Foresight:
    """What an export of `network`, read from `path`, will do with `options` once it is calibrated."""
    try:
        model, plan = placeholder_model(network, ptq)
    except ModelError as error:
        return Foresight(tuple(Outlook(name, str(error)) for name in options.formats), {})
    integer, refusal = integers_in(model, path)
    source = FloatSource(path, integer, network, model, ptq, refusal)
    quick = replace(options, simplified=False)
    return Foresight(tuple(_outlook(source, name, quick) for name in options.formats), plan.floating)


def _outlook(source: FloatSource, name: str, options: Options) -> Outlook:
    """Write the file, and open it in the first runtime of its kind that is installed."""
    kind = FORMATS[name]
    try:
        written = kind.write(source, options)
        runtimes = (each for each in checks_of(kind.suffix).values() if each.installed)
        if (first := next(runtimes, None)) is not None:
            first.open(written.data)
    except QnasError as error:
        return Outlook(name, str(error))
    return Outlook(name, "", written.data, written.notes if name == "tflite" else ())
