"""One export: read, fit to the target, write, prove."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import onnx
from rich.console import Console

from qnas.checkpoint import Found, load_found
from qnas.errors import ModelError, UsageError
from qnas.evaluation import Image, pairs
from qnas.export.checks.check import WrittenFile, check, check_images
from qnas.export.checks.report import CheckReport
from qnas.export.from_qdq.reader import InputRange, read_qdq
from qnas.export.integers import Adq, integer_network
from qnas.export.metadata import properties
from qnas.export.model import build_float32, float_twin, integers_only
from qnas.export.targets import Layout, find_target, fitted
from qnas.export.to_onnx.simplify import simplify
from qnas.export.to_onnx.writer import write_onnx
from qnas.export.to_tflite.writer import write_tflite
from qnas.files import atomic_write, check_output
from qnas.inference import calibrate_deviations, freezing_price
from qnas.integer_network import IntegerNetwork, saturating_layers

SUFFIXES: dict[str, str] = {"onnx-qdq": ".onnx", "onnx-float32": ".onnx", "tflite": ".tflite"}
STATIC_SIZE = (128, 128)  # of a .tflite file that has no form for every size


@dataclass(frozen=True)
class Options:
    """What `qnas-export` was told. `size`: (height, width) of a .tflite file, None for every size."""

    formats: tuple[str, ...]
    target: str | None = None
    layout: Layout = "nchw"
    size: tuple[int, int] | None = None
    io: Literal["int8", "uint8"] = "int8"
    input_range: InputRange = "0..1"
    adq: Adq = "frozen"
    adq_images: Path | None = None
    saturation: Literal["ignore", "warn", "error"] = "ignore"
    images: Path | None = None
    parity: bool = True
    layers: bool = False
    html: bool = False
    min_equal: float = 0.999
    max_steps: int = 1
    gate: tuple[str, ...] = ()
    force: bool = False


@dataclass(frozen=True)
class Exported:
    """The files, in the order of the formats; `report` is None without a check."""

    files: tuple[Path, ...]
    report: CheckReport | None


@dataclass(frozen=True)
class _Source:
    """A network from a file; `integer` is None when only its float twin was asked for."""

    path: Path
    found: Found | None
    integer: IntegerNetwork | None

    @property
    def scale(self) -> int:
        if self.integer is not None:
            return self.integer.scale
        assert self.found is not None
        return self.found.architecture.scale


def export(source: Path, options: Options, output: Path | None) -> Exported:
    """Write `output` (default: beside `source`) in each format, and what the check found beside the first.

    Raises QnasError; nothing is left half-written.
    """
    console = Console(stderr=True)
    targets = _outputs(source, options, output)
    report_path = targets[0].with_suffix(".parity.json")
    reports = [report_path, *([report_path.with_suffix(".html")] if options.html else [])]
    for path in (*targets, *(reports if options.parity else ())):
        check_output(path, options.force)
    with _step(console, f"reading {source}"):
        photographs, notes = check_images(options.images) if options.parity else ([], ())
        read = _read(source, options)
    notes += _freezing(read, options, photographs) + _saturation(read, options)
    with _step(console, "building " + ", ".join(options.formats)):
        built = [_WRITERS[name](read, options) for name in options.formats]  # all of them, or no file at all
    written = []
    for (data, file, more), target in zip(built, targets, strict=True):
        with atomic_write(target, options.force) as temporary:
            temporary.write_bytes(data)
        written.append(replace(file, path=target))
        notes += more
    if not options.parity:
        return Exported(targets, None)
    with _step(console, f"comparing on {len(photographs)} images"):
        network = None
        if read.found is not None:
            network = read.found.network if read.integer else float_twin(read.found).network
        report = check(
            written, read.integer, network, photographs, layers=options.layers, min_equal=options.min_equal,
            max_steps=options.max_steps, gate=options.gate or None, notes=notes,
        )  # fmt: skip
    for path in reports:
        text = report.to_html() if path.suffix == ".html" else json.dumps(report.to_json(), indent=2)
        with atomic_write(path, options.force) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    return Exported(targets, report)


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


def _read(source: Path, options: Options) -> _Source:
    """Case 1: found.pt. Case 2: a QDQ model made elsewhere."""
    if source.suffix == ".onnx":  # Case 2
        if "onnx-float32" in options.formats:
            raise UsageError("--format onnx-float32 needs a found.pt: an integer model has no float twin")
        return _Source(source, None, read_qdq(source, options.input_range))
    found = load_found(source)
    if options.formats == ("onnx-float32",):
        return _Source(source, found, None)
    integers_only(found)
    if options.adq_images is not None:
        if options.adq == "per-image" or not found.network.deviations():
            raise UsageError(
                "--adq-images sets what --adq frozen freezes in a network with ADQ: leave it out"
            )
        scale = found.architecture.scale
        calibrate_deviations(found.network, (lr for lr, _ in pairs(options.adq_images, scale)))
    integer = integer_network(found, options.adq)
    found.network.per_image = options.adq == "per-image"
    return _Source(source, found, integer)


def _freezing(read: _Source, options: Options, images: Sequence[tuple[str, Image]]) -> tuple[str, ...]:
    """What the frozen deviations of ADQ cost on the images of the check."""
    if read.found is None or read.integer is None or options.adq != "frozen" or not images:
        return ()
    if not read.found.network.deviations():
        return ()
    price = freezing_price(read.found.network, (image for _, image in images), read.scale)
    return (
        f"frozen deviations (ADQ) cost {price.psnr:.3f} dB PSNR-Y on these images: {price.frozen:.3f} dB, "
        f"per image {price.per_image:.3f} dB",
    )


def _saturation(read: _Source, options: Options) -> tuple[str, ...]:
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


def _onnx_qdq(read: _Source, options: Options) -> _Written:
    assert read.integer is not None
    target = find_target(options.target, "onnx-qdq")
    network = fitted(read.integer, target)
    model, note = simplify(write_onnx(network, target, options.layout))
    return _finished(model, read, True), WrittenFile(read.path, "onnx", network), (note,)


def _onnx_float32(read: _Source, options: Options) -> _Written:
    assert read.found is not None
    model, note = simplify(build_float32(read.found))
    return _finished(model, read, False), WrittenFile(read.path, "onnx"), (note,)


def _finished(model: onnx.ModelProto, read: _Source, integer: bool) -> bytes:
    onnx.helper.set_model_props(model, _properties(read, integer))
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    return data


def _tflite(read: _Source, options: Options) -> _Written:
    assert read.integer is not None
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
    return model.data, WrittenFile(read.path, "tflite", network), notes


def _properties(read: _Source, integer: bool) -> dict[str, str]:
    if integer and read.integer is not None:
        bits = {node.bits for node, _ in read.integer.convolutions()}
    else:
        bits = {32}
    found = read.found if integer or read.found is None else float_twin(read.found)
    return properties(read.path, read.scale, bits, found, integer)


_WRITERS: dict[str, Callable[[_Source, Options], _Written]] = {
    "onnx-qdq": _onnx_qdq,
    "onnx-float32": _onnx_float32,
    "tflite": _tflite,
}


@contextmanager
def _step(console: Console, what: str) -> Iterator[None]:
    """Say what is going on while it lasts."""
    with console.status(what):
        yield
