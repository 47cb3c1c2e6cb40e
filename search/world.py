"""The processes that train one supernet together (torchrun), or the one there is."""

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class World:
    """`size` processes, of which this is number `rank`; each has an equal part of every batch."""

    rank: int = 0
    size: int = 1

    def largest(self, value: Tensor) -> Tensor:
        """The maximum over all processes."""
        if self.size > 1:
            value = value.clone()
            dist.all_reduce(value, dist.ReduceOp.MAX)
        return value

    def any(self, fact: bool) -> bool:
        """Whether it holds in one process at least."""
        return fact if self.size == 1 else bool(self.largest(torch.tensor(float(fact))) > 0)

    def mean(self, value: Tensor) -> Tensor:
        """The mean over all processes, not differentiated."""
        if self.size > 1:
            value = value.detach().clone()
            dist.all_reduce(value)
            value /= self.size
        return value


def join_world(device: torch.device) -> World:
    """The group that torchrun's environment describes, joined; a world of one without it."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World()
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return World(dist.get_rank(), size)
