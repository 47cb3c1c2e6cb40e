"""Which operations a runtime rounds in a way of its own; writes docs/runtime-differences.md.

python benchmarks/runtime_differences.py
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, assert_never, get_args

import click
import numpy as np

from qnas.errors import ModelError
from qnas.export.targets import TARGETS
from qnas.export.to_onnx.writer import write_onnx
from qnas.export.to_tflite.writer import write_tflite
from qnas.integer.convolution import Conv
from qnas.integer.interpreter import run
from qnas.integer.network import IntegerNetwork
from qnas.integer.nodes import Add, Concat, ImageInput, IntegerNode, Interpolate, MaxPool, Multiply, Table
from qnas.quantization.quantizers import WEIGHT_SCALE_BITS, QuantParams, dequantize, quantize, snap_scale
from qnas.runtimes.runtime import pixels, planes
from qnas.runtimes.table import CHECKS

ROOT = Path(__file__).resolve().parent.parent
SIDE = 48
HEAD = """# What runtimes compute, operation by operation

Each runtime against the interpreter: share of values that differ, and by how many steps at most; "0" is none.
{networks} networks of one operation, random weights and scales, {values} values a row at least.
Made by `python benchmarks/runtime_differences.py` with
{versions}.

*Random* scales are any float32 numbers. *Related* ones are multiples of one such number, so that many values
lie near a rounding tie. *Short* ones are those of networks trained here
([decision 0003](decisions/0003-short-scales.md)): ties are frequent, and exact. Tensors that are read
together have different scales where nothing else is said.

onnxruntime runs with exact sums, which is not its default on x86 processors without VNNI
([decision 0021](decisions/0021-exact-sums-without-vnni.md)).

| operation | scales | {runtimes} |
|---|---|{rules}
"""


Scales = Literal["random", "related", "short"]


@dataclass(frozen=True)
class Draw:
    """Random grids and nodes. `unit`: what related scales are whole multiples of."""

    rng: np.random.Generator
    scales: Scales
    unit: np.float32

    def scale(self, around: float) -> np.float32:
        """Of that magnitude, up to a factor 2.8."""
        match self.scales:
            case "random":
                return np.float32(around * 2 ** self.rng.uniform(-1.5, 1.5))
            case "related":
                return np.float32(around * self.unit * self.rng.integers(2, 12) / 4)
            case "short":
                return np.float32(around * 2.0 ** self.rng.integers(-1, 2))
            case _:
                assert_never(self.scales)

    def grid(self, around: float, signed: bool = False) -> QuantParams:
        """8 bits."""
        return QuantParams(np.asarray(self.scale(around)), 128 * signed, 0, 255)

    def image(self) -> ImageInput:
        return ImageInput("image", (), 3, self.grid(2**-8))

    def other(self, read: QuantParams, output: QuantParams) -> Conv:
        """A second tensor: colours exchanged, moved by a pixel, byte for byte: nothing is rounded."""
        weight = np.zeros((3, 3, 3, 3), np.int8)
        weight[[0, 1, 2], [1, 2, 0], 0, 2] = 1
        scale = np.full(3, output.scale / read.scale, np.float32)
        bias = np.full(3, -output.zero_point, np.int32)
        return Conv("other", ("image",), 3, output, weight, scale, bias, 8, padding=(1, 1, 1, 1))

    def convolution(self, name: str, output: QuantParams) -> Conv:
        weight = self.rng.integers(-127, 128, (3, 3, 3, 3)).astype(np.int8)
        bias = self.rng.integers(-9999, 9999, 3).astype(np.int32)
        scale = (2**-9 * 2 ** self.rng.uniform(-1, 1, 3)).astype(np.float32)
        if self.scales != "random":
            scale = snap_scale(scale, WEIGHT_SCALE_BITS)
        return Conv(name, ("image",), 3, output, weight, scale, bias, 8, padding=(1, 1, 1, 1))


def convolution(draw: Draw) -> list[IntegerNode]:
    return [draw.image(), draw.convolution("y", draw.grid(2**-7, signed=True))]


def addition(draw: Draw) -> list[IntegerNode]:
    x, b = draw.image(), draw.grid(2**-8)
    return [x, draw.other(x.output, b), Add("y", ("image", "other"), 3, draw.grid(2**-7.5))]


def addition_on_one_grid(draw: Draw) -> list[IntegerNode]:
    x = draw.image()
    return [x, draw.other(x.output, x.output), Add("y", ("image", "other"), 3, x.output)]


def residual(draw: Draw) -> list[IntegerNode]:
    """Two convolutions whose quantized outputs are added, all on one grid."""
    y = draw.grid(2**-7, signed=True)
    branches = [draw.convolution(name, y) for name in ("left", "right")]
    return [draw.image(), *branches, Add("y", ("left", "right"), 3, y)]


def multiplication(draw: Draw) -> list[IntegerNode]:
    x, b = draw.image(), draw.grid(2**-8)
    return [x, draw.other(x.output, b), Multiply("y", ("image", "other"), 3, draw.grid(2**-8))]


def requantization(draw: Draw) -> list[IntegerNode]:
    x, y = draw.image(), draw.grid(2**-7.5)
    table = quantize(dequantize(np.arange(256, dtype=np.int32), x.output), y).astype(np.uint8)
    return [x, Table("y", ("image",), 3, y, table, "requantize")]


def double_requantization(draw: Draw) -> list[IntegerNode]:
    """A convolution on a fine grid, then the same on a coarse one: rounded twice."""
    fine, coarse = draw.grid(2**-7, signed=True), draw.grid(2**-5)
    table = quantize(dequantize(np.arange(256, dtype=np.int32), fine), coarse).astype(np.uint8)
    nodes = [draw.image(), draw.convolution("fine", fine)]
    return [*nodes, Table("y", ("fine",), 3, coarse, table, "requantize")]


def sigmoid(draw: Draw) -> list[IntegerNode]:
    x, read = draw.image(), draw.grid(2**-5, signed=True)
    y = QuantParams(np.asarray(2**-8, np.float32), 0, 0, 255)
    values = 1 / (1 + np.exp(-dequantize(np.arange(256, dtype=np.int32), read).astype(np.float64)))
    table = quantize(values.astype(np.float32), y).astype(np.uint8)
    return [x, draw.other(x.output, read), Table("y", ("other",), 3, y, table, "sigmoid")]


def concatenation(draw: Draw) -> list[IntegerNode]:
    """Of two images, and the first, fifth and third of its channels."""
    x, weight = draw.image(), np.zeros((3, 6, 1, 1), np.int8)
    weight[[0, 1, 2], [0, 4, 2]] = 1
    picked = Conv("y", ("both",), 3, x.output, weight, np.ones(3, np.float32), np.zeros(3, np.int32), 8)
    return [x, draw.other(x.output, x.output), Concat("both", ("image", "other"), 6, x.output), picked]


def pooling(draw: Draw) -> list[IntegerNode]:
    x = draw.image()
    return [x, MaxPool("y", ("image",), 3, x.output, (3, 3), (2, 2))]


def interpolation(draw: Draw) -> list[IntegerNode]:
    x = draw.image()
    small = MaxPool("small", ("image",), 3, x.output, (7, 7), (3, 3))
    return [x, small, Interpolate("y", ("small", "image"), 3, draw.grid(2**-8), 2)]


OPERATIONS: dict[str, Callable[[Draw], list[IntegerNode]]] = {
    "convolution": convolution,
    "addition": addition,
    "addition, all on one grid": addition_on_one_grid,
    "two convolutions, then addition on one grid": residual,
    "multiplication": multiplication,
    "requantization": requantization,
    "convolution, then requantization": double_requantization,
    "sigmoid": sigmoid,
    "concatenation": concatenation,
    "max-pool": pooling,
    "interpolation": interpolation,
}
WRITERS: dict[str, Callable[[IntegerNetwork], bytes]] = {
    ".onnx": lambda network: write_onnx(network, TARGETS["onnxruntime"]).SerializeToString(),
    ".tflite": lambda network: write_tflite(network, SIDE, SIDE).data,
}
INSTALLED = [check for check in CHECKS.values() if check.installed]


def differences(nodes: list[IntegerNode], picture: np.ndarray) -> list[np.ndarray | None]:
    """Per runtime the steps that each value is off; None where it cannot run the operation."""
    network = IntegerNetwork("one", 1, tuple(nodes))
    expected = pixels(run(network, planes(picture))).astype(np.int64)
    files = {suffix: write(network) for suffix, write in WRITERS.items()}
    found: list[np.ndarray | None] = []
    for runtime in INSTALLED:
        try:
            found.append(np.abs(runtime.open(files[runtime.suffix]).upscale(picture) - expected).reshape(-1))
        except ModelError:
            found.append(None)
    return found


def cell(found: tuple[np.ndarray | None, ...]) -> str:
    steps = [each for each in found if each is not None]
    if len(steps) < len(found):
        return "cannot run it"
    together = np.concatenate(steps)
    share = float((together > 0).mean())
    shown = f"{share:.3%}" if share >= 1e-5 else "< 0.001%"
    return f"{shown}, {together.max()}" if share else "0"


@click.command()
@click.option("--networks", default=60, show_default=True, help="Random networks in each row.")
def main(networks: int) -> None:
    rng = np.random.default_rng(0)
    lines, values = [], []
    for operation, build in OPERATIONS.items():
        for scales in get_args(Scales):
            draw = Draw(rng, scales, np.float32(rng.uniform(0.5, 1)))
            pictures = rng.integers(0, 256, (networks, SIDE, SIDE, 3)).astype(np.uint8)
            found = [differences(build(draw), picture) for picture in pictures]
            values.append(sum(each[0].size for each in found if each[0] is not None))
            lines.append(
                f"| {operation} | {scales} | {' | '.join(cell(c) for c in zip(*found, strict=True))} |"
            )
            click.echo(lines[-1])
    head = HEAD.format(
        networks=networks,
        values=f"{min(values):,}",
        versions=", ".join(dict.fromkeys(f"{r.package} {r.version}" for r in INSTALLED)),
        runtimes=" | ".join(r.name for r in INSTALLED),
        rules="---|" * len(INSTALLED),
    )
    (ROOT / "docs" / "runtime-differences.md").write_text(head + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
