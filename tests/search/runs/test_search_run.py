"""A search killed, stopped or short of room ends, once resumed, with the bits of one that was not."""

import json
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from qnas.cost.network_cost import network_cost
from qnas.errors import OutputError, UsageError
from qnas.export.cli import main as export_main
from qnas.images.files import write_png
from qnas.network.architecture import from_json
from qnas.network.lowering import lower
from qnas.search.runs.search_log import SearchLog
from qnas.search.search_cli import main
from qnas.search.space.candidate_costs import CandidateCosts, counted_costs
from qnas.search.space.search_space import find_space
from qnas.search.space.space_options import changed_space
from qnas.search.supernet.recipe import SearchRecipe
from qnas.search.supernet.state import Search, start
from qnas.search.supernet.supernet_search import StepNews
from qnas.search.supernet.world import World
from qnas.search.train_cli import main as train_main
from qnas.testing.small_searches import (
    STEPS,
    TINY,
    assert_same_search,
    events,
    records,
    result,
    state,
    timeless,
)


def call(*arguments: object) -> Result:
    """qnas-search run."""
    return CliRunner().invoke(main, ["run", *map(str, arguments)])


def resumed(folder: Path) -> Result:
    """The options that decide a search need not be repeated."""
    return call("-o", folder, "--resume", "--threads", 1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures of 64x72 pixels."""
    folder = tmp_path_factory.mktemp("data") / "pictures"
    folder.mkdir()
    y, x = np.mgrid[:64, :72]
    for k in range(4):
        waves = [np.sin(x / (3 + k + c)) + np.cos(y / (5 - k + c)) for c in range(3)]
        write_png(folder / f"{k}.png", np.round(127 + 60 * np.stack(waves, 2)).astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def uninterrupted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search that nothing disturbed."""
    folder = tmp_path_factory.mktemp("runs") / "uninterrupted"
    told = call(*TINY, "--data", data, "-o", folder)
    assert told.exit_code == 0, told.output
    return folder


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Deliver a signal while the news of a step is told: the next step is the last."""
    step = SearchLog.step

    def prepare(wanted: int, number: int) -> None:
        def stopping(self: SearchLog, search: Search, news: StepNews) -> None:
            step(self, search, news)
            if news.step == wanted:
                signal.raise_signal(number)

        monkeypatch.setattr(SearchLog, "step", stopping)

    return prepare


# What a run writes -----------------------------------------------------------------------------------------


def test_a_run_writes_what_was_asked_and_what_was_found(uninterrupted: Path, data: Path) -> None:
    names = sorted(path.name for path in uninterrupted.iterdir())
    assert names == [
            "arch.json", "log.jsonl", "report.html", "result.json", "search.json", "state.pt", "tensorboard",
        ]  # fmt: skip
    asked = json.loads((uninterrupted / "search.json").read_text())
    assert (asked["format"], asked["version"], asked["space_name"]) == ("qnas-search-run", 1, "basic-small")
    assert asked["space"]["channels"] == 12
    assert asked["recipe"]["data"] == [str(data)]
    assert asked["image"] == [32, 32]
    assert set(asked["versions"]) == {"qnas"}
    assert asked["environment"]["threads"] == 1
    assert set(asked["environment"]["versions"]) == {"torch", "numpy", "pillow"}
    assert list(asked["inputs"][str(data)]) == ["0.png", "1.png", "2.png", "3.png"]

    found = from_json((uninterrupted / "arch.json").read_text(), "arch.json")
    assert (found.channels, found.blocks, found.normalization) == (12, 1, "adq")
    cost = network_cost(lower(found), 32, 32)
    ended = result(uninterrupted)
    assert (ended["macs"], ended["bitops"]) == (cost.macs, cost.bitops)
    assert (ended["method"], ended["cost"], ended["steps"]) == ("search", "bitops", STEPS)


def test_the_log_has_every_step_of_a_short_epoch_and_the_decisions_of_every_epoch(
    uninterrupted: Path,
) -> None:
    log = records(uninterrupted)
    kinds = [(record["kind"], record["step"]) for record in log]
    steps = [("step", step) for step in range(1, 13)]
    assert kinds == [*steps[:4], ("epoch", 4), *steps[4:8], ("epoch", 8), *steps[8:], ("epoch", 12)]
    epochs = [record for record in log if record["kind"] == "epoch"]
    assert [record["epoch"] for record in epochs] == [0, 1, 2]
    assert epochs[0]["loss"] == sum(record["loss"] for record in log[:4]) / 4
    warm = [record["alpha_loss"] is None for record in log if record["kind"] == "step"]
    assert warm == [True] * 4 + [False] * 8
    assert len({record["images_per_second"] for record in log if record["kind"] == "step"}) > 1


def test_the_last_epoch_of_the_log_is_the_architecture_and_its_cost(uninterrupted: Path) -> None:
    last = records(uninterrupted)[-1]
    space = changed_space(find_space("basic-small"), {"channels": 12, "blocks": 1, "bits": "4,8"})
    found = from_json((uninterrupted / "arch.json").read_text(), "arch.json")
    for name, slots in space.variables.items():
        chosen = last["choices"][name]
        assert all(
            (found.layers[s].op, found.layers[s].bits) == (chosen["op"], chosen["bits"]) for s in slots
        )
        alphas = last["alphas"][name]
        best = max(max(row) for row in alphas)
        op = next(i for i, row in enumerate(alphas) if best in row)
        assert chosen == {"op": space.candidates(name)[op], "bits": space.bits[alphas[op].index(best)]}
        assert 1 / 12 < last["certainty"][name] < 1
    assert last["cost"] == result(uninterrupted)["bitops"]
    costs = counted_costs(space, "bitops", 32, 32)
    assert costs.smallest < last["expected_cost"] < costs.largest


def test_in_the_warm_up_all_candidates_are_equally_likely(uninterrupted: Path) -> None:
    space = changed_space(find_space("basic-small"), {"channels": 12, "blocks": 1, "bits": "4,8"})
    costs = counted_costs(space, "bitops", 32, 32)
    log = records(uninterrupted)
    assert log[0]["expected_cost"] == pytest.approx(costs.fixed + costs.mean_searched)
    assert log[4]["expected_cost"] == pytest.approx(costs.fixed + costs.mean_searched)
    assert list(log[4]["certainty"].values()) == pytest.approx([1 / 12] * 8)
    assert log[5]["entropy_weight"] == 0  # t = 0 of 2: linear(0) * log(2) / log(3)
    assert log[10]["entropy_weight"] == pytest.approx(1e-4)  # t = 1 of 2: 1 * log(3) / log(3)


def test_tensorboard_has_the_numbers_of_the_log(uninterrupted: Path) -> None:
    told = events(uninterrupted)
    losses = {step: value for step, tag, value in told if tag == "loss/weights"}
    alphas = {(step, tag): value for step, tag, value in told if tag.startswith("alpha/")}
    for record in records(uninterrupted):
        if record["kind"] == "step":
            assert losses[record["step"]] == pytest.approx(record["loss"])
        else:
            for name, rows in record["alphas"].items():
                assert alphas[record["step"], f"alpha/{name}/5.1"] == pytest.approx(rows[5][1])
    assert len(losses) == STEPS


# Ending with the same bits ---------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from qnas.search.search_cli import main
from qnas.search.runs.search_log import SearchLog

step = SearchLog.step

def killing(self, search, news):
    step(self, search, news)
    if news.step == 7:
        os.kill(os.getpid(), signal.SIGKILL)

SearchLog.step = killing
main(sys.argv[1:])
"""


def test_a_killed_and_resumed_search_equals_an_uninterrupted_one(
    uninterrupted: Path, data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "x"
    command = [sys.executable, "-c", KILLED, "run", *TINY, "--data", str(data), "-o", str(folder)]
    assert subprocess.run(command, check=False, capture_output=True).returncode == -signal.SIGKILL
    assert state(folder)["step"] == 4
    assert timeless(folder) == timeless(uninterrupted)[:8]  # the steps to the seventh, and an epoch
    with (folder / "log.jsonl").open("a") as log:
        log.write('{"kind": "step", "ep')  # as a kill in the middle of a line leaves it
    (folder / ".qnas-dead.part").write_bytes(b"half a checkpoint")
    told = resumed(folder)
    assert told.exit_code == 0, told.output
    assert not (folder / ".qnas-dead.part").exists()
    assert_same_search(folder, uninterrupted)


def test_a_search_killed_before_its_first_checkpoint_begins_again(
    uninterrupted: Path, data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    shutil.copy(uninterrupted / "search.json", folder)
    lines = (uninterrupted / "log.jsonl").read_text().splitlines(keepends=True)
    (folder / "log.jsonl").write_text("".join(lines[:2]))
    assert resumed(folder).exit_code == 0
    assert_same_search(folder, uninterrupted)


def test_a_stopped_search_saves_its_state_tells_how_to_go_on_and_ends_with_the_same_bits(
    uninterrupted: Path, data: Path, tmp_path: Path, stop_at: Callable[[int, int], None]
) -> None:
    folder = tmp_path / "x"
    stop_at(5, signal.SIGTERM)  # in the middle of an epoch
    stopped = call(*TINY, "--data", data, "-o", folder)
    assert stopped.exit_code == 130
    assert f"stopped at step 6 of 12; continue with: qnas-search run -o {folder} --resume" in stopped.stderr
    assert not (folder / "arch.json").exists()
    assert state(folder)["step"] == 6
    assert timeless(folder) == timeless(uninterrupted)[:7]
    assert resumed(folder).exit_code == 0
    assert_same_search(folder, uninterrupted)


def test_resuming_a_search_that_has_ended_changes_nothing(uninterrupted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "x"
    shutil.copytree(uninterrupted, folder)
    (folder / "arch.json").unlink()  # killed after its last checkpoint
    assert resumed(folder).exit_code == 0
    assert_same_search(folder, uninterrupted)


# Running out of what it needs ------------------------------------------------------------------------------


@contextmanager
def room(size: int) -> Iterator[None]:
    """No file may be longer, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def stopped(data: Path, tmp_path: Path, stop_at: Callable[[int, int], None]) -> Path:
    """A search that has a checkpoint at step 6."""
    stop_at(5, signal.SIGTERM)
    assert call(*TINY, "--data", data, "-o", tmp_path / "stopped").exit_code == 130
    return tmp_path / "stopped"


def one_line(told: Result) -> str:
    """Of an error."""
    assert told.exit_code == 2, told.output
    (line,) = (each for each in told.stderr.splitlines() if not each.startswith("step "))
    return line


def test_a_disk_without_room_for_a_checkpoint_stops_the_search_and_the_one_before_is_kept(
    stopped: Path, uninterrupted: Path
) -> None:
    with room(60_000):
        line = one_line(resumed(stopped))
    assert line.startswith(f"error: cannot write {stopped}/state.pt: ")
    assert "free space or choose another folder; " in line
    assert line.endswith(f"the last good checkpoint is {stopped}/state.pt (step 6)")
    assert state(stopped)["step"] == 6
    assert resumed(stopped).exit_code == 0
    assert_same_search(stopped, uninterrupted)


def test_a_disk_without_room_for_the_events_stops_the_search(stopped: Path, uninterrupted: Path) -> None:
    (written,) = (stopped / "tensorboard").iterdir()
    with room(written.stat().st_size + 100):  # less than the next step needs
        line = one_line(resumed(stopped))
    assert line.startswith(f"error: cannot write {stopped}/tensorboard: ")
    assert line.endswith(f"the last good checkpoint is {stopped}/state.pt (step 6)")
    assert resumed(stopped).exit_code == 0
    assert_same_search(stopped, uninterrupted)


def test_half_a_line_on_a_full_disk_is_an_error_and_is_cut_off_later(tmp_path: Path) -> None:
    search = start(find_space("edmips-espcn"), SearchRecipe((), epoch_steps=2), torch.device("cpu"), World())
    log = SearchLog(tmp_path)
    log.cut(0)
    news = StepNews(0, 1, 9.5, None, 1e9, 1e9, 3.0, 0.0, 100.0, 10.0, 1e-4)
    log.step(search, news)
    size = len((tmp_path / "log.jsonl").read_bytes()) + 50
    advice = r"cannot write .*log\.jsonl: .*free space or choose another"
    with room(size), pytest.raises(OutputError, match=advice):
        log.step(search, replace(news, step=2))
    log.close()
    assert len((tmp_path / "log.jsonl").read_bytes()) == size
    log = SearchLog(tmp_path)
    log.cut(1)
    log.close()
    assert [record["step"] for record in records(tmp_path)] == [1]


def test_no_two_searches_share_a_folder(tmp_path: Path) -> None:
    log = SearchLog(tmp_path)
    with pytest.raises(UsageError, match=f"another process searches in {tmp_path}: wait for it, or stop it"):
        SearchLog(tmp_path)
    log.close()
    SearchLog(tmp_path).close()


def test_a_data_folder_that_has_vanished_is_told_and_the_search_goes_on_when_it_is_back(
    stopped: Path, uninterrupted: Path, data: Path, tmp_path: Path
) -> None:
    kept = data.rename(tmp_path / "elsewhere")
    try:
        line = one_line(resumed(stopped))
    finally:
        kept.rename(data)
    assert line == f"error: {data} is not a folder: name a folder of images"
    assert resumed(stopped).exit_code == 0
    assert_same_search(stopped, uninterrupted)


def test_a_run_folder_that_vanishes_ends_the_search(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epoch = SearchLog.epoch

    def gone(self: SearchLog, search: Search, costs: CandidateCosts) -> None:
        epoch(self, search, costs)
        shutil.rmtree(tmp_path / "x")

    monkeypatch.setattr(SearchLog, "epoch", gone)
    line = one_line(call(*TINY, "--data", data, "-o", tmp_path / "x"))
    assert f"cannot write {tmp_path}/x/state.pt: the folder {tmp_path}/x does not exist" in line


# Diverging -------------------------------------------------------------------------------------------------


def test_a_loss_that_explodes_ends_the_search(data: Path, tmp_path: Path) -> None:
    line = one_line(call(*TINY, "--data", data, "-o", tmp_path / "x", "--lr", 1e4))
    assert "the loss became " in line
    assert "grey levels at step 1: use a smaller --lr (now 10000) or --alpha-lr (now 0.075); no check" in line


@pytest.mark.parametrize(
    ("poisoned", "message"),
    [(6, "the alphas' loss became nan grey levels at step 6"), (8, "an alpha of head.0 is not finite")],
)
def test_alphas_that_are_not_finite_end_the_search_with_the_checkpoint_before_them(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, poisoned: int, message: str
) -> None:
    folder, step = tmp_path / "x", SearchLog.step

    def poison(self: SearchLog, search: Search, news: StepNews) -> None:
        step(self, search, news)
        if news.step == poisoned:
            search.supernet.alphas[0].data[0, 0] = torch.nan

    monkeypatch.setattr(SearchLog, "step", poison)
    line = one_line(call(*TINY, "--data", data, "-o", folder))
    assert line.startswith(f"error: {message}: use a smaller ")
    assert line.endswith(f"the last good checkpoint is {folder}/state.pt (step 4)")
    assert state(folder)["step"] == 4


# Onwards ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", ["basic", "rfdn-small"])
def test_the_architecture_of_a_search_is_trained_and_exported_with_all_convolutions_as_integers(
    data: Path, tmp_path: Path, space: str
) -> None:
    told = call(
        *TINY, "--space", space, "--data", data, "-o", tmp_path / "x", "--epochs", 2, "--epoch-steps", 2
    )
    assert told.exit_code == 0, told.output
    found = str(tmp_path / "found.pt")
    options = ["--data", str(data), "--steps", "2", "--batch", "2", "--patch", "16", "--threads", "1"]
    trained = CliRunner().invoke(train_main, [str(tmp_path / "x" / "arch.json"), *options, "-o", found])
    assert trained.exit_code == 0, trained.output
    exported = CliRunner().invoke(export_main, [found, "-o", str(tmp_path / "net.onnx")])
    assert exported.exit_code == 0, exported.output
    shown = " ".join(exported.output.split())
    ((integer, every),) = re.findall(r"100.0% of \S+ G multiply-adds in integers, (\d+) of (\d+)", shown)
    assert integer == every
    assert int(every) >= 8  # as many layers are searched at least


def test_two_processes_search_together_and_one_of_them_tells(data: Path, tmp_path: Path) -> None:
    scripts = Path(sys.executable).parent
    command = [scripts / "torchrun", "--nproc-per-node", "2", "--no-python", scripts / "qnas-search", "run"]
    options = [*TINY, "--epochs", "2", "--epoch-steps", "2", "--data", data, "-o", tmp_path / "x"]
    done = subprocess.run(
        [str(each) for each in (*command, *options)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("wrote ") == done.stderr.count("step 4/4 ") == 1
    assert [r["step"] for r in records(tmp_path / "x") if r["kind"] == "step"] == [1, 2, 3, 4]


def test_alphas_that_learn_every_third_step_do_so_after_a_resumption_too(
    data: Path, tmp_path: Path, stop_at: Callable[[int, int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    arguments = (*TINY, "--data", data, "--alpha-every", 3)
    assert call(*arguments, "-o", whole).exit_code == 0
    steps = [each for each in records(whole) if each["kind"] == "step"]
    assert [each["step"] for each in steps if each["alpha_loss"] is not None] == [7, 10]  # 4 are warm-up
    stop_at(5, signal.SIGTERM)  # after the warm-up, before the first step of the alphas
    assert call(*arguments, "-o", parts).exit_code == 130
    monkeypatch.undo()
    assert resumed(parts).exit_code == 0
    assert_same_search(parts, whole)
    told = call(*TINY, "--data", data, "--alpha-every", 13, "-o", tmp_path / "never")
    assert told.exit_code == 2
    assert "--alpha-every 13 leaves the alphas no step of 12" in told.output
