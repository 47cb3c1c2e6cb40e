"""qnas: search, train, export and measure exact mixed-precision super-resolution networks.

The functions of `__all__` are those of `qnas.api`; they load when they are used first.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qnas.api import (
        benchmark,
        calibrate,
        check,
        choose_bits,
        export,
        finetune,
        gate,
        load,
        search,
        train,
        upscale,
    )

__version__ = "0.1.0"
__all__ = [
    "benchmark",
    "calibrate",
    "check",
    "choose_bits",
    "export",
    "finetune",
    "gate",
    "load",
    "search",
    "train",
    "upscale",
]


def __getattr__(name: str) -> Any:
    if name in ("export", "search"):  # packages too: what is called is the same, whichever was first
        return import_module(f"qnas.{name}")
    if name in __all__:
        return getattr(import_module("qnas.api"), name)
    raise AttributeError(f"module 'qnas' has no attribute {name!r}: it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
