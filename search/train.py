"""Trains one architecture from scratch or from full-precision weights, resumably.

A run is a function of its `Recipe`: batches depend on (seed, step) alone and the whole state is written every
`checkpoint_seconds`, so a killed and resumed run ends with the same bits (on the CPU, at one thread count).
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from qnas.architecture import Architecture, from_document
from qnas.checkpoint import load_plain, load_state, save_plain
from qnas.errors import CheckpointError, TrainingError
from qnas.evaluation import Image, Quality, evaluate
from qnas.lowering import lower
from qnas.network import Convolution, Network
from qnas.quantization import GREY_LEVEL
from qnas.search.data import Crops, load_crops, to_network

RUN_FORMAT = "qnas-run"
RUN_VERSION = 1
# Quantizer scales are a hundred times smaller than weights are far apart; Adam's step is absolute.
SCALE_LEARNING_RATE = 0.01


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run; `patch` counts LR pixels, `learning_rate` falls to zero by a cosine."""

    data: tuple[str, ...]
    steps: int = 20_000
    batch: int = 16
    patch: int = 32
    learning_rate: float = 1e-3
    warmup: int = 100
    loss: Literal["l1", "mse"] = "l1"
    seed: int = 0
    warm_start: str | None = None
    cache_mib: int = 1024


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

    def save(self, path: Path) -> None:
        """Write the state so that `resume` continues with the same bits."""
        import json

        document = {
            "format": RUN_FORMAT,
            "version": RUN_VERSION,
            "recipe": {**asdict(self.recipe), "data": list(self.recipe.data)},
            "architecture": json.loads(self.architecture.to_json()),
            "state_dict": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        save_plain(path, document, force=True)


def start(architecture: Architecture, recipe: Recipe, device: torch.device) -> Run:
    """A run before its first step: seeded, or warm-started. Raises QnasError."""
    torch.manual_seed(recipe.seed)
    network = Network(lower(architecture))
    if recipe.warm_start:
        warm_start(network, Path(recipe.warm_start))
    network.to(device, memory_format=torch.channels_last)
    return Run(recipe, architecture, network, _optimizer(network, recipe))


def resume(path: Path, device: torch.device) -> Run:
    """The run that `Run.save` wrote. Raises CheckpointError."""
    document = load_plain(path, RUN_FORMAT, RUN_VERSION)
    try:
        recipe = Recipe(**{**document["recipe"], "data": tuple(document["recipe"]["data"])})
        architecture = from_document(document["architecture"], str(path))
        network = Network(lower(architecture))
        load_state(network, document["state_dict"], str(path))
        network.to(device, memory_format=torch.channels_last)
        optimizer = _optimizer(network, recipe)
        optimizer.load_state_dict(document["optimizer"])
        return Run(recipe, architecture, network, optimizer, int(document["step"]), float(document["seconds"]))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is no complete run ({error}): start again without --resume") from error


def warm_start(network: Network, path: Path) -> None:
    """Take weights, biases and norms from the `found.pt` of the same network at other bits. Raises CheckpointError."""
    from qnas.checkpoint import load_found

    theirs = load_found(path).network.state_dict()
    state = network.state_dict()
    for name, value in state.items():
        if name in theirs and theirs[name].shape == value.shape:
            state[name] = theirs[name]
        elif name.rsplit(".", 1)[-1] in ("weight", "bias"):
            raise CheckpointError(f"{path} has no {name} of shape {tuple(value.shape)}: warm-start from the same network")
    network.load_state_dict(state)
    for module in network.modules():
        if isinstance(module, Convolution):
            module.reset_scale()


def _optimizer(network: Network, recipe: Recipe) -> torch.optim.Optimizer:
    scales, weights = [], []
    for name, parameter in network.named_parameters():
        (scales if name.endswith((".step", ".weight_scale")) else weights).append(parameter)
    groups = [{"params": weights, "share": 1.0}, {"params": scales, "share": SCALE_LEARNING_RATE}]
    return torch.optim.Adam([group for group in groups if group["params"]], lr=recipe.learning_rate)


def train(
    run: Run,
    state_path: Path,
    validation: Path | None,
    on_progress: Callable[[Progress], None],
    checkpoint_seconds: float = 60.0,
    validate_every: int = 2000,
) -> None:
    """Run to the last step. Saves the state to `state_path` now and then and when stopped (KeyboardInterrupt).

    Raises TrainingError when the loss is no longer finite; the last saved state is from before.
    """
    recipe, scale = run.recipe, run.architecture.scale
    crops = load_crops([Path(folder) for folder in recipe.data], scale, recipe.patch, recipe.cache_mib)
    device = next(run.network.parameters()).device
    if run.step == 0 and run.architecture.quantized:
        calibrate(run.network, crops, recipe, device)
    psnr: float | None = None
    saved = begun = time.monotonic()
    before, first = run.seconds, run.step
    try:
        for loss in _steps(run, crops, device):
            now = time.monotonic()
            run.seconds = before + now - begun
            if run.step % validate_every == 0 or run.step == recipe.steps:
                psnr = validate(run.network, validation, scale).psnr if validation else None
            if now - saved > checkpoint_seconds:
                run.save(state_path)
                saved = now
            speed = (run.step - first) / max(now - begun, 1e-9)
            on_progress(
                Progress(run.step, recipe.steps, loss, speed * recipe.batch, (recipe.steps - run.step) / speed, psnr)
            )
    except KeyboardInterrupt:
        run.save(state_path)
        raise
    run.seconds = before + time.monotonic() - begun


def _steps(run: Run, crops: Crops, device: torch.device) -> Iterator[float]:
    """Train step by step, yielding the loss."""
    recipe, network = run.recipe, run.network
    distance = {"l1": nn.functional.l1_loss, "mse": nn.functional.mse_loss}[recipe.loss]
    while run.step < recipe.steps:
        network.train()
        for group in run.optimizer.param_groups:
            group["lr"] = recipe.learning_rate * group["share"] * _schedule(run.step, recipe)
        lr, hr = crops.batch(recipe.seed, run.step, recipe.batch, recipe.patch)
        loss = distance(network(lr.to(device)), hr.to(device))
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss became {value} at step {run.step}: use a smaller --lr (now {recipe.learning_rate:g})"
            )
        run.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        run.optimizer.step()
        run.step += 1
        yield value / (GREY_LEVEL if recipe.loss == "l1" else GREY_LEVEL**2)


def _schedule(step: int, recipe: Recipe) -> float:
    warm = min(1.0, (step + 1) / max(recipe.warmup, 1))
    return warm * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))


def calibrate(network: Network, crops: Crops, recipe: Recipe, device: torch.device) -> None:
    """Set every activation scale from one batch of training crops."""
    lr, _ = crops.batch(recipe.seed + 1, 0, recipe.batch, recipe.patch)
    network.train()
    with torch.no_grad(), network.calibrated_by_data():
        network(lr.to(device))


def upscaler(network: Network) -> Callable[[Image], Image]:
    """`network` in `eval()` as a function of uint8 images [H, W, 3]."""
    device = next(network.parameters()).device

    def upscale(image: Image) -> Image:
        network.eval()
        with torch.no_grad():
            return to_pixels(network(to_network(image[None]).to(device)))[0]

    return upscale


def to_pixels(y: Tensor) -> Image:
    """float32 [N, 3, H, W] in network units -> uint8 [N, H, W, 3]: rounded half-to-even, clipped."""
    pixels: Image = (y / GREY_LEVEL).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return pixels


def validate(network: Network, folder: Path, scale: int) -> Quality:
    """PSNR-Y and SSIM of `network` on a folder of HR images."""
    return evaluate(upscaler(network), folder, scale)
