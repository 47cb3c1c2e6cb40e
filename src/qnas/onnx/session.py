"""Opens an ONNX model in onnxruntime; the only place that turns its errors into ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from qnas.errors import ModelError

if TYPE_CHECKING:
    import onnxruntime

# Without it, kernels of x86 processors without VNNI add pairs of products in 16 bits and cut off what is
# beyond (docs/runtime-differences.md); elsewhere it changes nothing.
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
) -> onnxruntime.InferenceSession:
    """Return a session for a model file or the bytes of one, on the CPU or on another `provider` first.

    `threads` is the number of threads inside an operation, 0 = one per physical core. Without `optimized` the
    graph runs node by node as written. `optimized_model_path` receives the graph that really runs; with
    `standard` it has no operations but ONNX's own, on any machine.
    `profile` is how the file begins whose name the session's `end_profiling` returns.
    Raises ModelError when the file is missing, is no ONNX model, or holds what onnxruntime cannot run.
    """
    import onnxruntime  # 0.2 s: only when a model is really opened

    name = "the model" if isinstance(model, bytes) else str(model)
    if isinstance(model, Path) and not model.is_file():
        raise ModelError(f"{name} is not a file: name an .onnx model")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong arrives as an exception: no second copy on stderr
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    level = onnxruntime.GraphOptimizationLevel
    best = level.ORT_ENABLE_BASIC if standard else level.ORT_ENABLE_ALL
    options.graph_optimization_level = best if optimized else level.ORT_DISABLE_ALL
    if optimized_model_path is not None:
        options.optimized_model_filepath = str(optimized_model_path)
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    providers: list[object] = ["CPUExecutionProvider"]
    if provider is not None:
        providers.insert(0, (provider, dict(provider_options or {})))
    try:
        return _exact_session(model if isinstance(model, bytes) else str(model), options, providers)
    except Exception as error:  # onnxruntime's many exception types share no base but Exception
        raise ModelError(f"onnxruntime cannot load {name}: {first_line(error)}; export it again") from error


def _exact_session(
    source: bytes | str, options: onnxruntime.SessionOptions, providers: list[object]
) -> onnxruntime.InferenceSession:
    """A session whose integer sums are exact on x86 processors without VNNI too, where it can be had.

    onnxruntime 1.31 turns such a session down when two convolutions share a constant.
    """
    import onnxruntime

    options.add_session_config_entry(EXACT_SUMS, "1")
    try:
        return onnxruntime.InferenceSession(source, options, providers=providers)
    except Exception:  # the second one says what is wrong with the model
        options.add_session_config_entry(EXACT_SUMS, "0")
        return onnxruntime.InferenceSession(source, options, providers=providers)


def first_line(error: Exception) -> str:
    """Return onnxruntime's message without its prefix: one line, cut at 200 characters (it adds graphs)."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error).strip())
    return text.splitlines()[0][:200] if text else type(error).__name__
