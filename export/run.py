"""One export: read, build, simplify, check, write, prove."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
from rich.console import Console
from rich.table import Table

from qnas.checkpoint import load_found
from qnas.errors import UsageError
from qnas.export.model import FORMATS, add_metadata, build
from qnas.export.parity import ParityReport, check_parity, parity_images
from qnas.export.simplify import simplify
from qnas.files import atomic_write, check_output
from qnas.fusion import count_integer_convolutions


def export(
    source: Path, format_name: str, output: Path | None, images: Path | None, *, parity: bool, force: bool
) -> ParityReport | None:
    """Write `output` (default: beside `source`) and `<output>.parity.json`; return the parity report.

    Raises QnasError; nothing is left half-written.
    """
    console = Console(stderr=True)
    target = output or source.with_suffix(".onnx")
    if target.suffix != ".onnx":
        raise UsageError(f"{target} does not end in .onnx: name an ONNX file with -o")
    report_path = target.with_suffix(".parity.json")
    for path in (target, report_path) if parity else (target,):
        check_output(path, force)
    with _step(console, f"reading {source}"):
        found = load_found(source)
        photographs, notes = parity_images(images) if parity else ([], ())
    with _step(console, "building the graph"):
        shipped = FORMATS[format_name](found)
        model, note = simplify(build(shipped))
        add_metadata(model, shipped, source)
        onnx.checker.check_model(model, full_check=True)
    notes = (note, *notes)
    report = None
    if parity:
        with _step(console, f"comparing with torch on {len(photographs)} images"):
            psnr, backends = check_parity(shipped.network, found.architecture.scale, model, photographs)
    with atomic_write(target, force) as temporary:
        onnx.save(model, temporary)
    if parity:
        fusion = count_integer_convolutions(target)
        names = tuple(name for name, _ in photographs)
        report = ParityReport(target.name, names, psnr, backends, fusion, notes)
        with atomic_write(report_path, force) as temporary:
            temporary.write_text(json.dumps(report.to_json(), indent=2) + "\n")
    return report


@contextmanager
def _step(console: Console, what: str) -> Iterator[None]:
    """Say what is going on while it lasts."""
    with console.status(what):
        yield


def show(report: ParityReport, target: Path, console: Console) -> None:
    """The report as a table."""
    table = Table(title=f"{report.model} against torch ({len(report.images)} images)")
    for heading in ("backend", "equal pixels", "largest difference", "PSNR to torch", "PSNR-Y"):
        table.add_column(heading, justify="left" if heading == "backend" else "right")
    table.add_row("torch", "", "", "", f"{report.torch_psnr_y:.3f} dB")
    for b in report.backends:
        psnr = "equal" if b.largest_difference == 0 else f"{b.psnr:.1f} dB"
        table.add_row(
            b.backend, f"{b.equal:.4%}", f"{b.largest_difference} levels", psnr, f"{b.psnr_y:.3f} dB"
        )
    console.print(table)
    console.print(
        "integer convolutions in the graph that onnxruntime runs: "
        f"{report.fusion.integer} of {report.fusion.total}"
    )
    for note in report.notes:
        console.print(f"note: {note}")
    console.print(
        f"wrote {target} ({target.stat().st_size} bytes) and {target.with_suffix('.parity.json').name}"
    )
