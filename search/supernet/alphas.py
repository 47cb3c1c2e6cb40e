"""The architecture parameters: what they say, what they cost, and how they become an architecture."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from qnas.errors import TrainingError
from qnas.network.architecture import Choice
from qnas.search.space.candidate_costs import CandidateCosts
from qnas.search.space.search_space import SearchSpace

Selector = Literal["softmax", "gumbel"]


def softmax(alpha: Tensor) -> Tensor:
    """The probability of each pair of operation and bits, [O, B] -> [O, B]."""
    return F.softmax(alpha.flatten(), 0).view_as(alpha)


def gumbel(alpha: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """A draw from the relaxed categorical distribution, [O, B] -> [O, B].

    Jang, Gu, Poole, Categorical reparameterization with Gumbel-softmax, ICLR 2017.
    """
    uniform = torch.rand(alpha.shape, generator=generator, device=alpha.device)
    noise = -torch.log(-torch.log(uniform.clamp(1e-10, 1 - 1e-7)))
    return softmax((alpha + noise) / temperature)


def entropy(alphas: Sequence[Tensor]) -> Tensor:
    """Sum over the variables of `-sum p log p`, in nats, []."""
    return torch.stack([-(softmax(a) * F.log_softmax(a.flatten(), 0).view_as(a)).sum() for a in alphas]).sum()


def entropy_schedule(epoch: int, epochs: int, warm_up: int) -> float:
    """The factor of the entropy's weight in an epoch: `linear(t) * log(t)` of QuantNAS, 0 to 1.

    With t epochs after the warm-up of T in all and q = T // 4: zero while t < q, then
    `t / (T - 1) * log(t - q + 2) / log(T - q + 1)`.
    """
    t, total = epoch - warm_up, epochs - warm_up
    quiet = total // 4
    if t < max(quiet, 0) or t < 0:
        return 0.0
    return t / max(total - 1, 1) * math.log(t - quiet + 2) / math.log(max(total - quiet + 1, 2))


def cost_tensors(space: SearchSpace, costs: CandidateCosts, device: torch.device) -> list[Tensor]:
    """The cost of each candidate, [O, B] for each variable, as shares of the mean network's searched cost."""
    tables = [
        torch.tensor([costs.searched[name][c] for c in space.choices(name)]).view(-1, len(space.widths))
        for name in space.variables
    ]
    mean = sum(float(table.double().mean()) for table in tables)
    return [(table / mean).float().to(device) for table in tables]


def expected(probabilities: Sequence[Tensor], tensors: Sequence[Tensor]) -> Tensor:
    """The mean of the cost under the probabilities, []: one where all candidates are equally likely."""
    return torch.stack([(p * t).sum() for p, t in zip(probabilities, tensors, strict=True)]).sum()


def derive(space: SearchSpace, alphas: Sequence[Tensor]) -> dict[str, Choice]:
    """The likeliest candidate of each variable. Raises TrainingError when an alpha is not finite."""
    choices = {}
    for name, alpha in zip(space.variables, alphas, strict=True):
        if not bool(alpha.isfinite().all()):
            raise TrainingError(f"an alpha of {name} is not finite: use a smaller --alpha-lr")
        choices[name] = space.choices(name)[int(alpha.flatten().argmax())]
    return choices


def certainty(alphas: Sequence[Tensor]) -> list[float]:
    """The largest probability of each variable."""
    return [float(softmax(alpha.detach()).max()) for alpha in alphas]
