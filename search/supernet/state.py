"""The state of a search: begun, saved after an epoch, and read again with the same bits."""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from qnas.documents.reading import Document, Number
from qnas.errors import CheckpointError, SpaceError, TrainingError
from qnas.network.architecture import Choice
from qnas.search.space.search_space import SearchSpace, from_document
from qnas.search.supernet.alphas import derive
from qnas.search.supernet.recipe import SearchRecipe, recipe_document, recipe_from
from qnas.search.supernet.supernet import Supernet, weight_count
from qnas.search.supernet.world import World
from qnas.torch.checkpoint import check_size, load_state
from qnas.torch.run_state import ADVICE, load_optimizer, load_run_state, progress_of, save_run_state

STATE_FORMAT = "qnas-search"
STATE_VERSION = 1


@dataclass(frozen=True)
class _Penalty:
    penalty: Number


_PENALTY = Document(_Penalty, "state of a run", ADVICE, CheckpointError)


@dataclass
class Search:
    """The state between two steps."""

    recipe: SearchRecipe
    space: SearchSpace
    supernet: Supernet
    weight_optimizer: torch.optim.Optimizer
    alpha_optimizer: torch.optim.Optimizer
    world: World = field(default_factory=World)
    penalty: float = field(init=False)  # of the cost, at the next step; without a target the recipe's
    step: int = 0
    seconds: float = 0.0
    saved: int | None = None  # the step of the last checkpoint

    def __post_init__(self) -> None:
        self.penalty = self.recipe.penalty

    @property
    def epoch(self) -> int:
        """The epoch of the next step."""
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
            "penalty": self.penalty,
            "step": self.step,
            "seconds": self.seconds,
        }
        with self.world.agreed():
            if self.world.rank == 0:
                save_run_state(path, document)
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
    document, where = load_run_state(path, STATE_FORMAT, STATE_VERSION, "qnas-search"), str(path)
    recipe = recipe_from(document.get("recipe", {}), f"{path}, recipe")
    progress = progress_of(document, recipe.steps, where)
    try:
        space = from_document(document.get("space"), where, str(document.get("space_name")))
    except SpaceError as error:
        raise CheckpointError(f"{error}: {ADVICE}") from error
    check_size(weight_count(space, recipe.mixer), path)
    search = start(space, recipe, device, world)
    load_state(search.supernet, document.get("state_dict"), where)
    weighed = progress.step > recipe.first_alpha_step
    load_optimizer(search.weight_optimizer, document.get("weight_optimizer"), progress.step > 0, where)
    load_optimizer(search.alpha_optimizer, document.get("alpha_optimizer"), weighed, where)
    search.step = search.saved = progress.step
    search.seconds = progress.seconds
    if recipe.target:
        search.penalty = _PENALTY.convert({"penalty": document.get("penalty")}, where).penalty
    return search


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
