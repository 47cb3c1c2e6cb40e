"""What the fuzzing of states, documents, images and float networks found, each with the least file."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from qnas.calibration.prepare.float_model import read_float_model
from qnas.errors import CheckpointError, ImageError, ModelError, QnasError, SpaceError, UsageError
from qnas.images.files import MOST_SCANS, read_image
from qnas.onnx.session import open_session
from qnas.quantization.quantizers import QuantSpec
from qnas.runtime_bench.latency_model.table import read_latency_model
from qnas.search.space.search_space import from_document
from qnas.search.supernet.state import resume
from qnas.search.supernet.supernet import Supernet, weight_count
from qnas.search.supernet.world import World
from qnas.search.sweep.lines import check
from qnas.search.sweep.member import Member, member_from
from qnas.search.training.train import resume as resume_training
from qnas.testing.image_mutations import TIFF, many_scans
from qnas.testing.seed_models import float_models
from qnas.testing.seed_states import CPU, latency_models, run_states, search_states, spaces
from qnas.torch.checkpoint import read_plain, save_plain
from qnas.torch.fake_quantization import Quantizer

# States and plans of searches -----------------------------------------------------------------------------


def _changed(seed: bytes, path: Path, change: Callable[[Any], object]) -> Path:
    """The state in `seed` as the file `path`, after `change` of its document."""
    path.write_bytes(seed)
    document = read_plain(path)
    change(document)
    save_plain(path, document, force=True)
    return path


LARGE = {
    "network": "basic", "channels": 512, "blocks": 64, "scale": 4, "bits": [4, 8],
    "operations": {"*": ["growth4_9x9", "simple_9x9"]},
}  # fmt: skip


def test_a_search_of_more_weights_than_its_state_has_is_refused_before_they_are_made(
    tmp_path: Path,
) -> None:
    seed = search_states()["basic"]
    path = _changed(seed, tmp_path / "state.pt", lambda document: document.update(space=LARGE))  # 200 GB
    with pytest.raises(CheckpointError, match=r"is too short for the \d+ weights of its architecture"):
        resume(path, CPU, World())


@pytest.mark.parametrize("mixer", ["san", "independent"])
@pytest.mark.parametrize("name", ["basic", "tied", "fixed"])
def test_the_weights_of_a_supernet_are_counted_without_one(name: str, mixer: Any) -> None:
    made = Supernet(spaces()[name], mixer)
    kernels = [value for key, value in made.named_parameters() if value.dim() == 5]
    assert weight_count(spaces()[name], mixer) == sum(kernel.numel() for kernel in kernels)


@pytest.mark.parametrize(
    ("key", "value"),
    [("seed", 10**30), ("learning_rate", -1.0), ("alpha_rate", 0.0), ("weight_decay", -1.0), ("batch", 0)],
)
def test_a_recipe_of_a_search_that_pytorch_would_fail_on_is_refused(
    key: str, value: Any, tmp_path: Path
) -> None:
    seed = search_states()["basic"]
    path = _changed(seed, tmp_path / "state.pt", lambda document: document["recipe"].update({key: value}))
    with pytest.raises(CheckpointError, match=f"recipe: {key} is "):
        resume(path, CPU, World())


@pytest.mark.parametrize(
    ("key", "value"), [("learning_rate", float("nan")), ("learning_rate", 0.0), ("patch", 0)]
)
def test_a_recipe_of_a_training_that_pytorch_would_fail_on_is_refused(
    key: str, value: Any, tmp_path: Path
) -> None:
    seed = run_states()["basic"]
    path = _changed(seed, tmp_path / "a.run", lambda document: document["recipe"].update({key: value}))
    with pytest.raises(CheckpointError, match=f"recipe: {key} is "):
        resume_training(path, CPU)


@pytest.mark.parametrize("tensor", [torch.ones(3), torch.tensor(1.0), torch.ones(2, 2), torch.ones(0)])
def test_a_tensor_in_place_of_a_part_of_a_document_is_refused(tensor: torch.Tensor, tmp_path: Path) -> None:
    def change(document: Any) -> None:
        document["architecture"]["layers"]["head.0"] = tensor

    path = _changed(run_states()["basic"], tmp_path / "a.run", change)
    with pytest.raises(CheckpointError, match=r"architecture in .*a\.run is wrong"):
        resume_training(path, CPU)


def test_what_an_optimizer_remembers_is_its_own_where_the_file_has_one_number_for_all(tmp_path: Path) -> None:
    def change(document: Any) -> None:
        for each in document["weight_optimizer"]["state"].values():
            buffer = each["momentum_buffer"]
            each["momentum_buffer"] = buffer.reshape(-1)[:1].clone().expand(buffer.numel()).view(buffer.shape)

    path = _changed(search_states()["basic"], tmp_path / "state.pt", change)
    search = resume(path, CPU, World())
    for parameter in search.supernet.weights():
        parameter.grad = torch.ones_like(parameter)
    search.weight_optimizer.step()


def test_a_tensor_in_place_of_what_an_optimizer_remembers_is_refused(tmp_path: Path) -> None:
    def change(document: Any) -> None:
        document["weight_optimizer"]["state"][0] = torch.ones(3)

    path = _changed(search_states()["basic"], tmp_path / "state.pt", change)
    with pytest.raises(CheckpointError, match="is no state of an optimizer"):
        resume(path, CPU, World())


@pytest.mark.parametrize(
    "operations",
    [
        {"*": [f"growth1_3x3_via_{width}" for width in range(1, 100)]},
        {"h" + "*" * count + "ead.0": ["simple_3x3"] for count in range(2000)},
        {"*a" * 10_000: ["simple_3x3"]},
    ],
)
def test_a_space_of_operations_or_patterns_without_end_is_refused_at_once(operations: dict[str, Any]) -> None:
    with pytest.raises(SpaceError, match="operations"):
        from_document({**LARGE, "operations": operations}, "space.json")


def test_steps_whose_grid_ends_beyond_all_numbers_have_a_gradient() -> None:
    x = torch.tensor([[[[1.0, -2.0]]]], requires_grad=True)
    quantizer = Quantizer(QuantSpec(8, signed=True))
    with torch.no_grad():
        quantizer.step.fill_(2.0**127)
    quantizer(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[[[1.0, 1.0]]]]


# sweep.json -----------------------------------------------------------------------------------------------


def _member(folder: Path, **changes: Any) -> Member:
    images = [str(folder)]
    document = Member(
        "a", "search", "basic-small", (4, 8), 0, (24, 20), 1e-4,
        search={"data": images, "epochs": 3}, train={"data": images, "validate": str(folder), "steps": 10},
    ).to_document()  # fmt: skip
    for part, change in changes.items():
        document[part] = {**document[part], **change} if isinstance(change, dict) else change
    return member_from("a", document, "sweep.json")


@pytest.mark.parametrize(
    "changes",
    [
        {"train": {"data": None}}, {"train": {"validate": [[]]}}, {"search": {"data": []}}, {"bits": []},
        {"search": {"data": 5}},
    ],
)  # fmt: skip
def test_a_member_of_a_sweep_without_images_or_bits_is_refused(changes: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"sweep\.json, member 'a': "):
        _member(tmp_path, **changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train": {"weight": 1}}, "a: qnas-train has no option 'weight'"),
        ({"search": {"output": "/x"}}, "a: output is set by the sweep itself"),
        ({"search": {"epochs": "many"}}, "'many' is not a valid integer range: see qnas-search run --help"),
        ({"train": {"steps": -1}}, "see qnas-train --help"),
    ],
)
def test_a_member_of_a_sweep_with_wrong_options_is_refused_and_ends_no_program(
    changes: Any, said: str, tmp_path: Path
) -> None:
    (tmp_path / "image.png").touch()
    with pytest.raises(UsageError, match=said):
        check(_member(tmp_path, **changes))


# The bench's files ----------------------------------------------------------------------------------------


def test_a_measured_kernel_of_nothing_is_refused(tmp_path: Path) -> None:
    text = latency_models()["kernels"].decode()
    (tmp_path / "model.json").write_text(text.replace('"output": [\n    1,', '"output": [\n    0,', 1))
    with pytest.raises(ModelError, match=r"kernels\[0\]\.output\[0\] is 0, not a whole number from 1"):
        read_latency_model(tmp_path / "model.json")


# Images ---------------------------------------------------------------------------------------------------


def test_a_jpeg_of_many_scans_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "scans.jpg"
    path.write_bytes(many_scans(5792, 1 << 20))  # a minute of work
    with pytest.raises(ImageError, match=f"has more than {MOST_SCANS} scans: save it again as PNG"):
        read_image(path)


def test_what_follows_the_end_of_a_jpeg_is_no_scan(tmp_path: Path) -> None:
    path = tmp_path / "film.jpg"
    path.write_bytes(many_scans(64, 1300) + b"\xff\xda\0\x02" * 1000)
    assert read_image(path).shape == (64, 64, 3)


def test_a_tiff_of_tiles_larger_than_any_image_is_refused_before_they_are_made(tmp_path: Path) -> None:
    tile = zlib.compress(bytes(1000))
    entries = [  # tag, type, value: 1x1 pixels of 4 samples, in a tile of 16000x16000
        (256, 4, 1), (257, 4, 1), (258, 3, 16), (259, 3, 8), (262, 3, 5), (277, 3, 4), (322, 4, 16000),
        (323, 4, 16000), (324, 4, 8), (325, 4, len(tile)),
    ]  # fmt: skip
    head = TIFF + struct.pack("<I", 8 + len(tile)) + tile + struct.pack("<H", len(entries))
    (tmp_path / "tile.tif").write_bytes(
        head + b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries) + bytes(4)
    )
    with pytest.raises(ImageError, match="has tiles of more than 33554432 pixels"):
        read_image(tmp_path / "tile.tif")


# Float networks -------------------------------------------------------------------------------------------


def test_a_network_of_one_huge_size_is_refused_before_it_runs(tmp_path: Path) -> None:
    model = onnx.ModelProto.FromString(float_models()["one size"])
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 1 << 20
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ModelError, match="reads 1x3x1048576x20, more than 2097152 pixels"):
        read_float_model(tmp_path / "model.onnx")


def test_what_onnxruntime_says_of_a_model_is_not_printed(capfd: pytest.CaptureFixture[str]) -> None:
    model = onnx.ModelProto.FromString(float_models()["espcn"]).SerializeToString()
    with pytest.raises(QnasError):
        open_session(model.replace(b"DepthToSpace", b"DepthToSpac\xe1"), threads=1)
    assert "EP Error" not in capfd.readouterr().out
