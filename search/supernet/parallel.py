"""Data-parallel training: PyTorch's DistributedDataParallel, once for weights, once for alphas."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from qnas.search.supernet.supernet import Supernet
from qnas.search.supernet.world import World


class _Part(nn.Module):
    """A supernet of which only `parameters` are trained: DistributedDataParallel sees no others."""

    def __init__(self, supernet: Supernet, parameters: Sequence[nn.Parameter]) -> None:
        super().__init__()
        self._supernet = (supernet,)  # in a tuple: its parameters are not this module's
        self.trained = nn.ParameterList(parameters)

    def forward(self, *inputs: Any) -> Tensor:
        result: Tensor = self._supernet[0](*inputs)
        return result


def training_pass(
    supernet: Supernet, parameters: Sequence[nn.Parameter], world: World
) -> Callable[..., Tensor]:
    """The supernet's forward pass; its gradients for `parameters` are means over all processes."""
    if world.size == 1:
        return supernet
    return DistributedDataParallel(_Part(supernet, parameters))
