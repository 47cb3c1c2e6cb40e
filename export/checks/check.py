"""Do the files that were written compute what the network computes? In every runtime, on every pixel.

Photographs are shrunk by the network's scale; each runtime upscales a part of them, and its uint8 output is
compared with that of the references on the same part: the interpreter, which is the definition of the integer
network, and torch, which trained it.
"""

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from qnas import __version__
from qnas.cost.network_cost import network_cost
from qnas.errors import ImageError, ModelError, UsageError
from qnas.export.checks.cases import BUDGET, SMALLEST_SIDE, Case, Effort
from qnas.export.checks.comparison import Comparison
from qnas.export.checks.report import CheckReport, FileResult, Thresholds
from qnas.export.formats.table import file_kind
from qnas.images.evaluation import Image
from qnas.images.files import list_images, read_image
from qnas.images.samples import sample_photographs
from qnas.integer.interpreter import NearTies, run, sizes, whole_sides
from qnas.integer.network import IntegerNetwork
from qnas.network.layers import Layer
from qnas.onnx.fusion import FusionReport, count_in_graph, count_integer_convolutions
from qnas.runtimes.inputs import random_inputs, resolve_shapes
from qnas.runtimes.onnxruntime import execute
from qnas.runtimes.runtime import Runner, pixels, planes
from qnas.runtimes.table import CHECKS, checks_of

SIDE = 64  # of an image that shows the scale of a reference
FEW_PIXELS = 96**2  # of each image, where nobody counted the multiplications
NEAR = 40.0  # dB: what differs more than by roundings is another network
MOST_NEEDED = 512  # LR pixels a side: what needs more is no network for images


@dataclass(frozen=True)
class WrittenFile:
    """A written file. `network` is what its writer walked, where passes made another network than the
    integers of the whole check: layers are compared with it. `inexact`: ids of runtimes whose arithmetic is
    exact for other files, and rounds the scales of this one differently: they have to be near.
    """

    path: Path
    network: IntegerNetwork | None = None
    inexact: frozenset[str] = frozenset()

    @property
    def kind(self) -> str:
        """What its name ends in, without the dot."""
        return self.path.suffix.removeprefix(".")


@dataclass(frozen=True)
class Trained:
    """The network that was trained, in torch: its layers, what it makes of a uint8 image [H, W, 3], and the
    version of torch."""

    layers: Sequence[Layer]
    upscale: Callable[[Image], Image]
    version: str


def check_images(folder: Path | None) -> tuple[list[tuple[str, Image]], tuple[str, ...]]:
    """(name, HR image) pairs of `folder` or the sample photographs, and notes on what was used instead."""
    if folder is not None:
        return [(path.name, read_image(path)) for path in list_images(folder)], ()
    try:
        return sample_photographs(), ()
    except UsageError as error:
        rng = np.random.default_rng(0)
        image = np.kron(rng.integers(0, 256, (32, 32, 3)), np.ones((16, 16, 1))).astype(np.uint8)
        return [("random blocks", image)], (f"compared on a made-up image: {error}",)


def check(
    files: Sequence[WrittenFile], integer: IntegerNetwork | None, trained: Trained | None,
    images: Sequence[tuple[str, Image]], *, layers: bool = False, min_equal: float = 1.0, max_steps: int = 0,
    gate: Collection[str] | None = None, notes: tuple[str, ...] = (), given: Sequence[Comparison] = (),
    channels: int = 3,
) -> CheckReport:  # fmt: skip
    """Compare `files` on HR `images` [H, W, 3] with `integer` and `trained`, whichever are known.

    With one of `channels`, on their luma.
    Without both, the first of the references `given` takes their place; the others are shown beside.

    With `layers` also every tensor that a runtime lets out. A runtime decides the verdict when its id
    (`CHECKS`) is in `gate` or, without one, when its arithmetic is exact: it has to be equal, or where it is
    `inexact` for the file within `NEAR`.
    Raises UsageError when there is nothing to compare or an id of `gate` is unknown, ImageError when an image
    is too small.
    """
    ties = NearTies({})
    known = [*_references(integer, trained, ties), *given]
    _check_call(known, images, gate)
    references = {comparison.name: comparison.runner for comparison in known if comparison.runner is not None}
    scale = integer.scale if integer is not None else _scale(references[known[0].name], channels)
    effort = _effort(integer, trained, len(images))
    against = tuple(comparison.name for comparison in known if comparison.gated) or (known[0].name,)
    runtimes = [_runtimes(file, gate, against) for file in files]
    every = (*known, *(comparison for comparisons in runtimes for comparison in comparisons))
    _give_size(every, next((runner.size for runner in references.values() if runner.size), None))
    for index, (name, image) in enumerate(images):
        case = Case.of(name, image, scale, references, channels)
        _check_size(case, integer, effort)
        for comparison in every:
            comparison.add(case, effort, first=index == 0)
    results = (
        _file_result(file, comparisons, (file.network or integer) if layers else None)
        for file, comparisons in zip(files, runtimes, strict=True)
    )
    return CheckReport(
        Thresholds(min_equal, max_steps), tuple(name for name, _ in images),
        tuple(comparison.result() for comparison in known), tuple(results),
        None if integer is None else ties.counts, notes,
    )  # fmt: skip


def _give_size(comparisons: Iterable[Comparison], size: tuple[int, int] | None) -> None:
    """What a reference of one size sees, all see that take any: their PSNR is then of the same parts."""
    for comparison in comparisons:
        if comparison.runner is not None and comparison.runner.size is None:
            comparison.runner = replace(comparison.runner, size=size)


def _check_call(
    known: Sequence[Comparison], images: Sequence[tuple[str, Image]], gate: Collection[str] | None
) -> None:
    if not known:
        raise UsageError("a check needs a network to compare the files with: give it one")
    if not images:
        raise UsageError("a check needs at least one image: give it one")
    unknown = sorted(set(gate or ()) - CHECKS.keys())
    if unknown:
        raise UsageError(f"there is no runtime {unknown[0]!r}: name some of {', '.join(CHECKS)}")


def _references(integer: IntegerNetwork | None, trained: Trained | None, ties: NearTies) -> list[Comparison]:
    """The interpreter, which counts into `ties`, and torch, which is compared with it."""
    found = []
    if integer is not None:
        runner = Runner(partial(_interpreted, integer, ties))
        found.append(Comparison("interpreter", f"qnas {__version__}", True, runner, against=()))
    if trained is not None:
        against = ("interpreter",) if found else ()
        found.append(Comparison("torch", trained.version, True, Runner(trained.upscale), against=against))
    return found


def _interpreted(network: IntegerNetwork, ties: NearTies, image: Image) -> Image:
    return pixels(run(network, planes(image), ties))


def _scale(reference: Runner, channels: int) -> int:
    """By how much its output grows with its input: a border of the image may be missing in it."""

    def made(height: int, width: int) -> int:
        return len(reference.upscale(np.zeros((height, width, channels), np.uint8)))

    if reference.size is not None:
        return -(-made(*reference.size) // reference.size[0])
    return (made(2 * SIDE, 2 * SIDE) - made(SIDE, SIDE)) // SIDE


def _effort(integer: IntegerNetwork | None, trained: Trained | None, images: int) -> Effort:
    """The budget in pixels of each image, by the multiplications of a small one.

    A network that is known to runtimes alone may want sides that some power of two divides.
    """
    side = SMALLEST_SIDE
    if integer is None:
        if trained is None:
            return Effort(FEW_PIXELS, side, multiple=SMALLEST_SIDE // 3)
        macs = network_cost(trained.layers, side, side).macs
    else:
        while not _fits(integer, side, side) and side < MOST_NEEDED:
            side *= 2
        size = sizes(integer, side, side)
        macs = sum(node.weight.size * math.prod(size[node.name]) for node, _ in integer.convolutions())
    multiple = 1 if integer is None else whole_sides(integer)
    return Effort(BUDGET * side**2 / max(1, macs) / images, side, multiple)


def _fits(network: IntegerNetwork, height: int, width: int) -> bool:
    """Whether every tensor of an image of that size has a pixel."""
    return all(min(size) > 0 for size in sizes(network, height, width).values())


def _check_size(case: Case, integer: IntegerNetwork | None, effort: Effort) -> None:
    height, width, _ = case.lr.shape
    if integer is not None and not _fits(integer, min(height, effort.smallest), min(width, effort.smallest)):
        raise ImageError(
            f"{case.name} is {width}x{height} pixels small for the network, which then has nothing to pool: "
            "compare larger images"
        )


def _runtimes(file: WrittenFile, gate: Collection[str] | None, against: tuple[str, ...]) -> list[Comparison]:
    """`file`, opened in every runtime that is installed."""
    comparisons = []
    kind = file_kind(file.path)
    for key, runtime in checks_of(file.path.suffix).items():
        if not runtime.installed:
            continue
        gated = runtime.exact and key not in file.inexact if gate is None else key in gate
        near = NEAR if gate is None and runtime.exact and not gated else None
        comparison = Comparison(runtime.name, runtime.version, gated, None, against, near)
        try:
            comparison.runner = runtime.open(kind.whole(file.path))
        except ModelError as error:
            comparison.error = str(error)
        comparisons.append(comparison)
    return comparisons


def _file_result(
    file: WrittenFile, comparisons: Sequence[Comparison], walked: IntegerNetwork | None
) -> FileResult:
    tables = tuple(comparison.layers(walked, file.kind) for comparison in comparisons if walked is not None)
    checks = checks_of(file.path.suffix)
    missing = [runtime for runtime in checks.values() if not runtime.installed]
    delegated = [s.runner.delegated for s in comparisons if s.runner is not None and s.runner.delegated]
    results = tuple(comparison.result() for comparison in comparisons)
    fusion, macs = (None, None) if file.kind != "onnx" else executed(file.path)
    return FileResult(
        file.path.name, file.kind, results, tables,
        tuple(f"{runtime.name}: {runtime.package} is not installed" for runtime in missing),
        fusion, macs, delegated[0] if delegated else None,
    )  # fmt: skip


def executed(path: Path) -> tuple[FusionReport | None, tuple[int, int] | None]:
    """What onnxruntime makes of a model, and the multiply-adds of one run: those in integers, and all.

    None of what cannot be had: it does not load (its line in the table says so), or run at the size that the
    bench takes.
    """
    try:
        inputs = file_kind(path).inputs(path)
        execution = execute(path, random_inputs(inputs, resolve_shapes(inputs, ()), 0), runs=1, warmup=0)
    except ModelError:
        try:
            return count_integer_convolutions(path), None
        except ModelError:
            return None, None
    assert execution.graph is not None  # the processor compiles nothing
    nodes = execution.nodes
    macs = sum(node.macs for node in nodes if node.integer), sum(node.macs for node in nodes)
    return count_in_graph(execution.graph), macs
