"""HWGQ's constants as activation steps: right for what each quantizer sees, and never trained."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor

from qnas.network.architecture import Architecture, find_architecture
from qnas.network.lowering import lower, uniform_layers
from qnas.quantization.quantizers import (
    QuantSpec,
    StepRule,
    best_power_of_two,
    hwgq_power_of_two,
    initial_step,
    snap_scale,
)
from qnas.search.train_cli import main
from qnas.search.training import train as training
from qnas.search.training.train import Recipe, Run, has_hwgq_steps, resume, start, train
from qnas.torch.checkpoint import load_found
from qnas.torch.fake_quantization import Quantizer

CPU = torch.device("cpu")
ESPCN = replace(find_architecture("espcn-w4"), scale=2)
BLANK = Architecture("basic", channels=6, blocks=1, scale=2, layers={})
BASIC = replace(BLANK, layers=uniform_layers(BLANK, "simple_3x3", 4))


def recipe(data: Path, **changes: object) -> Recipe:
    tiny = Recipe((str(data),), steps=12, batch=2, patch=8, cache_mib=8, learning_rate=0.01, warmup=1)
    return replace(tiny, **{"activation_steps": "hwgq", **changes})  # type: ignore[arg-type]


def finish(run: Run, state: Path) -> dict[str, Tensor]:
    train(run, state, None, lambda progress: None)
    return run.network.state_dict()


# The rule --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bits", "signed", "step"),
    [
        (8, False, 2**-4),  # sqrt((9 + 16) / 2) * 0.0203 = 0.0718
        (4, False, 1.0),  # 3.536 * 0.2131 = 0.753
        (2, False, 2.0),  # 3.536 * 0.6356 = 2.247
        (4, True, 2.0),  # sqrt((25 + 9 + 16) / 3) * 0.3721, of 3 bits = 1.519
    ],
)
def test_a_step_is_the_gaussians_times_the_root_mean_square(bits: int, signed: bool, step: float) -> None:
    x = np.array([[-5, 3], [0, 4]], np.float32) if not signed else np.array([-5, 3, 4], np.float32)
    assert hwgq_power_of_two(x, QuantSpec(bits, signed)) == step


def test_a_tensor_without_positive_values_has_the_step_of_the_unit_gaussian() -> None:
    for x in ([-1.0, -2.0], [0.0], []):
        assert hwgq_power_of_two(np.array(x, np.float32), QuantSpec(4, signed=False)) == 0.25  # of 0.213


@pytest.mark.parametrize("levels", ["uniform", "lloyd"])
def test_a_gaussian_before_its_relu_and_behind_it_has_the_optimal_step(levels: str) -> None:
    x = np.random.default_rng(0).normal(0, 3, 100_000).astype(np.float32)
    spec = QuantSpec(4, signed=False, levels=levels)  # type: ignore[arg-type]
    expected = snap_scale(np.float32(3 * initial_step(spec)), 1)
    assert hwgq_power_of_two(x, spec) == hwgq_power_of_two(np.maximum(x, 0), spec) == expected


# In training -----------------------------------------------------------------------------------------------


def seen(run: Run, x: Tensor) -> dict[str, np.ndarray]:
    """What every quantizer with a step of its own reads."""
    values: dict[str, np.ndarray] = {}
    for name, module in run.network.named_modules():
        if isinstance(module, Quantizer) and hasattr(module, "step"):
            module.register_forward_pre_hook(lambda _, x, name=name: values.__setitem__(name, x[0].numpy()))
    with torch.no_grad():
        run.network(x)
    return values


@pytest.mark.parametrize("architecture", [ESPCN, BASIC, find_architecture("rfdn-w4")])
def test_steps_fit_the_first_batch_residual_grids_as_always(
    architecture: Architecture, photographs: Path
) -> None:
    run = start(architecture, recipe(photographs, patch=16 if architecture.space == "rfdn" else 8), CPU)
    crops = training.load_crops([photographs], architecture.scale, run.recipe.patch, 8)
    training._first_scales(run, crops, CPU)
    values = seen(run, crops.batch(1, 0, 2, run.recipe.patch)[0])
    rules: set[StepRule] = set()
    for name, read in values.items():
        module = run.network.module(name)
        residual = module.spec.signed and module.spec.bits == 8
        rule = best_power_of_two if residual else hwgq_power_of_two
        sample = read.ravel()[:: max(1, read.size // 65536)]
        assert module.step.item() == rule(sample, module.spec), name
        rules.add(rule)
    assert hwgq_power_of_two in rules


def test_constants_stay_while_weights_and_residual_grids_learn(photographs: Path, tmp_path: Path) -> None:
    run = start(BASIC, recipe(photographs), CPU)
    first: dict[str, Tensor] = {}

    def keep(progress: training.Progress) -> None:
        if progress.step == 1:
            first.update({name: value.clone() for name, value in run.network.state_dict().items()})

    train(run, tmp_path / "run", None, keep)
    last = run.network.state_dict()
    steps = {name: run.network.module(name.removesuffix(".step")) for name in last if name.endswith(".step")}
    half_waves = [name for name, module in steps.items() if not module.spec.signed]
    residuals = [name for name, module in steps.items() if module.spec.signed]
    assert half_waves
    assert all(torch.equal(first[name], last[name]) for name in half_waves)
    assert not all(torch.equal(first[name], last[name]) for name in residuals)
    assert not torch.equal(first["head.0.weight"], last["head.0.weight"])


def test_a_resumed_run_keeps_its_constants_and_ends_with_the_same_bits(
    photographs: Path, tmp_path: Path
) -> None:
    def stop(progress: training.Progress) -> None:
        if progress.step == 2:
            raise KeyboardInterrupt

    state = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        train(start(ESPCN, recipe(photographs), CPU), state, None, stop, checkpoint_seconds=0)
    resumed = resume(state, CPU)
    assert (resumed.step, resumed.recipe.activation_steps) == (2, "hwgq")
    ours, theirs = finish(resumed, state), finish(start(ESPCN, recipe(photographs), CPU), tmp_path / "other")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_which_networks_have_steps_to_make_constants() -> None:
    assert has_hwgq_steps(lower(ESPCN))
    assert not has_hwgq_steps(lower(ESPCN.with_bits(32)))


# The command -----------------------------------------------------------------------------------------------


@pytest.fixture
def command(photographs: Path, tmp_path: Path) -> Callable[..., Result]:
    """qnas-train on a tiny ESPCN, into found.pt of the temporary folder."""
    (tmp_path / "tiny.json").write_text(ESPCN.to_json())

    def call(*arguments: str) -> Result:
        options = ["-o", str(tmp_path / "found.pt"), "--data", str(photographs), "--patch", "8"]
        sizes = ["--batch", "2", "--steps", "3", "--threads", "1"]
        return CliRunner().invoke(main, [str(tmp_path / "tiny.json"), *options, *sizes, *arguments])

    return call


def test_the_command_trains_with_constants_and_says_so_in_found_pt(
    command: Callable[..., Result], tmp_path: Path
) -> None:
    result = command("--activation-steps", "hwgq")
    assert result.exit_code == 0, result.output
    assert load_found(tmp_path / "found.pt").training["recipe"]["activation_steps"] == "hwgq"


def test_constants_for_full_precision_are_refused(command: Callable[..., Result]) -> None:
    result = command("--activation-steps", "hwgq", "--bits", "32")
    assert result.exit_code == 2
    advice = "error: --activation-steps hwgq is for quantized activations: use --bits below 32\n"
    assert result.stderr == advice


def test_a_run_with_learned_steps_is_not_resumed_with_constants(
    command: Callable[..., Result], photographs: Path, tmp_path: Path
) -> None:
    learned = recipe(photographs, steps=3, activation_steps="learned", learning_rate=1e-3, warmup=100)
    start(ESPCN, replace(learned, cache_mib=1024), CPU).save(tmp_path / "found.pt.run")
    result = command("--resume", "--activation-steps", "hwgq")
    assert result.exit_code == 2
    assert "is a run with other options: repeat them, or start again with --force" in result.stderr
    assert command("--resume").exit_code == 0
