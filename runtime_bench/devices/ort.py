"""onnxruntime, on any execution provider that the installed one has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qnas.errors import ModelError, UsageError
from qnas.onnx.session import first_line, open_session
from qnas.runtime_bench.devices.device import Device, Options
from qnas.runtime_bench.executed import ExecutedNode
from qnas.runtime_bench.inputs import Feed, Input, shape_text

CPU = "CPUExecutionProvider"
SUFFIX = "ExecutionProvider"
_DTYPES = {
    "tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64",
}  # fmt: skip


class OrtModel:
    """An open session; `argument` names the provider, with or without its ending."""

    def __init__(self, argument: str, model: Path, threads: int, options: Options) -> None:
        provider = provider_name(argument)
        self._session: Any = open_session(
            model, threads, provider=None if provider == CPU else provider, provider_options=options
        )
        self.inputs = tuple(
            Input(each.name, _dtype(each.type), tuple(each.shape)) for each in self._session.get_inputs()
        )
        self._names = [each.name for each in self._session.get_outputs()]
        self._feed: Feed = {}
        self._written: list[Any] = []

    def feed(self, values: Feed) -> None:
        """Take the inputs of every further run."""
        self._feed = values

    def run(self) -> None:
        """One inference; ModelError when it fails."""
        try:
            self._written = self._session.run(None, self._feed)
        except Exception as error:  # onnxruntime's exception types share no base but Exception
            shown = ", ".join(f"{name} of {shape_text(each.shape)}" for name, each in self._feed.items())
            raise ModelError(
                f"it cannot run on {shown}: {first_line(error)}; choose another --shape"
            ) from error

    def outputs(self) -> dict[str, NDArray[Any]]:
        """What the last run wrote."""
        return {name: np.asarray(value) for name, value in zip(self._names, self._written, strict=True)}


def provider_name(argument: str) -> str:
    """ "xnnpack" -> "XNNPACKExecutionProvider", in any case; UsageError when onnxruntime has no such one."""
    import onnxruntime

    there = onnxruntime.get_available_providers()
    for name in there:
        if argument.lower() in (name.lower(), name.removesuffix(SUFFIX).lower()):
            return str(name)
    names = ", ".join(name.removesuffix(SUFFIX) for name in there)
    raise UsageError(
        f"this build of onnxruntime has no execution provider {argument!r}, it has {names}: install another"
    )


def _missing(argument: str) -> str | None:
    try:
        provider_name(argument)
    except UsageError as error:
        return str(error)
    return None


def _executed(
    argument: str, model: Path, feed: Feed, threads: int, options: Options, runs: int
) -> tuple[ExecutedNode, ...]:
    from qnas.runtime_bench.profile.onnxruntime import execute

    provider = provider_name(argument)
    return execute(model, feed, threads, runs, provider, options).nodes


def _version() -> str:
    import onnxruntime

    return f"onnxruntime {onnxruntime.__version__}"


def _arguments() -> tuple[str, ...]:
    import onnxruntime

    return tuple(name.removesuffix(SUFFIX) for name in onnxruntime.get_all_providers())


def _dtype(kind: str) -> str:
    """numpy's name of "tensor(uint8)"; other types stay as onnxruntime calls them."""
    return _DTYPES.get(
        kind, kind.removeprefix("tensor(").removesuffix(")") if kind.startswith("tensor(") else kind
    )


ORT = Device(".onnx", OrtModel, _missing, _version, _executed, provider_name, _arguments)
CPU_DEVICE = Device(
    ".onnx",
    lambda argument, *rest: OrtModel(CPU, *rest),
    lambda argument: None,
    _version,
    lambda argument, *rest: _executed(CPU, *rest),
    lambda argument: CPU,
    lambda: ("",),
)
