"""What decides the last bits of a run besides its recipe: threads, device, versions."""

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Annotated, Any

import torch
from msgspec import Meta

from qnas.documents.reading import Text
from qnas.errors import UsageError

Several = Annotated[int, Meta(ge=1, le=4096)]
LIBRARIES = ("qnas", "numpy", "pillow")  # the last two draw, decode and shrink the crops
VARIABLES = (  # of the environment: they choose other kernels or another arithmetic
    "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE",
    "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "OMP_DYNAMIC", "CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)  # fmt: skip


@dataclass(frozen=True)
class Environment:
    """`device` is "cpu" or the GPU's name, `processor` the instructions that torch uses on this CPU.

    `variables`: those of VARIABLES that are set; None in documents of earlier versions.
    """

    threads: Several
    processes: Several
    device: Text
    processor: Text
    versions: dict[str, Text]
    variables: dict[str, Text] | None = None

    def to_document(self) -> dict[str, Any]:
        """Plain data, as search.json and states have it."""
        return asdict(self)

    def differences(self, now: "Environment") -> Iterator[str]:
        """What is another than in `now`, but for threads, in words."""
        for name in ("processes", "device", "processor"):
            then, here = getattr(self, name), getattr(now, name)
            if then != here:
                yield f"{name} {then}, now {here}"
        for name, then in self.versions.items():
            here = now.versions.get(name, "none")
            if then != here:
                yield f"{name} {then}, now {here}"
        for name in VARIABLES if self.variables is not None else ():
            then, here = (each.get(name, "not set") for each in (self.variables or {}, now.variables or {}))
            if then != here:
                yield f"{name} {then}, now {here}"


def environment(device: torch.device, threads: int, processes: int = 1) -> Environment:
    """That of a run of so many threads in each of its processes, on `device`."""
    return Environment(
        threads,
        processes,
        device="cpu" if device.type == "cpu" else torch.cuda.get_device_name(device),
        processor=torch.backends.cpu.get_cpu_capability(),
        versions={"torch": str(torch.__version__), **{name: version(name) for name in LIBRARIES}},
        variables={name: os.environ[name][:100] for name in VARIABLES if name in os.environ},
    )


def threads_of(given: int, begun: Environment | None, own: int, where: str) -> int:
    """The number of threads for a run that `begun` with others, or begins: those `given`, 0 for any.

    Raises UsageError where a run would go on with another number: its sums would be rounded in another order.
    """
    if begun is None:
        return given or own
    if given not in (0, begun.threads):
        raise UsageError(
            f"{where} was begun with --threads {begun.threads}, and {given} give other bits: leave --threads "
            "out, or begin again with --force"
        )
    return begun.threads


def notice(begun: Environment, now: Environment) -> str | None:
    """What to say of a run that goes on elsewhere than where it began; None where nothing differs."""
    differences = ", ".join(begun.differences(now))
    return f"note: begun with {differences}: the last bits may be others" if differences else None
