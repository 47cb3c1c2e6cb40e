"""Which runtime and processor computes the integers of which network; writes docs/exactness.md and .json.

    scripts/arm64 build && scripts/arm64 start       the columns of ARM
    npm install -g onnxruntime-web                   or QNAS_NODE_MODULES=FOLDER
    QNAS_TVM_PYTHON=... QNAS_TFLITE_MICRO_PYTHON=... QNAS_QNN_PYTHON=...   interpreters of environments with
                                                     apache-tvm and onnx, tflite-micro, onnxruntime-qnn
    python benchmarks/exactness.py [--only COLUMN]

A runtime that is not there leaves its column as it was, and is named. It can be stopped, and goes on where it
was with the same --work; a file that has changed is run again.
"""

import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import click
import numpy as np
from numpy.typing import NDArray
from runtime_differences import OPERATIONS, Draw, Scales

from qnas.errors import ModelError
from qnas.export.integers import integer_network
from qnas.export.targets import TARGETS, fitted
from qnas.export.to_onnx.writer import write_onnx
from qnas.export.to_tflite.writer import write_tflite
from qnas.images.evaluation import shrink
from qnas.images.files import crop_to_multiple
from qnas.images.quality import psnr_y
from qnas.images.samples import sample_photographs
from qnas.integer.interpreter import run
from qnas.integer.network import IntegerNetwork, image_gain
from qnas.network.architecture import Space, named_architectures
from qnas.runtimes.runtime import pixels, planes
from qnas.runtimes.table import CHECKS
from qnas.testing.random_networks import build, noise, random_architecture, random_found
from qnas.torch.checkpoint import load_found

ROOT = Path(__file__).resolve().parent.parent
RUNNER = Path(__file__).with_name("exactness_runner.py")
SPACES: tuple[Space, ...] = ("basic", "rfdn_space")
RANDOM = 3  # architectures of each space
DRAWS = 4  # networks of each operation
SIDE = 48  # of an operation's image
PHOTOGRAPH = 192  # HR pixels a side
NETWORKS, SINGLE = "Networks", "Operations"
HEAD = """# Exactness

Which runtime and processor computes the integers of which network. Made by `python benchmarks/exactness.py`,
whose head says what each column needs. Each cell compares with the numpy interpreter, which equals
torch in `eval()`: "100 %", or the share of equal values and the largest difference in steps; of the trained
examples also the PSNR-Y that it costs, in dB on a photograph. "no": the runtime does not
take the file; below is why.

{versions}

Files are those of the target that a runtime stands for: `onnxruntime`, `litert`, and `portable` for TVM and
Qualcomm's HTP. *N1* and *A72* are ARM Neoverse-N1 (dot products: servers, phones since 2018) and Cortex-A72
(none: Raspberry Pi 4), emulated ([arm64.md](arm64.md)).
"""


@dataclass(frozen=True)
class Row:
    """Networks that make one line of a table, each with an image uint8 [H, W, 3], and the HR of that."""

    table: str
    title: str
    networks: tuple[tuple[str, IntegerNetwork, NDArray[np.uint8]], ...]
    hr: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Column:
    """A runtime: `check` is its id among `CHECKS`, or `runner` and `command` start exactness_runner.py."""

    title: str
    suffix: str
    check: str = ""
    runner: str = ""
    command: Callable[[], list[str] | None] = lambda: None
    machine: str = ""


def interpreter(variable: str) -> Callable[[], list[str] | None]:
    """The command of the interpreter that an environment variable names."""
    return lambda: [os.environ[variable]] if variable in os.environ else None


def ssh(machine: str) -> Callable[[], list[str] | None]:
    """The command that reaches an emulated machine, where it runs."""
    config = Path(os.environ.get("QNAS_ARM64_SSH_CONFIG", Path.home() / ".cache/qnas/arm64-root/ssh_config"))
    command = ["ssh", "-F", str(config), "-o", "ConnectTimeout=5", machine]

    def found() -> list[str] | None:
        there = config.exists() and subprocess.run([*command, "true"], capture_output=True).returncode == 0
        return command if there else None

    return found


def arm(name: str, machine: str) -> list[Column]:
    return [
        Column(f"onnxruntime {name}", ".onnx", runner="onnxruntime", command=ssh(machine), machine=machine),
        Column(f"XNNPACK {name}", ".tflite", runner="litert", command=ssh(machine), machine=machine),
    ]


COLUMNS = [
    Column("onnxruntime", ".onnx", "onnxruntime"),
    Column("XNNPACK", ".tflite", "litert-xnnpack"),
    *arm("N1", "qnas-arm64"),
    *arm("A72", "qnas-arm64-a72"),
    Column("onnxruntime-web", ".onnx", "onnxruntime-web"),
    Column("TVM", ".portable", runner="tvm", command=interpreter("QNAS_TVM_PYTHON")),
    Column("OpenVINO", ".onnx", "openvino"),
    Column("LiteRT built-in", ".tflite", "litert"),
    Column("tflite-micro", ".tflite", runner="tflite_micro", command=interpreter("QNAS_TFLITE_MICRO_PYTHON")),
    Column("HTP, emulated", ".portable", runner="qnn", command=interpreter("QNAS_QNN_PYTHON")),
]


def rows() -> Iterator[Row]:
    """Examples with trained weights, named and random architectures with random ones, single operations."""
    hr = crop_to_multiple(sample_photographs()[0][1][:PHOTOGRAPH, :PHOTOGRAPH], 12)
    for path in sorted(ROOT.glob("examples/*/found.pt")):
        found = load_found(path)
        if found.architecture.quantized:
            name, scale = path.parent.name, found.architecture.scale
            trained = (f"{name}-trained", integer_network(found), shrink(hr, scale))
            yield Row(NETWORKS, f"{name}, trained", (trained,), hr)
    found_networks = {name: random_found(name) for name in named_architectures() if not name.endswith("w32")}
    found_networks |= {
        f"{space}-{seed}": build(random_architecture(space, seed), seed)
        for space in SPACES for seed in range(RANDOM)
    }  # fmt: skip
    for name, found in found_networks.items():
        yield Row(NETWORKS, name, ((name, integer_network(found), noise(19, 26)),))
        if found.network.deviations():
            per_image = integer_network(found, "per-image")
            yield Row(NETWORKS, f"{name}, ADQ per image", ((f"{name}-adq", per_image, noise(19, 26)),))
    for operation, made in OPERATIONS.items():
        for scales in get_args(Scales):
            rng = np.random.default_rng(0)
            networks = []
            for draw in range(DRAWS):
                nodes = made(Draw(rng, scales, np.float32(rng.uniform(0.5, 1))))
                name = f"{operation}-{scales}-{draw}".replace(" ", "_").replace(",", "")
                image = rng.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
                networks.append((name, IntegerNetwork("one", 1, tuple(nodes)), image))
            yield Row(SINGLE, f"{operation}, {scales} scales", tuple(networks))


WRITERS: dict[str, Callable[[IntegerNetwork, int, int], bytes]] = {
    ".onnx": lambda net, h, w: _onnx(net, "onnxruntime"),
    ".portable": lambda net, h, w: _onnx(net, "portable"),
    ".tflite": lambda net, h, w: write_tflite(fitted(net, TARGETS["litert"]), h, w).data,
}


def _onnx(network: IntegerNetwork, target: str) -> bytes:
    return write_onnx(fitted(network, TARGETS[target]), TARGETS[target]).SerializeToString()


def write_files(row: Row, work: Path) -> None:
    """The files of a row with images and what they have to make of them; what has not changed stays."""
    for name, network, image in row.networks:
        np.save(work / f"{name}.npy", planes(image))
        np.save(work / f"{name}.expected.npy", run(network, planes(image)))
        for suffix, write in WRITERS.items():
            if any(map(image_gain, network.nodes)) and suffix != ".onnx":
                continue
            path, data = work / f"{name}{suffix}", write(network, *image.shape[:2])
            if not path.exists() or path.read_bytes() != data:
                path.write_bytes(data)
                kinds = {column.runner or column.check for column in COLUMNS if column.suffix == suffix}
                for old in (work / f"{name}.{kind}.{end}" for kind in kinds for end in ("npy", "txt")):
                    old.unlink(missing_ok=True)


def run_check(column: Column, work: Path) -> None:
    """Every file in a runtime of this package."""
    for path in sorted(work.glob(f"*{column.suffix}")):
        written = work / f"{path.stem}.{column.check}.npy"
        failed = written.with_suffix(".txt")
        if written.exists() or failed.exists():
            continue
        try:
            image = pixels(np.load(path.with_suffix(".npy")))
            np.save(written, planes(CHECKS[column.check].open(path.read_bytes()).upscale(image)))
        except ModelError as error:
            failed.write_text(str(error))


def run_elsewhere(column: Column, command: list[str], work: Path) -> None:
    """Every file through exactness_runner.py, on another machine in a folder of its own."""
    if not column.machine:
        subprocess.run([*command, str(RUNNER), column.runner, str(work)], check=True)
        return
    folder = f"/tmp/{hashlib.sha256(str(work).encode()).hexdigest()[:12]}"
    names = [path.name for path in work.glob(f"*{column.suffix}")]
    names += [Path(name).with_suffix(".npy").name for name in names]
    subprocess.run([*command, f"rm -rf {folder}; mkdir {folder}"], check=True)
    tar = subprocess.Popen(
        ["tar", "-cf", "-", "-C", work, *names, "-C", RUNNER.parent, RUNNER.name], stdout=subprocess.PIPE
    )
    subprocess.run([*command, f"tar -xf - -C {folder}"], stdin=tar.stdout, check=True)
    start = f"cd {folder} && python3 -P {RUNNER.name} {column.runner} . >&2 && tar -cf - *.{column.runner}.*"
    back = subprocess.run([*command, start], stdout=subprocess.PIPE, check=True).stdout
    out = work / column.machine
    out.mkdir(exist_ok=True)
    subprocess.run(["tar", "-xf", "-", "-C", out], input=back, check=True)


def cell(row: Row, column: Column, work: Path) -> dict[str, object]:
    """What one runtime makes of the files of a row."""
    place = work / column.machine if column.machine else work
    values = differing = largest = 0
    cost: float | None = None
    for name, _, _ in row.networks:
        kind = column.runner or column.check
        if not (work / f"{name}{column.suffix}").exists():
            return {"no": "the target has no form for it"}
        written = place / f"{name}.{kind}.npy"
        if not written.exists():
            failed = written.with_suffix(".txt")
            return {"no": failed.read_text() if failed.exists() else "it did not run"}
        expected, found = np.load(work / f"{name}.expected.npy"), np.load(written)
        steps = np.abs(expected.astype(int) - found.reshape(expected.shape))
        values, differing = values + steps.size, differing + int(np.count_nonzero(steps))
        largest = max(largest, int(steps.max()))
        if row.hr is not None and differing:
            scale = row.hr.shape[0] // np.load(work / f"{name}.npy").shape[2]
            both = (psnr_y(pixels(each.reshape(expected.shape)), row.hr, scale) for each in (expected, found))
            cost = round(float(np.subtract(*both)), 4)
    return {"values": values, "differing": differing, "largest": largest, "cost": cost}


def shown(found: Mapping[str, object] | None) -> str:
    """A cell of the page."""
    if found is None:
        return ""
    if "no" in found:
        return "no"
    differing, values = found["differing"], found["values"]
    assert isinstance(differing, int)
    assert isinstance(values, int)
    if not differing:
        return "100 %"
    cost = f", {found['cost']} dB" if found["cost"] is not None else ""
    return f"{np.floor(1e4 * (1 - differing / values)) / 100:g} %, {found['largest']}{cost}"


def page(results: dict[str, dict[str, dict[str, object]]], titles: Mapping[str, list[str]]) -> str:
    """docs/exactness.md."""
    columns = [column.title for column in COLUMNS if column.title in results]
    lines = [HEAD.format(versions="; ".join(str(results[name]["version"]["is"]) for name in columns) + ".")]
    for table, names in titles.items():
        lines += ["", f"## {table}", "", f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
        lines += [
            f"| {name} | " + " | ".join(shown(results[c].get(name)) for c in columns) + " |" for name in names
        ]
    why: dict[str, list[str]] = {}
    for column in columns:
        for name, found in results[column].items():
            if "no" in found:
                why.setdefault(f"{column}: {found['no']}", []).append(name)
    lines += [
        "",
        "## What is not taken",
        "",
        *(f"- {reason} ({', '.join(names)})" for reason, names in why.items()),
    ]
    return "\n".join(lines) + "\n"


def version_of(column: Column, command: list[str] | None) -> str:
    """The column's name with its version."""
    if column.check:
        return f"{column.title} {CHECKS[column.check].version}"
    packages = {"onnxruntime": "onnxruntime", "litert": "ai-edge-litert", "tvm": "apache-tvm",
                "tflite_micro": "tflite-micro", "qnn": "onnxruntime-qnn"}  # fmt: skip
    code = f"from importlib.metadata import version; print(version('{packages[column.runner]}'))"
    assert command is not None
    asked = [*command, f'python3 -P -c "{code}"'] if column.machine else [*command, "-c", code]
    return f"{column.title} {subprocess.run(asked, capture_output=True, text=True).stdout.strip()}"


@click.command()
@click.option(
    "--work", type=click.Path(path_type=Path), default=Path("/tmp/qnas-exactness"), show_default=True
)
@click.option("--only", multiple=True, help="The title of a column; repeatable. Others stay as they are.")
def main(work: Path, only: tuple[str, ...]) -> None:
    work.mkdir(parents=True, exist_ok=True)
    document = ROOT / "docs" / "exactness.json"
    results = json.loads(document.read_text()) if document.exists() else {}
    lines = list(rows())
    for row in lines:
        write_files(row, work)
    titles = {table: [row.title for row in lines if row.table == table] for table in (NETWORKS, SINGLE)}
    for column in COLUMNS:
        if only and column.title not in only:
            continue
        command = column.command()
        if not (CHECKS[column.check].installed if column.check else command):
            click.echo(f"{column.title}: not there, its column stays as it was")
            continue
        if column.check:
            run_check(column, work)
        else:
            assert command is not None
            run_elsewhere(column, command, work)
        found = {row.title: cell(row, column, work) for row in lines}
        results[column.title] = {"version": {"is": version_of(column, command)}, **found}
        equal = sum(each.get("differing") == 0 for each in found.values())
        click.echo(f"{column.title}: {equal} of {len(found)} rows equal")
        document.write_text(json.dumps(results, indent=1) + "\n")
        (ROOT / "docs" / "exactness.md").write_text(page(results, titles))


if __name__ == "__main__":
    main()
