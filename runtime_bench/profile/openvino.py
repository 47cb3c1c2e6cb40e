"""What OpenVINO really executed and how long each node took, by its performance counters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qnas.cost.macs import Shape, convolution, product, transposed
from qnas.errors import ModelError
from qnas.onnx.session import first_line
from qnas.runtime_bench.devices.openvino import load_openvino, open_compiled
from qnas.runtime_bench.executed import ExecutedNode, ExecutedTensor
from qnas.runtime_bench.inputs import Feed

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
