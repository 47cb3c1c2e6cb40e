"""The ways into qnas: for every kind of file valid ones, damage that fits it, and what reads and uses one."""

import os
import tempfile
from collections.abc import Callable
from contextlib import chdir, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch

from qnas.calibration.calibrate import quantized_model
from qnas.calibration.document import read_calibration
from qnas.calibration.patches import manifest
from qnas.calibration.prepare.float_model import read_float_model
from qnas.cost.network_cost import network_cost
from qnas.errors import ImageError, QnasError
from qnas.export.from_qdq.reader import integer_network_of, read_qdq
from qnas.export.inspection.onnx_rows import onnx_rows
from qnas.export.inspection.tflite_rows import tflite_rows
from qnas.export.integers import integer_network
from qnas.images.files import read_image_with_alpha
from qnas.integer.interpreter import run
from qnas.network.architecture import Choice, find_architecture
from qnas.network.lowering import lower
from qnas.onnx.cost import model_cost
from qnas.onnx.files import external_files, model_bytes
from qnas.runtime_bench.latency_model.operations import operation_times
from qnas.runtime_bench.latency_model.table import read_latency_model
from qnas.runtime_bench.page.report_page import report_page
from qnas.search.imports.paper_import import import_checkpoint
from qnas.search.runs.plan_checks import candidate_costs, check_plan
from qnas.search.runs.run_folder import PLAN, read_begun
from qnas.search.space.candidate_costs import counted_costs
from qnas.search.space.latency_costs import latency_costs
from qnas.search.space.search_space import find_space
from qnas.search.supernet.alphas import softmax
from qnas.search.supernet.noise import StepNoise
from qnas.search.supernet.state import resume as resume_search
from qnas.search.supernet.world import World
from qnas.search.sweep.lines import check, inputs_of
from qnas.search.sweep.member import read_record
from qnas.search.training.train import EXPLODED
from qnas.search.training.train import resume as resume_training
from qnas.testing import seed_states
from qnas.testing.format_mutations import (
    change_flatbuffer,
    change_location,
    change_offset,
    change_protobuf,
    change_wire,
)
from qnas.testing.image_mutations import change_head, change_image
from qnas.testing.mutations import (
    Mutation,
    Spoiled,
    change_archive,
    change_entry,
    change_json,
    change_pickle,
    change_tokens,
    changed_tree,
    plain_archive,
)
from qnas.testing.seed_files import (
    SIZE,
    Seeds,
    checkpoints,
    documents,
    found_files,
    genotypes,
    models,
    tflite_files,
)
from qnas.testing.seed_images import image_files
from qnas.testing.seed_models import SECRET, WEIGHTS, external_models, float_models
from qnas.testing.small_networks import pixels
from qnas.tflite.reader import read_tflite
from qnas.tflite.session import LiteRtSession
from qnas.torch.checkpoint import load_found, read_plain, save_plain


@dataclass(frozen=True)
class Reader:
    """A way into qnas: the ending of its files, valid ones, mutations of its own, and what reads a file.

    `seconds`: the CPU time that it may take; `gigabytes` (GiB): the memory.
    """

    title: str
    suffix: str
    seeds: Callable[[], Seeds]
    fields: tuple[Mutation, ...]
    read: Callable[[Path], object]
    seconds: float = 2.0
    gigabytes: float = 1.0


def _read_architecture(path: Path) -> None:
    network_cost(lower(find_architecture(str(path))), *SIZE)


def _read_found(path: Path) -> None:
    run(integer_network(load_found(path)), pixels(*SIZE))


def _beside(path: Path, name: str, data: bytes) -> Path:
    """The file `name` beside the one at `path`, made once."""
    file = path.parent / name
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(data)
    return file


def _read_genotype(path: Path) -> None:
    """With the checkpoint that fits the first of the valid ones."""
    import_checkpoint(_beside(path, "valid.pth.tar", checkpoints()["adq"]), path)


def _read_checkpoint(path: Path) -> None:
    import_checkpoint(path, _beside(path, "valid.gen", genotypes()["varied"]))


def _read_qdq(path: Path) -> None:
    run(read_qdq(path), pixels(37, 53))


def _read_graph(path: Path) -> None:
    model_cost(path, {"image": (1, 3, *SIZE)})
    onnx_rows(path, *SIZE)


def _run_tflite(path: Path) -> None:
    LiteRtSession(path.read_bytes()).run(pixels(*SIZE))


def _read_external(path: Path) -> None:
    """With files beside and below it, a link, a pipe, and above them what no model may reach."""
    _beside(path, "above.bin", SECRET)
    model = _beside(path, "model/model.onnx", b"")
    folder = model.parent
    below = _beside(model, "below/weights.bin", WEIGHTS)
    weights = _beside(model, "weights.bin", WEIGHTS)
    if not (folder / "link").exists():
        os.mkfifo(folder / "pipe")
        (folder / "link").symlink_to("weights.bin")
        (folder / "folder").symlink_to("..")
    model.write_bytes(path.read_bytes())
    if not set(external_files(model)) <= {weights, below, model}:
        raise AssertionError("a file that it may not read")
    if SECRET[:16] in model_bytes(model):
        raise AssertionError("a file above it was read")
    run(read_qdq(model), pixels(*SIZE))


def _read_float(path: Path) -> None:
    read_float_model(path)


def _read_run(path: Path) -> None:
    """And make a step, as the run would go on."""
    found = resume_training(path, torch.device("cpu"))
    found.network.train()
    loss = found.network(torch.from_numpy(pixels(*SIZE)).float()).square().mean()
    _step(loss, found.optimizer)


def _step(loss: torch.Tensor, *optimizers: torch.optim.Optimizer) -> None:
    """A step of a run, which ends where its loss explodes."""
    if loss < EXPLODED:
        loss.backward()  # type: ignore[no-untyped-call]
        for optimizer in optimizers:
            optimizer.step()


def _read_search(path: Path) -> None:
    """And ask what it would choose, and make a step."""
    search = resume_search(path, torch.device("cpu"), World())
    search.choices()
    search.supernet.train()
    shares = [softmax(alpha) for alpha in search.supernet.alphas]
    noise = StepNoise(0, torch.device("cpu"), World())
    loss = search.supernet(torch.from_numpy(pixels(8, 8)).float(), shares, noise).square().mean()
    _step(loss, search.weight_optimizer, search.alpha_optimizer)


def _read_space(path: Path) -> None:
    space = find_space(str(path))
    space.architecture({name: Choice(space.candidates(name)[0], space.bits[0]) for name in space.variables})
    counted_costs(space, "bitops", *SIZE)


def _read_plan(path: Path) -> None:
    """In the folder of a search."""
    place = _beside(path, f"search/{PLAN}", b"")
    place.write_bytes(path.read_bytes())
    plan = read_begun(place.parent).plan
    check_plan(plan)
    candidate_costs(plan)
    list(plan.differences(plan))


def _read_sweep(path: Path) -> None:
    """With a folder of an image, which members name."""
    _beside(path, f"{seed_states.IMAGES}/image.png", image_files()["png"])
    record = read_record(path)
    for member in record.members.values():
        with chdir(path.parent):
            check(member)
        inputs_of(member)
    record.to_document()


def _read_calibration(path: Path) -> None:
    """With its network and its images."""
    network, photographs = seed_states.calibrated()
    images = [_beside(path, f"photographs/{name}", data) for name, data in photographs.items()]
    found = read_calibration(path)
    with suppress(ImageError):  # an export needs no images
        manifest.from_document(found.manifest, str(path), images[0].parent)
    run(
        integer_network_of(quantized_model(_beside(path, "espcn.onnx", network), found), "espcn"),
        pixels(*SIZE),
    )


def _read_latency_model(path: Path) -> None:
    """As a search reads it, and as a prediction does."""
    space = seed_states.spaces()["basic"]
    with suppress(QnasError):
        latency_costs(space, path, *SIZE)
    operation_times(read_latency_model(path), [space], [SIZE])


def change_document(data: bytes, other: bytes, random: Random) -> bytes:
    """A checkpoint with a value of its document changed: another number, another kind of tensor."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.pt"
        path.write_bytes(data)
        try:
            document = changed_tree(read_plain(path), random, lambda value: _odd(value, random))
            save_plain(path, document, True)
            return plain_archive(path.read_bytes())
        except Exception:  # earlier damage, or what torch does not save
            raise Spoiled from None


_ODD = (
    0, 1, -1, 3, 8, 32, 64, 512, 513, 10**30, 8.0, 2.5, True, None, "x", "paper", "basic", "growth4_9x9", [],
    {}, (), set(),
)  # fmt: skip


def _odd(value: Any, random: Random) -> Any:
    if not isinstance(value, torch.Tensor):
        return random.choice((*_ODD, [value], torch.ones(3)))
    flat = value.reshape(-1)
    odd: tuple[Callable[[], Any], ...] = (
        lambda: value.double(), lambda: value.half(), lambda: value.to(torch.int8), lambda: -value,
        lambda: value * 1e38, lambda: value * 0, lambda: value * float("nan"), lambda: value.tolist(),
        lambda: flat, lambda: None, lambda: value[None], lambda: value[:1].expand(value.shape),
        lambda: value[:0], lambda: value.to_sparse(),
        lambda: value.to("meta"), lambda: value.to(torch.complex64), lambda: torch.nn.Parameter(value),
        lambda: flat[:1].expand(10**9), lambda: flat[:1].reshape(1, 1, 1, 1).expand(512, 12, 1, 1),
        lambda: value.transpose(0, -1), lambda: value * 1e-38,
        lambda: torch.quantize_per_tensor(value, 1, 0, torch.qint8),
    )  # fmt: skip
    return random.choice(odd)()


_ZIP = (change_entry, change_archive, change_pickle, change_pickle, change_document, change_document)
_JSON = (change_json, change_json, change_tokens)
_PROTOBUF = (change_protobuf, change_protobuf, change_protobuf, change_wire)
_FLATBUFFER = (change_flatbuffer, change_flatbuffer, change_offset)
READERS: dict[str, Reader] = {
    "architecture": Reader(
        "architecture, JSON", ".json", documents, (change_json, change_tokens), _read_architecture
    ),
    "genotype": Reader("genotype, `.gen`", ".gen", genotypes, (change_tokens,), _read_genotype),
    "found": Reader("`found.pt`", ".pt", found_files, _ZIP, _read_found),
    "checkpoint": Reader("checkpoint of the paper", ".tar", checkpoints, _ZIP, _read_checkpoint),
    "onnx": Reader("ONNX, as an integer network", ".onnx", models, _PROTOBUF, _read_qdq),
    "graph": Reader("ONNX, as a graph (cost, shapes)", ".onnx", models, _PROTOBUF, _read_graph),
    "tflite": Reader(
        "TFLite, as layers", ".tflite", tflite_files, _FLATBUFFER,
        lambda path: tflite_rows(read_tflite(path)),
    ),
    "litert": Reader(
        "TFLite, run in LiteRT", ".tflite", tflite_files, _FLATBUFFER, _run_tflite
    ),
    "external": Reader(
        "ONNX, with weights in other files", ".onnx", external_models,
        (change_location, change_location, change_location, change_protobuf), _read_external,
    ),
    "float": Reader(
        "ONNX, as a float network to calibrate", ".onnx", float_models, _PROTOBUF, _read_float, 20, 3
    ),
    "run": Reader("state of a training", ".run", seed_states.run_states, _ZIP, _read_run),
    "search": Reader("state of a search", ".pt", seed_states.search_states, _ZIP, _read_search),
    "space": Reader("search space, JSON", ".json", seed_states.space_files, _JSON, _read_space),
    "plan": Reader("`search.json`", ".json", seed_states.plans, _JSON, _read_plan),
    "sweep": Reader("`sweep.json`", ".json", seed_states.sweeps, _JSON, _read_sweep),
    "calibration": Reader(
        "`calibration.json`", ".json", seed_states.calibrations, _JSON, _read_calibration
    ),
    "result": Reader(
        "results of the bench and its gate", ".json", seed_states.results, _JSON,
        lambda path: report_page([path]),
    ),
    "latency": Reader("latency model", ".json", seed_states.latency_models, _JSON, _read_latency_model),
    "image": Reader(
        "images", ".png", image_files, (change_image, change_image, change_head), read_image_with_alpha, 20
    ),
}  # fmt: skip
