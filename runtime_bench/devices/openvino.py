"""OpenVINO's own runtime, in full precision where a model is float."""

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

DEFAULT = "CPU"
ADVICE = "pip install 'qnas[openvino]'"


class OpenVinoModel:
    """A compiled model; `argument` is CPU, GPU, NPU or whatever else OpenVINO lists."""

    def __init__(self, argument: str, model: Path, threads: int, options: Options) -> None:
        compiled = open_compiled(argument, model, threads, options)
        self._request = compiled.create_infer_request()
        self._output_names = [each.get_any_name() for each in compiled.outputs]
        self.inputs = tuple(
            Input(each.get_any_name(), str(each.element_type.to_dtype()), _dims(each.partial_shape))
            for each in compiled.inputs
        )

    def feed(self, values: Feed) -> None:
        """Take the inputs of every further run."""
        openvino = load_openvino()
        for name, value in values.items():
            self._request.set_tensor(name, openvino.Tensor(value, shared_memory=True))
        self._fed = values  # OpenVINO borrows their memory

    def run(self) -> None:
        """One inference; ModelError when it fails."""
        try:
            self._request.infer()
        except RuntimeError as error:
            raise ModelError(
                f"OpenVINO cannot run it: {first_line(error)}; choose another --shape"
            ) from error

    def outputs(self) -> dict[str, NDArray[Any]]:
        """What the last run wrote."""
        return {name: np.array(self._request.get_tensor(name).data) for name in self._output_names}


def open_compiled(argument: str, model: Path, threads: int, options: Options) -> Any:
    """OpenVINO's compiled model; ModelError when it has none of `model`."""
    openvino = load_openvino()
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if (argument or DEFAULT) == DEFAULT:
        settings["INFERENCE_NUM_THREADS"] = threads
    try:
        return openvino.Core().compile_model(str(model), argument or DEFAULT, settings | dict(options))
    except RuntimeError as error:
        raise ModelError(f"OpenVINO cannot load {model}: {first_line(error)}; export it again") from error


def _dims(shape: Any) -> tuple[int | None, ...]:
    return tuple(None if each.is_dynamic else each.get_length() for each in shape)


def load_openvino() -> Any:
    """The package; UsageError where it is not installed."""
    try:
        import openvino
    except ImportError as error:
        raise UsageError(f"the device openvino needs {error.name}: {ADVICE}") from error
    return openvino


def _missing(argument: str) -> str | None:
    try:
        there = load_openvino().Core().available_devices
    except UsageError as error:
        return str(error)
    wanted = argument or DEFAULT
    if wanted.split(".")[0].split(":")[0] in {each.split(".")[0] for each in there}:
        return None
    return f"OpenVINO finds no {wanted}: it finds {', '.join(there) or 'nothing'}"


def _version() -> str:
    return f"OpenVINO {load_openvino().__version__.split('-')[0]}"


def _executed(
    argument: str, model: Path, feed: Feed, threads: int, options: Options, runs: int
) -> tuple[ExecutedNode, ...]:
    from qnas.runtime_bench.profile.openvino import executed_nodes

    return executed_nodes(model, feed, threads, runs, argument or DEFAULT, options)


OPENVINO = Device(
    ".onnx",
    OpenVinoModel,
    _missing,
    _version,
    _executed,
    lambda argument: "OpenVINO",
    lambda: ("CPU", "GPU", "NPU"),
)
