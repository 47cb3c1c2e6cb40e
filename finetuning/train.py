"""Tunes the twin of an integer network, resumably: a function of its `Recipe`, as trainings of a search are.

Batches depend on (seed, step) alone and the whole state is written every minute, so a killed and resumed run
ends with the same bits (on the CPU, at one thread count).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from msgspec import Meta
from torch import Tensor, nn

from qnas.documents.reading import Count, Document, Rate, Size
from qnas.errors import CheckpointError, TrainingError, UsageError
from qnas.finetuning.lessons import Lessons
from qnas.finetuning.start import Bits
from qnas.finetuning.twin import Twin
from qnas.images.inputs import Digests
from qnas.images.quality import psnr_of
from qnas.search.stopping import stop_requests
from qnas.torch.checkpoint import check_state
from qnas.torch.environment import Environment
from qnas.torch.run_state import ADVICE, load_optimizer, load_run_state, progress_of, save_run_state

FORMAT, VERSION = "qnas-finetuning", 1
# Learning rates over that of weights, in units of their own (`parameters.py`): a scale moves whole channels.
SHARES = {"value": 1.0, "bias": 0.1, "log_scale": 0.05, "log_step": 0.5}
CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run; `patch` counts LR pixels, `learning_rate` falls to zero by a cosine.

    `label_weight`: the share of the photographs in what is learned; the rest is the float network's.
    """

    data: tuple[str, ...]
    bits: Bits = field(default_factory=Bits)
    steps: Size = 2000
    batch: Size = 8
    patch: Size = 32
    learning_rate: Rate = 1e-2
    label_weight: Annotated[float, Meta(ge=0, le=1)] = 0.0
    seed: Count = 0
    cache_mib: Size = 1024


def wanted_recipe(
    data: Sequence[Path], weight_bits: int | None, activation_bits: int | None, all_layers: bool,
    **options: Any,
) -> Recipe:  # fmt: skip
    """A recipe by the options of the command, 8 bits of activations being the calibration's own.

    Raises UsageError.
    """
    bits = {
        "weights": weight_bits,
        "activations": None if activation_bits == 8 else activation_bits,
        "ends": all_layers,
    }
    given = _plain(Recipe(tuple(map(str, data)), **options)) | {"bits": bits}
    return _RECIPE.convert(given, "the options")


@dataclass
class Run:
    """A run's whole state between two steps."""

    recipe: Recipe
    twin: Twin
    optimizer: torch.optim.Optimizer
    inputs: Digests  # of all files, as it began with them
    environment: Environment  # in which it began
    step: int = 0
    seconds: float = 0.0
    saved: int | None = None  # the step of the last state that was written

    def save(self, path: Path) -> None:
        """Write the state for `resumed` to go on with the same bits. Raises OutputError."""
        document = {
            "format": FORMAT,
            "version": VERSION,
            "recipe": _plain(self.recipe),
            "state_dict": self.twin.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "images": self.inputs,
            "environment": self.environment.to_document(),
        }
        save_run_state(path, document)
        self.saved = self.step


@dataclass(frozen=True)
class State:
    """What a file has of a run, before its network is made again."""

    recipe: Recipe
    images: Digests
    environment: Environment


_RECIPE = Document(Recipe, "recipe of a fine-tuning", "see qnas-finetune --help", UsageError)
_STATE = Document(State, "state of a run", ADVICE, CheckpointError)


def read_state(path: Path) -> tuple[State, dict[str, Any]]:
    """The run in `path`, and the document for `resumed`. Raises CheckpointError."""
    document = load_run_state(path, FORMAT, VERSION, "qnas-finetune")
    return _STATE.convert(
        {key: document.get(key) for key in ("recipe", "images", "environment")}, str(path)
    ), document


def begun(recipe: Recipe, twin: Twin, inputs: Digests, environment: Environment) -> Run:
    """A run before its first step."""
    return Run(recipe, twin, _optimizer(twin), inputs, environment)


def resumed(state: State, document: Mapping[str, Any], twin: Twin, path: Path) -> Run:
    """The run of `read_state`, with `twin` made anew. Raises CheckpointError."""
    run = begun(state.recipe, twin, state.images, state.environment)
    progress = progress_of(document, state.recipe.steps, str(path))
    wanted, found = twin.state_dict(), document.get("state_dict")
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} has no weights: {ADVICE}")
    check_state(wanted, found, str(path))
    twin.load_state_dict(found)
    load_optimizer(run.optimizer, document.get("optimizer"), progress.step > 0, str(path))
    run.step, run.seconds, run.saved = progress.step, progress.seconds, progress.step
    return run


def train(
    run: Run, lessons: Lessons, state: Path, show: Callable[[int, int], None], device: torch.device
) -> None:
    """Train to the last step, saving to `state` before the first and every minute.

    Ctrl-C, SIGTERM or a closed terminal saves it after the step at hand and raises KeyboardInterrupt. Raises
    TrainingError when a number is no longer finite; the last saved state is from before.
    """
    if run.step == 0:
        run.save(state)
    saved = began = time.monotonic()
    before = run.seconds
    with stop_requests() as stop_requested:
        while run.step < run.recipe.steps:
            one_step(run, lessons, device)
            now = time.monotonic()
            run.seconds = before + now - began
            if stop_requested():
                run.save(state)
                raise KeyboardInterrupt
            if now - saved >= CHECKPOINT_SECONDS:
                run.save(state)
                saved = now
            show(run.step, run.recipe.steps)


def one_step(run: Run, lessons: Lessons, device: torch.device) -> None:
    """Train one step. Raises TrainingError when a number is no longer finite."""
    recipe = run.recipe
    for group in run.optimizer.param_groups:
        group["lr"] = recipe.learning_rate * group["share"] * schedule(run.step, recipe.steps)
    inputs, labels = lessons.inputs(recipe.seed, run.step)
    run.twin.train()
    made = run.twin(inputs.to(device))
    loss = (1 - recipe.label_weight) * _distance(made, lessons.answers(inputs).to(device))
    if recipe.label_weight > 0:
        loss = loss + recipe.label_weight * _distance(made, labels.to(device))
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    run.optimizer.step()
    run.step += 1
    if not all(bool(parameter.isfinite().all()) for parameter in run.twin.parameters()):
        raise TrainingError(
            f"a weight is not finite at step {run.step}: use a smaller --lr (now {recipe.learning_rate:g})"
        )


def _distance(made: Tensor, wanted: Tensor) -> Tensor:
    """The mean square in grey levels, for PSNR is what is asked for; `wanted` may have a border more."""
    top, left = ((w - m) // 2 for w, m in zip(wanted.shape[2:], made.shape[2:], strict=True))
    return nn.functional.mse_loss(made, wanted[:, :, top : top + made.shape[2], left : left + made.shape[3]])


def fidelity(twin: Twin, lessons: Lessons, seed: int, batches: int, device: torch.device) -> float:
    """PSNR in dB of the integer network against the float one on so many batches of `seed`."""
    twin.eval()
    with torch.no_grad():
        squares = [
            float(_distance(twin(inputs.to(device)).float().cpu(), lessons.answers(inputs).round()))
            for inputs, _ in (lessons.inputs(seed, step) for step in range(batches))
        ]
    return psnr_of(sum(squares) / len(squares))


def schedule(step: int, steps: int) -> float:
    """The share of the learning rate: up in a twentieth of the run, then down to zero by a cosine."""
    return min(1.0, (step + 1) * 20 / steps) * 0.5 * (1 + math.cos(math.pi * step / steps))


def _optimizer(twin: Twin) -> torch.optim.Optimizer:
    """Adam with a group for each kind of parameter."""
    kinds: dict[str, list[nn.Parameter]] = {}
    for name, parameter in twin.named_parameters():
        kinds.setdefault(name.rpartition(".")[2], []).append(parameter)
    return torch.optim.Adam([{"params": each, "share": SHARES[kind]} for kind, each in sorted(kinds.items())])


def _plain(recipe: Recipe) -> dict[str, Any]:
    return {**asdict(recipe), "data": list(recipe.data)}
