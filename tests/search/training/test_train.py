"""A run learns, and killed, stopped or not it ends with the same bits; wrong use is refused at once."""

import math
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor

from qnas.errors import CheckpointError, TrainingError
from qnas.network.architecture import Architecture, find_architecture, from_json
from qnas.network.lowering import uniform_layers
from qnas.quantization.quantizers import GREY_LEVEL, best_weight_scale
from qnas.search import stopping
from qnas.search.train_cli import main
from qnas.search.training import train as training
from qnas.search.training.data import Crops
from qnas.search.training.train import Progress, Recipe, Run, resume, start, train
from qnas.torch.checkpoint import load_found, save_found
from qnas.torch.inference import to_pixels
from qnas.torch.network import Convolution
from qnas.torch.run_state import load_run_state, save_run_state

CPU = torch.device("cpu")
ESPCN = replace(find_architecture("espcn-w4"), scale=2)
BLANK = Architecture("basic", channels=6, blocks=1, scale=2, layers={}, normalization="adq")
ADAPTIVE = replace(BLANK, layers=uniform_layers(BLANK, "simple_3x3", 4))
FLOAT = ESPCN.with_bits(32)


def recipe(data: Path, **changes: object) -> Recipe:
    tiny = Recipe((str(data),), steps=40, batch=2, patch=8, warmup=5, cache_mib=8)
    return replace(tiny, **changes)  # type: ignore[arg-type]


def finish(run: Run, state: Path) -> dict[str, Tensor]:
    train(run, state, None, lambda progress: None)
    return run.network.state_dict()


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def interrupt_at(monkeypatch: pytest.MonkeyPatch, wanted: int, number: int, times: int = 1) -> None:
    """Deliver a signal in the middle of step `wanted`."""
    batch = Crops.batch

    def interrupted(self: Crops, seed: int, step: int, size: int, patch: int) -> tuple[Tensor, Tensor]:
        if step == wanted:
            monkeypatch.setattr(Crops, "batch", batch)
            for _ in range(times):
                signal.raise_signal(number)
        return batch(self, seed, step, size, patch)

    monkeypatch.setattr(Crops, "batch", interrupted)


# Learning --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["l1", "mse"])
def test_the_loss_falls(photographs: Path, tmp_path: Path, loss: str) -> None:
    news: list[Progress] = []
    train(start(ESPCN, recipe(photographs, loss=loss), CPU), tmp_path / "run", None, news.append)
    losses = [progress.loss for progress in news]
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:5])
    assert [progress.step for progress in news] == list(range(1, 41))
    assert news[-1].seconds_left == 0


def test_the_loss_is_told_in_grey_levels(photographs: Path, tmp_path: Path) -> None:
    run = start(FLOAT, recipe(photographs, steps=1), CPU)
    lr, hr = training.load_crops([photographs], 2, 8, 8).batch(0, 0, 2, 8)
    with torch.no_grad():
        expected = (run.network(lr) - hr).abs().mean().item() / GREY_LEVEL
    news: list[Progress] = []
    train(run, tmp_path / "run", None, news.append)
    assert news[0].loss == pytest.approx(expected, rel=1e-5)


def test_the_learning_rate_warms_up_and_falls_to_zero_and_follows_the_size_of_a_scale(
    photographs: Path,
) -> None:
    wanted = recipe(photographs, steps=100, warmup=10)
    rates = [training._schedule(step, wanted) for step in (0, 9, 50, 100)]
    assert rates == pytest.approx([0.1, 0.5 * (1 + math.cos(0.09 * math.pi)), 0.5, 0])
    weights, *scales = start(ESPCN, wanted, CPU).optimizer.param_groups
    assert (weights["share"], weights["until"], len(weights["params"])) == (1, 1, 6)
    for group in scales:
        (scale,) = group["params"]
        size = scale.abs().mean().item()
        rate, until = (5, 1) if scale.ndim else (1, 0.25)  # weight scales [C], activation steps []
        assert (group["share"], group["until"]) == (pytest.approx(rate * size), until)


def test_activation_steps_are_frozen_after_a_quarter_of_the_run(photographs: Path, tmp_path: Path) -> None:
    run = start(ESPCN, recipe(photographs, steps=8, learning_rate=0.01), CPU)
    step = run.network.module("conv_1.input").step
    history: list[float] = []
    train(run, tmp_path / "run", None, lambda _: history.append(step.item()))
    assert history[0] != history[1]
    assert set(history[2:]) == {history[1]}


def test_the_quality_on_a_validation_set_is_told_at_the_end(photographs: Path, tmp_path: Path) -> None:
    news: list[Progress] = []
    run = start(ESPCN, recipe(photographs, steps=3), CPU)
    train(run, tmp_path / "run", photographs, news.append, validate_every=2)
    quality = training.validate(run.network, photographs, 2)
    assert news[0].psnr is None
    assert news[1].psnr != news[2].psnr
    assert news[2].psnr == quality.psnr
    assert 5 < quality.psnr < 50


def test_pixels_are_rounded_half_to_even_and_clipped() -> None:
    grey = torch.tensor([-3, 0.5, 1.5, 2.4, 254.6, 300]).mul(GREY_LEVEL).view(2, 3, 1, 1)
    assert to_pixels(grey).shape == (2, 1, 1, 3)
    assert to_pixels(grey).ravel().tolist() == [0, 0, 2, 2, 255, 255]


# Ending with the same bits ---------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from qnas.network.architecture import from_json
from qnas.search.training.train import Recipe, start, train

def on_progress(progress):
    if progress.step == 23:
        os.kill(os.getpid(), signal.SIGKILL)

torch.set_num_threads(1)
architecture, data, state = sys.argv[1:]
recipe = Recipe((data,), steps=40, batch=2, patch=8, warmup=5, cache_mib=8)
run = start(from_json(architecture, "argument"), recipe, torch.device("cpu"))
train(run, Path(state), None, on_progress, checkpoint_seconds=0)
"""


def test_a_killed_and_resumed_run_ends_with_the_bits_of_an_uninterrupted_one(
    photographs: Path, tmp_path: Path
) -> None:
    state = tmp_path / "found.pt.run"
    command = [sys.executable, "-c", KILLED, ADAPTIVE.to_json(), str(photographs), str(state)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    run = resume(state, CPU)
    assert run.step == 23
    assert run.seconds > 0
    uninterrupted = finish(start(ADAPTIVE, recipe(photographs), CPU), tmp_path / "other")
    assert same(finish(run, state), uninterrupted)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_run_stopped_in_the_middle_of_a_step_finishes_it_and_ends_with_the_same_bits(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    state = tmp_path / "found.pt.run"
    monkeypatch.setattr(stopping, "_stop_signals", lambda: [number])  # where nohup ignores SIGHUP too
    handler = signal.getsignal(number)
    interrupt_at(monkeypatch, 7, number)
    with pytest.raises(KeyboardInterrupt):
        finish(start(ADAPTIVE, recipe(photographs), CPU), state)
    assert signal.getsignal(number) == handler
    run = resume(state, CPU)
    assert run.step == 8
    uninterrupted = finish(start(ADAPTIVE, recipe(photographs), CPU), tmp_path / "other")
    assert same(finish(run, state), uninterrupted)


def test_a_hangup_that_nohup_ignores_does_not_stop_a_run() -> None:
    kept = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert stopping._stop_signals() == [signal.SIGINT, signal.SIGTERM]
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        assert stopping._stop_signals() == [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    finally:
        signal.signal(signal.SIGHUP, kept)


def test_a_second_interrupt_does_not_wait_and_saves_no_half_step(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_at(monkeypatch, 7, signal.SIGINT, times=2)
    with pytest.raises(KeyboardInterrupt):
        finish(start(ESPCN, recipe(photographs), CPU), tmp_path / "found.pt.run")
    assert resume(tmp_path / "found.pt.run", CPU).step == 0  # as it was begun


def test_runs_differ_with_their_seed_and_only_with_it(photographs: Path, tmp_path: Path) -> None:
    first, again, other = (
        finish(start(ESPCN, recipe(photographs, steps=2, seed=seed), CPU), tmp_path / "run")
        for seed in (0, 0, 1)
    )
    assert same(first, again)
    assert not same(first, other)


def test_what_is_no_complete_run_cannot_be_resumed(photographs: Path, tmp_path: Path) -> None:
    state = tmp_path / "found.pt.run"
    start(ESPCN, recipe(photographs), CPU).save(state)
    document = load_run_state(state, training.RUN_FORMAT, training.RUN_VERSION, "qnas-train")
    for key in ("recipe", "architecture", "state_dict", "optimizer", "step", "seconds"):
        save_run_state(state, {name: value for name, value in document.items() if name != key})
        with pytest.raises(CheckpointError, match=key):
            resume(state, CPU)


# Starting from full precision ------------------------------------------------------------------------------


@pytest.fixture
def full_precision(photographs: Path, tmp_path: Path) -> Path:
    run = start(FLOAT, recipe(photographs, steps=2), CPU)
    finish(run, tmp_path / "run")
    save_found(tmp_path / "w32.pt", FLOAT, run.network, {})
    return tmp_path / "w32.pt"


def test_a_warm_start_takes_the_weights_and_fits_the_scales_to_them(
    full_precision: Path, photographs: Path
) -> None:
    theirs = load_found(full_precision).network.state_dict()
    network = start(ESPCN, recipe(photographs, warm_start=str(full_precision)), CPU).network
    for name, value in theirs.items():
        assert torch.equal(network.state_dict()[name], value)
    for module in network.modules():
        if isinstance(module, Convolution):
            best = best_weight_scale(module.weight.detach().numpy(), 4)
            assert np.array_equal(module.weight_scale.detach().numpy(), best)


def test_a_warm_start_from_another_network_is_refused(full_precision: Path, photographs: Path) -> None:
    advice = r"w32\.pt has no conv_2\.weight of shape \(48, 32, 3, 3\): warm-start from the same network"
    with pytest.raises(CheckpointError, match=advice):
        start(replace(ESPCN, scale=4), recipe(photographs, warm_start=str(full_precision)), CPU)


# Diverging -------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_ends_the_run_with_advice(photographs: Path, tmp_path: Path) -> None:
    wild = recipe(photographs, learning_rate=1e30, warmup=1)
    with pytest.raises(
        TrainingError, match=r"the loss became \S+ at step 1: use a smaller --lr \(now 1e\+30\)"
    ):
        finish(start(FLOAT, wild, CPU), tmp_path / "run")


def test_weights_that_are_not_finite_are_never_saved(photographs: Path, tmp_path: Path) -> None:
    state = tmp_path / "run"
    run = start(FLOAT, recipe(photographs), CPU)
    run.save(state)
    before = state.read_bytes()
    with torch.no_grad():
        run.network.module("conv_1").bias[0] = torch.nan
    with pytest.raises(TrainingError, match="a weight is not finite at step 0: use a smaller --lr"):
        run.save(state)
    assert state.read_bytes() == before


def test_weight_decay_is_of_weights_and_not_of_scales(photographs: Path) -> None:
    run = start(ESPCN, recipe(photographs, weight_decay=0.25), CPU)
    decays = {id(p): g["weight_decay"] for g in run.optimizer.param_groups for p in g["params"]}
    for name, parameter in run.network.named_parameters():
        scale = name.endswith((".step", ".weight_scale"))
        assert decays[id(parameter)] == (0 if scale else 0.25), name


# The command -----------------------------------------------------------------------------------------------


@pytest.fixture
def command(photographs: Path, tmp_path: Path) -> Callable[..., Result]:
    """qnas-train on a tiny ESPCN, into found.pt of the temporary folder."""
    (tmp_path / "tiny.json").write_text(ESPCN.to_json())

    def call(*arguments: str, arch: str = str(tmp_path / "tiny.json"), data: Path = photographs) -> Result:
        options = ["-o", str(tmp_path / "found.pt"), "--data", str(data), "--patch", "8", "--batch", "2"]
        return CliRunner().invoke(main, [arch, *options, "--steps", "12", "--threads", "1", *arguments])

    return call


def test_the_command_writes_found_pt_with_its_history(
    command: Callable[..., Result], photographs: Path, tmp_path: Path
) -> None:
    result = command("--validate", str(photographs))
    assert result.exit_code == 0, result.output
    assert "step 12/12" in result.stderr
    found = load_found(tmp_path / "found.pt")
    assert found.architecture == ESPCN
    assert found.training["recipe"]["steps"] == 12
    assert found.training["recipe"]["data"] == ["photographs"]  # no path of this machine
    assert found.training["validation"]["psnr_y"] > 5
    assert not (tmp_path / "found.pt.run").exists()


def test_ctrl_c_saves_the_run_and_exits_with_130_and_resume_ends_it_with_the_same_bits(
    command: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("-o", str(tmp_path / "other.pt")).exit_code == 0
    interrupt_at(monkeypatch, 7, signal.SIGINT)
    stopped = command()
    assert stopped.exit_code == 130
    assert "stopped at step 8; continue with --resume" in stopped.stderr
    assert not (tmp_path / "found.pt").exists()

    forgotten = command()
    assert forgotten.exit_code == 2
    assert "is an interrupted run: continue it with --resume, or discard it with --force" in forgotten.stderr
    changed = command("--resume", "--seed", "1")
    assert changed.exit_code == 2
    assert "is a run with other options: repeat them, or start again with --force" in changed.stderr

    assert command("--resume").exit_code == 0
    resumed, uninterrupted = (load_found(tmp_path / name) for name in ("found.pt", "other.pt"))
    assert same(resumed.network.state_dict(), uninterrupted.network.state_dict())


def test_show_prints_an_architecture_that_can_be_read_back() -> None:
    result = CliRunner().invoke(main, ["espcn-w4", "--bits", "8", "--show"])
    assert result.exit_code == 0
    assert from_json(result.stdout, "stdout") == find_architecture("espcn-w8")
    assert "at 32x32: 37.95 MMACs, 2.262 GBitOps (G = 2^30), 37200 parameters" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "changes", "advice"),
    [
        ([], {"arch": "espcn-w9"}, "no architecture 'espcn-w9': name a JSON file or one of basic-"),
        (["--bits", "5x"], {}, "Invalid value for '--bits': '5x' is not a valid integer: see main --help"),
        (["--bits", "9"], {}, "--bits 9 is no bit width: use one of 2, 3, 4, 5, 6, 7, 8, 32"),
        (["--loss", "l3"], {}, "Invalid value for '--loss': 'l3' is not one of 'l1', 'mse': see main --help"),
        (["--lr", "0"], {}, "Invalid value for '--lr': 0.0 is not in the range 0<x<=1e+38: see main --help"),
        ([], {"data": Path("empty")}, "empty holds no image: put files of type"),
        ([], {"data": Path("nowhere")}, "nowhere is not a folder: name a folder of images"),
        (["--validate", "empty"], {}, "empty holds no image: put files of type"),
        (["--patch", "40"], {}, "photographs holds a 80x80 crop: use a smaller --patch"),
        (["--patch", "14"], {"arch": "rfdn-w4"}, "--patch 14 is too small for the pooling of rfdn: use"),
        (["-o", "kept.pt"], {}, "kept.pt exists: pass --force to replace it, or name another file"),
        (["-o", "nowhere/found.pt"], {}, "the folder nowhere does not exist, create it first"),
        (["-o", "empty"], {}, "empty is a folder, which is never replaced"),
        (["--warm-start", "none.pt"], {}, "no checkpoint none.pt: check the path, or train one with"),
        (["--warm-start", "kept.pt"], {}, "kept.pt is truncated or no PyTorch checkpoint: write it again"),
        (["--resume"], {}, "found.pt.run: leave --resume out to begin one"),
    ],
)  # fmt: skip
def test_wrong_use_is_one_line_and_exit_2_and_writes_nothing(
    command: Callable[..., Result],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    changes: dict[str, Path],
    advice: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "kept.pt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    result = command(*arguments, **changes)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert advice in line
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "kept.pt").read_text() == "mine"


def test_no_training_images_at_all_are_asked_for() -> None:
    result = CliRunner().invoke(main, ["espcn-w4"])
    assert result.exit_code == 2
    assert result.stderr == "error: no training images: pass --data FOLDER (repeatable)\n"


def test_without_torch_the_command_names_what_to_install() -> None:
    program = "import sys; sys.modules['torch'] = None; from qnas.search.train_cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", program, "espcn-w4", "--show"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert result.stderr.endswith('needs PyTorch, which is not installed: pip install "qnas[all]"\n')
