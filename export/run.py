"""One export: read, fit to the target, write, prove."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import onnx
from rich.console import Console

from qnas.calibration.document import write_calibration
from qnas.errors import ModelError, UsageError
from qnas.export.checks.check import WrittenFile, check, check_images
from qnas.export.checks.report import CheckReport
from qnas.export.float_source import compared_images, read_float_source, references
from qnas.export.from_qdq.reader import InputRange
from qnas.export.integers import Adq
from qnas.export.metadata import properties
from qnas.export.model import build_float32, float_twin
from qnas.export.source import Kind, Source, kind_of, read_found_source, read_qdq_source, refuse_unfit
from qnas.export.targets import Layout, find_target, fitted
from qnas.export.to_onnx.simplify import simplify
from qnas.export.to_onnx.writer import write_onnx
from qnas.export.to_tflite.writer import write_tflite
from qnas.export.trained import trained_reference
from qnas.files import atomic_write, check_output
from qnas.images.evaluation import Image
from qnas.integer.network import saturating_layers
from qnas.onnx.fusion import count_integer_convolutions
from qnas.torch.inference import freezing_price, mean_psnr

SUFFIXES: dict[str, str] = {"onnx-qdq": ".onnx", "onnx-float32": ".onnx", "tflite": ".tflite"}
STATIC_SIZE = (128, 128)  # of a .tflite file that has no form for every size


@dataclass(frozen=True)
class Options:
    """What `qnas-export` was told. `size`: (height, width) of a .tflite file, None for every size.

    HR `images` decide what SOURCE leaves open; `check`, or else they, are what is compared on.
    """

    formats: tuple[str, ...]
    target: str | None = None
    layout: Layout = "nchw"
    size: tuple[int, int] | None = None
    io: Literal["int8", "uint8"] = "int8"
    input_range: InputRange | None = None
    adq: Adq = "frozen"
    saturation: Literal["ignore", "warn", "error"] = "ignore"
    images: Path | None = None
    calibration: Path | None = None
    check: Path | None = None
    parity: bool = True
    layers: bool = False
    html: bool = False
    min_equal: float = 0.999
    max_steps: int = 1
    gate: tuple[str, ...] = ()
    force: bool = False


@dataclass(frozen=True)
class Exported:
    """The files, in the order of the formats; `report` is None without a check, which has `notes` else."""

    files: tuple[Path, ...]
    report: CheckReport | None
    notes: tuple[str, ...] = ()


def export(source: Path, options: Options, output: Path | None) -> Exported:
    """Write `output` (default: beside `source`) in each format, and what the check found beside the first.

    Raises QnasError; nothing is left half-written.
    """
    console = Console(stderr=True)
    targets = _outputs(source, options, output)
    with _step(console, f"reading {source}"):
        kind = kind_of(source)
        refuse_unfit(kind, source, options.formats, options.calibration, options.images)
    calibrates = kind == "float" and options.calibration is None
    report_path = targets[0].with_suffix(".parity.json")
    reports = [report_path, *([report_path.with_suffix(".html")] if options.html else [])]
    calibration = targets[0].with_suffix(".calibration.json")
    for path in (*targets, *(reports if options.parity else ()), *([calibration] if calibrates else ())):
        check_output(path, options.force)
    with _step(console, "reading images"):
        photographs, notes = _compared(options, kind) if options.parity else ([], ())
    read = _read(console, source, kind, options)
    notes += _prices(read, options, photographs) + _saturation(read, options)
    with _step(console, "building " + ", ".join(options.formats)):
        built = [_WRITERS[name](read, options) for name in options.formats]  # all of them, or no file at all
    written = []
    for (data, file, more), target in zip(built, targets, strict=True):
        with atomic_write(target, options.force) as temporary:
            temporary.write_bytes(data)
        written.append(replace(file, path=target))
        notes += more
    if calibrates and read.calibrated is not None:
        write_calibration(read.calibrated.calibration, calibration, options.force)
        targets = (*targets, calibration)
    if not options.parity:
        return Exported(targets, None, notes)
    with _step(console, f"comparing on {len(photographs)} images"):
        report = _checked(read, written, photographs, options, notes)
    for path in reports:
        text = report.to_html() if path.suffix == ".html" else json.dumps(report.to_json(), indent=2)
        with atomic_write(path, options.force) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    return Exported(targets, report, notes)


def _checked(
    read: Source, files: Sequence[WrittenFile], images: Sequence[tuple[str, Image]], options: Options,
    notes: tuple[str, ...],
) -> CheckReport:  # fmt: skip
    """A model that computes in float rounds as its runtime does: nothing decides unless it is named."""
    gate = options.gate or (None if read.integer is not None or read.found is not None else ())
    trained = None if read.trained is None else trained_reference(read.trained)
    return check(
        files, read.integer, trained, images, layers=options.layers, min_equal=options.min_equal,
        max_steps=options.max_steps, gate=gate, notes=notes, given=references(read), channels=read.channels,
    )  # fmt: skip


def _outputs(source: Path, options: Options, output: Path | None) -> tuple[Path, ...]:
    if output is not None and len(options.formats) > 1:
        raise UsageError("-o names one file: give one --format, or leave -o out")
    if "onnx-float32" in options.formats and len(options.formats) > 1:
        raise UsageError("onnx-float32 is another network than the integers: export it by itself, with -o")
    suffixes = [SUFFIXES[name] for name in options.formats]
    if output is not None and output.suffix != suffixes[0]:
        raise UsageError(f"{output} does not end in {suffixes[0]}: name such a file with -o")
    stem = source.with_suffix("") if source.suffix != ".onnx" else source.with_suffix(".qnas")
    return (output,) if output else tuple(stem.with_name(stem.name + suffix) for suffix in suffixes)


def _read(console: Console, path: Path, kind: Kind, options: Options) -> Source:
    """The network of `path`, calibrated where that is left to do."""
    if kind == "float":  # with bars of its own
        return read_float_source(path, options.images, options.calibration, options.input_range)
    with _step(console, f"reading {path}"):
        if kind == "qdq":
            return read_qdq_source(path, options.input_range or "0..1")
        return read_found_source(path, options.formats == ("onnx-float32",), options.adq, options.images)


def _compared(options: Options, kind: Kind) -> tuple[list[tuple[str, Image]], tuple[str, ...]]:
    """The images of the check, and notes on what was used instead."""
    if kind == "float" and options.check is None and options.images is not None:
        return compared_images(options.images), ()
    return check_images(options.check or options.images)


def _prices(read: Source, options: Options, images: Sequence[tuple[str, Image]]) -> tuple[str, ...]:
    """What was lost on the way to integers, on the images of the check."""
    if read.calibrated is not None:
        return read.calibrated.notes
    if read.found is None or read.integer is None or not images:
        return ()
    notes: tuple[str, ...] = ()
    pictures = [image for _, image in images]
    if options.adq == "frozen" and read.found.network.deviations():
        price = freezing_price(read.found.network, pictures, read.scale)
        notes = (
            f"frozen deviations (ADQ) cost {price.psnr:.3f} dB PSNR-Y on these images: "
            f"{price.frozen:.3f} dB, per image {price.per_image:.3f} dB",
        )
    if read.before is not None:
        before, after = (mean_psnr(each, pictures, read.scale) for each in (read.before, read.found.network))
        notes += (
            f"8-bit residuals cost {before - after:.3f} dB PSNR-Y on these images: {after:.3f} dB, "
            f"float ones {before:.3f} dB",
        )
    return notes


def _saturation(read: Source, options: Options) -> tuple[str, ...]:
    """A note or an error naming the layers that may saturate where pairs of products add in 16 bits."""
    if options.saturation == "ignore" or read.integer is None:
        return ()
    names = saturating_layers(read.integer)
    if not names:
        return ("no layer can saturate on machines without VNNI",)
    text = f"pairs of products may pass 16 bits on machines without VNNI in {', '.join(names)}"
    if options.saturation == "error":
        raise ModelError(f"{text}: give those layers 4 bits, or drop --saturation error")
    return (text,)


# One function per format: (bytes, file with its network, notes) --------------------------------------------

_Written = tuple[bytes, WrittenFile, tuple[str, ...]]


def _onnx_qdq(read: Source, options: Options) -> _Written:
    target = find_target(options.target, "onnx-qdq")
    if read.integer is None:
        return _as_calibrated(read, options)
    network = fitted(read.integer, target)
    model, note = simplify(write_onnx(network, target, options.layout))
    # Scales that calibration chose have too many bits for sums in float32.
    inexact = frozenset({"onnxruntime-unoptimized", "reference"}) if read.calibrated else frozenset()
    return _finished(model, read, True), WrittenFile(read.path, "onnx", network, inexact), (note,)


def _as_calibrated(read: Source, options: Options) -> _Written:
    """The QDQ model as calibration made it, and what of it runs in float."""
    assert read.calibrated is not None
    if options.target is not None or options.layout != "nchw":
        raise ModelError(f"{read.calibrated.refusal}: leave out --target and --layout, which need all of it")
    data = _finished(read.calibrated.model, read, True)
    fusion = count_integer_convolutions(data)
    notes = (
        f"{read.calibrated.refusal.partition(': ')[0]}; the file is the QDQ model itself, for onnxruntime",
        f"{fusion.integer} of {fusion.total} convolutions integer; in float: "
        + (", ".join(fusion.float_names) or "nothing"),
    )
    return data, WrittenFile(read.path, "onnx"), notes


def _onnx_float32(read: Source, options: Options) -> _Written:
    assert read.found is not None
    model, note = simplify(build_float32(read.found))
    return _finished(model, read, False), WrittenFile(read.path, "onnx"), (note,)


def _finished(model: onnx.ModelProto, read: Source, integer: bool) -> bytes:
    onnx.helper.set_model_props(model, _properties(read, integer))
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    return data


def _tflite(read: Source, options: Options) -> _Written:
    if read.integer is None:
        assert read.calibrated is not None
        raise ModelError(f"{read.calibrated.refusal}: TFLite needs all of it, use --format onnx-qdq")
    network = fitted(read.integer, find_target(options.target, "tflite"))
    known = _properties(read, True)
    notes: tuple[str, ...] = ()
    size = options.size
    if size is None:
        try:
            model = write_tflite(network, *STATIC_SIZE, resizable=True, io=options.io, properties=known)
        except ModelError:
            size = STATIC_SIZE
            notes = (f"the .tflite file takes images of {size[0]}x{size[1]} alone: choose with --size HxW",)
    if size is not None:
        model = write_tflite(network, *size, io=options.io, properties=known)
    notes += tuple(f"{name} adds with scales that LiteRT rounds differently" for name in model.approximate)
    inexact = frozenset({"litert-xnnpack"}) if model.approximate else frozenset()
    return model.data, WrittenFile(read.path, "tflite", network, inexact), notes


def _properties(read: Source, integer: bool) -> dict[str, str]:
    bits = {32}
    if integer and read.integer is not None:
        bits = {node.bits for node, _ in read.integer.convolutions()}
    elif read.calibrated is not None:
        bits = read.calibrated.bits
    found = read.found if integer or read.found is None else float_twin(read.found)
    return properties(read.path, read.scale, bits, found, integer)


_WRITERS: dict[str, Callable[[Source, Options], _Written]] = {
    "onnx-qdq": _onnx_qdq,
    "onnx-float32": _onnx_float32,
    "tflite": _tflite,
}


@contextmanager
def _step(console: Console, what: str) -> Iterator[None]:
    """Say what is going on while it lasts."""
    with console.status(what):
        yield
