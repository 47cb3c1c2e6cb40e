"""The search: weights and alphas of a supernet trained in turns, on two disjoint halves of the images.

QuantNAS (Shvetsov et al., IEEE Access 2024). The weights minimise L1 alone; from the end of the warm-up the
alphas minimise `L1 + penalty * cost / cost(uniform alphas) + mu(epoch) * sum_l H(alpha_l)`.

A search is a function of its `SearchRecipe`: batches and noise depend on (seed, step) alone, and the whole
state is written after every epoch, so a killed and resumed search ends with the same bits (on the CPU, at one
thread count).
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from qnas.architecture import Choice
from qnas.checkpoint import load_plain, load_state, save_plain
from qnas.errors import CheckpointError, SpaceError, TrainingError
from qnas.quantization import PIXELS_PER_UNIT
from qnas.search.alphas import (
    Selector,
    cost_tensors,
    derive,
    entropy,
    entropy_schedule,
    expected,
    gumbel,
    softmax,
)
from qnas.search.bit_mixing import Mixer
from qnas.search.candidate_costs import CandidateCosts, Cost
from qnas.search.data import Crops, load_crops
from qnas.search.noise import StepNoise
from qnas.search.parallel import training_pass
from qnas.search.space import SearchSpace, from_document
from qnas.search.stopping import stop_requests
from qnas.search.supernet import Supernet
from qnas.search.world import World

STATE_FORMAT = "qnas-search"
STATE_VERSION = 1
EXPLODED = 1e5  # grey levels: no checkpoint after that is worth resuming
WEIGHT_BATCH, ALPHA_BATCH, CALIBRATION_BATCH, GUMBEL = range(4)  # what a step's random numbers are for


@dataclass(frozen=True)
class SearchRecipe:
    """Everything that decides a search besides its space. `patch` counts LR pixels.

    Learning rates: of weights by a cosine to zero, of alphas constant. `alpha_rate` None is the paper's 3e-4
    for epochs of a thousand steps, and as many times more as epochs are shorter.
    """

    data: tuple[str, ...]
    penalty: float = 1e-4
    cost: Cost = "bitops"
    latency_table: str | None = None
    mixer: Mixer = "san"
    merged: bool = False
    compile: bool = False  # mixtures of quantized inputs, by torch.compile
    selector: Selector = "softmax"
    epochs: int = 20
    epoch_steps: int = 1000
    warm_up: int = 5  # epochs of weights alone
    batch: int = 16
    patch: int = 32
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = 1e-3
    weight_decay: float = 3e-7
    clip: float = 5.0  # of the norm of the weights' gradient
    alpha_rate: float | None = None
    entropy: float = 1e-4  # mu0
    temperatures: tuple[float, float] = (10.0, 0.1)  # of Gumbel, first and last epoch after the warm-up
    seed: int = 0
    cache_mib: int = 1024

    @property
    def steps(self) -> int:
        """Of the weights."""
        return self.epochs * self.epoch_steps

    @property
    def alpha_learning_rate(self) -> float:
        """Of Adam."""
        return 0.3 / self.epoch_steps if self.alpha_rate is None else self.alpha_rate

    def temperature(self, epoch: int) -> float:
        """Of Gumbel's selector: linear in the epoch."""
        first, last = self.temperatures
        return first + (last - first) * max(0, epoch - self.warm_up) / max(self.epochs - 1 - self.warm_up, 1)


@dataclass(frozen=True)
class StepNews:
    """One step: losses in grey levels, that of the alphas None in the warm-up; costs in their own unit."""

    epoch: int
    step: int
    loss: float
    alpha_loss: float | None
    expected_cost: float  # of the probabilities, in the unit of the cost, the fixed part included
    best_cost: float  # of the architecture that the alphas give now
    entropy: float
    entropy_weight: float
    images_per_second: float
    seconds_left: float


@dataclass
class Search:
    """The state between two steps."""

    recipe: SearchRecipe
    space: SearchSpace
    supernet: Supernet
    weight_optimizer: torch.optim.Optimizer
    alpha_optimizer: torch.optim.Optimizer
    world: World = field(default_factory=World)
    step: int = 0
    seconds: float = 0.0
    saved: int | None = None  # the step of the last checkpoint

    @property
    def epoch(self) -> int:
        """Of the next step."""
        return self.step // self.recipe.epoch_steps

    def save(self, path: Path) -> None:
        """Write the state for `resume` to go on with the same bits. Raises TrainingError, OutputError."""
        self.check_finite()
        document = {
            "format": STATE_FORMAT,
            "version": STATE_VERSION,
            "recipe": recipe_document(self.recipe),
            "space": self.space.to_document(),
            "space_name": self.space.name,
            "state_dict": self.supernet.state_dict(),
            "weight_optimizer": self.weight_optimizer.state_dict(),
            "alpha_optimizer": self.alpha_optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        with self.world.agreed():
            if self.world.rank == 0:
                save_plain(path, document, force=True)
        self.saved = self.step

    def check_finite(self) -> None:
        """Raise TrainingError when a weight or an alpha is NaN or infinite."""
        derive(self.space, list(self.supernet.alphas))
        if not all(bool(parameter.isfinite().all()) for parameter in self.supernet.parameters()):
            raise self.diverged("a weight is not finite")

    def diverged(self, what: str) -> TrainingError:
        """The error for numbers that are no longer finite."""
        return TrainingError(
            f"{what} at step {self.step}: use a smaller --lr (now {self.recipe.learning_rate:g}) or "
            f"--alpha-lr (now {self.recipe.alpha_learning_rate:g})"
        )

    def choices(self) -> dict[str, Choice]:
        """What the alphas say now."""
        return derive(self.space, list(self.supernet.alphas))


def recipe_document(recipe: SearchRecipe) -> dict[str, Any]:
    """Plain data that `recipe_from` reads back."""
    return {**asdict(recipe), "data": list(recipe.data), "temperatures": list(recipe.temperatures)}


def recipe_from(document: dict[str, Any]) -> SearchRecipe:
    """The recipe in `recipe_document`'s data. Raises TypeError, KeyError."""
    first, last = document["temperatures"]
    return SearchRecipe(**{**document, "data": tuple(document["data"]), "temperatures": (first, last)})


def start(space: SearchSpace, recipe: SearchRecipe, device: torch.device, world: World) -> Search:
    """A search before its first step. Raises UsageError when its processes cannot divide a batch."""
    world.check_batch(recipe.batch)
    torch.manual_seed(recipe.seed)
    supernet = Supernet(space, recipe.mixer, merged=recipe.merged, compiled=recipe.compile, world=world).to(
        device
    )
    return Search(recipe, space, supernet, *optimizers(supernet, recipe), world)


def resume(path: Path, device: torch.device, world: World) -> Search:
    """The search that `Search.save` wrote; the world may differ. Raises CheckpointError, UsageError."""
    document = load_plain(path, STATE_FORMAT, STATE_VERSION, source="qnas-search")
    try:
        space = from_document(document["space"], str(path), document["space_name"])
        search = start(space, recipe_from(document["recipe"]), device, world)
        load_state(search.supernet, document["state_dict"], str(path))
        search.weight_optimizer.load_state_dict(document["weight_optimizer"])
        search.alpha_optimizer.load_state_dict(document["alpha_optimizer"])
        search.step, search.seconds = int(document["step"]), float(document["seconds"])
        search.saved = search.step
        return search
    except (KeyError, TypeError, ValueError, SpaceError) as error:
        raise CheckpointError(
            f"{path} is no complete search ({error}): start again without --resume"
        ) from error


def optimizers(
    supernet: Supernet, recipe: SearchRecipe
) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    weights = supernet.weights()
    rate, decay = recipe.learning_rate, recipe.weight_decay
    weight_optimizer: torch.optim.Optimizer
    if recipe.optimizer == "sgd":
        weight_optimizer = torch.optim.SGD(weights, rate, momentum=0.9, weight_decay=decay)
    else:
        weight_optimizer = torch.optim.Adam(weights, rate, weight_decay=decay)
    return weight_optimizer, torch.optim.Adam(supernet.alphas, recipe.alpha_learning_rate, betas=(0.5, 0.999))


def search_on(
    search: Search,
    costs: CandidateCosts,
    state_path: Path,
    on_step: Callable[[StepNews], None],
    on_epoch: Callable[[Search], None],
) -> None:
    """Run to the last step; after every epoch `on_epoch` is called, and the state saved to `state_path`.

    What `on_step` and `on_epoch` write is thus never behind the state, and a resumed search can cut it there.
    Ctrl-C, SIGTERM or a closed terminal saves it after the step at hand and raises KeyboardInterrupt. All
    processes of the search's world call this and get the news, and stop together when one of them does.
    Raises TrainingError when a loss, a weight or an alpha is no longer finite; the last saved state is from
    before.
    """
    recipe, device = search.recipe, search.supernet.alphas[0].device
    folders = [Path(folder) for folder in recipe.data]
    world = search.world
    with world.agreed():
        crops = load_crops(folders, search.space.scale, recipe.patch, recipe.cache_mib)
        halves = crops.halves(recipe.seed)
    turns = Turns(search, halves, cost_tensors(search.space, costs, device))
    before, first, begun = search.seconds, search.step, time.monotonic()
    with stop_requests() as stop_requested:
        while search.step < recipe.steps:
            if search.step % recipe.epoch_steps == 0 or search.step.bit_count() == 1:
                turns.calibrate()  # weights move most at the start: at steps 1, 2, 4, 8, ... as well
            news = turns.step()
            elapsed = time.monotonic() - begun
            search.seconds = before + elapsed
            stop, epoch_ends = world.any(stop_requested()), search.step % recipe.epoch_steps == 0
            speed = (search.step - first) / max(elapsed, 1e-9)
            with world.agreed():
                on_step(_news(search, costs, *news, speed))
                if epoch_ends:
                    on_epoch(search)
            if stop or epoch_ends:
                search.save(state_path)
            if stop:
                raise KeyboardInterrupt


def _news(search: Search, costs: CandidateCosts, loss: float, terms: "_AlphaTerms", speed: float) -> StepNews:
    return StepNews(
        epoch=(search.step - 1) // search.recipe.epoch_steps,
        step=search.step,
        loss=loss,
        alpha_loss=terms.loss,
        expected_cost=costs.fixed + costs.mean_searched * terms.cost,
        best_cost=costs.of(search.choices()),
        entropy=terms.entropy,
        entropy_weight=terms.weight,
        images_per_second=speed * search.recipe.batch,
        seconds_left=(search.recipe.steps - search.step) / speed,
    )


@dataclass(frozen=True)
class _AlphaTerms:
    """What the alphas' loss is made of: L1 in grey levels, cost as a share of the start's, nats, mu.

    `loss` is None in the warm-up.
    """

    loss: float | None
    cost: float
    entropy: float
    weight: float


class Turns:
    """A step: the alphas on their half of the data, then the weights on the other."""

    def __init__(self, search: Search, halves: tuple[Crops, Crops], costs: list[Tensor]) -> None:
        self.search, self.costs = search, costs
        self.weight_crops, self.alpha_crops = halves
        self.weights, self.alphas = search.supernet.weights(), list(search.supernet.alphas)
        self.weight_pass = training_pass(search.supernet, self.weights, search.world)
        self.alpha_pass = training_pass(search.supernet, self.alphas, search.world)

    def calibrate(self) -> None:
        """Set the steps of all activation quantizers from one batch, the same in every process."""
        search, supernet = self.search, self.search.supernet
        if search.recipe.mixer != "san":
            lr = self._batch(self.weight_crops)[0]
            supernet.train()
            with torch.no_grad(), supernet.calibrated_by_data():
                supernet(lr, self._probabilities(ALPHA_BATCH), self._noise(CALIBRATION_BATCH))
                for quantizer in supernet.quantizers():  # one in all processes, whatever their last bits
                    quantizer.step.copy_(search.world.largest(quantizer.step))

    def step(self) -> tuple[float, _AlphaTerms]:
        """(the weights' loss in grey levels, the alphas' terms)."""
        search = self.search
        search.supernet.train()
        if search.epoch >= search.recipe.warm_up:
            terms = self._alpha_step()
        else:
            terms = _AlphaTerms(None, 1.0, float(entropy(self.alphas).detach()), 0.0)
        loss = self._weight_step()
        search.step += 1
        return loss, terms

    def _alpha_step(self) -> _AlphaTerms:
        search, recipe = self.search, self.search.recipe
        probabilities = self._probabilities(ALPHA_BATCH)
        weight = recipe.entropy * entropy_schedule(search.epoch, recipe.epochs, recipe.warm_up)
        cost, disorder = expected(probabilities, self.costs), entropy(self.alphas)
        for parameter in self.weights:
            parameter.requires_grad_(False)
        try:
            l1 = self._l1(self.alpha_pass, self.alpha_crops, probabilities, ALPHA_BATCH)
            search.alpha_optimizer.zero_grad(set_to_none=True)
            (l1 + recipe.penalty * cost + weight * disorder).backward()  # type: ignore[no-untyped-call]
            search.alpha_optimizer.step()
        finally:
            for parameter in self.weights:
                parameter.requires_grad_(True)
        return _AlphaTerms(
            self._grey(l1, "the alphas' loss"), float(cost.detach()), float(disorder.detach()), weight
        )

    def _weight_step(self) -> float:
        search, recipe = self.search, self.search.recipe
        for group in search.weight_optimizer.param_groups:
            group["lr"] = recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * search.step / recipe.steps))
        probabilities = [each.detach() for each in self._probabilities(WEIGHT_BATCH)]
        l1 = self._l1(self.weight_pass, self.weight_crops, probabilities, WEIGHT_BATCH)
        search.weight_optimizer.zero_grad(set_to_none=True)
        l1.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.weights, recipe.clip)
        search.weight_optimizer.step()
        return self._grey(l1, "the loss")

    def _l1(
        self, forward: Callable[..., Tensor], crops: Crops, probabilities: list[Tensor], purpose: int
    ) -> Tensor:
        world = self.search.world
        share = self.search.recipe.batch // world.size
        mine = slice(world.rank * share, (world.rank + 1) * share)
        lr, hr = (part[mine] for part in self._batch(crops))
        lr, hr = (part.contiguous(memory_format=torch.channels_last) for part in (lr, hr))  # faster on CPUs
        return nn.functional.l1_loss(forward(lr, probabilities, self._noise(purpose)), hr)

    def _batch(self, crops: Crops) -> tuple[Tensor, Tensor]:
        recipe, like = self.search.recipe, self.alphas[0]
        lr, hr = crops.batch(recipe.seed, self.search.step, recipe.batch, recipe.patch)
        return lr.to(like), hr.to(like)

    def _probabilities(self, purpose: int) -> list[Tensor]:
        recipe = self.search.recipe
        if recipe.selector == "softmax" or self.search.epoch < recipe.warm_up:
            return [softmax(alpha) for alpha in self.alphas]
        temperature = recipe.temperature(self.search.epoch)
        generator = torch.Generator(self.alphas[0].device).manual_seed(self._seed(purpose + GUMBEL))
        return [gumbel(alpha, temperature, generator) for alpha in self.alphas]

    def _noise(self, purpose: int) -> StepNoise:
        return StepNoise(self._seed(purpose), self.alphas[0].device, self.search.world)

    def _seed(self, purpose: int) -> int:
        seeds = np.random.SeedSequence((self.search.recipe.seed, self.search.step, purpose))
        return int(seeds.generate_state(1, np.uint64)[0])

    def _grey(self, loss: Tensor, what: str) -> float:
        value = float(self.search.world.mean(loss.detach()))
        grey = value * PIXELS_PER_UNIT["short"]
        if not grey < EXPLODED:  # nor is NaN
            raise self.search.diverged(f"{what} became {grey:g} grey levels")
        return grey
