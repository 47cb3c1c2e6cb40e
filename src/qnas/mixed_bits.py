"""4 or 8 bits for each layer of any network: a float one of others, or an architecture with its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qnas.calibration.calibrate import Settings
from qnas.calibration.mixed_bits import mix_calibration
from qnas.calibration.progress import Display
from qnas.cost.allocation import BitsReport, Task
from qnas.errors import UsageError
from qnas.search.bits.task import is_float_file


def choose_bits(
    model: str, task: Task, display: Display, *, calibration: Path | None = None, weights: Path | None = None,
    latency_table: Path | None = None, patch: int | None = None,
    activation_bits: str = "4,8", **settings: Any,
) -> BitsReport:  # fmt: skip
    """Choose bits for each layer under each budget of `task`, and write what they make.

    `calibration`, and without it `settings` to make one, are for float files; `weights`, a found.pt, for
    architectures, and `latency_table` for their milliseconds. `patch`: side of what is measured, LR
    pixels. `activation_bits`: "4,8", or "8" for float networks whose weights alone get 4 bits.
    Raises QnasError, nothing written.
    """
    chosen = {name: value for name, value in settings.items() if value}
    if is_float_file(model):
        _refuse(model, "a float network", {"weights": weights, "latency_table": latency_table})
        return mix_calibration(
            Path(model), task, calibration, Settings(patch=patch, **chosen), activation_bits == "4,8", display
        )
    from qnas.network.architecture import find_architecture
    from qnas.search.bits.mixed_architecture import mix_architecture  # needs torch

    _refuse(model, "an architecture", {"calibration": calibration, **chosen})
    if activation_bits != "4,8":
        raise UsageError(
            "--activation-bits is for float networks: a layer of an architecture has 4 bits of both"
        )
    show = display.step("measuring layers in 4 bits")
    if model.endswith(".pt"):
        _refuse(model, "a found.pt", {"weights": weights})
        return mix_architecture(Path(model), task, None, latency_table, patch, show)
    architecture = find_architecture(model)
    if weights is None:
        raise UsageError(
            f"{model} is an architecture without weights: train it (qnas-train {model} --bits 32) and give "
            "the found.pt, or that with --weights"
        )
    return mix_architecture(weights, task, architecture, latency_table, patch, show)


def _refuse(model: str, what: str, options: dict[str, Any]) -> None:
    """Raise UsageError for an option that has a value and means nothing here."""
    for name, value in options.items():
        if value:
            raise UsageError(f"{model} is {what}: leave --{name.replace('_', '-')} out")
