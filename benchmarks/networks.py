"""The scoreboard of networks of others: what becomes of each on the whole road; writes docs/networks.md.

python benchmarks/networks.py --work FOLDER [--nncf-python ENVIRONMENT/bin/python] [--only NAME ...]

The networks are the files of `qnas.testing.places.NETWORKS` and those that `network_families.py` trains. A
result goes into docs/networks.json as soon as it is known, and a second call makes what is missing: it can be
stopped at any time. `--again NAME` forgets what is known of a network. Rivals run where they are installed:
NNCF in an environment of its own. Latency wants a quiet machine.
"""

import json
import math
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from calibration_rivals import static_quantization
from calibration_study import difference
from network_families import FAMILIES, train
from networks_page import page
from numpy.typing import NDArray

import qnas
from qnas.calibration.document import read_calibration
from qnas.calibration.patches import manifest
from qnas.calibration.patches.representative import RepresentativeSet
from qnas.calibration.prepare.float_model import FloatModel, read_float_model
from qnas.errors import QnasError
from qnas.export.sources.read import kind_of
from qnas.images.evaluation import Image, pairs
from qnas.images.quality import psnr_y
from qnas.runtime_bench.environment import current_environment
from qnas.testing.places import DATA, NETWORKS

DOCS = Path(__file__).resolve().parent.parent / "docs"
RESULTS, PAGE = DOCS / "networks.json", DOCS / "networks.md"
MARKS = ("<!-- results: begin -->", "<!-- results: end -->")
IMAGES = "BSDS200"  # of the calibrations
SIZE = "96x96"  # of the latency's input
SUFFIXES = {"onnx-qdq": ".onnx", "tflite": ".tflite"}
DEVICES = {"onnxruntime": "cpu", "LiteRT": "litert:xnnpack", "OpenVINO": "openvino"}
SIGMA = 25.0  # of the noise in images for networks that take it off, in grey levels
CONVOLUTIONS = ("Conv", "ConvTranspose")
RECIPES = {  # of quantize_static: how ranges are chosen, and what is quantized
    "min-max": ("min-max", ()),
    "percentile": ("percentile", ()),
    "entropy": ("entropy", ()),
    "min-max, convolutions": ("min-max", CONVOLUTIONS),
    "percentile, convolutions": ("percentile", CONVOLUTIONS),
}
Result = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """How much is run: patches of a calibration and of a rival's, photographs and their folder, seconds."""

    count: int | None
    rival_count: int
    photographs: int
    test: str
    seconds: float


@dataclass(frozen=True)
class Case:
    """One network, the folder of what is made of it, and how much is run."""

    name: str
    source: Path
    folder: Path
    sizes: Sizes
    nncf: Path | None

    @property
    def calibration(self) -> Path:
        """The file of its calibration."""
        return self.folder / "calibration.json"

    def file(self, label: str) -> Path:
        """The file of the model `label`."""
        return self.folder / label


# Steps -----------------------------------------------------------------------------------------------------


def calibrated(case: Case) -> Result:
    """What calibration decides, and how long it takes."""
    if kind_of(case.source) != "float":
        return {"integer": "the file has integers already"}
    started = time.monotonic()
    settings: dict[str, Any] = {"count": case.sizes.count, "hr": True}
    found = qnas.calibrate(case.source, DATA / IMAGES, case.calibration, force=True, **settings)
    return {
        "chosen": found.chosen,
        "fidelity": found.fidelity,
        "scale": found.source.scale,
        "seconds": round(time.monotonic() - started, 1),
    }


def exported(case: Case) -> Result:
    """Each format: whether it is written and equal in every runtime, its bytes, its share of integer MACs."""
    found: Result = {}
    for name, suffix in SUFFIXES.items():
        options: dict[str, Any] = {"calibration": case.calibration} if case.calibration.exists() else {}
        try:
            done = qnas.export(
                case.source,
                case.file(f"integer{suffix}"),
                format=name,
                force=True,
                check=DATA / "Set5",
                **options,
            )
        except QnasError as error:
            found[name] = {"problem": str(error)}
            continue
        report = done.report
        assert report is not None
        macs = report.files[0].macs
        found[name] = {
            "equal": report.passed,
            "defined": report.defined,
            "bytes": done.files[0].stat().st_size,
            "integer_macs": None if not macs or not macs[1] else macs[0] / macs[1],
        }
    return found


def qualities(case: Case) -> Result:
    """PSNR-Y of the float and the integer model, and fidelity, means over the photographs."""
    labels = [f"integer{suffix}" for suffix in SUFFIXES.values() if case.file(f"integer{suffix}").exists()][
        :1
    ]
    return scored(case, labels)


def scored(case: Case, labels: list[str]) -> Result:
    """[PSNR-Y, fidelity] in dB of each of `labels` and of "float"; what there is not is None."""
    is_float = case.calibration.exists()
    scale = (read_float_model(case.source) if is_float else qnas.load(case.source)).scale
    rows: dict[str, list[tuple[float, float]]] = {}
    for index, (lr, hr) in enumerate(pairs(DATA / case.sizes.test, scale)):
        if index == case.sizes.photographs:
            break
        lr = noisy(lr, index) if scale == 1 else lr
        exact = qnas.upscale(case.source, lr, threads=1) if is_float else None
        for label in labels:
            made = qnas.upscale(case.file(label), lr, threads=1)
            near = math.nan if exact is None else difference(made, exact)
            rows.setdefault(label, []).append((psnr_y(made, hr, scale), near))
        if exact is not None:
            rows.setdefault("float", []).append((psnr_y(exact, hr, scale), math.nan))
    return {label: [None if math.isnan(m := statistics.mean(each)) else round(m, 3)
                    for each in zip(*found, strict=True)] for label, found in rows.items()}  # fmt: skip


def noisy(image: Image, seed: int) -> Image:
    """`image` with noise of SIGMA."""
    noise = np.random.default_rng(seed).normal(0, SIGMA, image.shape)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


def latencies(case: Case) -> Result:
    """Each runtime: milliseconds of the float and the integer model, interleaved, and their ratio."""
    network = read_float_model(case.source) if case.calibration.exists() else None
    if network is None:
        return {"problem": "there is no float network to compare with"}
    plain = case.file("float.onnx")
    onnx.save(network.model, plain)
    size = SIZE if network.size is None else "x".join(map(str, network.size))
    found: Result = {}
    for runtime, device in DEVICES.items():
        integer = case.file("integer.tflite" if runtime == "LiteRT" else "integer.onnx")
        devices = ("cpu", device) if runtime == "LiteRT" else (device,)
        if not integer.exists():
            found[runtime] = {"problem": "no file"}
            continue
        try:
            report = qnas.benchmark(
                [plain, integer], devices=devices, min_time=case.sizes.seconds, shapes=(size,)
            )
        except QnasError as error:
            found[runtime] = {"problem": str(error)}
            continue
        found[runtime] = ratio(report)
    return found


def ratio(report: Any) -> Result:
    """Of the last of the models to the first: its median latency, with the interval."""
    if report.failures or len(report.models) < 2:
        return {"problem": report.failures[0].reason if report.failures else "not measured"}
    first, last = report.models[0], report.models[-1]
    value = last.ratio
    return {
        "float_ms": first.latency.value / 1e6,
        "ratio": value.value,
        "low": value.low,
        "high": value.high,
        "warnings": sorted({*first.warnings, *last.warnings}),
    }


def rivals(case: Case) -> Result:
    """PSNR-Y and fidelity of what others make of the same network with patches of the same images."""
    if not case.calibration.exists():
        return {"problem": "there is no float network to quantize"}
    network = read_float_model(case.source)
    images = rival_images(case)
    makers: dict[str, Callable[[Path], None]] = {
        f"quantize_static, {name}": lambda target, of=of: static_quantization(
            network, images, *of[:1], target, of[1]
        )
        for name, of in RECIPES.items()
    }
    if case.nncf is not None:
        makers["NNCF"] = lambda target: nncf_model(case, network, images, target)
    found: Result = {}
    for name, make in makers.items():
        label = f"rival-{name.replace(', ', '-').replace(' ', '-')}.onnx"
        try:
            make(case.file(label))
            found[name] = scored(case, [label])[label]
        except Exception as error:  # whatever a rival raises is its row
            found[name] = {"problem": (str(error).strip() or type(error).__name__).splitlines()[-1][:200]}
    return found


def rival_images(case: Case) -> RepresentativeSet:
    """The first patches of those that made the ranges."""
    document = read_calibration(case.calibration)
    chosen = manifest.from_document(document.manifest, case.name, DATA / IMAGES)
    mine, _ = chosen.split(document.held_out)
    return RepresentativeSet(
        mine.root, mine.crops[: case.sizes.rival_count], mine.seed, mine.patch, mine.channels, mine.hr_scale
    )


def nncf_model(case: Case, network: FloatModel, images: RepresentativeSet, target: Path) -> None:
    """Let the other environment write `target`. Raises RuntimeError with its last line."""
    patches, plain = case.file("patches.npy"), case.file("plain.onnx")
    stored: NDArray[np.float32] = np.concatenate([network.feed(batch) for batch in images.batches(1)])
    np.save(patches, stored)
    onnx.save(network.model, plain)
    script = Path(__file__).parent / "rival_nncf.py"
    done = subprocess.run(
        [str(case.nncf), str(script), str(plain), str(patches), str(target)], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["failed"])[-1])


STEPS: dict[str, Callable[[Case], Result]] = {
    "calibration": calibrated,
    "formats": exported,
    "quality": qualities,
    "latency": latencies,
    "rivals": rivals,
}


# Results -------------------------------------------------------------------------------------------------


def write(document: Result) -> None:
    """The results, and the page that is made of them."""
    RESULTS.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(MARKS[0])
    PAGE.write_text(
        f"{before}{MARKS[0]}\n\n{page(document)}{MARKS[1]}{rest.partition(MARKS[1])[2]}", encoding="utf-8"
    )


def cases(work: Path, only: tuple[str, ...], sizes: Sizes, nncf: Path | None) -> Iterator[Case]:
    """The files of others, and the networks that are trained here."""
    files = {path.stem: path for path in sorted(NETWORKS.glob("*")) if path.suffix in (".onnx", ".tflite")}
    for name in only or (*files, *FAMILIES):
        folder = work / name
        folder.mkdir(parents=True, exist_ok=True)
        source = files.get(name, folder / f"{name}.float.onnx")
        if name in FAMILIES and not source.exists():
            train(name, source, DATA)
        yield Case(name, source, folder, sizes, nncf)


@click.command()
@click.option("--work", type=click.Path(path_type=Path), required=True)
@click.option("--only", multiple=True, help="All if none is named.")
@click.option("--again", multiple=True, help="Networks whose results are made anew.")
@click.option("--count", type=int, help="Patches of a calibration; what qnas-calibrate takes if not said.")
@click.option("--rival-count", default=64, show_default=True, help="Patches of a rival's calibration.")
@click.option("--test", default="Set14", show_default=True, help="The folder of photographs.")
@click.option("--photographs", default=14, show_default=True)
@click.option("--seconds", default=3.0, show_default=True, help="Of run time for each model of a latency.")
@click.option("--nncf-python", type=click.Path(path_type=Path), help="Of an environment with NNCF.")
def main(
    work: Path, only: tuple[str, ...], again: tuple[str, ...], count: int | None, rival_count: int, test: str,
    photographs: int, seconds: float, nncf_python: Path | None,
) -> None:  # fmt: skip
    """Make what is missing of the scoreboard."""
    document: Result = {"networks": {}}
    with suppress(FileNotFoundError):
        document = json.loads(RESULTS.read_text(encoding="utf-8"))
    document["machine"] = f"{current_environment('').cpu}, one thread"
    for case in cases(work, only, Sizes(count, rival_count, photographs, test, seconds), nncf_python):
        if case.name in again:
            document["networks"].pop(case.name, None)
        row = document["networks"].setdefault(case.name, {})
        for step, make in STEPS.items():
            if step in row:
                continue
            row["sizes"] = (
                f"{count or 'default'} patches ({rival_count} of rivals), {photographs} photographs of {test}"
            )
            try:
                row[step] = make(case)
            except QnasError as error:
                row[step] = {"problem": str(error)}
            click.echo(f"{case.name}: {step}", err=True)
            write(document)


if __name__ == "__main__":
    main()
