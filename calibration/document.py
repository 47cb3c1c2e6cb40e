"""calibration.json: what a calibration found out, and all that it takes to make the same integer model again.

    {"format": "qnas-calibration", "version": 1,
     "source":     {"name", "sha256", "scale", "channels", "white",
                    "clip": {"nodes", "low", "high", "explanation"}},
     "decision":   {"chosen", "observer", "scores": [{"name", "psnr", "eligible"}]},
     "quantization": fields of PtqOptions,
     "fallback":   [{"layer", "psnr", "macs", "bytes"}],
     "taming":     {"patches", "untouched", "tamed", "low_contrast", "flat"},
     "pinned":     [tensor],
     "ranges":     {tensor: [low, high]},
     "images":     {"held_out": share, "manifest": manifest.to_document(...)},
     "weights":    weights.to_document(...)}

It holds no times and no absolute paths: the same inputs give the same bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args

from qnas.calibration.patches.taming import TamingCounts
from qnas.calibration.prepare.clip_free import TerminalClip
from qnas.calibration.prepare.float_model import FloatModel
from qnas.calibration.ptq.integer_model import PtqOptions
from qnas.calibration.ptq.weights import WeightRange
from qnas.calibration.ranges.ranges import Range
from qnas.errors import CalibrationError
from qnas.files import atomic_write
from qnas.json_fields import Fields, parsed, read_fields

FORMAT = "qnas-calibration"
VERSION = 1
PSNR_DIGITS = 4
WHAT = "calibration"
ADVICE = "make it again with qnas-calibrate"


@dataclass(frozen=True)
class Source:
    """The float model that was calibrated. `white`: what a white pixel is to it, 1 or 255."""

    name: str
    sha256: str
    scale: int
    channels: int
    white: float
    clip: TerminalClip


@dataclass(frozen=True)
class Score:
    """A candidate's PSNR in dB of INT8 against the clipped float model; the control is not `eligible`."""

    name: str
    psnr: float
    eligible: bool = True


@dataclass(frozen=True)
class Kept:
    """A layer that was left in float: with it and those before, the PSNR in dB and the bytes of the model.

    `macs`: its own share of the network's.
    """

    layer: str
    psnr: float
    macs: float
    bytes: int


@dataclass(frozen=True)
class Calibration:
    """What `qnas-calibrate` decided.

    `ranges`: of every activation tensor, by name, in the units of the model. `pinned`: those of them that are
    the nominal range by definition. The chosen model keeps its clip where `options.kept_clips` names one.
    `manifest`: the representative set, of which the share `held_out` of the files made the scores. `weights`:
    the integers, rounded for these images. Both as the document has them.
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

    @property
    def fidelity(self) -> float:
        """PSNR in dB of the model that is made of it against the clipped float model."""
        if self.fallback:
            return self.fallback[-1].psnr
        return next(score.psnr for score in self.scores if score.name == self.chosen)


def source_of(network: FloatModel, clip: TerminalClip) -> Source:
    """What the document says of a network."""
    return Source(network.name, network.sha256, network.scale, network.channels, network.white, clip)


def to_json(calibration: Calibration) -> str:
    """The file's text. Equal calibrations give equal texts."""
    c = calibration
    document = {
        "format": FORMAT,
        "version": VERSION,
        "source": asdict(c.source) | {"clip": _clip(c.source.clip)},
        "decision": {
            "chosen": c.chosen,
            "observer": c.observer,
            "scores": [asdict(score) | {"psnr": _decibels(score.psnr)} for score in c.scores],
        },
        "quantization": asdict(c.options),
        "fallback": [asdict(kept) | {"psnr": _decibels(kept.psnr)} for kept in c.fallback],
        "taming": asdict(c.taming),
        "pinned": list(c.pinned),
        "ranges": {name: [each.low, each.high] for name, each in c.ranges.items()},
        "images": {"held_out": c.held_out, "manifest": c.manifest},
        "weights": c.weights,
    }
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_calibration(calibration: Calibration, path: Path, force: bool = False) -> None:
    """Write `path`, whole or not at all. Raises OutputError."""
    text = to_json(calibration)
    with atomic_write(path, force) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_calibration(path: Path) -> Calibration:
    """Read what `write_calibration` wrote. Raises CalibrationError, naming the place, for anything else."""
    return _calibration(read_fields(path, WHAT, ADVICE, CalibrationError))


def from_json(text: str, where: str) -> Calibration:
    """Read the text of a file; `where` stands in messages. Raises CalibrationError."""
    return _calibration(parsed(text, where, WHAT, ADVICE, CalibrationError))


def _calibration(top: Fields) -> Calibration:
    top.check(FORMAT, VERSION)
    decision, images = top.inner("decision"), top.inner("images")
    found = Calibration(
        source=_source(top.inner("source")),
        chosen=decision.text("chosen"),
        observer=decision.text("observer"),
        scores=tuple(
            Score(each.text("name"), _bounded(each, "psnr", math.inf), each.flag("eligible"))
            for each in decision.objects("scores")
        ),
        options=_options(top.inner("quantization")),
        fallback=tuple(
            Kept(
                each.name("layer"), _bounded(each, "psnr", math.inf), each.number("macs"), each.whole("bytes")
            )
            for each in top.objects("fallback")
        ),
        taming=_taming(top.inner("taming")),
        pinned=top.names("pinned"),
        ranges=_ranges(top.inner("ranges")),
        held_out=images.number("held_out"),
        manifest=images.inner("manifest").values,
        weights=top.inner("weights").values,
    )
    if found.chosen not in {score.name for score in found.scores if score.eligible}:
        decision.refuse("chosen", "one of the eligible candidates")
    return found


def _source(fields: Fields) -> Source:
    clip = fields.inner("clip")
    return Source(
        name=fields.text("name"),
        sha256=fields.text("sha256"),
        scale=fields.whole("scale"),
        channels=fields.whole("channels"),
        white=fields.number("white"),
        clip=TerminalClip(
            nodes=clip.names("nodes"),
            low=_bounded(clip, "low", -math.inf),
            high=_bounded(clip, "high", math.inf),
            explanation=clip.text("explanation"),
        ),
    )


def _taming(counts: Fields) -> TamingCounts:
    return TamingCounts(*(counts.whole(field.name) for field in fields(TamingCounts)))


def _options(values: Fields) -> PtqOptions:
    """Each field of the same kind as its default."""
    given: dict[str, Any] = {}
    for field in fields(PtqOptions):
        match field.default:
            case bool():
                given[field.name] = values.flag(field.name)
            case int():
                given[field.name] = values.whole(field.name)
            case str():
                given[field.name] = values.text(field.name)
            case _:
                given[field.name] = values.names(field.name)
    if given["weight_bits"] not in (4, 8):
        values.refuse("weight_bits", "4 or 8")
    if given["weight_range"] not in get_args(WeightRange):
        values.refuse("weight_range", " or ".join(get_args(WeightRange)))
    return PtqOptions(**given)


def _ranges(values: Fields) -> dict[str, Range]:
    found = {}
    for name in values.values:
        low, high = values.pair(name)
        if low > high:
            values.refuse(name, "[low, high] in order")
        found[name] = Range(low, high)
    return found


def _bounded(values: Fields, key: str, endless: float) -> float:
    """A number, for which null stands when it is `endless`: of a PSNR, no difference at all."""
    return values.number(key) if values.has(key) else endless


def _clip(clip: TerminalClip) -> dict[str, Any]:
    """Null stands for no bound."""
    ends = {"low": clip.low, "high": clip.high}
    return asdict(clip) | {key: end if math.isfinite(end) else None for key, end in ends.items()}


def _decibels(psnr: float) -> float | None:
    return round(psnr, PSNR_DIGITS) if math.isfinite(psnr) else None
