"""Everything that decides a search besides its space."""

from dataclasses import dataclass, fields
from typing import Any, Literal

import msgspec

from qnas.documents.reading import Count, Document, Rate, Share, Size
from qnas.errors import CheckpointError
from qnas.search.space.candidate_costs import Cost
from qnas.search.supernet.alphas import Selector
from qnas.search.supernet.bit_mixing import Mixer


@dataclass(frozen=True)
class SearchRecipe:
    """Everything that decides a search besides its space. `patch` counts LR pixels.

    Learning rates: of weights by a cosine to zero, of alphas constant. `alpha_rate` None is the paper's 3e-4
    for epochs of a thousand steps, and as many times more as epochs have fewer steps of the alphas.
    """

    data: tuple[str, ...]
    penalty: Share = 1e-4  # where there is a target the first one
    cost: Cost = "bitops"
    target: str | None = None  # a cost, as "2.4G", or a share of the dearest architecture's, as "60%"
    latency_table: str | None = None
    mixer: Mixer = "san"
    merged: bool = False
    compile: bool = False  # mixtures of quantized inputs, by torch.compile
    selector: Selector = "softmax"
    epochs: Size = 20
    epoch_steps: Size = 1000
    warm_up: Count = 5  # epochs of weights alone
    batch: Size = 16
    patch: Size = 32
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: Rate = 1e-3
    weight_decay: Share = 3e-7
    clip: Rate = 5.0  # of the norm of the weights' gradient
    alpha_rate: Rate | None = None
    alpha_every: Size = 1  # steps of the weights for one of the alphas
    entropy: Share = 1e-4  # mu0
    temperatures: tuple[Rate, Rate] = (10.0, 0.1)  # of Gumbel, first and last epoch after the warm-up
    seed: Count = 0
    cache_mib: Size = 1024

    @property
    def steps(self) -> int:
        """The steps of the weights."""
        return self.epochs * self.epoch_steps

    @property
    def first_alpha_step(self) -> int:
        """The step in which the alphas learn first, counted from 0."""
        return -(-self.warm_up * self.epoch_steps // self.alpha_every) * self.alpha_every

    @property
    def alpha_learning_rate(self) -> float:
        """Adam's learning rate of the alphas."""
        return 0.3 * self.alpha_every / self.epoch_steps if self.alpha_rate is None else self.alpha_rate

    def temperature(self, epoch: int) -> float:
        """The temperature of Gumbel's selector: linear in the epoch."""
        first, last = self.temperatures
        return first + (last - first) * max(0, epoch - self.warm_up) / max(self.epochs - 1 - self.warm_up, 1)


def recipe_document(recipe: SearchRecipe) -> dict[str, Any]:
    """Plain data that `recipe_from` reads back."""
    document: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(recipe))
    return document


def recipe_from(document: dict[str, Any], where: str) -> SearchRecipe:
    """The recipe in `recipe_document`'s data; `where` begins the message. Raises CheckpointError."""
    found = _DOCUMENT.convert(document, where)
    if unknown := document.keys() - {field.name for field in fields(SearchRecipe)}:
        raise CheckpointError(f"{where}: {min(unknown)} is unknown: {_DOCUMENT.advice}")
    return found


_DOCUMENT = Document(SearchRecipe, "recipe of a search", "begin again with --force", CheckpointError)
