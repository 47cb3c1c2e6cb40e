"""`qnas-calibrate MODEL --dry-run`: what becomes of a float network in integers, without an image of anybody.

{"format": "qnas-dry-run", "version": 1,
 "model", "scale", "channels", "size": [height, width] or null, "input_range": how that was found, "remarks",
 "formats": [{"format", "works", "refusal", "notes"}],
 "integer_share": of the multiply-adds in onnxruntime, or null,
 "in_float": [{"node", "why"}],
 "latency": {"device", "threads", "float_ms", "integer_ms"} or null}
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from qnas.calibration.calibrate import Settings, first_options
from qnas.calibration.prepare.clip_free import without_clip
from qnas.calibration.prepare.float_model import FloatModel, read_float_model
from qnas.calibration.ptq.integer_model import PtqOptions
from qnas.cli import say
from qnas.errors import ModelError
from qnas.export.checks.check import executed
from qnas.export.checks.report import share
from qnas.export.foresight import Foresight, foresee
from qnas.export.formats.table import files_of
from qnas.files import check_outputs, write_file
from qnas.onnx.fusion import FusionReport
from qnas.runtime_bench.environment import threads_text
from qnas.runtime_bench.latency_model.prediction import predict
from qnas.runtime_bench.latency_model.table import LatencyModel, read_latency_model
from qnas.temporary import temporary_folder

FORMAT, VERSION = "qnas-dry-run", 1
NO_KERNEL = "onnxruntime has no integer kernel for it here"


@dataclass(frozen=True)
class Latency:
    """What a latency model predicts for one image of the size that `qnas-bench predict` takes, in ms."""

    model: LatencyModel
    float_ms: float
    integer_ms: float


@dataclass(frozen=True, eq=False)
class DryRun:
    """`fusion`, `integer_share` (of the multiply-adds): of the ONNX file in onnxruntime, None without one.

    How many they are depends a little on the ranges: tables that are straight lines become convolutions.
    """

    network: FloatModel
    foresight: Foresight
    fusion: FusionReport | None = None
    integer_share: float | None = None
    latency: Latency | None = None

    @property
    def in_float(self) -> Iterator[tuple[str, str]]:
        """The nodes of the ONNX file that compute in float, and why."""
        for shown in self.fusion.float_names if self.fusion is not None else ():
            yield shown, self.foresight.floating.get(shown.partition(" ")[2], NO_KERNEL)

    def lines(self) -> Iterator[str]:
        """The whole report."""
        network = self.network
        size = "any size"
        if network.size is not None:
            size = (
                f"{network.size[1]}x{network.size[0]} alone: export it with free height and width for others"
            )
        colours = "RGB" if network.channels == 3 else "grey"
        yield f"{network.name}: x{network.scale}, {colours} images of {size}"
        yield from (network.white_found, *network.remarks, without_clip(network)[1].explanation)
        for each in self.foresight.outlooks:
            yield f"{each.format}: " + (f"refused: {each.refusal}" if each.refusal else "works")
            yield from (f"  {note}" for note in each.notes)
        if self.integer_share is not None:
            yield f"in onnxruntime: {share(self.integer_share, digits=1)} of the multiply-adds in integers"
        reasons: dict[str, list[str]] = {}
        for node, why in self.in_float:
            reasons.setdefault(why, []).append(node)
        yield from (f"  in float, as {why}: {', '.join(nodes)}" for why, nodes in reasons.items())
        if self.latency is not None:
            found, model = self.latency, self.latency.model
            yield (
                f"predicted for {model.device} on {model.environment.get('cpu', 'unknown')}, "
                f"{threads_text(model.threads)}: {found.float_ms:.2f} ms in float, "
                f"{found.integer_ms:.2f} ms in integers"
            )

    def to_document(self) -> dict[str, Any]:
        """Plain data for JSON."""
        latency = self.latency
        return {
            "format": FORMAT,
            "version": VERSION,
            "model": self.network.name,
            "scale": self.network.scale,
            "channels": self.network.channels,
            "size": self.network.size,
            "input_range": self.network.white_found,
            "remarks": self.network.remarks,
            "formats": [
                {"format": o.format, "works": not o.refusal, "refusal": o.refusal or None, "notes": o.notes}
                for o in self.foresight.outlooks
            ],
            "integer_share": self.integer_share,
            "in_float": [{"node": node, "why": why} for node, why in self.in_float],
            "latency": None if latency is None else {
                "device": latency.model.device, "threads": latency.model.threads,
                "float_ms": latency.float_ms, "integer_ms": latency.integer_ms,
            },
        }  # fmt: skip


def dry_run(path: Path, settings: Settings, table: LatencyModel | None = None) -> DryRun:
    """Read the float network at `path`, and take it down the real road without calibrating it.

    `table`: predicts latencies. Raises QnasError where it is no network that can be calibrated.
    """
    network = read_float_model(path, settings.input_range)
    foresight = foresee(path, network, first_options(network, settings))
    data = foresight.outlooks[0].data
    if not data:
        return DryRun(network, foresight)
    with temporary_folder() as folder:
        written = folder / "integer.onnx"
        written.write_bytes(data)
        fusion, macs = executed(written)
        latency = None
        if table is not None:
            original = folder / "float.onnx"
            onnx.save(network.model, original)
            latency = Latency(table, predict(original, table).ms, predict(written, table).ms)
    integer_share = macs[0] / macs[1] if macs is not None and macs[1] else None
    return DryRun(network, foresight, fusion, integer_share, latency)


def dry_run_command(
    model: Path, json_path: Path | None, latency_table: Path | None, force: bool, settings: Settings
) -> None:
    """Print the report and write `json_path`. Raises QnasError, also where no format works."""
    check_outputs([json_path], force, [*files_of(model), latency_table])
    table = None if latency_table is None else read_latency_model(latency_table)
    found = dry_run(model, settings, table)
    if json_path is not None:
        write_file(json_path, json.dumps(found.to_document(), indent=1) + "\n", force)
    for line in found.lines():
        say(line)
    if not found.foresight.works:
        raise ModelError(f"{model.name} becomes an integer file in no format: see above")


def told_before(model: Path, network: FloatModel, options: PtqOptions) -> None:
    """Say which format will be refused. Raises ModelError where all will be."""
    foresight = foresee(model, network, options)
    refused = [each for each in foresight.outlooks if each.refusal]
    if not foresight.works:
        raise ModelError(refused[0].refusal)
    for each in refused:
        say(f"note: --format {each.format} will be refused: {each.refusal}", err=True)
