"""Runs models in one runtime, in whatever environment has it; knows nothing of qnas.

    python exactness_runner.py RUNTIME FOLDER

FOLDER holds models, and beside each `NAME.npy`, the image uint8 [1, C, H, W]. Writes `NAME.RUNTIME.npy`, the
same as the model makes of it, or `NAME.RUNTIME.txt`: why it makes nothing. What is there stays.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

MICRO_ARENA = 1 << 28  # bytes


def onnxruntime(model: Path, image: np.ndarray) -> np.ndarray:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    if os.uname().machine == "x86_64":
        options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: image})[0]


def litert(model: Path, image: np.ndarray) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(model), num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], signed(image))
    interpreter.invoke()
    return unsigned(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))


def tflite_micro(model: Path, image: np.ndarray) -> np.ndarray:
    from tflite_micro import runtime

    interpreter = runtime.Interpreter.from_file(str(model), arena_size=MICRO_ARENA)
    interpreter.set_input(signed(image), 0)
    interpreter.invoke()
    return unsigned(interpreter.get_output(0))


def tvm(model: Path, image: np.ndarray) -> np.ndarray:
    import onnx
    import tvm
    from tvm import relax
    from tvm.relax.frontend.onnx import from_onnx

    graph = onnx.load(model)
    module = from_onnx(graph, shape_dict={graph.graph.input[0].name: list(image.shape)})
    module = relax.transform.LegalizeOps()(relax.transform.DecomposeOpsForInference()(module))
    machine = relax.VirtualMachine(tvm.compile(module, target="llvm"), tvm.cpu())
    written = machine["main"](tvm.runtime.tensor(image))
    return (written if hasattr(written, "numpy") else written[0]).numpy()


def qnn(model: Path, image: np.ndarray) -> np.ndarray:
    """Qualcomm's HTP, emulated; nodes that it does not take are an error."""
    import onnxruntime
    import onnxruntime_qnn as plugin

    name = plugin.get_ep_name()
    if not any(each.ep_name == name for each in onnxruntime.get_ep_devices()):
        onnxruntime.register_execution_provider_library(name, plugin.get_library_path())
    devices = [each for each in onnxruntime.get_ep_devices() if each.ep_name == name]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    for name, size in zip(("batch", "channels", "height", "width"), image.shape, strict=True):
        options.add_free_dimension_override_by_name(name, size)
    options.add_provider_for_devices(devices[:1], {"backend_path": plugin.get_qnn_htp_path()})
    session = onnxruntime.InferenceSession(model, options)
    return session.run(None, {session.get_inputs()[0].name: image})[0]


def signed(image: np.ndarray) -> np.ndarray:
    """uint8 [1, C, H, W] -> int8 [1, H, W, C]."""
    return np.ascontiguousarray(image.transpose(0, 2, 3, 1).astype(np.int16) - 128).astype(np.int8)


def unsigned(result: np.ndarray) -> np.ndarray:
    """The other way."""
    return (result.astype(np.int16) + 128).astype(np.uint8).transpose(0, 3, 1, 2)


RUNTIMES: dict[str, tuple[str, Callable[[Path, np.ndarray], np.ndarray]]] = {
    "onnxruntime": (".onnx", onnxruntime),
    "litert": (".tflite", litert),
    "tflite_micro": (".tflite", tflite_micro),
    "tvm": (".portable", tvm),
    "qnn": (".portable", qnn),
}


def main(name: str, folder: Path) -> None:
    suffix, run = RUNTIMES[name]
    for model in sorted(folder.glob(f"*{suffix}")):
        written, failed = (model.with_suffix(f".{name}.{kind}") for kind in ("npy", "txt"))
        if written.exists() or failed.exists():
            continue
        try:
            np.save(written, run(model, np.load(model.with_suffix(".npy"))))
        except Exception as error:  # each runtime has its own
            failed.write_text(" ".join(f"{type(error).__name__}: {error}".split())[:500])
        print(name, model.stem, "failed" if failed.exists() else "ran", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
