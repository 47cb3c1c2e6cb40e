"""Do BitOps and MACs say which network is faster on an x86 processor? Writes docs/bitops-vs-latency.md.

python benchmarks/correlation.py --work FOLDER [--model cpu.json]

30 random members of each space in the forms that qnas-export chooses for each runtime. One device after the
other; what is measured stays under --work, and --only measures one device and ends.
"""

import json
from pathlib import Path
from typing import Any

import click
import onnx
import torch

from qnas.export.integers import integer_network
from qnas.export.targets import TARGETS, fitted
from qnas.export.to_onnx.writer import write_onnx
from qnas.export.to_tflite.writer import write_tflite
from qnas.runtime_bench.environment import current_environment
from qnas.runtime_bench.latency_model.correlation import Row, Settings, correlate, correlations
from qnas.runtime_bench.latency_model.networks import SPACES, random_member
from qnas.runtime_bench.latency_model.rank import spearman
from qnas.runtime_bench.latency_model.table import read_latency_model
from qnas.runtime_bench.workers.process import LoadOptions
from qnas.runtimes.names import parse_device
from qnas.testing.random_networks import build

ROOT = Path(__file__).resolve().parent.parent
SIZE = 128
COUNT, FIRST_SEED = 30, 10_000  # those of benchmarks/latency_model.py that no fit has seen
DEVICES = {"cpu": "onnxruntime", "litert:xnnpack": "litert", "openvino": "openvino"}  # device -> target
COSTS = ("architecture MACs", "architecture BitOps", "MACs", "BitOps", "executed BitOps", "predicted ms")
HEAD = """# BitOps and latency

Made by `python benchmarks/correlation.py --work FOLDER --model cpu.json` on {cpu};
one thread, images of {size}x{size}, {versions}. {networks} networks: {count} random members of each
space (12 to 48 channels, 1 to 3 blocks, every layer 4 or 8 bits by lot), random weights, in the form that
`qnas-export` chooses for each runtime. `cpu.json` is the latency model of
[latency-model.md](latency-model.md), which has seen none of them.

Spearman's rank correlation with measured latency, 95 % bootstrap interval over networks; Kendall's tau-b.

| device | cost | Spearman | interval | Kendall |
|---|---|---|---|---|
{rows}

*architecture* counts the network as searched; the others count the file as exported, padded channels and
dense groups included. *executed BitOps* multiply the bits of the containers: 8 by 8 everywhere here, so that
they order networks exactly as MACs do.

Within networks that have nearly the same MACs, which is what a search at a budget compares: rank correlation
over neighbours, windows of {window} networks in the order of architecture MACs.

| device | architecture BitOps | MACs of the file | predicted |
|---|---|---|---|
{near}

Across devices, latency against latency (Spearman):

| | {names} |
|---|{lines}
{across}

## In plain words

{words}
"""
WINDOW = 15


def show(done: float) -> None:
    """Progress, for logs."""
    click.echo(f"{done:.0%}")


@click.command()
@click.option("--work", type=click.Path(path_type=Path), required=True)
@click.option("--model", type=click.Path(path_type=Path), help="A file of qnas-bench fit.")
@click.option("--only", type=click.Choice(list(DEVICES)), help="Measure this device and end.")
def main(work: Path, model: Path | None, only: str | None) -> None:
    torch.set_num_threads(1)
    for device, target in DEVICES.items():
        networks(work / target, target)
        if only in (None, device) and not (work / f"{target}.json").exists():
            known = read_latency_model(model) if model and device == "cpu" else None
            load = LoadOptions(shapes=(f"{SIZE}x{SIZE}",))
            settings = Settings((device,), load, model=known)
            study = correlate(work / target, settings, show)
            (work / f"{target}.json").write_text(json.dumps(study.to_document()))
    if only is None:
        click.echo(document(work))


def networks(folder: Path, target: str) -> None:
    """Export all members for one target."""
    folder.mkdir(parents=True, exist_ok=True)
    for space, seed in ((s, n) for s in SPACES for n in range(FIRST_SEED, FIRST_SEED + COUNT)):
        path = folder / f"{space}-{seed}{'.tflite' if target == 'litert' else '.onnx'}"
        if path.exists():
            continue
        found = build(random_member(SPACES[space], seed), seed)
        network = fitted(integer_network(found), TARGETS[target])
        known = {"qnas.architecture": found.architecture.to_json()}
        if target == "litert":
            path.write_bytes(write_tflite(network, SIZE, SIZE, io="uint8", properties=known).data)
        else:
            exported = write_onnx(network, TARGETS[target])
            onnx.helper.set_model_props(exported, known)
            onnx.save(exported, path)


def document(work: Path) -> str:
    """Write docs/bitops-vs-latency.md from what was measured."""
    rows = {device: _rows(work / f"{target}.json") for device, target in DEVICES.items()}
    predicted = {row.name: row.costs["predicted ms"] for row in rows["cpu"] if "predicted ms" in row.costs}
    lines = []
    for measured in rows.values():
        lines += [
            f"| {c.device} | {c.cost} | {c.spearman:.3f} | {c.low:.3f} to {c.high:.3f} | {c.kendall:.3f} |"
            for c in sorted(correlations(measured), key=lambda c: COSTS.index(c.cost))
        ]
    versions = ", ".join(parse_device(device).device.version() for device in DEVICES)
    words = work / "words.md"
    text = HEAD.format(
        cpu=current_environment("").cpu, size=SIZE, versions=versions, networks=len(rows["cpu"]), count=COUNT,
        rows="\n".join(lines), window=WINDOW, near="\n".join(_near(rows, predicted)),
        names=" | ".join(DEVICES), lines="---|" * len(DEVICES), across="\n".join(_across(rows)),
        words=words.read_text().strip() if words.exists() else "",
    )  # fmt: skip
    (ROOT / "docs" / "bitops-vs-latency.md").write_text(text)
    return text


def _rows(path: Path) -> list[Row]:
    document: dict[str, Any] = json.loads(path.read_text())
    return [Row(row["name"], row["costs"], row["ms"]) for row in document["rows"]]


def _near(rows: dict[str, list[Row]], predicted: dict[str, float]) -> list[str]:
    lines = []
    for device, measured in rows.items():
        ordered = sorted(measured, key=lambda row: row.costs["architecture MACs"])
        windows = [ordered[at : at + WINDOW] for at in range(0, len(ordered) - WINDOW + 1, WINDOW)]
        cells = []
        for cost in ("architecture BitOps", "MACs"):
            cells.append(_mean(windows, device, {row.name: row.costs[cost] for row in measured}))
        cells.append(_mean(windows, device, predicted) if predicted else "")
        lines.append(f"| {device} | {' | '.join(cells)} |")
    return lines


def _mean(windows: list[list[Row]], device: str, costs: dict[str, float]) -> str:
    each = [spearman([costs[row.name] for row in w], [row.ms[device] for row in w]) for w in windows]
    return f"{sum(each) / len(each):.3f}"


def _across(rows: dict[str, list[Row]]) -> list[str]:
    times = {device: {row.name: row.ms[device] for row in measured} for device, measured in rows.items()}
    lines = []
    for left in DEVICES:
        cells = []
        for right in DEVICES:
            both = sorted(times[left].keys() & times[right].keys())
            cells.append(f"{spearman([times[left][n] for n in both], [times[right][n] for n in both]):.3f}")
        lines.append(f"| {left} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
