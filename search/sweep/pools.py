"""Where members run: threads that start processes here, or the tasks of a Ray cluster.

Both give the outcomes as they come, a list of them at least every second, so that the caller can show where
things stand. To stop, the caller makes the file `stages.STOP`: every member sees it, wherever it is.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from qnas.errors import UsageError
from qnas.search.sweep.member import Member
from qnas.search.sweep.stages import Job, Outcome, run_member

TICK_SECONDS = 1.0


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def local_outcomes(
    members: Sequence[Member], sweep: Path, workers: int, threads: int
) -> Iterator[list[Outcome]]:
    """`workers` members at a time on this machine, each with `threads`."""
    with ThreadPoolExecutor(workers) as pool:
        futures = {pool.submit(run_member, Job(member, sweep, threads)) for member in members}
        while futures:
            done, futures = wait(futures, TICK_SECONDS, FIRST_COMPLETED)
            yield [future.result() for future in done]


def ray_outcomes(
    ray: Any, members: Sequence[Member], sweep: Path, workers: int, threads: int
) -> Iterator[list[Outcome]]:
    """Run them as tasks of the cluster that `ray` has; every node needs qnas and the same folders.

    A task asks for `threads` CPUs; GPUs are divided by `workers`.
    """
    try:
        gpus = min(1.0, ray.cluster_resources().get("GPU", 0) / workers)
        task = ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=0)(run_member)
        names = {task.remote(Job(member, sweep, threads)): member.name for member in members}
        waiting = list(names)
        while waiting:
            done, waiting = ray.wait(waiting, num_returns=1, timeout=TICK_SECONDS)
            yield [_outcome(ray, names[each], each) for each in done]
    finally:
        ray.shutdown()


def _outcome(ray: Any, name: str, reference: Any) -> Outcome:
    try:
        outcome: Outcome = ray.get(reference)
    except ray.exceptions.RayError as error:  # its node died, or has no qnas
        return Outcome(name, "failed", " ".join(str(error).split())[-500:])
    return outcome


def connected(address: str) -> Any:
    """Ray, connected to a cluster; "local" starts one here. Raises UsageError without Ray, or a cluster."""
    try:
        import ray
    except ModuleNotFoundError:
        raise UsageError('--ray needs Ray, which is not installed: pip install "qnas[search,ray]"') from None
    options: dict[str, Any] = {"include_dashboard": False, "num_cpus": cores()} if address == "local" else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error)[:200]
        raise UsageError(f"no Ray at {address[:80]} ({reason}): start it, or use --ray local") from None
    return ray
