"""The processes that train one supernet together (torchrun), or the one there is.

    torchrun --nproc-per-node 2 --no-python qnas-search run --space basic --data DIR -o runs/x

They talk by gloo on CPUs and by NCCL on GPUs. All of them run the same search; number 0 alone writes.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from qnas.errors import TrainingError, UsageError


@dataclass(frozen=True)
class World:
    """`size` processes, of which this is number `rank`; each has an equal part of every batch."""

    rank: int = 0
    size: int = 1

    def largest(self, value: Tensor) -> Tensor:
        """The maximum over all processes, not differentiated; any shape, one in all processes."""
        return _reduced(value.detach(), dist.ReduceOp.MAX) if self.size > 1 else value

    def any(self, fact: bool) -> bool:
        """Whether it holds in one process at least."""
        return fact if self.size == 1 else bool(self.largest(torch.tensor(float(fact))) > 0)

    def mean(self, value: Tensor) -> Tensor:
        """The mean over all processes, not differentiated."""
        return _reduced(value.detach()) / self.size if self.size > 1 else value

    def differentiable_mean(self, value: Tensor) -> Tensor:
        """The mean over all processes. Its gradient is that of the sum of their losses."""
        total: Tensor = _Sum.apply(value)  # type: ignore[no-untyped-call]
        return total / self.size

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """An error inside, in one process, is raised in all: nobody waits for a process that has gone.

        What stands inside may not wait for the other processes.
        """
        failed = None
        try:
            yield
        except Exception as error:
            failed = error
        if self.any(failed is not None):
            raise failed or TrainingError("another process stopped: its own message says why")

    def check_batch(self, batch: int) -> None:
        """Raise UsageError when the processes cannot divide a batch among them."""
        if batch % self.size:
            raise UsageError(
                f"{self.size} processes cannot divide a batch of {batch}: use a multiple of {self.size}"
            )


class _Sum(torch.autograd.Function):
    """Over all processes: each one's output hangs on every one's input alike."""

    @staticmethod
    def forward(ctx: object, value: Tensor) -> Tensor:
        return _reduced(value)

    @staticmethod
    def backward(ctx: object, *grads: Tensor) -> Tensor:
        return _reduced(grads[0])


def _reduced(value: Tensor, how: dist.ReduceOp.RedOpType = dist.ReduceOp.SUM) -> Tensor:
    """A new tensor. Raises TrainingError when a process has gone."""
    result = value.clone(memory_format=torch.contiguous_format)
    try:
        dist.all_reduce(result, how)
    except RuntimeError as error:
        raise TrainingError("another process has gone: its own message, if any, says why") from error
    return result


def own_device() -> torch.device:
    """This process's GPU, or the CPU. Raises UsageError when torchrun started more processes than GPUs."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    index, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if index >= count:
        raise UsageError(f"process {index + 1} finds {count} GPUs: use --nproc-per-node {count}")
    return torch.device("cuda", index)


def own_threads() -> int:
    """An equal share of this machine's cores."""
    return max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


@contextmanager
def joined_world(device: torch.device) -> Iterator[World]:
    """The processes that torchrun started, or this one alone. Raises UsageError.

    A group that was joined here is left at the end; one that a caller has joined is not.
    """
    if dist.is_initialized():
        yield World(dist.get_rank(), dist.get_world_size())
        return
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield World()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    except ValueError as error:
        raise UsageError(
            f"WORLD_SIZE is set but the processes cannot meet ({error}): start with torchrun, or unset it"
        ) from error
    try:
        yield World(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
