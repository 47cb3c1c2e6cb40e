"""How well `qnas-bench fit` predicts networks that it never saw; writes docs/latency-model.md.

python benchmarks/latency_model.py --work FOLDER

Fit: random members of both spaces, as `fit` makes them. Truth: exported networks of other random members,
timed as a whole. Every measurement is a file under --work, and a run that is stopped goes on where it was.
With --seconds it stops by itself (exit code 3), so that a shared machine can be reserved piece by piece.
"""

import json
import sys
import time
from collections import defaultdict
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import torch

from qnas.export.model import build_qdq
from qnas.network.architecture import Choice
from qnas.runtime_bench.environment import current_environment
from qnas.runtime_bench.latency_model.fitting import assemble, evaluate, predicted
from qnas.runtime_bench.latency_model.kernels import Kernel
from qnas.runtime_bench.latency_model.networks import SPACES, random_member, untrained_model, write_members
from qnas.runtime_bench.latency_model.operations import built_in_spaces, image_sizes, operation_times
from qnas.runtime_bench.latency_model.prediction import predict
from qnas.runtime_bench.latency_model.rank import spearman
from qnas.runtime_bench.latency_model.sampling import Network, Sample, joined, sample
from qnas.runtime_bench.latency_model.table import Accuracy, LatencyModel
from qnas.runtimes.inputs import parse_shape
from qnas.runtimes.onnxruntime import CPU_DEVICE
from qnas.search.space.candidate_costs import counted_costs
from qnas.search.space.latency_costs import latency_costs
from qnas.search.space.search_space import SearchSpace, find_space
from qnas.testing.random_networks import build

ROOT = Path(__file__).resolve().parent.parent
SIZES = ("64x64", "128x128")
FIT, HELD_OUT, ROUNDS = 60, 30, 6
SUMMED = 60  # random architectures of each space
WIDTH = 24  # channels that one fit does without
FIRST_HELD_OUT = 10_000  # seeds of members that the fit cannot have drawn
HEAD = """# The latency model

Made by `python benchmarks/latency_model.py --work FOLDER` on {cpu} ({cores} cores, virtual),
{runtime}, one thread.

`qnas-bench fit` runs random members of the search spaces under onnxruntime's profiler and keeps the time of
every kernel: a node of the graph that really runs, by its type, shapes and attributes. `qnas-bench predict`
adds up the kernels of a network, with a constant for a node and one for a run. Between measured kernels a law
in outputs, inputs and padded multiply-adds is corrected by its neighbours (Gaussian process).

Fit: {fit} random members of each space at {sizes}, {rounds} rounds over all, {kernels} kernels. Truth:
{held} *exported* networks of each space that the fit never saw, the median of {rounds} rounds of 12 runs, not
profiled, measured among those of the fit. Members have 12 to 36 (basic) or 48 (rfdn) channels, 1 to 3 blocks,
scales 2 to 4, 4 and 8 bits mixed, half of them ADQ.

| networks | size | measured, ms | Spearman | mean error (MAPE) | within 5 % | within 10 % | largest |
|---|---|---|---|---|---|---|---|
{rows}

Aim: Spearman 0.98, MAPE 5 %, 95 % within 10 %. For comparison, from their own papers and devices: nn-Meter
99 % within 10 % (a phone's CPU, float), LitePred 95.7 % within 5 % (INT8).

## What the fit has not seen

Networks that have what the fit lacks:

| the fit lacks | networks | Spearman | MAPE | within 10 % |
|---|---|---|---|---|
{lacking}

Predict at sizes that were fitted, and give `fit` the widths that matter: far from measured kernels the law is
all there is, and `predict` names what it extrapolates.

## The machine

Two virtual cores with other work on them now and then. The same network in {rounds} rounds: half of the
rounds lie within {inner:.1%} of their median, 95 % within {outer:.0%}; one round differs from the median of
the others by {floor:.1%} on average. Drift was not corrected, and no reference was measured: rounds over all
networks turn drift into noise, and medians over rounds and networks take most of it away. By how many rounds,
for fit and truth alike, the worst of the four groups (two spaces, two sizes) in each column:

| rounds | Spearman | MAPE | within 10 % |
|---|---|---|---|
{by_rounds}

The plan was 4 rounds; 2 more over everything were added when the truth of one basic network proved disturbed.

## What a search adds up

`qnas-search run --cost latency` adds up the table's `operations`, one for each searched layer. The sums of
{summed} random architectures of each space at its own width (36 and 48 channels, 4 and 8 bits, ADQ), against
what `predict` says of the whole network:

| space | size | whole, ms | sums, ms | whole less sum, ms (90 % of networks) | Spearman of sums | of BitOps |
|---|---|---|---|---|---|---|
{sums}

What is left over belongs to no choice: batch norms, adds, fusions and attention, the shuffle; and
requantizing, where readers of one tensor have different bits. Sums are too low by about a constant, which
leaves comparisons as they are. One price is that of two choices at once: the exporter runs the tail between
the phases of the shuffle, cheaply, only if *all* of it is narrow. With `growth2` in one layer of the tail of
the basic space the other layer becomes dear as well, and the sum does not know; `basic, narrow tail` is that
space without.

A run costs {run:.0f} us besides its kernels, and {node:+.1f} us a node: below zero where the
profiler slows the kernels that it watches.
"""


@click.command()
@click.option("--work", type=click.Path(path_type=Path), required=True)
@click.option("--seconds", default=1e9, help="Stop after these, with exit code 3.")
@click.option("--prepare", is_flag=True, help="Write the networks only.")
def main(work: Path, seconds: float, prepare: bool) -> None:
    torch.set_num_threads(1)
    end = time.monotonic() + seconds
    models = networks(work / "models")
    if prepare:
        return
    for number, path, size in product(range(ROUNDS), models, SIZES):
        target = work / "samples" / f"{path.stem}.{size}.{number}.json"
        if target.exists():
            continue
        if time.monotonic() > end:
            click.echo(f"stopped before {target.name}")
            sys.exit(3)
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps(asdict(sample(path, (parse_shape(size),), 1))))
    click.echo(document(load(work / "samples"), work))


def networks(folder: Path) -> list[Path]:
    """All of them, fit and held out, in an order that mixes them."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "done").exists():
        for space in SPACES:
            for path in write_members(space, FIT, folder):
                path.rename(path.with_name(f"fit-{path.name}"))
            for seed in range(FIRST_HELD_OUT, FIRST_HELD_OUT + HELD_OUT):
                exported = build_qdq(build(random_member(SPACES[space], seed), seed))
                onnx.save(exported, folder / f"held-{space}-{seed}.onnx")
        (folder / "done").touch()
    paths = sorted(folder.glob("*.onnx"))
    return [paths[index] for index in np.random.default_rng(0).permutation(len(paths))]


Key = tuple[str, str]  # name of the network, size


def load(folder: Path) -> dict[Key, list[Sample]]:
    """The rounds of every network at every size."""
    found: dict[Key, list[Sample]] = defaultdict(list)
    for path in sorted(folder.glob("*.json")):
        name, size, _, _ = path.name.split(".")
        row = json.loads(path.read_text())
        found[name, size].append(
            Sample(tuple(map(_kernel, row["kernels"])), tuple(row["kernel_ns"]), row["total_ns"])
        )
    return found


def _kernel(row: dict[str, Any]) -> Kernel:
    shapes = tuple(map(tuple, row["inputs"]))
    return Kernel(row["op"], tuple(row["types"]), shapes, tuple(row["output"]), row["attributes"])


def document(rounds: dict[Key, list[Sample]], work: Path) -> str:
    """Write docs/latency-model.md, and the table itself under `work`."""
    fit = {key: value for key, value in rounds.items() if key[0].startswith("fit")}
    held = {key: joined(value) for key, value in rounds.items() if key[0].startswith("held")}
    model = assemble(fit, 1)
    rows = []
    for space, size in product(SPACES, (*SIZES, "both")):
        chosen = _chosen(held, space, size)
        rows.append(_row(space, size, model, chosen))
    operations = operation_times(model, built_in_spaces(), image_sizes(list(map(parse_shape, SIZES))))
    accuracy = evaluate(model, list(held.values()))
    table = replace(model, accuracy=accuracy, operations=tuple(operations))
    (work / "cpu.json").write_text(table.to_json())
    environment = current_environment(CPU_DEVICE.version())
    inner, outer, floor = spread(rounds)
    text = HEAD.format(
        cpu=environment.cpu, cores=environment.cores, runtime=environment.runtime, fit=FIT, held=HELD_OUT,
        sizes=" and ".join(SIZES), rounds=ROUNDS, kernels=len(model.kernels), rows="\n".join(rows),
        lacking="\n".join(lacking(fit, held)), by_rounds="\n".join(by_rounds(rounds)),
        inner=inner, outer=outer, floor=floor, summed=SUMMED, sums="\n".join(sums(model, work)),
        run=model.run_ns / 1e3, node=model.node_ns / 1e3,
    )  # fmt: skip
    (ROOT / "docs" / "latency-model.md").write_text(text)
    return text


def _chosen(held: dict[Key, Network], space: str, size: str) -> list[Network]:
    return [value for (name, at), value in held.items() if f"-{space}-" in name and size in (at, "both")]


def _row(space: str, size: str, model: LatencyModel, chosen: list[Network]) -> str:
    seen: Accuracy = evaluate(model, chosen)
    times = [each.total_ns / 1e6 for each in chosen]
    largest = max(abs(predicted(model, each) / each.total_ns - 1) for each in chosen)
    return (
        f"| {seen.networks} {space} | {size} | {min(times):.1f} to {max(times):.1f} | {seen.spearman:.3f} | "
        f"{seen.mape:.1%} | {seen.within_5:.0%} | {seen.within_10:.0%} | {largest:.0%} |"
    )


def lacking(fit: dict[Key, list[Sample]], held: dict[Key, Network]) -> list[str]:
    """Fits without a size, and without every network of one width, on networks that have it."""
    rows = []
    for title, has in (
        (f"networks of {WIDTH} channels", lambda key: _channels(key[0]) == WIDTH),
        ("128x128", lambda key: key[1] == "128x128"),
        ("64x64", lambda key: key[1] == "64x64"),
    ):
        model = assemble({key: value for key, value in fit.items() if not has(key)}, 1)
        seen = evaluate(model, [value for key, value in held.items() if has(key)])
        rows.append(
            f"| {title} | {seen.networks} | {seen.spearman:.3f} | {seen.mape:.1%} | {seen.within_10:.0%} |"
        )
    return rows


def _channels(name: str) -> int:
    _, space, seed = name.split("-")
    return random_member(SPACES[space], int(seed)).channels


def sums(model: LatencyModel, work: Path) -> list[str]:
    """Random architectures of the spaces that a search knows: their sums, and the whole networks."""
    basic = find_space("basic")
    narrow = tuple(op for op in basic.operations["*"] if not op.startswith("growth"))
    spaces = {
        "basic": basic,
        "basic, narrow tail": replace(basic, operations={"tail.*": narrow, **basic.operations}),
        "rfdn": find_space("rfdn"),
    }
    rows = []
    for (title, space), size in product(spaces.items(), SIZES):
        [(height, width)] = image_sizes([parse_shape(size)])
        costs = latency_costs(space, work / "cpu.json", height, width)
        bitops = counted_costs(space, "bitops", height, width)
        drawn = [random_choices(space, seed) for seed in range(SUMMED)]
        added = np.array([costs.of(each) for each in drawn])
        whole = np.array([_whole(model, space, each, size, work) for each in drawn])
        low, high = np.percentile(whole - added, [5, 95])
        by_bitops = spearman([bitops.of(each) for each in drawn], whole)
        rows.append(
            f"| {title} | {size} | {min(whole):.1f} to {max(whole):.1f} | {min(added):.1f} to "
            f"{max(added):.1f} | {low:.2f} to {high:.2f} | {spearman(added, whole):.3f} | {by_bitops:.3f} |"
        )
    return rows


def random_choices(space: SearchSpace, seed: int) -> dict[str, Choice]:
    """Any candidate of every variable, each as likely."""
    rng = np.random.default_rng(seed)
    return {
        name: Choice(str(rng.choice(space.candidates(name))), int(rng.choice(space.bits)))
        for name in space.variables
    }


def _whole(
    model: LatencyModel, space: SearchSpace, choices: dict[str, Choice], size: str, work: Path
) -> float:
    """Predicted milliseconds of the network that the exporter would write."""
    path = work / "summed.onnx"
    onnx.save(untrained_model(space.architecture(choices), 0), path)
    return predict(path, model, (parse_shape(size),)).ms


def by_rounds(rounds: dict[Key, list[Sample]]) -> list[str]:
    """The worst group, by how many rounds fit and truth have."""
    rows = []
    for count in range(1, ROUNDS + 1):
        some = {key: value[:count] for key, value in rounds.items()}
        model = assemble({key: value for key, value in some.items() if key[0].startswith("fit")}, 1)
        held = {key: joined(value) for key, value in some.items() if key[0].startswith("held")}
        seen = [evaluate(model, _chosen(held, space, size)) for space, size in product(SPACES, SIZES)]
        worst = (min(s.spearman for s in seen), max(s.mape for s in seen), min(s.within_10 for s in seen))
        rows.append(f"| {count} | {worst[0]:.3f} | {worst[1]:.1%} | {worst[2]:.0%} |")
    return rows


def spread(rounds: dict[Key, list[Sample]]) -> tuple[float, float, float]:
    """Half, and 95 %, of rounds lie so near their median; mean error of one against the others' median."""
    near, alone = [], []
    for samples in rounds.values():
        totals = np.array([each.total_ns for each in samples])
        near += list(np.abs(totals / np.median(totals) - 1))
        alone += [
            abs(totals[i] / np.median(np.delete(totals, i)) - 1)
            for i in range(len(totals))
            if len(totals) > 1
        ]
    return float(np.percentile(near, 50)), float(np.percentile(near, 95)), float(np.mean(alone))


if __name__ == "__main__":
    main()
