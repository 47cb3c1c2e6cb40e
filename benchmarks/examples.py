"""Measures the sample networks of examples/ and writes their cards and docs/examples.md.

    python benchmarks/examples.py --data ../shared/data

Needs Set5 and Set14 below --data. Times are medians of interleaved runs, given as ratios.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import onnx
import torch

from qnas.cost.network_cost import PAPER_G, network_cost
from qnas.export.checks.report import share
from qnas.export.model import build_float32, build_qdq
from qnas.images.evaluation import Quality, evaluate
from qnas.images.resize import resize_bicubic
from qnas.network.architecture import find_architecture, named_architectures
from qnas.torch.checkpoint import Found, load_found
from qnas.torch.inference import validate

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
FULL_PRECISION = {
    "espcn-w8": "espcn-w32",
    "espcn-w4": "espcn-w32",
    "espcn-w4-lloyd": "espcn-w32",
    "basic-w48": "basic-w32",
}
TWINS = {"espcn-w4": "espcn-w8", "espcn-w4-lloyd": "espcn-w4"}  # the same network at 8 bits, uniform
SETS = ("Set5", "Set14")


@dataclass(frozen=True)
class Measured:
    """Everything a card says about one network."""

    name: str
    found: Found
    quality: dict[str, Quality]
    report: dict[str, Any] | None = None
    export_seconds: float = 0.0
    file_bytes: tuple[int, ...] = ()
    ratios: dict[str, str] | None = None


def measure(name: str, data: Path, folder: Path) -> Measured:
    """Quality of the torch network; for a quantized one also its export, parity on Set14 and latency."""
    source = EXAMPLES / name / "found.pt"
    found = load_found(source)
    quality = {s: validate(found.network, data / s, found.architecture.scale) for s in SETS}
    if not found.architecture.quantized:
        return Measured(name, found, quality)
    copy = folder / f"{name}.pt"
    copy.symlink_to(source)
    model = copy.with_suffix(".onnx")
    started = time.monotonic()
    _command("qnas-export", copy, "--format", "onnx-qdq", "--force")
    seconds = time.monotonic() - started
    _command(
        "qnas-export",
        copy,
        "--format",
        "onnx-qdq",
        "--format",
        "tflite",
        "--check",
        data / "Set14",
        "--force",
    )
    report = json.loads(copy.with_suffix(".parity.json").read_text())
    rivals = {"float32": folder / f"{name}_float32.onnx"}
    onnx.save(build_float32(found), rivals["float32"])
    if name in TWINS:
        rivals[TWINS[name]] = folder / f"{TWINS[name]}.onnx"
        onnx.save(build_qdq(load_found(EXAMPLES / TWINS[name] / "found.pt")), rivals[TWINS[name]])
    ratios = {
        f"{label}, {shape}": _ratio(rival, model, shape)
        for label, rival in rivals.items()
        for shape in ("128x128", "180x320")
    }
    return Measured(
        name,
        found,
        quality,
        report,
        seconds,
        (model.stat().st_size, copy.with_suffix(".tflite").stat().st_size),
        ratios,
    )


def _command(*words: object) -> None:
    subprocess.run(
        [Path(sys.executable).with_name(str(words[0])), *map(str, words[1:])],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def _ratio(rival: Path, model: Path, shape: str) -> str:
    """Latency of `rival` over that of `model`, with its 95 % interval: interleaved rounds, one thread."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "bench.json"
        _command(
            "qnas-bench", model, rival, "--device", "cpu", "--shape", shape, "--min-time", 6, "--json", report
        )
        ratio: dict[str, Any] = json.loads(report.read_text())["models"][1]["ratio_to_first"]
    return f"{ratio['value']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"


def command_of(name: str, found: Found) -> str:
    """The qnas-train call that made `found`, from its own record."""
    recipe = found.training["recipe"]
    named = {name: find_architecture(name) for name in named_architectures()}
    same = [name for name, architecture in named.items() if architecture == found.architecture]
    same += [
        f"{n} --levels lloyd" for n, a in named.items() if replace(a, levels="lloyd") == found.architecture
    ]
    wide = [f"{n} --bits 32" for n, a in named.items() if a.with_bits(32) == found.architecture]
    words = [
        f"qnas-train {(same + wide)[0]}",
        *(f"--data ../shared/data/{folder}" for folder in recipe["data"]),
    ]
    if "validation" in found.training:
        words.append(f"--validate ../shared/data/{found.training['validation']['folder']}")
    flags = {
        "steps": "steps",
        "batch": "batch",
        "patch": "patch",
        "learning_rate": "lr",
        "loss": "loss",
        "seed": "seed",
    }
    words += [f"--{flag} {recipe[key]}" for key, flag in flags.items()]
    if recipe["warm_start"]:
        words.append(f"--warm-start examples/{FULL_PRECISION[name]}/found.pt")
    words += [f"--threads {found.training['threads']}", f"-o examples/{name}/found.pt"]
    return " \\\n        ".join(words)


def card(m: Measured, full: Measured | None) -> str:
    """The README of one example."""
    record, cost = m.found.training, network_cost(m.found.network.layers, 32, 32)
    lines = [
        f"# {m.name}",
        "",
        f"Trained on {', '.join(record['recipe']['data'])}: {record['recipe']['steps']} steps, "
        f"{record['seconds'] / 60:.0f} minutes on {record['threads']} thread(s) of {record['device']} "
        f"(shared with other work), torch {record['versions']['torch']}.",
        "",
        f"    {command_of(m.name, m.found)}",
        "",
        f"{cost.parameters} parameters, {cost.weight_bytes} bytes of weights; at 32x32 "
        f"{cost.macs / 1e6:.2f} MMACs and {cost.bitops / PAPER_G:.3f} GBitOps (G = 2^30, as in the paper).",
        "",
        "| x4 | PSNR-Y Set5 | SSIM Set5 | PSNR-Y Set14 | SSIM Set14 |",
        "|---|---|---|---|---|",
    ]
    for row in filter(None, (full, m)):
        cells = " | ".join(f"{row.quality[s].psnr:.3f} dB | {row.quality[s].ssim:.4f}" for s in SETS)
        lines.append(f"| {row.name} | {cells} |")
    if m.report and m.ratios:
        lines += ["", "Exported as `onnx-qdq` and `tflite`, the images of Set14:", ""]
        for runtime, difference in _against_torch(m.report):
            lines.append(
                f"- {runtime}: {share(difference['equal'])} of {difference['values']} values equal to torch, "
                f"largest difference {difference['largest_difference']}."
            )
        lines.append(f"- Integer convolutions in the graph that onnxruntime runs: {_convolutions(m.report)}.")
        onnx_bytes, tflite_bytes = m.file_bytes
        lines.append(f"- ONNX {onnx_bytes} bytes, TFLite {tflite_bytes} bytes.")
        lines.append(
            f"- The ONNX file and its report on the sample photographs take {m.export_seconds:.1f} s."
        )
        lines += [
            f"- Latency of {label}, over this one's, 1 thread: {ratio}." for label, ratio in m.ratios.items()
        ]
    return "\n".join([*lines, "", "Measured by `python benchmarks/examples.py --data ../shared/data`.", ""])


def _against_torch(report: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(runtime, difference) of the runtimes whose arithmetic is exact."""
    runtimes = (r for file in report["files"] for r in file["runtimes"] if r["gated"])
    return [(f"{r['runtime']} {r['version']}", r["against"]["torch"]) for r in runtimes]


def _convolutions(report: dict[str, Any]) -> str:
    fusion = report["files"][0]["fusion"]
    return f"{fusion['integer']} of {fusion['total']}"


def table(rows: list[Measured], bicubic: dict[str, Quality]) -> str:
    """docs/examples.md: all networks in one table."""
    lines = [
        "# The sample networks",
        "",
        "Made by `python benchmarks/examples.py --data ../shared/data`; each card in `examples/` has the",
        "training command. PSNR on Y in dB, x4, border 4; GBitOps at 32x32 with the paper's G = 2^30; the",
        "latency of the float32 twin over that of the integer model at 180x320, one thread, 95 % interval.",
        "",
        "| network | Set5 | Set14 | GBitOps | weight bytes | equal pixels | integer convolutions | latency |",
        "|---|---|---|---|---|---|---|---|",
        f"| bicubic | {bicubic['Set5'].psnr:.2f} | {bicubic['Set14'].psnr:.2f} | | | | | |",
    ]
    for m in rows:
        cost = network_cost(m.found.network.layers, 32, 32)
        equal = share(min(d["equal"] for _, d in _against_torch(m.report))) if m.report else ""
        convolutions = _convolutions(m.report) if m.report else ""
        ratio = (m.ratios or {}).get("float32, 180x320", "")
        lines.append(
            f"| {m.name} | {m.quality['Set5'].psnr:.3f} | {m.quality['Set14'].psnr:.3f} "
            f"| {cost.bitops / PAPER_G:.3f} | {cost.weight_bytes} | {equal} | {convolutions} | {ratio} |"
        )
    return "\n".join([*lines, "", *_levels(rows), ""])


def _levels(rows: list[Measured]) -> list[str]:
    """Uniform and Lloyd levels side by side."""
    named = {m.name: m for m in rows}
    lloyd, uniform = named["espcn-w4-lloyd"], named["espcn-w4"]
    lines = [
        "## Uniform and Lloyd levels (decision 0008)",
        "",
        "ESPCN at 4 bits, both exact; latency in onnxruntime over that of the uniform one. A lookup",
        "(Cast and Gather) is no part of a fused convolution.",
        "",
        "| levels | Set5 | Set14 | latency, 128x128 | latency, 180x320 |",
        "|---|---|---|---|---|",
    ]
    for m, title in ((uniform, "uniform"), (lloyd, "Lloyd")):
        times = [
            "1" if m is uniform else _inverse((lloyd.ratios or {})[f"espcn-w4, {shape}"])
            for shape in ("128x128", "180x320")
        ]
        scores = [f"{m.quality[s].psnr:.3f}" for s in SETS]
        lines.append(f"| {title} | {' | '.join([*scores, *times])} |")
    return lines


def _inverse(ratio: str) -> str:
    """Of `2.00 (1.90 to 2.10)`: of the value, and of the interval turned round."""
    value, low, high = (1 / float(number) for number in re.findall(r"[\d.]+", ratio))
    return f"{value:.2f} ({high:.2f} to {low:.2f})"


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), default=ROOT.parent / "shared" / "data")
def main(data: Path) -> None:
    torch.set_num_threads(1)
    names = sorted(path.parent.name for path in EXAMPLES.glob("*/found.pt"))
    with tempfile.TemporaryDirectory() as folder:
        rows = {}
        for name in names:
            click.echo(f"measuring {name}")
            rows[name] = measure(name, data, Path(folder))
    for name, row in rows.items():
        full = rows.get(FULL_PRECISION.get(name, ""))
        (EXAMPLES / name / "README.md").write_text(card(row, full))
    bicubic = {
        s: evaluate(lambda lr: resize_bicubic(lr, (lr.shape[0] * 4, lr.shape[1] * 4)), data / s, 4)
        for s in SETS
    }
    (ROOT / "docs" / "examples.md").write_text(table(list(rows.values()), bicubic))
    click.echo(table(list(rows.values()), bicubic))


if __name__ == "__main__":
    main()
