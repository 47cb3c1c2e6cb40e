"""Instructions of one inference, counted by valgrind: a companion of time that nothing else disturbs.

Two fresh processes run the model a few and a few more times; their difference has no loading in it. What
they count beside the inferences still differs by up to `STARTUP_NOISE`, whatever the model. Valgrind shows
programs no AVX-512: a runtime that has faster code for it takes its AVX2 code here. One thread, user space.
"""

import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from qnas.errors import ModelError
from qnas.processes import TooMuch, run, threads
from qnas.runtime_bench.gate import inferences
from qnas.runtime_bench.workers.process import LoadOptions
from qnas.runtimes.names import DeviceName

MODULE = inferences.__name__  # imported here, so that no child has to compile it
TOOL = ("--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null")
COUNTED = re.compile(r"I +refs: +([0-9,]+)")
FEW = 2
WORTH = 4e6  # ns of inferences, as long as they take without valgrind: some 10^8 instructions
MOST = 500
STARTUP_NOISE = 2e4  # instructions; docs/gate.md
PATIENCE = 600.0  # s
LONGEST = 1 << 20  # bytes that it may print
# Threads that wait for work in a loop would be counted, as would those of onnxruntime that report home,
# and what depends on a hash seed.
QUIET = {
    "PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1",
}  # fmt: skip


@dataclass(frozen=True)
class Instructions:
    """`value` of one inference, which the true number is within `error` of."""

    value: float
    error: float


def missing(device: DeviceName) -> str | None:
    """Why instructions cannot be counted, or None."""
    if shutil.which("valgrind") is None:
        return "valgrind is not installed"
    return "valgrind runs on this machine only" if device.transport else None


def count_instructions(
    models: Sequence[tuple[Path, DeviceName, float]], options: LoadOptions
) -> list[Instructions]:
    """Count those of each (model, device, latency in ns); ModelError when one cannot run under valgrind."""
    more = [max(FEW, min(MOST, round(WORTH / latency))) for *_, latency in models]
    tasks = [
        (path, device, count)
        for (path, device, _), extra in zip(models, more, strict=True)
        for count in (FEW, FEW + extra)
    ]
    with threads(len(tasks)) as pool:  # on a busy machine each has its share of the processors
        counts = list(pool.map(partial(_count, options), *zip(*tasks, strict=True)))
    return [
        Instructions((many - few) / extra, STARTUP_NOISE / extra)
        for few, many, extra in zip(counts[::2], counts[1::2], more, strict=True)
    ]


def _count(options: LoadOptions, path: Path, device: DeviceName, count: int) -> int:
    task = inferences.Task(
        str(path), str(device), dict(options.device_options), options.shapes, options.seed, count
    )  # fmt: skip
    words = msgspec.json.encode(task).decode()
    command = ["valgrind", *TOOL, sys.executable, "-P", "-m", MODULE, words]
    try:
        said = run(command, PATIENCE, LONGEST, os.environ | QUIET)
    except TimeoutError as error:
        raise ModelError(f"{path} takes over {PATIENCE:g} s in valgrind: choose a smaller --shape") from error
    except (OSError, TooMuch) as error:
        raise ModelError(f"{path} cannot run under valgrind: {error}; leave --instructions out") from error
    found = COUNTED.search(said.errors)
    if said.status != 0 or found is None:
        lines = [line for line in said.errors.splitlines() if line and not line.startswith("==")]
        why = lines[-1].removeprefix("error: ") if lines else f"status {said.status}"
        raise ModelError(f"{path} cannot run under valgrind: {why}; leave --instructions out")
    return int(found[1].replace(",", ""))
