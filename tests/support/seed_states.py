"""Small valid states of runs, and documents that a search, a sweep, a calibration and the bench write.

A document that carries its digest is there twice, as it is written and without: damage stops at the one, and
goes on in the other.
"""

import json
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch

from qnas.calibration.calibrate import calibrate
from qnas.calibration.document import to_json
from qnas.documents.digest import DIGEST
from qnas.runtime_bench.gate.output import as_document
from qnas.runtime_bench.latency_model.kernels import Kernel
from qnas.runtime_bench.latency_model.operations import operation_times, with_operations
from qnas.runtime_bench.latency_model.table import KernelTime, LatencyModel
from qnas.runtime_bench.stats import Estimate
from qnas.search.runs.run_folder import PLAN, SearchPlan, write_begun
from qnas.search.space.search_space import SearchSpace, from_document
from qnas.search.supernet.recipe import SearchRecipe
from qnas.search.supernet.state import start as start_search
from qnas.search.supernet.world import World
from qnas.search.sweep.member import Member, SweepRecord
from qnas.search.training.train import Recipe
from qnas.search.training.train import start as start_training
from qnas.testing import bench_results
from qnas.testing.mutations import plain_archive
from qnas.testing.seed_files import SIZE, Seeds, architectures, written
from qnas.testing.small_calibrations import SETTINGS, make_network, make_photographs
from qnas.torch.checkpoint import read_plain, save_plain
from qnas.torch.environment import Environment

IMAGES = "images"  # a folder in that of the file that is read
CPU = torch.device("cpu")
ENVIRONMENT = Environment(1, 1, "cpu", "AVX2", {"torch": "2.13.0"})
DIGESTS = {IMAGES: {"a.png": "0" * 64}}


# States ---------------------------------------------------------------------------------------------------


def _step(optimizer: torch.optim.Optimizer) -> None:
    """One step with the same gradients whenever it is made."""
    generator = torch.Generator().manual_seed(0)
    for parameter in (each for group in optimizer.param_groups for each in group["params"]):
        parameter.grad = torch.randn(parameter.shape, generator=generator) * 1e-3
    optimizer.step()


def _state(save: Callable[[Path], object]) -> bytes:
    return plain_archive(written(save, ".run"))


def _unsealed(save: Callable[[Path], object]) -> bytes:
    """Without the digest, as states of earlier versions are."""

    def write(path: Path) -> None:
        save(path)
        document = read_plain(path)
        del document[DIGEST]
        save_plain(path, document, force=True)

    return _state(write)


@cache
def run_states() -> Seeds:
    """Of trainings after a step, and before."""
    seeds = {}
    for name in ("basic", "rfdn"):
        run = start_training(architectures()[name], Recipe((IMAGES,), steps=10, batch=1, patch=8), CPU)
        run.images, run.environment = DIGESTS, ENVIRONMENT
        if name == "basic":
            _step(run.optimizer)
            run.step = 1
        seeds[name] = _unsealed(run.save)
    return {**seeds, "sealed": _state(run.save)}


@cache
def spaces() -> dict[str, SearchSpace]:
    """One whose operations are searched, with a pattern for each part, and one whose bits alone are."""
    operations = {"head.*": ["simple_3x3"], "*": ["simple_1x1", "growth2_3x3"]}
    basic = {
        "network": "basic",
        "channels": 3,
        "blocks": 1,
        "scale": 2,
        "bits": [4, 8],
        "operations": operations,
    }
    fixed = {"network": "espcn", "channels": 4, "blocks": 1, "scale": 2, "bits": [4, 8, 32]}
    tied = basic | {"blocks": 2, "identical_blocks": True, "normalization": "adq"}
    named = {"basic": basic, "tied": tied, "fixed": fixed}
    return {name: from_document(document, name, name) for name, document in named.items()}


@cache
def space_files() -> Seeds:
    return {name: json.dumps(space.to_document()).encode() for name, space in spaces().items()}


def _recipe(**options: Any) -> SearchRecipe:
    return SearchRecipe((IMAGES,), epochs=3, epoch_steps=4, warm_up=1, batch=1, patch=8, **options)


@cache
def search_states() -> Seeds:
    """Of searches whose alphas have made a step, and of one whose weights alone have."""
    seeds = {}
    for name, recipe, step in (
        ("basic", _recipe(), 8),
        ("fixed", _recipe(mixer="shared", optimizer="adam"), 4),
    ):
        search = start_search(spaces()[name], recipe, CPU, World())
        search.step = step
        _step(search.weight_optimizer)
        if step > 4:
            _step(search.alpha_optimizer)
        seeds[name] = _unsealed(search.save)
    return {**seeds, "sealed": _state(search.save)}


# Documents ------------------------------------------------------------------------------------------------


def _both(name: str, text: str) -> dict[str, bytes]:
    """The document as it is, and without its digest."""
    plain = {key: value for key, value in json.loads(text).items() if key != DIGEST}
    return {f"{name} sealed": text.encode(), name: json.dumps(plain).encode()}


@cache
def plans() -> Seeds:
    """search.json."""
    recipes = {"basic": _recipe(), "fixed": _recipe(selector="gumbel", alpha_rate=1e-3)}
    seeds = {}
    for name, recipe in recipes.items():
        with tempfile.TemporaryDirectory() as folder:
            write_begun(Path(folder), SearchPlan(spaces()[name], recipe), ENVIRONMENT, DIGESTS)
            seeds |= _both(name, (Path(folder) / PLAN).read_text())
    return seeds


@cache
def sweeps() -> Seeds:
    """sweep.json of a member of each kind."""
    data: Mapping[str, Any] = {"data": [IMAGES]}
    train = {**data, "validate": IMAGES, "steps": 10, "patch": 8}
    search = {**data, "epochs": 3, "warm-up": 1, "patch": 8, "channels": 12, "blocks": 1}
    members = [
        Member("a", "search", "basic-small", (4, 8), 0, SIZE, 1e-4, search=search, train=train),
        Member("b", "random", "basic-small", (4,), 0, SIZE, None, 0, (None, 1.5e8), True, search, train),
        Member("c", "uniform-lsq", "espcn", (4,), 1, SIZE, train=train),
    ]
    record = SweepRecord({each.name: each for each in members}, 1, DIGESTS)
    return _both("sweep", json.dumps(record.to_document()))


@cache
def results() -> Seeds:
    """Of the bench and of its gate."""
    gate = as_document(bench_results.gate_report(Estimate(1.1, 1.0, 1.2), Estimate(1.1, 1.05, 1.2)))
    bench = bench_results.document(bench_results.candidate(), bench_results.candidate("b.onnx", "gpu"))
    return {"bench": json.dumps(bench).encode(), "gate": json.dumps(gate).encode()}


@cache
def latency_models() -> Seeds:
    def time(read: int, size: int) -> KernelTime:
        image, weights = (1, size, size, read), (16, read, 3, 3)
        kernel = Kernel(
            "QLinearConv", ("uint8", "int8"), (image, weights), (1, size, size, 16), "group=1 strides=1,1"
        )
        return KernelTime(kernel, 100.0 * read + size, 3)

    machine = {"cpu": "abacus", "machine": "wood", "runtime": "beads"}
    known = tuple(time(read, size) for read in (4, 8, 16) for size in (16, 32))
    model = LatencyModel("cpu", 1, machine, known, 100.0, 5000.0)
    timed = with_operations(model, list(operation_times(model, [spaces()["basic"]], [SIZE])))
    return {"kernels": model.to_json().encode(), "operations": timed.to_json().encode()}


@cache
def calibrated() -> tuple[bytes, Mapping[str, bytes]]:
    """The float network of `calibrations`, and the photographs by name."""
    with tempfile.TemporaryDirectory() as place:
        folder = make_photographs(Path(place) / "photographs")
        photographs = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
        return make_network(Path(place)).read_bytes(), photographs


@cache
def calibrations() -> Seeds:
    """calibration.json."""
    network, photographs = calibrated()
    with tempfile.TemporaryDirectory() as place:
        path, folder = Path(place) / "espcn.onnx", Path(place) / "photographs"
        path.write_bytes(network)
        folder.mkdir()
        for name, data in photographs.items():
            (folder / name).write_bytes(data)
        return _both("espcn", to_json(calibrate(path, [folder], SETTINGS)))
