"""Latency of the exported forms against each other; writes docs/deployment.md.

python benchmarks/deployment.py [--only espcn-w8]

One thread; rounds of all rivals interleaved, ratios of medians with their 95 % bootstrap interval. The rivals
of an integer model: its float32 twin, onnxruntime's own static quantization of that twin, and for 4 bits the
textbook INT4 form and the network at 8 bits.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import ai_edge_litert
import click
import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from qnas.export.integers import integer_network
from qnas.export.model import build_float32, build_qdq
from qnas.export.targets import TARGETS, fitted
from qnas.export.to_tflite.writer import write_tflite
from qnas.runtime_bench.benchmark import Settings, benchmark
from qnas.runtime_bench.environment import current_environment
from qnas.runtime_bench.stats import ratio_interval
from qnas.runtime_bench.workers.process import LoadOptions
from qnas.testing.random_networks import build, random_found
from qnas.torch.checkpoint import Found, load_found

ROOT = Path(__file__).resolve().parent.parent
SHAPES = ((128, 128), (180, 320))
TRAINED = ("espcn-w8", "espcn-w4", "basic-w48")
RANDOM = ("rfdn-w8", "rfdn-w4", "rfdn-adq-w48-example", "srresnet-w8")
HEAD = """# What the exported forms are worth

Made by `python benchmarks/deployment.py` on {machine}; onnxruntime {ort}, LiteRT {litert}.
One thread, interleaved rounds; a cell is the latency of the rival over that of our integer model in
onnxruntime, with its 95 % interval: above 1 ours is faster. The column LiteRT is float32 onnxruntime over our
.tflite file in LiteRT with XNNPACK, the last one the operators that XNNPACK runs. Trained networks are those
of `examples/`, the others have random weights.

| network | input | float32 | static quantization | textbook INT4 | same at 8 bits | LiteRT | delegated |
|---|---|---|---|---|---|---|---|
"""


class _Images(CalibrationDataReader):  # type: ignore[misc]
    """A few random images for onnxruntime's calibration."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.feeds: Iterator[dict[str, Any]] = iter(
            [{"image": rng.random((1, 3, 64, 64), np.float32)} for _ in range(2)]
        )

    def get_next(self) -> dict[str, Any] | None:
        return next(self.feeds, None)


def static_quantization(twin: Path, target: Path) -> None:
    """onnxruntime's quantize_static as its documentation advises for CPUs with VNNI: U8S8 per channel."""
    quantize_static(
        twin, target, _Images(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip


def rivals(found: Found, height: int, width: int, folder: Path) -> list[Path]:
    """A file for each label, ours first."""
    models = {"ours": build_qdq(found), "float32": build_float32(found)}
    if min(layer.bits for layer in found.network.layers if layer.op == "conv") <= 4:
        textbook = replace(TARGETS["onnxruntime"], four_bits="int4")
        models["int4"] = build_qdq(found, textbook)
        models["w8"] = build_qdq(build(found.architecture.with_bits(8)))
    for label, model in models.items():
        onnx.save(model, folder / f"{label}.onnx")
    static_quantization(folder / "float32.onnx", folder / "static.onnx")
    ours = fitted(integer_network(found), TARGETS["litert"])
    (folder / "litert.tflite").write_bytes(write_tflite(ours, height, width).data)
    return [folder / f"{label}.onnx" for label in (*models, "static")] + [folder / "litert.tflite"]


def row(name: str, found: Found, height: int, width: int) -> str:
    """One line of the table."""
    with tempfile.TemporaryDirectory() as folder:
        paths = rivals(found, height, width, Path(folder))
        report = benchmark(paths, Settings(load=LoadOptions(shapes=(f"{height}x{width}",))))
    found_of = {each.facts.files.path.stem: each for each in report.models}

    def ratio(rival: str, ours: str = "ours") -> str:
        if rival not in found_of:
            return ""
        r = ratio_interval(found_of[rival].measured.values, found_of[ours].measured.values)
        return f"{r.value:.2f} ({r.low:.2f} to {r.high:.2f})"

    proof = found_of["litert"].delegation
    assert proof is not None
    cells = [*map(ratio, ("float32", "static", "int4", "w8")), ratio("float32", "litert")]
    return f"| {name} | {height}x{width} | {' | '.join(cells)} | {proof.delegated_nodes} of {proof.nodes} |"


@click.command()
@click.option("--only", multiple=True, help="These networks alone; the page is not written.")
def main(only: tuple[str, ...]) -> None:
    torch.set_num_threads(1)
    rows = []
    for name in only or (*TRAINED, *RANDOM):
        trained = ROOT / "examples" / name / "found.pt"
        found = load_found(trained) if name in TRAINED else random_found(name)
        for height, width in SHAPES:
            rows.append(row(name, found, height, width))
            click.echo(rows[-1])
    if not only:
        head = HEAD.format(
            machine=current_environment("").cpu,
            ort=onnxruntime.__version__,
            litert=ai_edge_litert.__version__,
        )
        (ROOT / "docs" / "deployment.md").write_text(head + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
