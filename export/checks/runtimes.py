"""The runtimes that a written file is checked in, each opened as a function of uint8 images.

What runs a file here is what would run it elsewhere: its own package, on the CPU.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from qnas.errors import ModelError
from qnas.integer.nodes import IntegerNode
from qnas.onnx.session import first_line, open_session
from qnas.quantization.quantizers import GREY_LEVEL

Image = NDArray[np.uint8]  # [H, W, C]
Planes = NDArray[np.uint8]  # [1, C, H, W]
Kind = Literal["onnx", "tflite"]
Trace = Callable[[Image, Sequence[IntegerNode]], Mapping[str, Planes]]
Feed = dict[str, NDArray[Any]]
Session = Callable[[Feed], Sequence[Any]]


@dataclass(frozen=True)
class Runner:
    """A model in a runtime: `upscale` maps uint8 [H, W, C] to uint8 [s H, s W, C], or raises ModelError.

    `size` is the only (H, W) that it takes, None for any; `slow` ones are given less to do. `trace` gives, of
    the nodes that it is asked for, the name and tensor of those that the runtime lets out; None when it lets
    out none, and `no_trace` says why. `delegated`: nodes that XNNPACK runs, of how many.
    """

    upscale: Callable[[Image], Image]
    size: tuple[int, int] | None = None
    slow: bool = False
    trace: Trace | None = None
    no_trace: str = ""
    delegated: tuple[int, int] | None = None


@dataclass(frozen=True)
class Runtime:
    """`package` has to be importable; `open` makes a Runner of a file's bytes, or raises ModelError.

    `exact`: whether it rounds as the integer network does (docs/runtime-differences.md). One that does not is
    reported and decides no verdict, unless it is named.
    """

    name: str
    package: str
    open: Callable[[bytes], Runner]
    exact: bool = True

    @property
    def installed(self) -> bool:
        """Whether its package can be imported."""
        return find_spec(self.package) is not None

    @property
    def version(self) -> str:
        """Of the installed package."""
        try:
            return version(self.package)
        except PackageNotFoundError:  # a build under another name, such as onnxruntime-gpu
            return "of unknown version"


def planes(image: Image) -> Planes:
    """uint8 [H, W, C] -> [1, C, H, W]."""
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None])


def pixels(result: Planes) -> Image:
    """uint8 [1, C, H, W] -> [H, W, C]."""
    image: Image = result[0].transpose(1, 2, 0)
    return image


@contextmanager
def _asking() -> Iterator[None]:
    """What a runtime raises, as a ModelError: its exceptions share no base but Exception."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"cannot run it ({type(error).__name__}: {first_line(error)})") from error


# ONNX ----------------------------------------------------------------------------------------------------


def _onnx_runner(data: bytes, session: Callable[[bytes], Session], slow: bool = False) -> Runner:
    """A Runner of what `session` makes of a model: a function of named inputs to the outputs in order."""
    with _asking():
        model = onnx.load_model_from_string(data)
        entry, run = _Entry(model), session(data)

    def upscale(image: Image) -> Image:
        with _asking():
            return entry.pixels(run(entry.feed(image))[0])

    def trace(image: Image, nodes: Sequence[IntegerNode]) -> Mapping[str, Planes]:
        written = {name for node in model.graph.node for name in node.output}
        # A node that is named as the graph's input or output has a tensor of another name.
        spelled = [(node.name, tensor) for node in nodes for tensor in (node.name, f"{node.name}.value")]
        tensors = {name: tensor for name, tensor in spelled if tensor in written}
        tensors[nodes[-1].name] = entry.output
        more = onnx.ModelProto()
        more.CopyFrom(model)
        names = [entry.output, *dict.fromkeys(t for t in tensors.values() if t != entry.output)]
        # Only the name: whoever opens the graph infers the type.
        more.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names[1:])
        with _asking():
            found = dict(zip(names, session(more.SerializeToString())(entry.feed(image)), strict=True))
            found[entry.output] = planes(entry.pixels(found[entry.output]))
        return {node: found[t] for node, t in tensors.items() if found[t].dtype == np.uint8}

    return Runner(upscale, entry.size, slow=slow, trace=trace)


class _Entry:
    """How a model takes and gives an image: NCHW or NHWC, uint8 or float32 in network units."""

    def __init__(self, model: onnx.ModelProto) -> None:
        kind = model.graph.input[0].type.tensor_type
        self.name, self.output = model.graph.input[0].name, model.graph.output[0].name
        self.floats = kind.elem_type == onnx.TensorProto.FLOAT
        dims = [dim.dim_value for dim in kind.shape.dim]
        self.channels_last = dims[-1:] in ([1], [3])
        height, width = (dims[1:3] if self.channels_last else dims[2:4]) if len(dims) == 4 else (0, 0)
        self.size = (height, width) if height and width else None

    def feed(self, image: Image) -> Feed:
        x = image[None] if self.channels_last else planes(image)
        return {self.name: x.astype(np.float32) * np.float32(GREY_LEVEL) if self.floats else x}

    def pixels(self, y: NDArray[Any]) -> Image:
        if self.floats:
            y = np.clip(np.rint(y / GREY_LEVEL), 0, 255).astype(np.uint8)
        return y[0] if self.channels_last else pixels(y)


def _onnxruntime(data: bytes, optimized: bool) -> Runner:
    def session(model: bytes) -> Session:
        opened = open_session(model, optimized=optimized)
        return lambda feed: opened.run(None, feed)

    return _onnx_runner(data, session)


def _reference_evaluator(data: bytes) -> Runner:
    from onnx.reference import ReferenceEvaluator

    def session(model: bytes) -> Session:
        evaluator = ReferenceEvaluator(onnx.load_model_from_string(model))

        def run(feed: Feed) -> Sequence[Any]:
            with warnings.catch_warnings():  # its max-pool pads uint8 with NaN, by zero pixels
                warnings.simplefilter("ignore", RuntimeWarning)
                return list(evaluator.run(None, feed))

        return run

    return _onnx_runner(data, session, slow=True)


def _openvino(data: bytes) -> Runner:
    import openvino

    def session(model: bytes) -> Session:
        core = openvino.Core()
        # Without the hint it runs float operations in bfloat16 where the machine can.
        compiled = core.compile_model(core.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

        def run(feed: Feed) -> Sequence[Any]:
            result = compiled(feed)
            return [result[port] for port in compiled.outputs]

        return run

    return _onnx_runner(data, session)


# TFLite --------------------------------------------------------------------------------------------------


def _litert(data: bytes, xnnpack: bool) -> Runner:
    from qnas.tflite.session import LiteRtSession

    with _asking():
        session = LiteRtSession(data, threads=1, xnnpack=xnnpack)

    def upscale(image: Image) -> Image:
        with _asking():
            return pixels(session.run(planes(image)))

    def trace(image: Image, nodes: Sequence[IntegerNode]) -> Mapping[str, Planes]:
        with _asking():
            return _litert_tensors(data, image, nodes)

    if xnnpack:
        why = "not available inside XNNPACK"
        return Runner(upscale, session.input_size, no_trace=why, delegated=session.delegated)
    return Runner(upscale, session.input_size, slow=True, trace=trace)


def _litert_tensors(data: bytes, image: Image, nodes: Sequence[IntegerNode]) -> Mapping[str, Planes]:
    """The tensors with the names of `nodes`, kept alive by the runtime, on the grids of the nodes."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=data,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    entry, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    steps = image.astype(np.int16) - (128 if entry["dtype"] == np.int8 else 0)
    interpreter.set_tensor(entry["index"], steps.astype(entry["dtype"])[None])
    interpreter.invoke()
    details = {tensor["name"]: tensor for tensor in interpreter.get_tensor_details()}
    details[f"{nodes[-1].name}.low"] = result
    found = {}
    for node in nodes:
        detail = details.get(f"{node.name}.low", details.get(node.name))  # .low: clamped in a second step
        if detail is not None and detail["dtype"] in (np.int8, np.uint8):
            q = interpreter.get_tensor(detail["index"]).astype(np.int16)
            q += node.output.zero_point - detail["quantization"][1]
            found[node.name] = np.moveaxis(q, -1, 1).astype(np.uint8)
    return found


# Kind of file -> id -> runtime, in the order of the report.
RUNTIMES: dict[Kind, dict[str, Runtime]] = {
    "onnx": {
        "onnxruntime": Runtime("onnxruntime", "onnxruntime", lambda data: _onnxruntime(data, optimized=True)),
        "onnxruntime-unoptimized": Runtime(
            "onnxruntime, unoptimized", "onnxruntime", lambda data: _onnxruntime(data, optimized=False)
        ),
        "reference": Runtime("ONNX reference evaluator", "onnx", _reference_evaluator),
        "openvino": Runtime("OpenVINO", "openvino", _openvino, exact=False),
    },
    "tflite": {
        "litert-xnnpack": Runtime(
            "LiteRT with XNNPACK", "ai_edge_litert", lambda data: _litert(data, xnnpack=True)
        ),
        "litert": Runtime(
            "LiteRT without XNNPACK", "ai_edge_litert", lambda data: _litert(data, xnnpack=False), exact=False
        ),
    },
}
