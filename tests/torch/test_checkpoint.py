"""found.pt: what was saved is what is loaded, and anything else is refused by name and never executed."""

import resource
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor

from qnas.errors import CheckpointError, OutputError
from qnas.network.architecture import Architecture, find_architecture
from qnas.torch.checkpoint import FORMAT, VERSION, load_found, load_plain, save_found, save_plain
from qnas.torch.network import Network

ESPCN = find_architecture("espcn-w4")


@pytest.fixture
def found(tmp_path: Path, calibrated: Callable[[Architecture], Network]) -> Path:
    path = tmp_path / "found.pt"
    save_found(path, ESPCN, calibrated(ESPCN), {"seconds": 1.5})
    return path


@pytest.fixture
def document(found: Path) -> dict[str, Any]:
    return load_plain(found, FORMAT, VERSION)


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Path]]:
        return Path.touch, (self.path,)


def test_what_was_saved_is_loaded(
    found: Path, calibrated: Callable[[Architecture], Network], picture: Tensor
) -> None:
    loaded = load_found(found)
    network = calibrated(ESPCN)
    assert loaded.architecture == ESPCN
    assert loaded.training == {"seconds": 1.5}
    assert not loaded.network.training
    assert list(loaded.network.state_dict()) == list(network.state_dict())
    with torch.no_grad():
        assert torch.equal(loaded.network(picture), network.eval()(picture))


def test_saving_does_not_change_the_network(tmp_path: Path) -> None:
    network = Network(())
    network.train()
    save_found(tmp_path / "found.pt", ESPCN, network, {})
    assert network.training


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"no checkpoint .*x\.pt: check the path, or train one with qnas-train"
    ):
        load_found(tmp_path / "x.pt")


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused(found: Path, share: float) -> None:
    content = found.read_bytes()
    found.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match="is truncated or no PyTorch checkpoint: write it again"):
        load_found(found)


def test_a_damaged_file_is_refused(found: Path) -> None:
    content = found.read_bytes()
    at = content.index(b"qnas-found")
    found.write_bytes(content[: at - 40] + bytes(200) + content[at + 160 :])
    with pytest.raises(CheckpointError, match=r"found\.pt .*: "):
        load_found(found)


def test_another_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "found.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no network")
    with pytest.raises(CheckpointError, match=r"is damaged .*: write it again with qnas-train"):
        load_found(path)


def test_code_in_a_file_is_refused_and_not_run(tmp_path: Path) -> None:
    path, marker = tmp_path / "found.pt", tmp_path / "executed"
    save_plain(path, {"format": FORMAT, "version": VERSION, "training": Touch(marker)}, force=False)
    with pytest.raises(CheckpointError, match=r"holds more than plain data \(.*\) and was not executed"):
        load_found(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"format": "other"}, "is not a qnas-found file: make one with qnas-train"),
        ({"version": 2}, "has version 2, this qnas reads 1: use the qnas that wrote it"),
        ({"architecture": None}, "the architecture in .* is wrong: .* is no architecture"),
        ({"architecture": {**ESPCN.to_document(), "channels": torch.ones(2)}}, "channels is tensor"),
        ({"architecture": {**ESPCN.to_document(), "blocks": 65}}, "is wrong: .*blocks is 65"),
        ({"architecture": {**ESPCN.to_document(), "normalization": "bn"}}, "espcn has no normalization"),
        ({"state_dict": None}, "has no state_dict: write it again with qnas-train"),
    ],
)  # fmt: skip
def test_another_document_is_refused(
    document: dict[str, Any], found: Path, changes: Any, advice: str
) -> None:
    save_plain(found, document | changes, force=True)
    with pytest.raises(CheckpointError, match=advice):
        load_found(found)


def test_data_that_is_no_document_is_refused(tmp_path: Path) -> None:
    save_plain(tmp_path / "found.pt", [1, 2], force=False)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="is not a qnas-found file"):
        load_found(tmp_path / "found.pt")


WEIGHT = torch.zeros(64, 3, 5, 5)


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("conv_0.weight", WEIGHT[:, :2], r"is \(64, 2, 5, 5\) torch.float32, its .* needs \(64, 3, 5, 5\)"),
        ("conv_0.weight", WEIGHT.double(), r"is \(64, 3, 5, 5\) torch.float64, its .* torch.float32"),
        ("conv_0.weight", WEIGHT.to_sparse(), "is .* torch.sparse_coo on cpu, its architecture needs"),
        ("conv_0.weight", WEIGHT.to("meta"), "is .* on meta, its architecture needs"),
        ("conv_0.weight", [0.0], "conv_0.weight is list, its architecture needs"),
        ("conv_0.weight", WEIGHT / 0, "conv_0.weight holds NaN or infinite values: resume from an earlier"),
        ("conv_0.bias", torch.full((64,), torch.inf), "conv_0.bias holds NaN or infinite values"),
        ("conv_9.weight", WEIGHT, "has an unknown tensor 'conv_9.weight': its state does not fit"),
    ],
)  # fmt: skip
def test_a_tensor_that_does_not_fit_is_refused_by_name(
    document: dict[str, Any], found: Path, name: str, value: Any, advice: str
) -> None:
    document["state_dict"][name] = value
    save_plain(found, document, force=True)
    with pytest.raises(CheckpointError, match=advice):
        load_found(found)


def test_a_missing_tensor_is_named(document: dict[str, Any], found: Path) -> None:
    del document["state_dict"]["conv_1.bias"]
    save_plain(found, document, force=True)
    with pytest.raises(CheckpointError, match=r"lacks tensor 'conv_1\.bias': its state does not fit"):
        load_found(found)


def test_an_existing_file_is_kept_without_force(found: Path) -> None:
    before = found.read_bytes()
    with pytest.raises(OutputError, match="exists: pass --force"):
        save_found(found, ESPCN, Network(()), {})
    assert found.read_bytes() == before


def test_a_full_disk_keeps_the_old_file(found: Path) -> None:
    before = found.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*: .*free space or choose another folder"):
            save_plain(found, {"weight": torch.zeros(10_000)}, force=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert found.read_bytes() == before
    assert [path.name for path in found.parent.iterdir()] == [found.name]


def test_a_file_with_a_flipped_bit_is_refused_or_holds_the_same(found: Path) -> None:
    content, random = found.read_bytes(), Random(0)
    expected = load_found(found).network.state_dict()
    refused = 0
    for _ in range(200):
        damaged = bytearray(content)
        damaged[random.randrange(len(content))] ^= 1 << random.randrange(8)
        found.write_bytes(damaged)
        try:
            loaded = load_found(found).network.state_dict()
        except CheckpointError:
            refused += 1
        else:  # padding, or a time
            assert all(torch.equal(loaded[name], value) for name, value in expected.items())
    assert refused > 150
