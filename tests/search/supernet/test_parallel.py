"""Processes that divide every batch find what one finds, and none waits for one that has stopped."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qnas.errors import UsageError
from qnas.images.files import write_png
from qnas.network.architecture import from_json
from qnas.search.supernet.alphas import derive
from qnas.search.supernet.state import STATE_FORMAT, STATE_VERSION, Search
from qnas.search.supernet.world import World, joined_world, own_device, own_threads
from qnas.testing import parallel_searches
from qnas.testing.parallel_searches import CASES, CPU, SINGLE, begin, finish, in_double, plan
from qnas.testing.random_networks import noise
from qnas.torch.checkpoint import load_plain


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images in `data`, of which `data/0` holds copies for one process alone."""
    path = tmp_path_factory.mktemp("parallel")
    for inside in ("data", "data/0"):
        (path / inside).mkdir()
        for k in range(4):
            write_png(path / inside / f"{k}.png", noise(40, 48, seed=k))
    return path


@pytest.fixture(scope="module")
def two(folder: Path) -> list[dict[str, Any]]:
    """What each of two processes told."""
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*run, parallel_searches.__file__, str(folder / "data"), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as torchrun:
        try:
            told, _ = torchrun.communicate(timeout=600)
        finally:
            torchrun.terminate()  # it ends the others
    assert torchrun.returncode == 0, told
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@cache
def alone(case: str, folder: Path) -> Search:
    """The search of one process, in double precision: what the order of a sum changes is 1e-15 there."""
    with in_double():
        return finish(begin(case, folder / "data", World()), folder / "alone.pt")


@pytest.mark.parametrize("case", CASES)
def test_two_processes_find_the_alphas_of_one(case: str, folder: Path, two: list[dict[str, Any]]) -> None:
    assert two[0][case] == two[1][case]
    one = [alpha.detach() for alpha in alone(case, folder).supernet.alphas]
    assert max(float(alpha.abs().max()) for alpha in one) > 0.02  # they have learned
    for ours, theirs in zip(two[0][case], one, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_the_weights_and_statistics_of_one(
    case: str, folder: Path, two: list[dict[str, Any]]
) -> None:
    ours = load_plain(folder / f"{case}.pt", STATE_FORMAT, STATE_VERSION)["state_dict"]
    theirs = alone(case, folder).supernet.state_dict()
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        # The one batch that calibrates quantizers is in every process: the unbiased variance counts it twice.
        loose = name.endswith("running_var") and case.startswith("shared")
        tolerance = 1e-3 if loose else 1e-9
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_allclose(ours[name], value, rtol=tolerance, atol=tolerance, err_msg=name)


def test_two_processes_find_the_alphas_of_one_in_single_precision(
    folder: Path, two: list[dict[str, Any]]
) -> None:
    one = finish(begin(SINGLE, folder / "data", World()), folder / "alone.pt")
    for ours, theirs in zip(two[0]["single"], one.supernet.alphas, strict=True):
        np.testing.assert_allclose(ours, theirs.detach(), rtol=0, atol=1e-3)


def test_a_loss_that_is_no_number_in_one_process_ends_both(two: list[dict[str, Any]]) -> None:
    for told in two:
        assert told["not a number"].startswith("TrainingError: the loss became nan grey levels at step 2: ")


@pytest.mark.parametrize(
    ("story", "failing", "error"),
    [
        ("news", 0, "OutputError: the disk is full"),
        ("state", 0, "OutputError: "),
        ("data", 1, "ImageError: "),
    ],
)
def test_an_error_of_one_process_ends_both(
    two: list[dict[str, Any]], story: str, failing: int, error: str
) -> None:
    assert two[failing][story].startswith(error)
    other = "TrainingError: another process stopped: its own message says why"
    assert two[1 - failing][story] == other


def test_a_signal_to_one_process_stops_both_after_the_same_step_and_resumed_they_end_with_the_same_bits(
    two: list[dict[str, Any]],
) -> None:
    for told in two:
        assert told["signal"] == "KeyboardInterrupt: "
        assert told["stopped at"] == 5
        assert told["resumed"] == told["single"]


def test_a_process_that_is_left_alone_says_so_and_leaves_the_group(two: list[dict[str, Any]]) -> None:
    assert two[0]["left alone"].startswith("TrainingError: another process has gone")
    assert not two[0]["a group is left"]


def test_one_of_two_processes_writes_the_run_folder(folder: Path, two: list[dict[str, Any]]) -> None:
    run, space = folder / "run", plan(SINGLE, folder).space
    choices = derive(space, [torch.tensor(alpha) for alpha in two[0]["single"]])
    assert from_json((run / "arch.json").read_text(), "arch.json") == space.architecture(choices)
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert list(records[-1]["alphas"].values()) == two[0]["single"]
    assert [record["step"] for record in records if record["kind"] == "epoch"] == [3, 6, 9]


def test_a_batch_that_the_processes_cannot_divide_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="3 processes cannot divide a batch of 4: use a multiple of 3"):
        begin("san-bn", folder / "data", World(0, 3))


def test_without_torchrun_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined_world(CPU) as world:
        assert world == World(0, 1)


def test_a_world_that_torchrun_did_not_start_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with (
        pytest.raises(UsageError, match=r"WORLD_SIZE is set but the processes cannot meet .*RANK.*torchrun"),
        joined_world(CPU),
    ):
        pass


def test_processes_of_one_machine_divide_its_cores_and_its_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    assert own_threads() == 3
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert own_device() == torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UsageError, match="process 2 finds 1 GPUs: use --nproc-per-node 1"):
        own_device()
