"""Opens an ONNX model in onnxruntime; the only place that turns its errors into ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from qnas.errors import ModelError
from qnas.onnx.files import damage_refused, external_files, read_model
from qnas.onnx.names import Names
from qnas.onnx.shapes import check_constants

if TYPE_CHECKING:
    import onnxruntime

# Without it, kernels of x86 processors without VNNI add pairs of products in 16 bits and cut off what is
# beyond (docs/decisions/0021); elsewhere it changes nothing.
EXACT_SUMS = "session.x64quantprecision"


def open_session(
    model: Path | bytes,
    threads: int = 0,
    optimized: bool = True,
    optimized_model_path: Path | None = None,
    provider: str | None = None,
    provider_options: Mapping[str, str] | None = None,
    profile: Path | None = None,
    standard: bool = False,
    timed: bool = False,
) -> onnxruntime.InferenceSession:
    """Return a session for a model file or the bytes of one, on the CPU or on another `provider` first.

    `threads` is the number of threads inside an operation, 0 = one per physical core. Without `optimized` the
    graph runs node by node as written. `optimized_model_path` receives the graph that really runs; with
    `standard` it has no operations but ONNX's own, on any machine.
    `profile` is how the file begins whose name the session's `end_profiling` returns. `timed` is for the
    bench, which has checked the file (`check_model`) and measures onnxruntime as it is by default: which
    tensors share memory is planned then, in time quadratic in the number of nodes.
    Raises ModelError when the file is missing, is no ONNX model, or holds what onnxruntime cannot run.
    """
    import onnxruntime  # 0.2 s: only when a model is really opened

    name = "the model" if isinstance(model, bytes) else str(model)
    if isinstance(model, Path):
        if not model.is_file():
            raise ModelError(f"{name} is not a file: name an .onnx model")
        if not timed:
            check_model(model)
    onnxruntime.disable_telemetry_events()
    providers: list[object] = ["CPUExecutionProvider"]
    if provider is not None:
        providers.insert(0, (provider, dict(provider_options or {})))
    options = _options(threads, timed)
    level = onnxruntime.GraphOptimizationLevel
    best = level.ORT_ENABLE_BASIC if standard else level.ORT_ENABLE_ALL
    options.graph_optimization_level = best if optimized else level.ORT_DISABLE_ALL
    if optimized_model_path is not None:
        options.optimized_model_filepath = str(optimized_model_path)
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    try:
        return _opened(model, options, providers)
    except Exception as error:  # onnxruntime's many exception types share no base but Exception
        raise ModelError(f"onnxruntime cannot load {name}: {first_line(error)}; export it again") from error


def _opened(
    model: Path | bytes, options: onnxruntime.SessionOptions, providers: list[Any]
) -> onnxruntime.InferenceSession:
    """The session, or what onnxruntime raises."""
    import onnxruntime

    # Without its fallback: there is none here, and it prints what failed, with bytes of the file
    opened = partial(
        onnxruntime.InferenceSession, sess_options=options, providers=providers, enable_fallback=False
    )
    try:
        return opened(model if isinstance(model, bytes) else str(model))
    except Exception as error:
        if "existing tensor" in str(error):  # version 1.31, where two convolutions share a constant
            proto = onnx.load_model_from_string(model) if isinstance(model, bytes) else read_model(model)
            return opened(unshared(proto).SerializeToString())
        raise


def _options(threads: int, timed: bool) -> onnxruntime.SessionOptions:
    """What `open_session` chooses for all sessions."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong arrives as an exception: no second copy on stderr
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_reuse = timed
    options.add_session_config_entry(EXACT_SUMS, "1")
    return options


def check_model(path: Path) -> list[Path]:
    """The files that a runtime opens besides `path`. Raises ModelError where it may not be given these."""
    model = read_model(path)
    with damage_refused(path):
        check_constants(model)
    return external_files(path)


def unshared(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Give every node int8 constants, and what dequantizes them, of its own; the model itself is changed.

    onnxruntime 1.31 loads no others with EXACT_SUMS on x86 processors without VNNI.
    """
    graph, names, seen = proto.graph, Names.of(proto.graph), set[str]()
    stored = {each.name: each for each in graph.initializer if each.data_type == onnx.TensorProto.INT8}
    dequantized = {node.output[0]: node for node in graph.node if node.input and node.input[0] in stored}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name in seen and name in dequantized:
                copy = onnx.NodeProto()
                copy.CopyFrom(dequantized[name])
                copy.name, copy.output[0] = names.node(copy.name), names.tensor(name)
                node.input[index] = copy.output[0]
                nodes.append(copy)
            seen.add(name)
        nodes.append(node)
    seen.clear()
    for node in nodes:
        for index, name in enumerate(node.input):
            if name in seen and name in stored:
                graph.initializer.add().CopyFrom(stored[name])
                node.input[index] = graph.initializer[-1].name = names.tensor(name)
            seen.add(name)
    copied = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copied)
    return proto


def first_line(error: Exception) -> str:
    """Return onnxruntime's message without its prefix: one line, cut at 200 characters (it adds graphs)."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error).strip())
    return text.splitlines()[0][:200] if text else type(error).__name__
