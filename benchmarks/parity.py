"""Parity of named and random architectures in every runtime; writes docs/parity.md.

python benchmarks/parity.py --data ../shared/data

The named architectures with random weights on the images of Set14; 50 random architectures of each searched
space (4 and 8 bits mixed, ADQ in every other one) on made-up images of odd size.
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import torch

from qnas.export.checks.check import WrittenFile, check, check_images
from qnas.export.checks.report import CheckReport
from qnas.export.integers import integer_network
from qnas.export.targets import TARGETS, fitted
from qnas.export.to_onnx.writer import write_onnx
from qnas.export.to_tflite.writer import write_tflite
from qnas.export.trained import trained_reference
from qnas.images.evaluation import Image
from qnas.network.architecture import Space, named_architectures
from qnas.testing.random_networks import build, noise, random_architecture, random_found
from qnas.torch.checkpoint import Found

ROOT = Path(__file__).resolve().parent.parent
SPACES: tuple[Space, ...] = ("basic", "rfdn_space")
TILE = 48  # of a .tflite file, LR pixels a side
HEAD = """# Parity

Made by `python benchmarks/parity.py --data ../shared/data`. Random weights; uint8 outputs of
every runtime against those of the numpy interpreter, values are pixels times colours. The interpreter itself
is compared with torch in `eval()`. {runtimes}.

A cell is the share of equal values and, where not all are, the largest difference in grey levels. The values
are those that torch computed; the reference evaluator and LiteRT's own kernels, which are slow, saw a part.
LiteRT's own kernels and OpenVINO round in their own ways ([runtime-differences.md](runtime-differences.md)):
nothing hangs on them.

## Named architectures, the images of Set14

{named}

## Random architectures, {count} of each space

All values of all architectures together.

{random}
"""


def report_of(found: Found, images: Sequence[tuple[str, Image]]) -> CheckReport:
    """Both formats of `found` in every runtime."""
    integer = integer_network(found)
    onnx_target, litert = TARGETS["onnxruntime"], TARGETS["litert"]
    with tempfile.TemporaryDirectory() as name:
        files = [WrittenFile(Path(name) / "m.onnx"), WrittenFile(Path(name) / "m.tflite")]
        model = write_onnx(fitted(integer, onnx_target), onnx_target)
        files[0].path.write_bytes(model.SerializeToString())
        files[1].path.write_bytes(write_tflite(fitted(integer, litert), TILE, TILE).data)
        return check(files, integer, trained_reference(found.network), images)


Counts = dict[str, tuple[int, int, int]]  # runtime -> values, differing, largest


def counted(report: CheckReport) -> Counts:
    """Against the interpreter, torch included."""
    results = [*report.references[1:], *(r for file in report.files for r in file.runtimes)]
    compared = ((r.runtime, r.against["interpreter"]) for r in results if r.error is None)
    return {name: (d.values, d.differing, d.largest) for name, d in compared}


def added(counts: Sequence[Counts]) -> Counts:
    """Over several architectures."""
    names = dict.fromkeys(name for each in counts for name in each)
    return {
        name: (
            sum(each[name][0] for each in counts if name in each),
            sum(each[name][1] for each in counts if name in each),
            max(each[name][2] for each in counts if name in each),
        )
        for name in names
    }


def table(rows: dict[str, Counts]) -> str:
    """One line an entry, one column a runtime."""
    names = list(dict.fromkeys(name for counts in rows.values() for name in counts))
    lines = [f"| | values | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    for title, counts in rows.items():
        cells = [cell(*counts[name]) if name in counts else "" for name in names]
        lines.append(f"| {title} | {next(iter(counts.values()))[0]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(values: int, differing: int, largest: int) -> str:
    """100 % only when all are equal."""
    return "100 %" if not differing else f"{100 * (1 - differing / values):.4f} %, {largest}"


def random_networks(space: Space, count: int) -> Iterator[tuple[Found, list[tuple[str, Image]]]]:
    """Networks of the space, each with an image of odd size, large enough for one tile."""
    for seed in range(count):
        architecture = random_architecture(space, seed)
        side = architecture.scale * (TILE + 3)
        yield build(architecture, seed), [("noise", noise(side, side + architecture.scale, seed))]


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), default=ROOT.parent / "shared" / "data")
@click.option("--count", default=50, show_default=True, help="Random architectures of each space.")
def main(data: Path, count: int) -> None:
    torch.set_num_threads(1)
    images, _ = check_images(data / "Set14")
    named, drawn = {}, {}
    for name in named_architectures():
        if not name.endswith("w32"):
            report = report_of(random_found(name), images)
            named[name] = counted(report)
            click.echo(table({name: named[name]}))
    for space in SPACES:
        all_counts = [counted(report_of(*each)) for each in random_networks(space, count)]
        drawn[space] = added(all_counts)
        click.echo(table({space: drawn[space]}))
    versions = {r.runtime: r.version for file in report.files for r in file.runtimes}
    runtimes = ", ".join(f"{name} {version}" for name, version in versions.items())
    page = HEAD.format(runtimes=runtimes, named=table(named), random=table(drawn), count=count)
    (ROOT / "docs" / "parity.md").write_text(page)


if __name__ == "__main__":
    main()
