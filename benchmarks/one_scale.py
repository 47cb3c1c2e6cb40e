"""What one scale along the residual stream costs in PSNR; writes docs/one-scale.md.

python benchmarks/one_scale.py --data ../shared/data

Trains a small RFDN (8 bits, 24 channels, 2 blocks) with one scale along each residual stream, as shipped, and
with a scale of its own for every tensor; the same data, seed and steps.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import click
import torch

from qnas.network.architecture import Architecture, Choice, find_architecture
from qnas.network.graph_builder import GraphBuilder
from qnas.network.lowering import slot_operations
from qnas.quantization.quantizers import QuantSpec
from qnas.search.training import train_run as run
from qnas.torch.checkpoint import load_found
from qnas.torch.inference import validate

ROOT = Path(__file__).resolve().parent.parent
HEAD = """# One scale along the residual stream

RFDN, 8 bits, 24 channels, 2 blocks, {steps} steps on T91 with {seeds} seeds; PSNR-Y of the integer network.
Made by `python benchmarks/one_scale.py --data ../shared/data --steps {steps} --seeds {seeds}`.

With one scale an add is a sum of integers, which every runtime computes exactly. With scales of their own the
runtimes round adds each in its own way ([runtime-differences.md](runtime-differences.md)).

| scales of the residual stream | seed | Set5 | Set14 |
|---|---|---|---|
"""


def small_rfdn() -> Architecture:
    """RFDN at 24 channels and 2 blocks."""
    architecture = replace(find_architecture("rfdn-w8"), channels=24, blocks=2, layers={})
    slots = slot_operations(architecture)
    return replace(architecture, layers={name: Choice(str(op), 8) for name, op in slots.items()})


def own_scales() -> AbstractContextManager[object]:
    """Inside, tensors of a residual stream share no scale."""
    shared = GraphBuilder.residual

    def residual(
        builder: GraphBuilder, name: str, x: str, scale_of: str | None = None, spec: QuantSpec | None = None
    ) -> str:
        return shared(builder, name, x, None, spec)

    return patch.object(GraphBuilder, "residual", residual)


VARIANTS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "one": nullcontext,
    "their own": own_scales,
}


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True)
@click.option("--steps", default=4000, show_default=True)
@click.option("--seeds", default=2, show_default=True)
@click.option("--one", "variant", type=click.Choice(list(VARIANTS)), hidden=True)
@click.option("--seed", default=0, hidden=True)
@click.option("--output", type=click.Path(path_type=Path), hidden=True)
def main(data: Path, steps: int, seeds: int, variant: str | None, seed: int, output: Path | None) -> None:
    torch.set_num_threads(1)
    if variant and output:
        train(data, steps, variant, seed, output)
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds):
            for name in VARIANTS:
                path = Path(folder) / "found.pt"
                command = [sys.executable, __file__, "--data", data, "--steps", str(steps), "--one", name]
                subprocess.run([*command, "--seed", str(seed), "--output", path], check=True)
                rows.append(path.with_suffix(".row").read_text())
                click.echo(rows[-1])
    head = HEAD.format(steps=steps, seeds=seeds)
    (ROOT / "docs" / "one-scale.md").write_text(head + "\n".join(rows) + "\n")


def train(data: Path, steps: int, variant: str, seed: int, output: Path) -> None:
    """One training and its row of the table."""
    architecture = small_rfdn()
    with VARIANTS[variant]():
        recipe = run.recipe(
            architecture, [data / "T91"], steps=steps, batch=8, patch=24, learning_rate=1e-3, loss="l1",
            seed=seed, warm_start=None, cache_mib=512,
        )  # fmt: skip
        run.run(architecture, recipe, output, None, 1, resume=False, force=True)
        network = load_found(output).network
        scores = [validate(network, data / name, 4).psnr for name in ("Set5", "Set14")]
    output.with_suffix(".row").write_text(f"| {variant} | {seed} | {scores[0]:.3f} dB | {scores[1]:.3f} dB |")


if __name__ == "__main__":
    main()
