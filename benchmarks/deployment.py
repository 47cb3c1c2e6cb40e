"""Latency of the exported forms against each other; writes docs/deployment.md.

PYTHONPATH=tests python benchmarks/deployment.py [--only espcn-w8]

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
from random_networks import build, random_found

from qnas.checkpoint import Found, load_found
from qnas.export.integers import integer_network
from qnas.export.model import build_float32, build_qdq
from qnas.export.targets import TARGETS, fitted
from qnas.export.to_tflite.writer import write_tflite
from qnas.litert_session import LiteRtSession
from qnas.runtime_bench.environment import current_environment
from qnas.runtime_bench.measure import Candidate, Plan, measure
from qnas.runtime_bench.stats import ratio_interval
from qnas.session import open_session

ROOT = Path(__file__).resolve().parent.parent
SHAPES = ((128, 128), (180, 320))
TRAINED = ("espcn-w8", "espcn-w4", "basic-w48")
RANDOM = ("rfdn-w8", "rfdn-w4", "rfdn-adq-w48-example", "srresnet-w8")
HEAD = """# What the exported forms are worth

Made by `PYTHONPATH=tests python benchmarks/deployment.py` on {machine}; onnxruntime {ort}, LiteRT {litert}.
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


class _LiteRt:
    """LiteRT behind the face of an onnxruntime session."""

    def __init__(self, model: bytes) -> None:
        self.session = LiteRtSession(model, threads=1)

    def run(self, _: None, feed: dict[str, Any]) -> list[Any]:
        return [self.session.run(feed["image"])]


def static_quantization(twin: onnx.ModelProto, folder: Path) -> bytes:
    """onnxruntime's quantize_static as its documentation advises for CPUs with VNNI: U8S8 per channel."""
    source, target = folder / "float32.onnx", folder / "static.onnx"
    onnx.save(twin, source)
    quantize_static(
        source, target, _Images(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    return target.read_bytes()


def rivals(found: Found, height: int, width: int, folder: Path) -> dict[str, Any]:
    """Label -> session, ours first."""
    twin = build_float32(found)
    models = {"ours": build_qdq(found).SerializeToString(), "float32": twin.SerializeToString()}
    models["static"] = static_quantization(twin, folder)
    if min(layer.bits for layer in found.network.layers if layer.op == "conv") <= 4:
        textbook = replace(TARGETS["onnxruntime"], four_bits="int4")
        models["int4"] = build_qdq(found, textbook).SerializeToString()
        models["w8"] = build_qdq(build(found.architecture.with_bits(8))).SerializeToString()
    sessions: dict[str, Any] = {label: open_session(model, threads=1) for label, model in models.items()}
    ours = fitted(integer_network(found), TARGETS["litert"])
    return sessions | {"litert": _LiteRt(write_tflite(ours, height, width).data)}


def row(name: str, found: Found, height: int, width: int) -> str:
    """One line of the table."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (1, 3, height, width)).astype(np.uint8)
    floats = (pixels / 256).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        sessions = rivals(found, height, width, Path(folder))
    candidates = [
        Candidate(Path(label), session, {"image": floats if label in ("float32", "static") else pixels}, {})
        for label, session in sessions.items()
    ]
    samples = dict(zip(sessions, measure(candidates, Plan(seconds=3.0)), strict=True))

    def ratio(rival: str, ours: str = "ours") -> str:
        if rival not in samples:
            return ""
        r = ratio_interval(samples[rival], samples[ours])
        return f"{r.value:.2f} ({r.low:.2f} to {r.high:.2f})"

    inside, operators = sessions["litert"].session.delegated
    cells = [*map(ratio, ("float32", "static", "int4", "w8")), ratio("float32", "litert")]
    return f"| {name} | {height}x{width} | {' | '.join(cells)} | {inside} of {operators} |"


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
            machine=current_environment().cpu, ort=onnxruntime.__version__, litert=ai_edge_litert.__version__
        )
        (ROOT / "docs" / "deployment.md").write_text(head + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
