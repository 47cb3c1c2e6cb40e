"""LiteRT: its built-in kernels, XNNPACK, or any external delegate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qnas.errors import ModelError, UsageError
from qnas.onnx.session import first_line
from qnas.runtime_bench.devices.device import Device, Options
from qnas.runtime_bench.executed import ExecutedNode
from qnas.runtime_bench.inputs import Feed, Input
from qnas.tflite.session import load_litert

XNNPACK = "xnnpack"
EXTERNAL = "external="
BUILT_IN = "LiteRT"  # runs what no delegate took


class LiteRtModel:
    """An interpreter; `argument` is "" (built-in kernels), "xnnpack" or "external=LIB"."""

    def __init__(self, argument: str, model: Path, threads: int, options: Options) -> None:
        self._interpreter = open_interpreter(argument, model, threads, options)
        self.inputs = tuple(
            Input(each["name"], np.dtype(each["dtype"]).name, _dims(each))
            for each in self._interpreter.get_input_details()
        )

    def feed(self, values: Feed) -> None:
        """Take the inputs of every further run; the memory for them is planned now."""
        give(self._interpreter, values)

    def run(self) -> None:
        """One inference; ModelError when it fails."""
        try:
            self._interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"LiteRT cannot run it: {first_line(error)}; export it again") from error

    def outputs(self) -> dict[str, NDArray[Any]]:
        """What the last run wrote."""
        return {
            each["name"]: self._interpreter.get_tensor(each["index"])
            for each in self._interpreter.get_output_details()
        }


def open_interpreter(argument: str, model: Path, threads: int, options: Options) -> Any:
    """An interpreter whose tensors are not allocated; raises ModelError, or UsageError for the delegate."""
    litert = load_litert()
    kind = litert.OpResolverType
    resolver = kind.BUILTIN if argument == XNNPACK else kind.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    delegates = None
    if argument.startswith(EXTERNAL):
        library = argument.removeprefix(EXTERNAL)
        try:
            delegates = [litert.load_delegate(library, dict(options))]
        except (AttributeError, OSError, ValueError) as error:  # no library, or none of a delegate
            raise UsageError(f"the delegate {library} cannot be loaded: {first_line(error)}") from error
    elif options:
        raise UsageError("LiteRT takes options for external delegates only: leave --device-option out")
    if not model.is_file():
        raise ModelError(f"{model} is not a file: name a .tflite model")
    try:
        return litert.Interpreter(
            model_path=str(model),
            num_threads=threads,
            experimental_op_resolver_type=resolver,
            experimental_delegates=delegates,
        )
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"LiteRT cannot load {model}: {first_line(error)}; export it again") from error


def give(interpreter: Any, feed: Feed) -> None:
    """Plan the memory for inputs of these sizes and fill them; ModelError when LiteRT cannot."""
    inputs = {each["name"]: each for each in interpreter.get_input_details()}
    try:
        for name, value in feed.items():
            if tuple(inputs[name]["shape"]) != value.shape:
                interpreter.resize_tensor_input(inputs[name]["index"], value.shape, strict=True)
        interpreter.allocate_tensors()
        for name, value in feed.items():
            interpreter.set_tensor(inputs[name]["index"], value)
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"LiteRT cannot run it on these inputs: {first_line(error)}; choose another --shape"
        ) from error


def provider_of(argument: str) -> str:
    """What runs the nodes that the device takes."""
    return "XNNPACK" if argument == XNNPACK else argument.removeprefix(EXTERNAL) or BUILT_IN


def _dims(details: dict[str, Any]) -> tuple[int | None, ...]:
    signature = details["shape_signature"]
    dims = signature if len(signature) else details["shape"]
    return tuple(None if n < 0 else int(n) for n in dims)


def _missing(argument: str) -> str | None:
    if argument not in ("", XNNPACK) and not argument.startswith(EXTERNAL):
        return f"litert has no {argument!r}: write litert, litert:xnnpack or litert:external=LIBRARY"
    try:
        load_litert()
    except UsageError as error:
        return str(error)
    library = argument.removeprefix(EXTERNAL)
    if argument.startswith(EXTERNAL) and not Path(library).is_file():
        return f"there is no delegate library {library or '(none named)'}: give its path"
    return None


def _version() -> str:
    litert = load_litert()
    from importlib.metadata import version

    return f"LiteRT {version(litert.__name__.split('.')[0].replace('_', '-'))}"


def _executed(
    argument: str, model: Path, feed: Feed, threads: int, options: Options, runs: int
) -> tuple[ExecutedNode, ...]:
    from qnas.runtime_bench.profile.litert import executed_nodes

    return executed_nodes(open_interpreter(argument, model, threads, options), model, feed, argument)


LITERT = Device(
    ".tflite",
    LiteRtModel,
    _missing,
    _version,
    _executed,
    provider_of,
    lambda: ("", XNNPACK, "external=LIBRARY"),
)
