"""What calibration is worth: quality and latency of integer models of trained networks; writes
docs/calibration-study.md.

python benchmarks/calibration_networks.py --work NETWORKS --data ../shared/data
python benchmarks/calibration_study.py --networks NETWORKS --work FOLDER --data ../shared/data

Every result is a file in FOLDER, and a second call makes what is missing, so it can be stopped at any time.
The page shows what is there. `--part` makes some of it alone: latency wants a quiet machine.
"""

import json
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import onnxruntime
from calibration_networks import NAMES
from calibration_rivals import METHODS, static_quantization, with_clip
from numpy.typing import NDArray

from qnas.calibration.calibrate import Run, Settings, run
from qnas.calibration.candidates import CLIPPED, CONTROL, Candidate, candidates
from qnas.calibration.document import to_json
from qnas.calibration.judge import as_bytes
from qnas.calibration.prepare.clip_free import without_clip
from qnas.calibration.prepare.float_model import FloatModel, Runner, read_float_model
from qnas.calibration.ptq.integer_model import IntegerRunner, PtqOptions, quantized
from qnas.export.from_qdq.reader import read_qdq
from qnas.export.targets import TARGETS, fitted
from qnas.export.to_onnx.writer import write_onnx
from qnas.export.to_tflite.writer import write_tflite
from qnas.images.evaluation import pairs
from qnas.images.quality import psnr_y
from qnas.onnx.session import open_session
from qnas.runtime_bench import benchmark as bench
from qnas.runtime_bench.environment import current_environment
from qnas.runtime_bench.workers.process import LoadOptions

PAGE = Path(__file__).resolve().parent.parent / "docs" / "calibration-study.md"
MARKS = ("<!-- study: begin -->", "<!-- study: end -->")
PARTS = ("models", "quality", "latency")
IMAGES = "BSDS200"  # of the calibration, in half of which the networks have seen patches
TESTS = ("Set5", "Set14", "BSDS500")  # no photograph of the last is in BSDS200
PATCH = 64  # a third or a fourth of a photograph has no room for 96
SIZE = (180, 320)  # of the latency's input
DEVICES = {  # name: device, target
    "onnxruntime": ("cpu", "onnxruntime"),
    "LiteRT": ("litert:xnnpack", "litert"),
    "OpenVINO": ("openvino", "openvino"),
}
FREE, NAIVE = "clip-free", "naive"
CLIPPED_PERCENTILE = "natural, percentile, clipped"
WITH_CLIP = {CLIPPED: "min-max", CLIPPED_PERCENTILE: "percentile"}
RIVALS = tuple(f"quantize_static, {method}" for method in METHODS)
Upscale = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


@dataclass(frozen=True)
class Network:
    """One trained network, and the folder of all that is made of it."""

    name: str
    source: Path
    folder: Path

    @cached_property
    def original(self) -> FloatModel:
        """As it is in its file."""
        return read_float_model(self.source)

    def file(self, label: str, suffix: str = ".onnx") -> Path:
        """Of the model `label`."""
        return self.folder / f"{label.replace(', ', '-').replace(' ', '-')}{suffix}"

    def result(self, name: str) -> Any:
        """What was found out before, None if nothing was."""
        path = self.file(name, ".json")
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def keep(self, name: str, found: Any) -> None:
        """Write a result, whole or not at all."""
        path = self.file(name, ".json")
        path.with_suffix(".part").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        path.with_suffix(".part").rename(path)
        click.echo(f"{self.name}: {name}", err=True)


# Models --------------------------------------------------------------------------------------------------


def make_models(network: Network, data: Path) -> None:
    """The calibration and the integer model of each candidate, then the rivals."""
    if network.result("calibration") is None:
        found = run(network.source, [data / IMAGES], Settings(patch=PATCH, hr=True, threads=1))
        for each in with_clipped(network, found):
            save(network.file(each.name), quantized(each.network, each.ranges, each.options, found.weights))
        for method, label in zip(METHODS, RIVALS, strict=True):
            static_quantization(network.original, found.images, method, network.file(label))
        static_quantization(without_clip(network.original)[0], found.images, "min-max", network.file(NAIVE))
        network.keep("calibration", json.loads(to_json(found.calibration)))


def with_clipped(network: Network, found: Run) -> Iterator[Candidate]:
    """The candidates, and those that keep the clip: of a linear output, the one that its user would add."""
    yield from (each for each in found.found if each.name != CLIPPED)
    original = network.original
    if not without_clip(original)[1].nodes:
        path = network.folder / "with-clip.float"
        with_clip(network.source, path, original.white)
        original = read_float_model(path)
    stripped, clip = without_clip(original)
    for name, observer in WITH_CLIP.items():
        known = candidates(stripped, original, clip, found.watched, observer, PtqOptions())
        yield from (replace(each, name=name) for each in known if each.name == CLIPPED)


def save(path: Path, model: onnx.ModelProto) -> None:
    """An ONNX file, whole or not at all."""
    onnx.save(model, path.with_suffix(".part"))
    path.with_suffix(".part").rename(path)


def chosen(network: Network) -> str:
    """The candidate that was chosen; all of them are clip-free here."""
    name = str(network.result("calibration")["decision"]["chosen"])
    if name == CLIPPED:
        raise RuntimeError(f"{network.name}: the clip was kept")
    return name


# Quality -------------------------------------------------------------------------------------------------


def float_upscaler(model: Runner | Callable[[NDArray[Any]], NDArray[np.float32]]) -> Upscale:
    """Its pixels as an image file has them."""

    def upscale(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return as_bytes(model(image[None].astype(np.float32)))[0]

    return upscale


def upscaler(network: Network, label: str) -> Upscale:
    """A model by its label; that of a rival is float outside."""
    original = network.original
    if label == "float":
        return float_upscaler(Runner(original))
    path = network.file(label)
    if label not in (*RIVALS, NAIVE):
        return float_upscaler(IntegerRunner(original, onnx.load(path)))
    session = open_session(path, 1)
    return float_upscaler(
        lambda pixels: original.pixels(session.run(None, {original.input: original.feed(pixels)})[0])
    )


def difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """PSNR in dB over all values."""
    mean = float(np.mean((a.astype(np.float64) - b) ** 2))
    return math.inf if mean == 0 else 10 * math.log10(255**2 / mean)


def measure_quality(network: Network, data: Path, photographs: int) -> None:
    """PSNR-Y against HR and PSNR against the clipped float network of every model on every test set."""
    scores = network.result("calibration")["decision"]["scores"]
    known = dict.fromkeys((*(each["name"] for each in scores), *WITH_CLIP, *RIVALS, NAIVE))
    labels = [label for label in known if network.file(label).exists()]
    for name in TESTS:
        if network.result(f"quality-{name}") is not None:
            continue
        models = {label: upscaler(network, label) for label in ("float", *labels)}
        found: dict[str, dict[str, list[float]]] = {label: {"hr": [], "float": []} for label in models}
        scale = network.original.scale
        for index, (lr, hr) in enumerate(pairs(data / name, scale)):
            if index == photographs:
                break
            wanted = models["float"](lr)
            for label, upscale in models.items():
                sr = wanted if label == "float" else upscale(lr)
                found[label]["hr"].append(psnr_y(sr, hr, scale))
                if label != "float":
                    found[label]["float"].append(difference(sr, wanted))
        network.keep(f"quality-{name}", found)


# Latency -------------------------------------------------------------------------------------------------


def measure_latency(network: Network) -> None:
    """The clip-free model against the one with the clip, in every runtime that runs both."""
    for runtime, (device, target) in DEVICES.items():
        if network.result(f"latency-{runtime}") is not None:
            continue
        found: dict[str, Any]
        try:
            found = ratio([exported(network, name, target) for name in (CLIPPED, chosen(network))], device)
        except Exception as error:  # a runtime that does not run one of them is a row of the table
            found = {"problem": str(error)}
        network.keep(f"latency-{runtime}", found)


def ratio(paths: Sequence[Path], device: str) -> dict[str, Any]:
    """Latency of the second model over that of the first, with its interval."""
    load = LoadOptions(shapes=(f"{SIZE[0]}x{SIZE[1]}",))
    report = bench.benchmark(paths, bench.Settings(devices=(device,), load=load))
    if report.failures:
        raise RuntimeError(report.failures[0].reason)
    first, second = report.models
    assert second.ratio is not None
    value = second.ratio
    return {
        "ms": first.latency.value / 1e6,
        "ratio": value.value,
        "low": value.low,
        "high": value.high,
        "warnings": [*first.warnings, *second.warnings],
    }


def exported(network: Network, name: str, target: str) -> Path:
    """The integer model `name` as qnas-export writes it for `target`."""
    integers = read_qdq(network.file(name), "0..255" if network.original.white == 255 else "0..1")
    integers = fitted(integers, TARGETS[target])
    if target == "litert":
        written = network.file(name, ".tflite")
        written.write_bytes(write_tflite(integers, *SIZE).data)
    else:
        written = network.file(name, f".{target}.onnx")
        onnx.save(write_onnx(integers, TARGETS[target]), written)
    return written


# The page ------------------------------------------------------------------------------------------------


def mean(network: Network, test: str, label: str, kind: str) -> float | None:
    """Over the photographs of a test set, in dB."""
    found = network.result(f"quality-{test}")
    return statistics.mean(found[label][kind]) if found and found.get(label, {}).get(kind) else None


def best(network: Network, kind: str, labels: Iterable[str]) -> str:
    """The one of several models that is best over all test sets."""
    return max(labels, key=lambda label: sum(mean(network, test, label, kind) or 0 for test in TESTS))


def columns(network: Network, kind: str) -> dict[str, str]:
    """Heading -> label."""
    return {
        FREE: chosen(network),
        "with clip": CLIPPED,
        "with clip, percentile": CLIPPED_PERCENTILE,
        "best quantize_static": best(network, kind, RIVALS),
        "naive": NAIVE,
        "control": CONTROL,
    }


def quality(networks: Sequence[Network], kind: str) -> Iterator[str]:
    """A row for each network and test set."""
    names = list(columns(networks[0], kind)) if networks else []
    first = ["float"] if kind == "hr" else []
    heads = ["network", "images", *first, *names]
    yield from (f"| {' | '.join(heads)} |", "|" + "---|" * len(heads))
    for network in networks:
        labels = columns(network, kind)
        for test in TESTS:
            cells = [mean(network, test, label, kind) for label in (*first, *labels.values())]
            shown = ["-" if cell is None else f"{cell:.{3 if kind == 'hr' else 2}f}" for cell in cells]
            yield f"| {network.name} | {test} | {' | '.join(shown)} |"


def decisions(networks: Sequence[Network]) -> Iterator[str]:
    """The scores of all candidates on the patches held out."""
    names = list(dict.fromkeys(
        each["name"] for network in networks for each in network.result("calibration")["decision"]["scores"]
    ))  # fmt: skip
    heads = ["network", *names, "chosen", "patches in range, tamed, dropped"]
    yield from (f"| {' | '.join(heads)} |", "|" + "---|" * len(heads))
    for network in networks:
        found = network.result("calibration")
        scores: Mapping[str, float] = {each["name"]: each["psnr"] for each in found["decision"]["scores"]}
        cells = [f"{scores[name]:.2f}" if name in scores else "-" for name in names]
        t = found["taming"]
        patches = ", ".join(str(value) for key, value in t.items() if key != "patches")
        yield f"| {network.name} | {' | '.join(cells)} | {found['decision']['chosen']} | {patches} |"


def latencies(networks: Sequence[Network]) -> Iterator[str]:
    """Ratios, below 1 where the clip-free model is faster."""
    yield from (f"| network | {' | '.join(DEVICES)} |", "|---|" + "---|" * len(DEVICES))
    for network in networks:
        found = [network.result(f"latency-{runtime}") for runtime in DEVICES]
        yield f"| {network.name} | {' | '.join(map(latency_cell, found))} |"


def latency_cell(found: Mapping[str, Any] | None) -> str:
    """A ratio with its interval, or why there is none."""
    if found is None or "problem" in found:
        return "-" if found is None else f"not run: {found['problem']}"
    return f"{found['ratio']:.3f} ({found['low']:.3f} to {found['high']:.3f}) of {found['ms']:.2f} ms"


def demands(networks: Sequence[Network]) -> Iterator[str]:
    """What has to hold, as differences in dB: the worst and the best of the test sets."""
    yield from ("| clip-free against | measure | wanted | " + " | ".join(n.name for n in networks) + " |",)
    yield "|" + "---|" * (3 + len(networks))
    rows = (
        ("with clip", "hr", "0 or more"),
        ("with clip", "float", "0.3 for those trained with a clip"),
        ("with clip, percentile", "hr", ""),
        ("with clip, percentile", "float", ""),
        ("naive", "float", "1 for those of linear output"),
        ("best quantize_static", "hr", "above 0, never below -0.02"),
        ("best quantize_static", "float", "above 0"),
        ("control", "float", "far above 0"),
    )
    for title, kind, wanted in rows:
        cells = []
        for network in networks:
            labels = columns(network, kind)
            known = [
                (mean(network, t, labels[FREE], kind), mean(network, t, labels[title], kind)) for t in TESTS
            ]
            differences = [a - b for a, b in known if a is not None and b is not None]
            cells.append(f"{min(differences):+.3f} to {max(differences):+.3f}" if differences else "-")
        yield f"| {title} | {'PSNR-Y' if kind == 'hr' else 'fidelity'} | {wanted} | {' | '.join(cells)} |"


def page(networks: Sequence[Network]) -> str:
    """What stands between the marks."""
    parts = (
        ("What has to hold, in dB", demands(networks)),
        ("PSNR-Y against HR, in dB", quality(networks, "hr")),
        ("Fidelity: PSNR against the clipped float network, in dB", quality(networks, "float")),
        ("Scores of the candidates on the patches held out, in dB", decisions(networks)),
        (f"Latency of the clip-free model over that with the clip, {SIZE[0]}x{SIZE[1]}", latencies(networks)),
    )
    machine = f"{current_environment('').cpu}, one thread, onnxruntime {onnxruntime.__version__}"
    lines = [line for title, rows in parts for line in ("", f"### {title}", "", *rows)]
    return "\n".join(["", machine, *lines]) + "\n"


@click.command()
@click.option("--networks", "source", type=click.Path(path_type=Path), required=True)
@click.option("--work", type=click.Path(path_type=Path), required=True)
@click.option("--data", type=click.Path(path_type=Path), required=True)
@click.option("--only", multiple=True, type=click.Choice(NAMES), help="All if none is named.")
@click.option("--part", "parts", multiple=True, type=click.Choice(PARTS), help="All if none is named.")
@click.option("--photographs", default=100, show_default=True, help="Of each test set, at most.")
def main(
    source: Path, work: Path, data: Path, only: tuple[str, ...], parts: tuple[str, ...], photographs: int
) -> None:
    """Make what is missing of the study."""
    networks = [Network(n, source / f"{n}.onnx", work / n) for n in NAMES]
    networks = [network for network in networks if network.source.exists()]
    for network in networks:
        if only and network.name not in only:
            continue
        network.folder.mkdir(parents=True, exist_ok=True)
        if "models" in (parts or PARTS):
            make_models(network, data)
        if "quality" in (parts or PARTS):
            measure_quality(network, data, photographs)
        if "latency" in (parts or PARTS):
            measure_latency(network)
        write_page([each for each in networks if each.result(f"quality-{TESTS[-1]}") is not None])


def write_page(networks: Sequence[Network]) -> None:
    """Put what is known of `networks` between the marks."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    PAGE.write_text(f"{before}{MARKS[0]}\n{page(networks)}{MARKS[1]}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
