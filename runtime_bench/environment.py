"""Where a measurement was taken: numbers of two different environments cannot be compared."""

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from qnas import __version__
from qnas.documents.reading import Count, Text
from qnas.runtime_bench.machine_state import usable_cpus

GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
CPUINFO = Path("/proc/cpuinfo")
EMULATED = "(emulated)"  # ends the name of a processor that scripts/arm64 makes up


@dataclass(frozen=True)
class Environment:
    """The machine and the versions; `governor` is the kernel's frequency policy, None if unknown."""

    cpu: Text
    machine: Text
    system: Text
    cores: Count
    usable_cores: Count
    governor: Text | None
    runtime: Text
    python: Text
    numpy: Text
    qnas: Text


def current_environment(runtime: str) -> Environment:
    """The environment of this process, which runs models in `runtime` ("onnxruntime 1.31.1")."""
    import numpy

    return Environment(
        cpu=_cpu_model(),
        machine=platform.machine(),
        system=f"{platform.system()} {platform.release()}",
        cores=os.cpu_count() or 1,
        usable_cores=len(usable_cpus()),
        governor=_read(GOVERNOR) or None,
        runtime=runtime,
        python=platform.python_version(),
        numpy=numpy.__version__,
        qnas=__version__,
    )


def threads_text(count: int) -> str:
    """Write a number of threads: "2 threads"."""
    return f"{count} thread{'s' * (count != 1)}"


def _cpu_model() -> str:
    """The processor's name; on ARM, where the kernel has only numbers for it, implementer and part."""
    text = _read(CPUINFO)
    named = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    if named:
        return named[1].strip()
    numbers = re.findall(r"^CPU (?:implementer|part)\s*: (\S+)$", text, re.MULTILINE)
    return f"ARM {' '.join(numbers[:2])}" if numbers else platform.processor() or "unknown"


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
