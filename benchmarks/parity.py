"""Parity of every named architecture with random weights on the images of Set14; writes docs/parity.md.

PYTHONPATH=tests python benchmarks/parity.py --data ../shared/data
"""

import tempfile
from pathlib import Path

import click
import onnx
import torch
from random_networks import random_found

from qnas.architecture import named_architectures
from qnas.export.model import build_qdq
from qnas.export.parity import check_parity, parity_images
from qnas.fusion import count_integer_convolutions

ROOT = Path(__file__).resolve().parent.parent

HEAD = """# Parity of the named architectures

Random weights, the images of Set14 (shrunk by 4), against torch in `eval()`; values are pixels times colours.
Made by `PYTHONPATH=tests python benchmarks/parity.py --data ../shared/data` with onnxruntime {version}.

"Fused" is onnxruntime with all optimisations on.

| architecture | values | reference: equal | largest step | fused: equal | largest step | integer |
|---|---|---|---|---|---|---|
"""


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), default=ROOT.parent / "shared" / "data")
def main(data: Path) -> None:
    import onnxruntime

    torch.set_num_threads(1)
    images, _ = parity_images(data / "Set14")
    rows = []
    for name in named_architectures():
        found = random_found(name)
        if not found.architecture.quantized:
            continue
        model = build_qdq(found)
        _, (reference, fused) = check_parity(found.network, found.architecture.scale, model, images)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            onnx.save(model, path)
            fusion = count_integer_convolutions(path)
        rows.append(
            f"| {name} | {reference.pixels} | {reference.equal:.4%} | {reference.largest_difference} | "
            f"{fused.equal:.4%} | {fused.largest_difference} | {fusion.integer} of {fusion.total} |"
        )
        click.echo(rows[-1])
    (ROOT / "docs" / "parity.md").write_text(
        HEAD.format(version=onnxruntime.__version__) + "\n".join(rows) + "\n"
    )


if __name__ == "__main__":
    main()
