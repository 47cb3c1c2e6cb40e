"""What the forms of the exported graph are worth, one left out at a time; writes docs/graph-forms.md.

python benchmarks/graph_forms.py
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click
import onnx
import torch

from qnas.export.checks.check import WrittenFile, check, check_images
from qnas.export.checks.report import share
from qnas.export.integers import integer_network
from qnas.export.model import build_qdq
from qnas.export.passes.channel_padding import pad_channels
from qnas.export.passes.dense_groups import dense_groups
from qnas.export.passes.phases import delay_shuffles
from qnas.export.targets import TARGETS, fitted
from qnas.export.to_onnx.writer import write_onnx
from qnas.export.trained import trained_reference
from qnas.testing.random_networks import random_found
from qnas.torch.checkpoint import Found, load_found

ROOT = Path(__file__).resolve().parent.parent
HEAD = """# Forms of the exported graph

onnxruntime {version} with all optimisations, one thread. Made by
`python benchmarks/graph_forms.py`. Latency over that of the shipped form, 95 % interval of
interleaved rounds; pixels of the sample photographs. `basic-w48` and `espcn-w8` are the trained examples, the
others have random weights.

| network | form | integer convolutions | equal pixels | largest difference | latency, 128x128 |
|---|---|---|---|---|---|
"""
TARGET = TARGETS["onnxruntime"]
Build = Callable[[Found], onnx.ModelProto]


def without(**forms: object) -> Build:
    """The export of a target that differs in these forms."""
    target = replace(TARGET, **forms)  # type: ignore[arg-type]
    return lambda found: write_onnx(fitted(integer_network(found), target), target)


def copies_joined(found: Found) -> onnx.ModelProto:
    """Repeated channels as a concatenation, nothing of them folded."""
    network = pad_channels(delay_shuffles(dense_groups(integer_network(found))), TARGET.pad_to)
    return write_onnx(network, TARGET)


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


FORMS: dict[str, dict[str, Build]] = {
    "basic-w48": {
        "shipped": build_qdq,
        "shuffle not moved (0004)": without(phases=False),
        "nothing between two grids (0003)": bare_pairs,
        "textbook INT4": without(four_bits="int4"),
    },
    "espcn-w8": {"shipped": build_qdq, "3 channels, not 4": without(pad_to=1)},
    "rfdn-w8": {"shipped": build_qdq, "50 channels, not 52": without(pad_to=1)},
    "rfdn-adq-w48-example": {
        "shipped": build_qdq,
        "groups as they are": without(dense=False),
        "repeated channels joined": copies_joined,
    },
}


@click.command()
def main() -> None:
    import onnxruntime

    torch.set_num_threads(1)
    lines = []
    for name, forms in FORMS.items():
        trained = ROOT / "examples" / name / "found.pt"
        found = load_found(trained) if trained.exists() else random_found(name)
        lines += rows(name, found, forms)
        click.echo("\n".join(lines))
    head = HEAD.format(version=onnxruntime.__version__)
    (ROOT / "docs" / "graph-forms.md").write_text(head + "\n".join(lines) + "\n")


def rows(name: str, found: Found, forms: dict[str, Build]) -> list[str]:
    """One line a form."""
    images, _ = check_images(None)
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        paths = {form: Path(folder) / f"{index}.onnx" for index, form in enumerate(forms)}
        for form, build in forms.items():
            onnx.save(build(found), paths[form])
        report = Path(folder) / "bench.json"
        bench = Path(sys.executable).with_name("qnas-bench")
        command = [bench, *paths.values(), "--shape", "128x128", "--min-time", "4", "--json", report]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        for form, measured in zip(forms, json.loads(report.read_text())["models"], strict=True):
            trained = trained_reference(found.network)
            (file,) = check([WrittenFile(paths[form])], None, trained, images).files
            fused, fusion = file.runtimes[0].against["torch"], file.fusion
            assert fusion is not None
            ratio = measured["ratio_to_first"]
            latency = "1" if ratio is None else "{value:.2f} ({low:.2f} to {high:.2f})".format(**ratio)
            lines.append(
                f"| {name} | {form} | {fusion.integer} of {fusion.total} | {share(fused.equal)} | "
                f"{fused.largest} | {latency} |"
            )
    return lines


if __name__ == "__main__":
    main()
