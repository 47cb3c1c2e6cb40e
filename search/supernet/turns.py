"""A step of the search: the alphas on their half of the images, then the weights on the other."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from qnas.quantization.quantizers import PIXELS_PER_UNIT
from qnas.search.supernet.alphas import (
    entropy,
    entropy_schedule,
    expected,
    gumbel,
    softmax,
)
from qnas.search.supernet.noise import StepNoise
from qnas.search.supernet.parallel import training_pass
from qnas.search.supernet.state import Search
from qnas.search.training.data import Crops
from qnas.search.training.train import EXPLODED

WEIGHT_BATCH, ALPHA_BATCH, CALIBRATION_BATCH, GUMBEL = range(4)  # what a step's random numbers are for


@dataclass(frozen=True)
class AlphaTerms:
    """What the alphas' loss is made of: L1 in grey levels, cost as a share of the start's, nats, mu.

    `loss` is None where the alphas do not learn.
    """

    loss: float | None
    cost: float
    entropy: float
    weight: float


class Turns:
    """A step: the alphas on their half of the data, where it is their turn, then the weights on the other."""

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

    def step(self) -> tuple[float, AlphaTerms]:
        """(the weights' loss in grey levels, the alphas' terms)."""
        search = self.search
        search.supernet.train()
        recipe, learn = search.recipe, search.epoch >= search.recipe.warm_up
        if learn and search.step % recipe.alpha_every == 0:
            terms = self._alpha_step()
        else:
            terms = self._alphas_now(learn)
        loss = self._weight_step()
        search.step += 1
        return loss, terms

    def _alphas_now(self, learn: bool) -> AlphaTerms:
        """Of a step in which they do not learn; `learn`: whether they do in others of this epoch."""
        with torch.no_grad():
            cost = float(expected([softmax(alpha) for alpha in self.alphas], self.costs)) if learn else 1.0
            return AlphaTerms(None, cost, float(entropy(self.alphas)), self._entropy_weight())

    def _entropy_weight(self) -> float:
        recipe = self.search.recipe
        return recipe.entropy * entropy_schedule(self.search.epoch, recipe.epochs, recipe.warm_up)

    def _alpha_step(self) -> AlphaTerms:
        search = self.search
        probabilities = self._probabilities(ALPHA_BATCH)
        weight = self._entropy_weight()
        cost, disorder = expected(probabilities, self.costs), entropy(self.alphas)
        for parameter in self.weights:
            parameter.requires_grad_(False)
        try:
            l1 = self._l1(self.alpha_pass, self.alpha_crops, probabilities, ALPHA_BATCH)
            search.alpha_optimizer.zero_grad(set_to_none=True)
            (l1 + search.penalty * cost + weight * disorder).backward()  # type: ignore[no-untyped-call]
            search.alpha_optimizer.step()
        finally:
            for parameter in self.weights:
                parameter.requires_grad_(True)
        return AlphaTerms(
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
