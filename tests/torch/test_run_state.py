"""The state of a run: what was saved goes on, and whatever else a file holds is refused in one line."""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from qnas.errors import LONGEST, CheckpointError
from qnas.network.architecture import find_architecture
from qnas.search.training.train import RUN_FORMAT, RUN_VERSION, Recipe, resume, start, train
from qnas.torch.checkpoint import load_plain, save_plain
from qnas.torch.environment import environment, notice
from qnas.torch.run_state import load_run_state, save_run_state

CPU = torch.device("cpu")
Document = dict[str, Any]


@pytest.fixture
def state(photographs: Path, tmp_path: Path) -> Path:
    """A run of four steps after the second."""
    path = tmp_path / "found.pt.run"
    recipe = Recipe((str(photographs),), steps=4, batch=2, patch=8, cache_mib=8)
    run = start(find_architecture("espcn-w4"), recipe, CPU)
    run.environment = environment(CPU, 1)
    train(run, path, None, lambda progress: run.save(path) if progress.step == 2 else None)
    return path


def read(path: Path) -> Document:
    return load_run_state(path, RUN_FORMAT, RUN_VERSION, "qnas-train")


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        resume(path, CPU)
    said = str(caught.value)
    assert said.isprintable()
    assert len(said) <= LONGEST
    return said


def test_a_state_that_was_changed_is_refused_even_where_its_checksums_are_right(state: Path) -> None:
    document = load_plain(state, RUN_FORMAT, RUN_VERSION)
    document["state_dict"]["conv_0.weight"][0, 0, 0, 0] += 1e-6
    save_plain(state, document, force=True)
    assert "was changed after it was written (its digest does not match): begin again" in refusal(state)


def test_a_state_without_a_digest_is_read_as_those_of_earlier_versions_are(state: Path) -> None:
    document = load_plain(state, RUN_FORMAT, RUN_VERSION)
    for key in ("digest", "images", "environment"):
        del document[key]
    save_plain(state, document, force=True)
    run = resume(state, CPU)
    assert (run.step, run.images, run.environment) == (2, None, None)


@pytest.mark.parametrize(
    "odd",
    [
        torch.ones(1).expand(10**9), torch.ones(3).to_sparse(), torch.ones(3, device="meta"), {1, 2}, b"x",
        [[]],
    ],
)  # fmt: skip
def test_a_digest_over_what_no_run_saves_is_none(state: Path, odd: object) -> None:
    save_plain(state, {**load_plain(state, RUN_FORMAT, RUN_VERSION), "more": odd}, force=True)
    assert "its digest does not match" in refusal(state)


def test_a_list_that_holds_itself_many_times_ends_at_once(state: Path) -> None:
    endless: list[Any] = ["x" * 100]
    for _ in range(40):
        endless = [endless, endless]
    save_plain(state, {**load_plain(state, RUN_FORMAT, RUN_VERSION), "more": endless}, force=True)
    assert "its digest does not match" in refusal(state)


def put(*keys: Any, value: Any) -> Callable[[Document], None]:
    """Change one value of a document."""

    def change(document: Document) -> None:
        inner: Any = document
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value

    return change


MEAN = ("optimizer", "state", 0)
SHAPE = (64, 3, 5, 5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (put("step", value=10**9), "step is 1000000000 of a run of 4"),
        (put("step", value=5), "step is 5 of a run of 4"),
        (put("step", value=-1), "step is -1, not a whole number"),
        (put("step", value=math.nan), "step is .*, not a whole number"),
        (put("step", value=torch.ones(2)), "step is tensor"),
        (put("seconds", value=math.nan), "seconds is not a number"),
        (put("seconds", value=-1.0), "seconds is -1, less than 0"),
        (put("recipe", "steps", value="many"), "recipe: steps is 'many'"),
        (put("recipe", value=torch.ones(2)), "recipe is no recipe of a training"),
        (put("architecture", value=None), "is no architecture"),
        (put("architecture", "blocks", value=10**9), "the architecture in .* is wrong"),
        (put("environment", "threads", value=10**9), "environment.threads is 1000000000"),
        (put("images", value=[1]), "images is a list of 1"),
        (put("state_dict", "conv_0.weight", value=torch.full(SHAPE, math.nan)), "holds NaN or infinite"),
        (put("optimizer", value=None), "is no state of an optimizer"),
        (put("optimizer", value={}), "is no state of an optimizer .'state'"),
        (put("optimizer", "state", value={}), "lacks tensor '0.step'"),
        (put("optimizer", "state", value=[1]), "is no state of an optimizer"),
        (put("optimizer", "param_groups", value=[]), "is no state of an optimizer"),
        (put("optimizer", "param_groups", 0, "share", value=math.inf), "a share is inf"),
        (put("optimizer", "param_groups", 0, "share", value="x"), "is no state of an optimizer"),
        (put(*MEAN, "exp_avg", value=torch.zeros(2)), r"0.exp_avg is \(2,\) torch.float32"),
        (put(*MEAN, "exp_avg", value=None), "0.exp_avg is NoneType"),
        (put(*MEAN, "exp_avg", value=torch.full(SHAPE, math.inf)), "0.exp_avg holds NaN or infinite"),
        (put(*MEAN, "exp_avg_sq", value=torch.full(SHAPE, -1.0)), "0.exp_avg_sq is negative"),
        (put(*MEAN, "step", value=torch.tensor(-1.0)), "0.step is negative"),
        (put(*MEAN, "other", value=torch.zeros(2)), "has an unknown tensor '0.other'"),
        (put("optimizer", "state", 99, value={}), None),
    ],
)  # fmt: skip
def test_a_state_of_odd_values_is_refused(
    state: Path, change: Callable[[Document], None], said: str | None
) -> None:
    document = read(state)
    change(document)
    save_run_state(state, document)
    if said is None:  # nothing of it is taken
        assert resume(state, CPU).step == 2
    else:
        assert re.search(said, refusal(state))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (put("version", value=2), "has version 2, this qnas reads 1: use the qnas that wrote it"),
        (put("format", value="qnas-search"), "is not a qnas-run file: make one with qnas-train"),
    ],
)  # fmt: skip
def test_a_state_of_another_version_or_kind_is_refused(
    state: Path, change: Callable[[Document], None], said: str
) -> None:
    document = read(state)
    change(document)
    save_run_state(state, document)
    assert said in refusal(state)


def test_a_run_that_goes_on_elsewhere_says_what_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    here = environment(CPU, 2)
    there = environment(CPU, 1, processes=2)
    assert notice(here, here) is None
    assert notice(here, environment(CPU, 3)) is None  # threads are refused or taken again: nothing to say
    said = notice(there, here)
    assert said == "note: begun with processes 2, now 1: the last bits may be others"
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    other = environment(CPU, 2)
    assert "begun with MKL_CBWR not set, now COMPATIBLE: the last bits" in str(notice(here, other))
    assert notice(other, other) is None
    assert notice(replace(here, variables=None), other) is None  # of an earlier version, which says nothing
    there.versions["torch"] = "2.0"
    assert f"torch 2.0, now {torch.__version__}" in str(notice(there, here))
