"""One export: read, fit to the target, write, prove."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from qnas.calibration.document import write_calibration
from qnas.calibration.prepare.float_model import read_float_model
from qnas.calibration.progress import Display
from qnas.calibration.ptq.integer_model import PtqOptions
from qnas.errors import ModelError, UsageError
from qnas.export.checks.check import WrittenFile, check, check_images
from qnas.export.checks.html import check_page
from qnas.export.checks.report import CheckReport
from qnas.export.foresight import foresee
from qnas.export.formats.format import Written
from qnas.export.formats.table import FILE_KINDS, FORMATS, files_of
from qnas.export.options import Options
from qnas.export.sources.calibrated import CalibratedSource, compared_images
from qnas.export.sources.read import Kind, kind_of, read_source, refuse_unfit
from qnas.export.sources.source import Source
from qnas.files import check_outputs, write_file
from qnas.images.evaluation import Image
from qnas.images.files import images_in
from qnas.integer.network import saturating_layers
from qnas.one_writer import one_writer


@dataclass(frozen=True)
class Exported:
    """The files, in the order of the formats; `report` is None without a check, which has `notes` else.

    `refused`: why a format has no file, where another has.
    """

    files: tuple[Path, ...]
    report: CheckReport | None
    notes: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


def export(
    source: Path, options: Options, output: Path | None = None, display: Display | None = None
) -> Exported:
    """Write `output` (default: beside `source`) in each format, and what the check found beside the first.

    A format that the network has no form in costs the others nothing; where all are refused, that is raised.
    `display` is told each step. Raises QnasError; nothing is left half-written.
    """
    shown = display or Display()
    if source.is_dir():
        raise ModelError(f"{source} is a folder: name the file of a network")
    targets = _outputs(source, options, output)
    shown.step(f"reading {source}")
    kind = kind_of(source)
    refuse_unfit(kind, source, options)
    calibrates = kind == "float" and options.calibration is None
    report_path = targets[0].with_suffix(".parity.json")
    reports = [report_path, *([report_path.with_suffix(".html")] if options.html else [])]
    calibration = targets[0].with_suffix(".calibration.json")
    outputs = (*targets, *(reports if options.parity else ()), *([calibration] if calibrates else ()))
    reads = chain(files_of(source), [options.calibration], images_in([options.images, options.check]))
    check_outputs(outputs, options.force, reads)
    with one_writer(*outputs):
        if calibrates:
            _refuse_early(source, options)
        photographs, notes = _compared(options, kind) if options.parity else ([], ())
        read = read_source(source, kind, options, shown)
        notes += read.notes(options, photographs) + _saturation(read, options)
        shown.step("building " + ", ".join(options.formats))
        built, refused = _built(read, targets, options)
        files = []
        for target, written in built:
            write_file(target, written.data, options.force)
            files.append(WrittenFile(target, written.network, written.inexact))
            notes += written.notes
        targets = tuple(target for target, _ in built)
        if isinstance(read, CalibratedSource) and calibrates:
            write_calibration(read.calibration, calibration, options.force)
            targets = (*targets, calibration)
        if not options.parity:
            return Exported(targets, None, notes, refused)
        shown.step(f"comparing on {len(photographs)} images")
        report = _checked(read, files, photographs, options, notes)
        for path in reports:
            text = check_page(report) if path.suffix == ".html" else json.dumps(report.to_json(), indent=2)
            write_file(path, text + "\n", options.force)
    return Exported(targets, report, notes, refused)


def _built(
    read: Source, targets: Sequence[Path], options: Options
) -> tuple[list[tuple[Path, Written]], tuple[str, ...]]:
    """Each target with its file, and why a format has none. Raises ModelError where none has one."""
    built, refused = [], []
    for name, target in zip(options.formats, targets, strict=True):
        try:
            built.append((target, FORMATS[name].write(read, options)))
        except ModelError as error:
            if len(options.formats) == 1:
                raise
            refused.append(f"{name} is not written: {error}")
    if not built:
        raise ModelError("; ".join(refused))
    return built, tuple(refused)


def read_network(path: Path, options: Options, display: Display | None = None) -> Source:
    """Read the network of `path` as an export does, calibrated where that is left to do. Raises QnasError."""
    kind = kind_of(path)
    refuse_unfit(kind, path, options)
    return read_source(path, kind, options, display or Display())


def compare(
    files: Sequence[Path], source: Path, options: Options, display: Display | None = None
) -> CheckReport:
    """Compare files that were written before with the network of `source`. Raises QnasError."""
    found = read_network(source, options, display)
    images, notes = _compared(options, kind_of(source))
    written = [WrittenFile(path, inexact=found.inexact) for path in files]
    return _checked(found, written, images, options, notes)


def _checked(
    read: Source, files: Sequence[WrittenFile], images: Sequence[tuple[str, Image]], options: Options,
    notes: tuple[str, ...],
) -> CheckReport:  # fmt: skip
    return check(
        files, read.integer, read.trained, images, layers=options.layers, min_equal=options.min_equal,
        max_steps=options.max_steps, gate=options.gate or None, notes=notes, given=read.references(),
        channels=read.channels,
    )  # fmt: skip


def _refuse_early(source: Path, options: Options) -> None:
    """Raise ModelError where all formats would be refused once the network is calibrated."""
    network = read_float_model(source, options.input_range)
    foresight = foresee(source, network, PtqOptions(), options)
    if not foresight.works:
        raise ModelError("; ".join(dict.fromkeys(each.refusal for each in foresight.outlooks)))


def _outputs(source: Path, options: Options, output: Path | None) -> tuple[Path, ...]:
    if output is not None and len(options.formats) > 1:
        raise UsageError("-o names one file: give one --format, or leave -o out")
    formats = [FORMATS[name] for name in options.formats]
    alone = [each.name for each in formats if each.alone]
    if alone and len(formats) > 1:
        raise UsageError(f"{alone[0]} is another network than the integers: export it by itself, with -o")
    suffixes = [each.suffix for each in formats]
    if output is not None and output.suffix != suffixes[0]:
        raise UsageError(f"{output} does not end in {suffixes[0]}: name such a file with -o")
    stem = source.with_suffix(".qnas" if source.suffix in FILE_KINDS else "")
    return (output,) if output else tuple(stem.with_name(stem.name + suffix) for suffix in suffixes)


def _compared(options: Options, kind: Kind) -> tuple[list[tuple[str, Image]], tuple[str, ...]]:
    """The images of the check, and notes on what was used instead."""
    if kind == "float" and options.check is None and options.images is not None:
        return compared_images(options.images), ()
    return check_images(options.check or options.images)


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
