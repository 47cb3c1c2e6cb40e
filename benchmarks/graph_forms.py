"""What two forms of the exported graph are worth, on examples/basic-w48; writes docs/graph-forms.md.

python benchmarks/graph_forms.py
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import click
import onnx
import torch

from qnas.checkpoint import Found, load_found
from qnas.export.checks.check import WrittenFile, check, check_images
from qnas.export.integers import integer_network
from qnas.export.model import build_qdq
from qnas.export.targets import TARGETS, fitted
from qnas.export.to_onnx.writer import write_onnx

ROOT = Path(__file__).resolve().parent.parent
HEAD = """# Forms of the exported graph

`examples/basic-w48`, onnxruntime {version} with all optimisations, one thread.
Made by `python benchmarks/graph_forms.py`.
Latency over that of the shipped form, 95 % interval of interleaved rounds; pixels of the sample photographs.

| form | integer convolutions | equal pixels | largest difference | latency, 128x128 |
|---|---|---|---|---|
"""


def plain_tail(found: Found) -> onnx.ModelProto:
    """The last pixel shuffle where the architecture has it (decision 0004)."""
    target = TARGETS["onnxruntime"]
    return write_onnx(fitted(integer_network(found), replace(target, phases=False)), target)


def bare_pairs(found: Found) -> onnx.ModelProto:
    """Nothing between two quantizers where they change grids (decision 0003)."""
    model = build_qdq(found)
    zeros = {node.output[0] for node in model.graph.node if node.output[0].startswith("zero_on_")}
    apart = [node for node in model.graph.node if zeros & set(node.input)]
    removed = {node.output[0]: node.input[0] for node in apart}
    kept = [node for node in model.graph.node if node not in apart and node.output[0] not in zeros]
    for node in kept:
        node.input[:] = [removed.get(name, name) for name in node.input]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


FORMS = {"shipped": build_qdq, "shuffle not moved": plain_tail, "nothing between two grids": bare_pairs}


@click.command()
def main() -> None:
    import onnxruntime

    torch.set_num_threads(1)
    found = load_found(ROOT / "examples" / "basic-w48" / "found.pt")
    images, _ = check_images(None)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = {form: folder / f"{index}.onnx" for index, form in enumerate(FORMS)}
        for form, build in FORMS.items():
            onnx.save(build(found), paths[form])
        report = folder / "bench.json"
        bench = Path(sys.executable).with_name("qnas-bench")
        subprocess.run([bench, *paths.values(), "--min-time", "6", "--json", report], check=True)
        for form, measured in zip(FORMS, json.loads(report.read_text())["models"], strict=True):
            (file,) = check([WrittenFile(paths[form], "onnx")], None, found.network, images).files
            fused, fusion = file.runtimes[0].against["torch"], file.fusion
            assert fusion is not None
            ratio = measured["ratio_to_first"]
            latency = "1" if ratio is None else "{value:.2f} ({low:.2f} to {high:.2f})".format(**ratio)
            rows.append(
                f"| {form} | {fusion.integer} of {fusion.total} | {fused.equal:.2%} | "
                f"{fused.largest} | {latency} |"
            )
    (ROOT / "docs" / "graph-forms.md").write_text(
        HEAD.format(version=onnxruntime.__version__) + "\n".join(rows) + "\n"
    )
    click.echo("\n".join(rows))


if __name__ == "__main__":
    main()
