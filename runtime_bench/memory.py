"""Peak memory of loading a model and running it, taken in a process of its own that imports nothing else.

    python -m qnas.runtime_bench.memory '{"model": ..., "threads": 1, "shapes": {...}, "seed": 0}'

prints the peak resident set in bytes. It holds the interpreter, numpy and onnxruntime too (some 60 MiB).
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from qnas.errors import ModelError, QnasError
from qnas.runtime_bench.inputs import Shape, random_inputs
from qnas.runtime_bench.measure import run_once
from qnas.session import open_session

STATUS = Path("/proc/self/status")


def peak_memory(model: Path, threads: int, shapes: Mapping[str, Shape], seed: int) -> int | None:
    """Peak resident set in bytes of a fresh process that loads `model` and runs it once; None if unknown.

    Raises ModelError when that process fails.
    """
    task = json.dumps({"model": str(model), "threads": threads, "shapes": shapes, "seed": seed})
    command = [sys.executable, "-P", "-m", "qnas.runtime_bench.memory", task]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        said = (result.stderr.strip().splitlines() or [f"killed by signal {-result.returncode}"])[-1]
        raise ModelError(f"{model} fails in a process of its own: {said.removeprefix('error: ')}")
    size = int(result.stdout)
    return size or None


def own_peak() -> int:
    """Peak resident set of this process in bytes, 0 where the system does not tell."""
    if STATUS.is_file():
        # Not getrusage: on Linux its ru_maxrss starts at the peak of the process that spawned this one.
        fields = dict(line.split(":", 1) for line in STATUS.read_text().splitlines() if ":" in line)
        return 1024 * int(fields["VmHWM"].split()[0]) if "VmHWM" in fields else 0
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return 0


def _child(task: str) -> None:
    wanted = json.loads(task)
    session = open_session(Path(wanted["model"]), wanted["threads"])
    shapes = {name: tuple(sizes) for name, sizes in wanted["shapes"].items()}
    run_once(session, random_inputs(session, shapes, wanted["seed"]))
    print(own_peak())


if __name__ == "__main__":
    try:
        _child(sys.argv[1])
    except QnasError as error:
        sys.exit(f"error: {error}")
