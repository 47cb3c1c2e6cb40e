"""calibration.json: what a calibration found out, and all that it takes to make the same integer model again.

    {"format": "qnas-calibration", "version": 3, "digest": that of all the rest,
     "source":     {"name", "sha256", "scale", "channels", "white",
                    "clip": {"nodes", "low", "high", "explanation"}},
     "decision":   {"chosen", "observer", "scores": [{"name", "psnr", "eligible"}]},
     "quantization": fields of PtqOptions,
     "fallback":   [{"layer", "psnr", "macs", "bytes"}],
     "taming":     {"patches", "untouched", "tamed", "low_contrast", "flat"},
     "pinned":     [tensor],
     "ranges":     {tensor: [low, high]},
     "bits":       {tensor: 8 or 16},
     "int4_layers": [layer], those whose weights have 4 bits though "weight_bits" says 8,
     "int4_inputs": [{"layer", "low", "high"}], those that read 16 levels of that range,
     "mixed":      {"psnr", "unit", "budget", "cost"}, where `qnas-search bits` chose these, else null,
     "wide":       {"psnr", "tensors": [{"tensor", "psnr", "macs"}]}, where a target chose them, else null,
     "images":     {"held_out": share, "manifest": manifest.to_document(...)},
     "weights":    weights.to_document(...),
     "equalized":  {node: [log2 of the factor of each channel]}}

Version 1, which had neither "bits" nor "wide", and version 2, without "int4_layers", "int4_inputs" and
"mixed", are read as well: all had 8 bits, and all weights "weight_bits".

It holds no times and no absolute paths: the same inputs give the same bytes. A file that was damaged or
changed has another digest and is refused; one without a digest, of an earlier qnas or of a person who took it
out to change a range on purpose, is read as it is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from qnas.calibration.patches.taming import TamingCounts
from qnas.calibration.prepare.clip_free import TerminalClip
from qnas.calibration.prepare.float_model import FloatModel
from qnas.calibration.ptq.equalization import MOST, Equalization
from qnas.calibration.ptq.int4_inputs import Int4Input
from qnas.calibration.ptq.integer_model import PtqOptions
from qnas.calibration.ptq.weights import WeightBits, WeightRange
from qnas.calibration.ranges.ranges import Range
from qnas.calibration.widening import WideTensor
from qnas.cost.allocation import Unit
from qnas.documents.reading import Count, Document, Number, Text
from qnas.errors import CalibrationError
from qnas.files import write_file

PSNR_DIGITS = 4
APART = ("wide", "int4_layers", "int4_inputs")  # fields of PtqOptions that the document has elsewhere
Power = Annotated[int, msgspec.Meta(ge=-MOST, le=MOST)]


@dataclass(frozen=True)
class Source:
    """The float model that was calibrated. `white`: what a white pixel is to it, 1 or 255."""

    name: Text
    sha256: Text
    scale: Count
    channels: Count
    white: Number
    clip: TerminalClip


@dataclass(frozen=True)
class Score:
    """A candidate's PSNR in dB of INT8 against the clipped float model; the control is not `eligible`."""

    name: Text
    psnr: float
    eligible: bool


@dataclass(frozen=True)
class Kept:
    """A layer that was left in float: with it and those before, the PSNR in dB and the bytes of the model.

    `macs`: its own share of the network's.
    """

    layer: str
    psnr: float
    macs: Number
    bytes: Count


@dataclass(frozen=True)
class Wide:
    """The tensors that a target gave 16 bits, and the PSNR in dB of the model then."""

    psnr: float
    tensors: tuple[WideTensor, ...]


@dataclass(frozen=True)
class Mixed:
    """A choice of bits for each layer: the PSNR in dB of the model with them, the `budget` as it was written,
    and the units that the choice costs."""

    psnr: float
    unit: Unit
    budget: Text
    cost: Count


@dataclass(frozen=True)
class Calibration:
    """What `qnas-calibrate` decided.

    `ranges`: of every activation tensor, by name, in the units of the model. `pinned`: those of them that are
    the nominal range by definition. The chosen model keeps its clip where `options.kept_clips` names one.
    `manifest`: the representative set, of which the share `held_out` of the files made the scores. `weights`:
    the integers, rounded for these images. Both as the document has them. `bits`: of every tensor,
    `widening`: why some have 16, where a target decided it; `mixed`: what `options.int4_layers` were chosen
    for, where a budget decided that. `equalized`: what was done to the channels of the
    float model first (`ptq/equalization.py`).
    """

    source: Source
    chosen: str
    observer: str
    scores: tuple[Score, ...]
    options: PtqOptions
    fallback: tuple[Kept, ...]
    taming: TamingCounts
    pinned: tuple[str, ...]
    ranges: Mapping[str, Range]
    held_out: float
    manifest: Mapping[str, Any]
    weights: Mapping[str, Any]
    equalized: Equalization = field(default_factory=dict)
    bits: Mapping[str, int] = field(default_factory=dict)
    widening: Wide | None = None
    mixed: Mixed | None = None

    @property
    def fidelity(self) -> float:
        """PSNR in dB of the model that is made of it against the clipped float model."""
        if self.mixed is not None:
            return self.mixed.psnr
        if self.fallback:
            return self.fallback[-1].psnr
        if self.widening is not None:
            return self.widening.psnr
        return next(score.psnr for score in self.scores if score.name == self.chosen)


def source_of(network: FloatModel, clip: TerminalClip) -> Source:
    """What the document says of a network."""
    return Source(network.name, network.sha256, network.scale, network.channels, network.white, clip)


def to_json(calibration: Calibration) -> str:
    """The file's text. Equal calibrations give equal texts."""
    c = calibration
    body = {
        "source": asdict(c.source) | {"clip": _clip(c.source.clip)},
        "decision": {
            "chosen": c.chosen,
            "observer": c.observer,
            "scores": [asdict(score) | {"psnr": _decibels(score.psnr)} for score in c.scores],
        },
        "quantization": {name: each for name, each in vars(c.options).items() if name not in APART},
        "fallback": [asdict(kept) | {"psnr": _decibels(kept.psnr)} for kept in c.fallback],
        "taming": asdict(c.taming),
        "pinned": list(c.pinned),
        "ranges": {name: [each.low, each.high] for name, each in c.ranges.items()},
        "bits": dict(c.bits),
        "int4_layers": list(c.options.int4_layers),
        "int4_inputs": [asdict(each) for each in c.options.int4_inputs],
        "wide": None if c.widening is None else _wide(c.widening),
        "mixed": None if c.mixed is None else asdict(c.mixed) | {"psnr": _decibels(c.mixed.psnr)},
        "images": {"held_out": c.held_out, "manifest": c.manifest},
        "weights": c.weights,
        "equalized": {name: list(powers) for name, powers in c.equalized.items()},
    }
    return json.dumps(_FILE.sealed(body), indent=1, allow_nan=False) + "\n"


def write_calibration(calibration: Calibration, path: Path, force: bool = False) -> None:
    """Write `path`, whole or not at all. Raises OutputError."""
    write_file(path, to_json(calibration), force)


def read_calibration(path: Path) -> Calibration:
    """Read what `write_calibration` wrote. Raises CalibrationError, naming the place, for anything else."""
    return _calibration(_FILE.read(path))


def from_json(text: str, where: str) -> Calibration:
    """Read the text of a file; `where` stands in messages. Raises CalibrationError."""
    return _calibration(_FILE.parse(text, where))


@dataclass(frozen=True)
class _Decision:
    chosen: Text
    observer: Text
    scores: tuple[Score, ...]

    def __post_init__(self) -> None:
        if self.chosen not in {score.name for score in self.scores if score.eligible}:
            raise ValueError(f"chosen is {self.chosen!r}, not one of the eligible candidates")


class _Quantization(msgspec.Struct, frozen=True):
    """The fields of PtqOptions but APART, of which a file may lack none: or it were another one."""

    weight_bits: WeightBits
    weight_range: WeightRange
    float_layers: tuple[str, ...]
    kept_clips: tuple[str, ...]


@dataclass(frozen=True)
class _Images:
    held_out: Number
    manifest: dict[str, Any]


@dataclass(frozen=True)
class _Document:
    source: Source
    decision: _Decision
    quantization: _Quantization
    fallback: tuple[Kept, ...]
    taming: TamingCounts
    pinned: tuple[str, ...]
    ranges: dict[str, tuple[Number, Number]]
    images: _Images
    weights: dict[str, Any]
    equalized: dict[str, tuple[Power, ...]] = field(default_factory=dict)
    bits: dict[str, Literal[8, 16]] = field(default_factory=dict)
    int4_layers: tuple[Text, ...] = ()
    int4_inputs: tuple[Int4Input, ...] = ()
    wide: Wide | None = None
    mixed: Mixed | None = None

    def __post_init__(self) -> None:
        for name, (low, high) in self.ranges.items():
            if low > high:
                raise ValueError(f"ranges.{name} is [{low:g}, {high:g}], not in order")


_FILE = Document(
    _Document,
    "calibration",
    "make it again with qnas-calibrate",
    CalibrationError,
    "qnas-calibration",
    3,
    oldest=1,
    infinite={"psnr": math.inf, "low": -math.inf, "high": math.inf},
)


def _calibration(found: _Document) -> Calibration:
    wide = tuple(name for name, bits in found.bits.items() if bits == 16)
    return Calibration(
        source=found.source,
        chosen=found.decision.chosen,
        observer=found.decision.observer,
        scores=found.decision.scores,
        options=PtqOptions(
            **msgspec.structs.asdict(found.quantization),
            wide=wide,
            int4_layers=found.int4_layers,
            int4_inputs=found.int4_inputs,
        ),
        fallback=found.fallback,
        taming=found.taming,
        pinned=found.pinned,
        ranges={name: Range(*ends) for name, ends in found.ranges.items()},
        held_out=found.images.held_out,
        manifest=found.images.manifest,
        weights=found.weights,
        equalized=found.equalized,
        bits=found.bits,
        widening=found.wide,
        mixed=found.mixed,
    )


def _wide(wide: Wide) -> dict[str, Any]:
    tensors = [asdict(each) | {"psnr": _decibels(each.psnr)} for each in wide.tensors]
    return {"psnr": _decibels(wide.psnr), "tensors": tensors}


def _clip(clip: TerminalClip) -> dict[str, Any]:
    """Null stands for no bound."""
    ends = {"low": clip.low, "high": clip.high}
    return asdict(clip) | {key: end if math.isfinite(end) else None for key, end in ends.items()}


def _decibels(psnr: float) -> float | None:
    """Null stands for no difference at all."""
    return round(psnr, PSNR_DIGITS) if math.isfinite(psnr) else None
