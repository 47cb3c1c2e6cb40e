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
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NoReturn, get_args

from qnas.calibration.clip_free import TerminalClip
from qnas.calibration.float_model import FloatModel
from qnas.calibration.ptq import PtqOptions
from qnas.calibration.ranges import Range
from qnas.calibration.taming import TamingCounts
from qnas.calibration.weights import WeightRange
from qnas.errors import CalibrationError
from qnas.files import atomic_write

FORMAT = "qnas-calibration"
VERSION = 1
LARGEST_FILE = 1 << 26  # bytes
LARGEST = 1e30  # of any number
PSNR_DIGITS = 4
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
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise CalibrationError(f"{path} is larger than any calibration: {ADVICE}")
        return from_json(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise CalibrationError(f"{path} cannot be read ({error.strerror}): check the path") from error
    except UnicodeDecodeError as error:
        raise CalibrationError(f"{path} is no text in UTF-8: {ADVICE}") from error


def from_json(text: str, where: str) -> Calibration:
    """Read the text of a file; `where` stands in messages. Raises CalibrationError."""
    try:
        value = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise CalibrationError(f"{where} is no JSON file ({error}): {ADVICE}") from error
    top = _Object(value, where)
    if (top.text("format"), top.whole("version")) != (FORMAT, VERSION):
        raise CalibrationError(f"{where} is no {FORMAT} of version {VERSION}: {ADVICE}")
    decision, images = top.inner("decision"), top.inner("images")
    found = Calibration(
        source=_source(top.inner("source")),
        chosen=decision.text("chosen"),
        observer=decision.text("observer"),
        scores=tuple(
            Score(each.text("name"), each.bounded("psnr"), each.flag("eligible"))
            for each in decision.objects("scores")
        ),
        options=_options(top.inner("quantization")),
        fallback=tuple(
            Kept(each.text("layer"), each.bounded("psnr"), each.number("macs"), each.whole("bytes"))
            for each in top.objects("fallback")
        ),
        taming=_taming(top.inner("taming")),
        pinned=top.texts("pinned"),
        ranges=_ranges(top.inner("ranges")),
        held_out=images.number("held_out"),
        manifest=images.inner("manifest").values,
        weights=top.inner("weights").values,
    )
    if found.chosen not in {score.name for score in found.scores if score.eligible}:
        decision.refuse("chosen", "one of the eligible candidates")
    return found


def _source(fields: _Object) -> Source:
    clip = fields.inner("clip")
    return Source(
        name=fields.text("name"),
        sha256=fields.text("sha256"),
        scale=fields.whole("scale"),
        channels=fields.whole("channels"),
        white=fields.number("white"),
        clip=TerminalClip(
            nodes=clip.texts("nodes"),
            low=clip.bounded("low", -math.inf),
            high=clip.bounded("high", math.inf),
            explanation=clip.text("explanation"),
        ),
    )


def _taming(counts: _Object) -> TamingCounts:
    return TamingCounts(*(counts.whole(field.name) for field in fields(TamingCounts)))


def _options(values: _Object) -> PtqOptions:
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
                given[field.name] = values.texts(field.name)
    if given["weight_bits"] not in (4, 8):
        values.refuse("weight_bits", "4 or 8")
    if given["weight_range"] not in get_args(WeightRange):
        values.refuse("weight_range", " or ".join(get_args(WeightRange)))
    return PtqOptions(**given)


def _ranges(values: _Object) -> dict[str, Range]:
    found = {}
    for name in values.values:
        low, high = values.pair(name)
        if low > high:
            values.refuse(name, "[low, high] in order")
        found[name] = Range(low, high)
    return found


class _Object:
    """A JSON object; a value of another kind than asked for raises CalibrationError with its place."""

    def __init__(self, values: Any, where: str) -> None:
        if not isinstance(values, dict):
            raise CalibrationError(f"{where} is no JSON object: {ADVICE}")
        self.values: dict[str, Any] = values
        self._where = where

    def text(self, key: str) -> str:
        return str(self._of(key, "a text", str))

    def flag(self, key: str) -> bool:
        return bool(self._of(key, "true or false", bool))

    def whole(self, key: str) -> int:
        value = int(self._of(key, "a whole number", int))
        if not 0 <= value < 2**53:
            self.refuse(key, "a whole number of 0 or more")
        return value

    def number(self, key: str) -> float:
        value = self._of(key, "a number", int, float)
        if not abs(value) <= LARGEST:
            self.refuse(key, f"a number of at most {LARGEST:g}")
        return float(value)

    def bounded(self, key: str, endless: float = math.inf) -> float:
        """A number, for which null stands when it is `endless`: of a PSNR, no difference at all."""
        return endless if self.values.get(key, 0) is None else self.number(key)

    def texts(self, key: str) -> tuple[str, ...]:
        values = self._of(key, "a list of texts", list)
        if not all(isinstance(value, str) for value in values):
            self.refuse(key, "a list of texts")
        return tuple(values)

    def pair(self, key: str) -> tuple[float, float]:
        values = self._of(key, "[low, high]", list)
        if len(values) != 2:
            self.refuse(key, "[low, high]")
        ends = _Object({"low": values[0], "high": values[1]}, f"{self._where}: {key}")
        return ends.number("low"), ends.number("high")

    def inner(self, key: str) -> _Object:
        return _Object(self._of(key, "an object", dict), f"{self._where}: {key}")

    def objects(self, key: str) -> tuple[_Object, ...]:
        values: Sequence[Any] = self._of(key, "a list", list)
        return tuple(_Object(value, f"{self._where}: {key}[{i}]") for i, value in enumerate(values))

    def refuse(self, key: str, wanted: str) -> NoReturn:
        raise CalibrationError(f"{self._where}: {key} is not {wanted}: {ADVICE}")

    def _of(self, key: str, wanted: str, *kinds: type) -> Any:
        value = self.values.get(key)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            self.refuse(key, wanted)
        return value


def _clip(clip: TerminalClip) -> dict[str, Any]:
    """Null stands for no bound."""
    ends = {"low": clip.low, "high": clip.high}
    return asdict(clip) | {key: end if math.isfinite(end) else None for key, end in ends.items()}


def _decibels(psnr: float) -> float | None:
    return round(psnr, PSNR_DIGITS) if math.isfinite(psnr) else None


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
