"""How often the gate errs: A/A and A/B trials with known slowdowns; writes the tables of docs/gate.md.

python benchmarks/gate_study.py [--scale 0.1] [--seconds 220]

Models are chains of equal integer convolutions: 20 against 20, 21 or 22 layers. In every other trial a second
process keeps one processor busy. With --shard 1/2 and --shard 2/2, side by side on two processors, each is
the load of the other instead. Trials are appended to --trials as they end; a second call goes on where the
first one stopped (Ctrl-C, or --seconds), and the page is written when all are there.

--busy 20 is a study of its own: 60 trials of two kinds, all beside so many processes that never wait.
"""

import json
import math
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from rich.progress import Progress

from qnas.runtime_bench.environment import current_environment
from qnas.runtime_bench.gate.pairs import Cpus, Drawn, measure_fresh, shared_cpus
from qnas.runtime_bench.gate.request import Request
from qnas.runtime_bench.gate.run import run_gate
from qnas.runtime_bench.gate.sequential import Status
from qnas.runtime_bench.model_files import ModelFiles, model_files
from qnas.runtime_bench.workers.process import LoadOptions
from qnas.runtime_bench.workers.runner import Runner
from qnas.runtime_bench.workers.start import start_runner
from qnas.runtimes.names import parse_device

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "gate.md"
CHANNELS, SIDE, LAYERS = 32, 88, 20
TRUTH_SECONDS = 60.0
NONE, BUSY, TRIAL = LOADS = ("none", "a busy process", "another trial")
DECIDED = "decided >= 60 %, none wrong"


@dataclass(frozen=True)
class Kind:
    """Trials of one sort: `layers` against 20 at a threshold, and how often `wanted` must be the verdict."""

    name: str
    layers: int
    threshold: float
    trials: int
    wanted: str


KINDS = (
    Kind("A/A", 20, 0.05, 200, "fail <= 1 %"),
    Kind("A/B, +10 %", 22, 0.05, 50, "fail >= 95 %"),
    Kind("A/B, +5 %", 21, 0.02, 50, "fail >= 90 %"),
)

HEAVY = tuple(Kind(name, layers, 0.05, 60, DECIDED) for name, layers in (("A/A", 20), ("A/B, +10 %", 22)))


def chain(layers: int) -> onnx.ModelProto:
    """So many equal 3x3 convolutions in QDQ form, which onnxruntime runs in integers."""
    rng = np.random.default_rng(0)
    constants = {
        "scale": np.float32(1 / 64), "zero": np.uint8(128), "weight_scale": np.float32(1 / 512),
        "weight_zero": np.int8(0),
    }  # fmt: skip
    nodes, read = [], "image"
    for layer in range(layers):
        constants[f"w{layer}"] = rng.integers(-127, 128, (CHANNELS, CHANNELS, 3, 3)).astype(np.int8)
        written = "upscaled" if layer == layers - 1 else f"x{layer}"
        nodes += [
            helper.make_node("DequantizeLinear", [read, "scale", "zero"], [f"d{layer}"]),
            helper.make_node("DequantizeLinear", [f"w{layer}", "weight_scale", "weight_zero"], [f"v{layer}"]),
            helper.make_node("Conv", [f"d{layer}", f"v{layer}"], [f"c{layer}"], pads=[1] * 4),
            helper.make_node("QuantizeLinear", [f"c{layer}", "scale", "zero"], [written]),
        ]
        read = written
    ends = [
        helper.make_tensor_value_info(name, TensorProto.UINT8, [1, CHANNELS, SIDE, SIDE])
        for name in ("image", "upscaled")
    ]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """So many processes that never wait."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def gate(folder: Path, kind: Kind, seed: int) -> dict[str, Any]:
    """One gate, as `qnas-bench gate --against` runs it."""
    new, old = folder / f"{kind.layers}.onnx", folder / f"{LAYERS}.onnx"
    begun = time.monotonic()
    report = run_gate(Request(new, old, load=LoadOptions(seed=seed), max_slowdown=kind.threshold))
    assert report.timed is not None
    found = {"status": report.status.value, "seconds": time.monotonic() - begun, "rows": len(report.rows)}
    return found | {"seen": report.timed.load} | ratios(report.timed.drawn)


def truth(folder: Path, kind: Kind, seed: int) -> dict[str, Any]:
    """A long series of pairs."""
    files = [model_files(folder / f"{layers}.onnx") for layers in (LAYERS, kind.layers)]
    starts = [partial(_start, each) for each in files]
    end, order = time.monotonic() + TRUTH_SECONDS, random.Random(seed)
    drawn = []
    while time.monotonic() < end:
        drawn.append(measure_fresh(starts, shared_cpus(1), order))
    return ratios(drawn)


def _start(model: ModelFiles, cpus: Cpus) -> Runner:
    return start_runner(model, parse_device("cpu"), LoadOptions(cpus=cpus))


def ratios(drawn: Sequence[Drawn]) -> dict[str, Any]:
    """What is kept of pairs."""
    return {
        "ratios": [each.latencies[1] / each.latencies[0] for each in drawn],
        "ratios_of_medians": [_ratio_of_medians(each) for each in drawn],
        "old_ms": statistics.median(each.latencies[0] for each in drawn) / 1e6,
    }


def _ratio_of_medians(drawn: Drawn) -> float:
    old, new = (statistics.median(ns for burst in rounds for ns in burst) for rounds in drawn.rounds)
    return new / old


def plan(kinds: tuple[Kind, ...], scale: float) -> list[tuple[str, int]]:
    """All trials, the kinds mixed evenly; what tells the true ratios comes first, where it is asked for."""
    wanted = KINDS[1:] if kinds is KINDS else ()
    truths = [(f"truth {kind.layers}", index) for kind in wanted for index in range(2)]
    places = [
        ((index + 0.5) / total, kind.name, index)
        for kind in kinds
        for total in [max(2, round(kind.trials * scale))]
        for index in range(total)
    ]
    return truths + [(name, index) for _, name, index in sorted(places)]


def trial(folder: Path, name: str, index: int, busy: int) -> dict[str, Any]:
    """Run one beside so many busy processes."""
    if name.startswith("truth"):
        return truth(folder, next(each for each in KINDS if f"truth {each.layers}" == name), index)
    kind = next(each for each in KINDS if each.name == name)
    with busy_processes(busy):
        return gate(folder, kind, index)


def wilson(successes: int, trials: int) -> str:
    """The 95 % interval of a share (Wilson, 1927), in percent."""
    z = statistics.NormalDist().inv_cdf(0.975)
    share, scale = successes / trials, 1 + z * z / trials
    middle = (share + z * z / (2 * trials)) / scale
    reach = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2)) / scale
    return f"{100 * max(0, middle - reach):.1f} to {100 * min(1, middle + reach):.1f}"


def page(trials: list[dict[str, Any]], scale: float) -> str:
    """The tables."""
    old = statistics.median(each["old_ms"] for each in trials)
    environment = current_environment("")
    command = "python benchmarks/gate_study.py" + (f" --scale {scale:g}" if scale != 1 else "")
    lines = [
        f"Made by `{command}` on {environment.cpu}, {environment.usable_cores} processors, one thread; "
        f"the old model takes {old:.1f} ms. Intervals are Wilson's, of 95 %; seconds: median, 90 %, most.",
        "",
        "| trials | threshold | load | pass | fail | inconclusive | fail, interval | wanted | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    lines += [
        _row(trials, kind, loads)
        for kind in KINDS
        for loads in (*((load,) for load in LOADS), LOADS)
        if any(each["kind"] == kind.name and each["load"] in loads for each in trials)
    ]
    lines += ["", *_truths(trials), "", *_spread(trials)]
    return "\n".join(lines)


def heavy_page(trials: list[dict[str, Any]], busy: int, scale: float) -> str:
    """The table of a study beside `busy` processes; `by time`: decided without instructions."""
    command = f"python benchmarks/gate_study.py --busy {busy}" + (f" --scale {scale:g}" if scale != 1 else "")
    lines = [
        f"Made by `{command}`: every trial beside {busy} processes that never wait, on "
        f"{current_environment('').usable_cores} processors. The load is the mean that the gates saw.",
        "",
        "| trials | load | pass | fail | inconclusive | by time | seconds: median, most | wanted |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for kind in HEAVY:
        own = [each for each in trials if each["kind"] == kind.name]
        count = Counter(each["status"] for each in own)
        seconds = [each["seconds"] for each in own]
        cells = [
            f"{len(own)} x {kind.name}", f"{statistics.mean(each['seen'] for each in own):.0f}",
            *(str(count[status]) for status in (Status.PASS, Status.FAIL, Status.INCONCLUSIVE)),
            str(sum(each["rows"] == 1 and each["status"] != Status.INCONCLUSIVE for each in own)),
            f"{statistics.median(seconds):.0f}, {max(seconds):.0f}", kind.wanted,
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _row(trials: list[dict[str, Any]], kind: Kind, loads: tuple[str, ...]) -> str:
    own = [each for each in trials if each["kind"] == kind.name and each["load"] in loads]
    count = Counter(each["status"] for each in own)
    seconds = sorted(each["seconds"] for each in own)
    shown = [f"{100 * count[s] / len(own):.1f} %" for s in (Status.PASS, Status.FAIL, Status.INCONCLUSIVE)]
    times = f"{statistics.median(seconds):.1f}, {np.percentile(seconds, 90):.1f}, {seconds[-1]:.1f}"
    load = "all together" if loads == LOADS else loads[0]
    return (
        f"| {len(own)} x {kind.name} | {100 * kind.threshold:.0f} % | {load} | {' | '.join(shown)} | "
        f"{wilson(count[Status.FAIL], len(own))} % | {kind.wanted} | {times} |"
    )


def _truths(trials: list[dict[str, Any]]) -> Iterator[str]:
    for kind in KINDS[1:]:
        ratios = [r for each in trials if each["kind"] == f"truth {kind.layers}" for r in each["ratios"]]
        low, high = np.percentile(ratios, (25, 75))
        yield (
            f"True ratio of {kind.layers} to {LAYERS} layers: {statistics.median(ratios):.4f}, median of "
            f"{len(ratios)} pairs (quartiles {low:.4f} and {high:.4f}).  "
        )


def _spread(trials: list[dict[str, Any]]) -> list[str]:
    own = [each for each in trials if each["kind"] == KINDS[0].name]
    lines = [
        "How far single pairs of A/A are from 1:", "",
        "| latency of a process | pairs | median deviation | over 2 % | over 5 % | most |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for label, key in (("median", "ratios_of_medians"), ("10th percentile", "ratios")):
        off = np.abs(np.array([ratio for each in own for ratio in each[key]]) - 1)
        lines.append(
            f"| {label} | {len(off)} | {np.median(off):.2%} | {np.mean(off > 0.02):.1%} | "
            f"{np.mean(off > 0.05):.1%} | {off.max():.1%} |"
        )
    return lines


def write_page(name: str, text: str) -> None:
    """Between the marks of that name in docs/gate.md."""
    begin, end = (f"<!-- {name}: {place} -->" for place in ("begin", "end"))
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(begin)
    _, _, after = rest.partition(end)
    PAGE.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


@click.command()
@click.option("--trials", "path", type=click.Path(path_type=Path), default=Path("gate_study.jsonl"),
              show_default=True, help="Where trials are kept, one JSON object a line.")  # fmt: skip
@click.option("--shard", default="1/1", show_default=True, metavar="I/N", help="Every N-th trial from I on.")
@click.option("--scale", type=float, default=1.0, show_default=True, help="Share of the trials to run.")
@click.option("--seconds", type=float, help="Stop before the trial that may not end within these.")
@click.option("--busy", type=click.IntRange(2), help="The study beside so many busy processes.")
@click.option("--page/--no-page", "write", default=True, help="Write docs/gate.md at the end.")
def main(
    path: Path, shard: str, scale: float, seconds: float | None, busy: int | None, write: bool
) -> None:  # fmt: skip
    """Make the study."""
    done = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    wanted = plan(HEAVY if busy else KINDS, scale)
    known = {(each["kind"], each["index"]) for each in done}
    first, step = (int(part) for part in shard.split("/"))
    left = [each for each in wanted[first - 1 :: step] if each not in known]
    begun, longest = time.monotonic(), 0.0
    with tempfile.TemporaryDirectory() as name, path.open("a") as stream, Progress() as progress:
        for layers in {kind.layers for kind in KINDS}:
            onnx.save(chain(layers), Path(name) / f"{layers}.onnx")
        for kind, index in progress.track(left, description="trials"):
            if seconds is not None and time.monotonic() - begun + longest > seconds:
                raise SystemExit(f"{len(left)} trials were left at the start: call again to go on")
            start = time.monotonic()
            load = TRIAL if step > 1 else BUSY if index % 2 else NONE
            beside = busy or (load == BUSY)
            found = {"kind": kind, "index": index, "load": load} | trial(Path(name), kind, index, beside)
            longest = max(longest, 0 if kind.startswith("truth") else time.monotonic() - start)
            stream.write(json.dumps(found) + "\n")
            stream.flush()
            done.append(found)
    if step > 1:
        return  # a call without --shard, on the trials of all, writes the page
    chosen = [each for each in done if (each["kind"], each["index"]) in set(wanted)]
    text = heavy_page(chosen, busy, scale) if busy else page(chosen, scale)
    click.echo(text)
    if write:
        write_page("heavy" if busy else "study", text)


if __name__ == "__main__":
    main()
