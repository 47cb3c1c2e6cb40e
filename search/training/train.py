"""Trains one architecture from scratch or from full-precision weights, resumably.

A run is a function of its `Recipe`: batches depend on (seed, step) alone and the whole state is written every
`checkpoint_seconds`, so a killed and resumed run ends with the same bits (on the CPU, at one thread count).
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from qnas.documents.reading import Count, Document, Rate, Share, Size
from qnas.errors import CheckpointError, TrainingError
from qnas.images.inputs import Digests, check_unchanged, digests
from qnas.network.architecture import Architecture
from qnas.network.layers import Layer
from qnas.network.lowering import lower
from qnas.quantization.quantizers import (
    PIXELS_PER_UNIT,
    QuantSpec,
    StepRule,
    best_power_of_two,
    hwgq_power_of_two,
)
from qnas.search.stopping import stop_requests
from qnas.search.training.data import Ahead, Crops, load_crops
from qnas.search.training.warm_start import calibrate, split_into_dead_channels, warm_start
from qnas.torch.checkpoint import network_in
from qnas.torch.environment import Environment
from qnas.torch.inference import validate
from qnas.torch.network import Network
from qnas.torch.run_state import ADVICE, load_optimizer, load_run_state, progress_of, save_run_state

RUN_FORMAT = "qnas-run"
RUN_VERSION = 1
# Learning rates of scales, per step and relative to their value: a step of Adam is absolute.
WEIGHT_SCALE_RATE = 5.0
ACTIVATION_STEP_RATE = 1.0
# The best step often lies between two powers of two, and a learned one would jump between them for ever.
ACTIVATION_STEPS_LEARN = 0.25  # share of the run; then they are frozen
EXPLODED = 1e5  # grey levels: no state after that is worth going on from
ActivationSteps = Literal["learned", "hwgq"]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run; `patch` counts LR pixels, `learning_rate` falls to zero by a cosine.

    `activation_steps`: "learned", or "hwgq": constants of the half-wave Gaussian (docs/decisions/0015).
    """

    data: tuple[str, ...]
    steps: Size = 20_000
    batch: Size = 16
    patch: Size = 32
    learning_rate: Rate = 1e-3
    warmup: Count = 100
    loss: Literal["l1", "mse"] = "l1"
    seed: Count = 0
    warm_start: str | None = None
    cache_mib: Size = 1024
    activation_steps: ActivationSteps = "learned"
    weight_decay: Share = 0.0  # of weights, biases and norms, not of scales; QuantNAS: 3e-7


@dataclass(frozen=True)
class _Origin:
    images: Digests | None
    environment: Environment | None


_RECIPE = Document(Recipe, "recipe of a training", ADVICE, CheckpointError)
_ORIGIN = Document(_Origin, "state of a run", ADVICE, CheckpointError)


@dataclass(frozen=True)
class Progress:
    """One step's news: loss in grey levels (L1) or their square (MSE), images per second, seconds left."""

    step: int
    steps: int
    loss: float
    images_per_second: float
    seconds_left: float
    psnr: float | None


@dataclass
class Run:
    """A run's whole state between two steps."""

    recipe: Recipe
    architecture: Architecture
    network: Network
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0
    images: Digests | None = None  # of the data, as the run has begun with it
    environment: Environment | None = None  # in which it began
    saved: int | None = None  # the step of the last state that was written

    def save(self, path: Path) -> None:
        """Write the state for `resume` to continue with the same bits. Raises TrainingError, OutputError."""
        self.check_finite()
        document = {
            "format": RUN_FORMAT,
            "version": RUN_VERSION,
            "recipe": {**asdict(self.recipe), "data": list(self.recipe.data)},
            "architecture": self.architecture.to_document(),
            "state_dict": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "images": self.images,
            "environment": self.environment and self.environment.to_document(),
        }
        save_run_state(path, document)
        self.saved = self.step

    def check_finite(self) -> None:
        """Raise TrainingError when a weight is NaN or infinite, as after a step with an infinite gradient."""
        if not all(bool(parameter.isfinite().all()) for parameter in self.network.parameters()):
            raise _diverged("a weight is not finite", self)


def start(architecture: Architecture, recipe: Recipe, device: torch.device) -> Run:
    """A run before its first step: seeded, or warm-started. Raises QnasError."""
    torch.manual_seed(recipe.seed)
    network = Network(lower(architecture))
    if recipe.warm_start:
        warm_start(network, Path(recipe.warm_start))
    _place(network, device)
    return Run(recipe, architecture, network, _optimizer(network, recipe))


def resume(path: Path, device: torch.device) -> Run:
    """The run that `Run.save` wrote. Raises CheckpointError."""
    document = load_run_state(path, RUN_FORMAT, RUN_VERSION, "qnas-train")
    origin = _ORIGIN.convert({key: document.get(key) for key in ("images", "environment")}, str(path))
    recipe = _RECIPE.convert(document.get("recipe"), f"{path}, recipe")
    progress = progress_of(document, recipe.steps, str(path))
    architecture, network = network_in(document, path)
    _place(network, device)
    optimizer = _optimizer(network, recipe)
    load_optimizer(optimizer, document.get("optimizer"), progress.step > 0, str(path))
    return Run(
        recipe, architecture, network, optimizer, progress.step, progress.seconds, origin.images,
        origin.environment, saved=progress.step,
    )  # fmt: skip


def _place(network: Network, device: torch.device) -> None:
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload] # faster on CPUs


def _optimizer(network: Network, recipe: Recipe) -> torch.optim.Optimizer:
    """Adam with a group for the weights and one for every scale, in proportion to its present value."""
    weights: list[nn.Parameter] = []
    scales = []
    for name, parameter in network.named_parameters():
        size = float(parameter.detach().abs().mean())
        if name.endswith(".weight_scale"):
            scales.append({"params": [parameter], "share": WEIGHT_SCALE_RATE * size, "until": 1.0})
        elif name.endswith(".step"):
            spec = network.module(name.removesuffix(".step")).spec
            constant = recipe.activation_steps == "hwgq" and _half_wave(spec)
            until = 0.0 if constant else ACTIVATION_STEPS_LEARN
            scales.append({"params": [parameter], "share": ACTIVATION_STEP_RATE * size, "until": until})
        else:
            weights.append(parameter)
    return torch.optim.Adam(
        [{"params": weights, "share": 1.0, "until": 1.0, "weight_decay": recipe.weight_decay}, *scales],
        lr=recipe.learning_rate,
    )


def train(
    run: Run,
    state_path: Path,
    validation: Path | None,
    on_progress: Callable[[Progress], None],
    checkpoint_seconds: float = 60.0,
    validate_every: int = 2000,
) -> None:
    """Run to the last step, saving the state to `state_path` every `checkpoint_seconds`.

    It is saved before the first step as well. Ctrl-C, SIGTERM or a closed terminal saves it after the step at
    hand and raises KeyboardInterrupt. Raises TrainingError when the loss or a weight is no longer finite; the
    last saved state is from before. Raises UsageError when the images are not those that it began with.
    """
    recipe, scale = run.recipe, run.architecture.scale
    folders = [Path(folder) for folder in recipe.data]
    images = digests(folders)
    check_unchanged(run.images or {}, images, "begin again with --force")
    run.images = images
    crops = load_crops(folders, scale, recipe.patch, recipe.cache_mib, arithmetic=run.architecture.arithmetic)
    device = next(run.network.parameters()).device
    if run.step == 0:
        run.save(state_path)
        if run.architecture.quantized:
            _first_scales(run, crops, device)
    psnr: float | None = None
    saved = begun = time.monotonic()
    before, first = run.seconds, run.step
    with stop_requests() as stop_requested:
        for loss in _steps(run, crops, device):
            now = time.monotonic()
            run.seconds = before + now - begun
            if stop_requested():
                run.save(state_path)
                raise KeyboardInterrupt
            if run.step % validate_every == 0 or run.step == recipe.steps:
                psnr = validate(run.network, validation, scale).psnr if validation else None
            if now - saved >= checkpoint_seconds:
                run.save(state_path)
                saved = now
            speed = (run.step - first) / max(now - begun, 1e-9)
            left = (recipe.steps - run.step) / speed
            on_progress(Progress(run.step, recipe.steps, loss, speed * recipe.batch, left, psnr))
    run.check_finite()
    run.seconds = before + time.monotonic() - begun


def _steps(run: Run, crops: Crops, device: torch.device) -> Iterator[float]:
    """Train step by step, yielding the loss."""
    recipe, network = run.recipe, run.network
    grey = PIXELS_PER_UNIT[run.architecture.arithmetic] ** (1 if recipe.loss == "l1" else 2)
    distance = {"l1": nn.functional.l1_loss, "mse": nn.functional.mse_loss}[recipe.loss]
    batches = Ahead(crops, device)
    while run.step < recipe.steps:
        network.train()
        for group in run.optimizer.param_groups:
            share = group["share"] if run.step < group["until"] * recipe.steps else 0.0
            group["lr"] = recipe.learning_rate * share * _schedule(run.step, recipe)
        lr, hr = batches.batch(recipe.seed, run.step, recipe.batch, recipe.patch)
        loss = distance(network(lr), hr)
        value = float(loss.detach())
        if not value * grey < EXPLODED ** (1 if recipe.loss == "l1" else 2):  # nor is NaN
            raise _diverged(f"the loss became {value}", run)
        run.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        run.optimizer.step()
        run.step += 1
        yield value * grey


def _of_finite(rule: StepRule, run: Run) -> StepRule:
    """`rule`, which raises TrainingError for values [...] that are not finite."""

    def checked(x: NDArray[np.float32], spec: QuantSpec) -> float:
        if not np.isfinite(x).all():
            raise _diverged("an activation is not finite", run)
        return rule(x, spec)

    return checked


def _diverged(what: str, run: Run) -> TrainingError:
    if run.step == 0 and run.recipe.warm_start:
        return TrainingError(f"{what}: the weights of {run.recipe.warm_start} are too large, use another")
    return TrainingError(f"{what} at step {run.step}: use a smaller --lr (now {run.recipe.learning_rate:g})")


def _schedule(step: int, recipe: Recipe) -> float:
    warm = min(1.0, (step + 1) / max(recipe.warmup, 1))
    return warm * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))


def _first_scales(run: Run, crops: Crops, device: torch.device) -> None:
    """Activation scales from one batch of crops; a warm start's dead channels are put to use.

    The paper's arithmetic has constants for these scales, and no bias to make half of a channel with.
    """
    if run.architecture.arithmetic == "paper":
        return
    x = crops.batch(run.recipe.seed + 1, 0, run.recipe.batch, run.recipe.patch)[0].to(device)
    rule = _of_finite(_STEP_RULES[run.recipe.activation_steps], run)
    calibrate(run.network, x, rule)
    if run.recipe.warm_start:
        split_into_dead_channels(run.network, x, rule)
    run.optimizer = _optimizer(run.network, run.recipe)  # for the scales as they are now


def _half_wave(spec: QuantSpec) -> bool:
    """Whether HWGQ is for this grid: signed ones of 8 bits hold residuals, which the paper has in float."""
    return not spec.signed or spec.bits < 8


def has_hwgq_steps(layers: Sequence[Layer]) -> bool:
    """Whether any step of the network is one that `activation_steps` "hwgq" makes a constant."""
    own = (layer.quant for layer in layers if layer.quant and layer.scale_of is None)
    return any(spec.scale is None and _half_wave(spec) for spec in own)


def _hwgq_steps(x: NDArray[np.float32], spec: QuantSpec) -> float:
    return (hwgq_power_of_two if _half_wave(spec) else best_power_of_two)(x, spec)


_STEP_RULES: dict[ActivationSteps, StepRule] = {"learned": best_power_of_two, "hwgq": _hwgq_steps}
