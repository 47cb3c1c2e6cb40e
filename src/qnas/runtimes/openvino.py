"""OpenVINO's own runtime, in full precision where a model is float; and what it really executed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qnas.cost.macs import Shape, convolution, product, transposed
from qnas.errors import ModelError, UsageError
from qnas.onnx.session import first_line
from qnas.runtimes.executed import ExecutedNode, ExecutedTensor
from qnas.runtimes.inputs import Feed, Input
from qnas.runtimes.runtime import Check, Device, Options, Runner, Runtime

if TYPE_CHECKING:
    from qnas.runtimes.onnx_runner import Session

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


PROVIDER = "OpenVINO"
WARMUP = 5
_EXECUTED = "EXECUTED"
_INTEGERS = frozenset({"i8", "u8", "i4", "u4"})
_INTEGER_WEIGHTS = frozenset({"int8", "uint8", "int4", "uint4"})
_NUMPY = {
    "f32": "float32", "f16": "float16", "f64": "float64", "bf16": "bfloat16", "i8": "int8", "u8": "uint8",
    "i16": "int16", "u16": "uint16", "i32": "int32", "u32": "uint32", "i64": "int64", "u64": "uint64",
    "i4": "int4", "u4": "uint4", "boolean": "bool",
}  # fmt: skip


def executed_nodes(
    model: Path,
    feed: Feed,
    threads: int,
    runs: int,
    device: str = "CPU",
    options: Mapping[str, str] | None = None,
) -> tuple[ExecutedNode, ...]:
    """The nodes that ran, in their order, without those that OpenVINO fused into others or left out.

    Each has one time, the mean of `runs` inferences behind `WARMUP` unseen ones: counters tell only the mean
    since the model was loaded, in whole microseconds. So it is off by up to 1 + `WARMUP` / `runs` of these.
    Raises ModelError when the model cannot be loaded or run.
    """
    compiled = open_compiled(device, model, threads, {**(options or {}), "PERF_COUNT": "YES"})
    request = compiled.create_infer_request()
    try:
        for (
            name,
            value,
        ) in feed.items():  # given to `infer` itself they are not held against the model's shapes
            request.set_tensor(name, load_openvino().Tensor(value, shared_memory=True))
        for _ in range(WARMUP):
            request.infer()
        before = _sums(request, WARMUP)
        for _ in range(runs):
            request.infer()
    except (RuntimeError, TypeError) as error:
        raise ModelError(
            f"{model}: OpenVINO cannot run it on these inputs: {first_line(error)}; choose another --shape"
        ) from error
    after = _sums(request, WARMUP + runs)
    written = {op.get_friendly_name(): op for op in compiled.get_runtime_model().get_ordered_ops()}
    return tuple(
        _node(info, written.get(name), (after[name] - before.get(name, 0)) / runs)
        for info in request.profiling_info
        if (name := info.node_name) in after and info.status.name == _EXECUTED
    )


def _sums(request: Any, inferences: int) -> dict[str, float]:
    """Microseconds of every executed node since the model was loaded."""
    return {
        info.node_name: inferences * info.real_time.total_seconds() * 1e6
        for info in request.profiling_info
        if info.status.name == _EXECUTED
    }


def _node(info: Any, op: Any | None, microseconds: float) -> ExecutedNode:
    """One row; without shapes where the counters of a GPU name a node that its runtime model has not."""
    facts = {} if op is None else {name: str(value.value) for name, value in op.get_rt_info().items()}
    inputs = () if op is None else tuple(_tensor(each) for each in op.input_values())
    outputs = () if op is None else tuple(_tensor(each) for each in op.outputs())
    kind = facts.get("layerType", info.node_type)
    macs = multiplications(kind, [each.shape for each in inputs], [each.shape for each in outputs])
    integer = None
    if macs:
        integer = facts.get("runtimePrecision") in _INTEGERS and inputs[1].dtype in _INTEGER_WEIGHTS
    nanoseconds = (max(round(1000 * microseconds), 0),)
    kernel = f"{kind} {info.exec_type}"
    return ExecutedNode(info.node_name, kernel, PROVIDER, inputs, outputs, macs, integer, nanoseconds)


def multiplications(kind: str, inputs: list[Shape], outputs: list[Shape]) -> int:
    """Multiply-adds of a layer by the shapes of its tensors, 0 for what has none.

    Weights are [M, C, k...], [groups, M/groups, C/groups, k...] in groups, and [M, K] or [K, N] of a product.
    """
    if len(inputs) < 2 or not outputs:
        return 0
    data, weights, output = inputs[0], inputs[1], outputs[0]
    grouped = len(weights) > len(data)
    match kind:
        case "Convolution" | "GroupConvolution" | "BinaryConvolution":
            return convolution(output, weights[1:] if grouped else weights)
        case "Deconvolution":
            return transposed(data, weights[1:] if grouped else weights)
        case "MatMul" | "FullyConnected":
            return product(output, _inner(data, output))
        case _:
            return 0


def _inner(data: Shape, output: Shape) -> int:
    """K of data [..., M, K] or [..., K, M]: nothing tells which of them it is but M itself."""
    return data[-1] if len(data) < 2 or len(output) < 2 or data[-2] == output[-2] else data[-2]


def _tensor(port: Any) -> ExecutedTensor:
    name = port.get_element_type().get_type_name()
    shape = port.get_partial_shape()
    dims = tuple(each.get_length() if each.is_static else 0 for each in shape) if shape.rank.is_static else ()
    return ExecutedTensor(_NUMPY.get(name, name), dims)


# Checking written files ---------------------------------------------------------------------------------


def _checked(data: bytes) -> Runner:
    from qnas.runtimes.onnx_runner import onnx_runner  # only where files are checked

    openvino = load_openvino()

    def session(model: bytes) -> Session:
        core = openvino.Core()
        # Without the hint it runs float operations in bfloat16 where the machine can.
        compiled = core.compile_model(core.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

        def run(feed: Feed) -> Sequence[Any]:
            result = compiled(feed)
            return [result[port] for port in compiled.outputs]

        return run

    return onnx_runner(data, session)


def _executed(
    argument: str, model: Path, feed: Feed, threads: int, options: Options, runs: int
) -> tuple[ExecutedNode, ...]:
    return executed_nodes(model, feed, threads, runs, argument or DEFAULT, options)


OPENVINO = Runtime(
    checks={"openvino": Check("OpenVINO", ".onnx", "openvino", _checked, exact=False)},
    devices={
        "openvino": Device(
            "openvino[:CPU|GPU|NPU]",
            ".onnx",
            OpenVinoModel,
            _missing,
            _version,
            _executed,
            lambda argument: PROVIDER,
            lambda: ("CPU", "GPU", "NPU"),
        )
    },
)
