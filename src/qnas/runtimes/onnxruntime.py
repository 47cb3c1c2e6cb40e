"""onnxruntime on any execution provider that the installed one has, and what it really executed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from qnas.cost import macs
from qnas.errors import ModelError, UsageError
from qnas.onnx.files import read_model
from qnas.onnx.graph import attributes
from qnas.onnx.session import first_line, open_session
from qnas.quantization.quantizers import PIXELS_PER_UNIT
from qnas.runtimes.executed import ExecutedNode, ExecutedTensor
from qnas.runtimes.inputs import Feed, Input, shape_text
from qnas.runtimes.runtime import Check, Device, Options, Runner, Runtime
from qnas.temporary import temporary_folder

if TYPE_CHECKING:
    from qnas.runtimes.onnx_runner import Session

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
            model,
            threads,
            provider=None if provider == CPU else provider,
            provider_options=options,
            timed=True,
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


_KERNEL = "_kernel_time"
# Position of the weights among the inputs of what multiplies. By type alone: twins stand in other domains.
_CONVOLUTIONS = {"Conv": 1, "FusedConv": 1, "NhwcFusedConv": 1, "ConvInteger": 1, "QLinearConv": 3}
_TRANSPOSED = {"ConvTranspose": 1}
_PRODUCTS = {
    "MatMul": 1, "FusedMatMul": 1, "Gemm": 1, "FusedGemm": 1, "MatMulInteger": 1, "MatMulIntegerToFloat": 1,
    "DynamicQuantizeMatMul": 1, "QLinearMatMul": 3, "QGemm": 3,
}  # fmt: skip
WEIGHTS = _CONVOLUTIONS | _TRANSPOSED | _PRODUCTS
_INTEGERS = ("int8", "uint8", "int16", "uint16")
_PROFILED = {"float": "float32", "double": "float64"}  # of the profiler, where numpy has another name


@dataclass(frozen=True)
class Execution:
    """`nodes` in the order they ran. `graph`: what onnxruntime made of the model, None where a provider has
    compiled parts of it and it cannot be written. `runs`: nanoseconds of every profiled run as a whole.
    """

    nodes: tuple[ExecutedNode, ...]
    graph: ModelProto | None
    runs: tuple[int, ...]


def execute(
    model: Path,
    feed: Feed,
    threads: int = 1,
    runs: int = 20,
    provider: str = CPU,
    provider_options: Mapping[str, str] | None = None,
    warmup: int = 5,
) -> Execution:
    """What ran, each node with its time in every run behind `warmup` unseen ones.

    The profiler counts whole microseconds. What it costs itself lies between nodes, not in their times. Float
    convolutions on the CPU run on channels padded to blocks of 8 or 16 (NCHWc), and their MACs are those.
    Raises ModelError when the model cannot be loaded or run.
    """
    with temporary_folder() as folder:
        dump = folder / "optimized.onnx"
        compiled = provider != CPU
        session = open_session(
            model,
            threads,
            optimized_model_path=None if compiled else dump,
            provider=provider if compiled else None,
            provider_options=provider_options,
            profile=folder / "profile",
            timed=True,
        )
        try:
            for _ in range(warmup + runs):
                session.run(None, feed)
        except Exception as error:  # onnxruntime's exception types share no base but Exception
            raise ModelError(
                f"{model} cannot run on these inputs: {first_line(error)}; choose another --shape"
            ) from error
        profiled = _split(Path(session.end_profiling()).read_bytes())[-runs:]
        graph = None if compiled else read_model(dump)
    source = graph if graph is not None else read_model(model)
    return Execution(_nodes(profiled, source), graph, tuple(run.nanoseconds for run in profiled))


def profiled_nodes(profile: str, graph: Path, runs: int) -> tuple[ExecutedNode, ...]:
    """The nodes of the last `runs` runs, of a profile that onnxruntime wrote elsewhere.

    `graph`: the model as onnxruntime ran it, or where that cannot be had as it was. Raises ModelError when
    either is damaged.
    """
    source = read_model(graph)
    try:
        return _nodes(_split(profile)[-runs:], source)
    except ValueError as error:
        raise ModelError("onnxruntime wrote a damaged profile: take another version of it") from error


class _Ran(Struct, frozen=True):
    """What ran, and on which tensors: {type: shape} of each."""

    op_name: str = ""
    provider: str = ""
    input_type_shape: tuple[dict[str, tuple[int, ...]], ...] = ()
    output_type_shape: tuple[dict[str, tuple[int, ...]], ...] = ()


class _Event(Struct, frozen=True):
    """An event of the profile; `dur` in microseconds."""

    name: str
    dur: int = 0
    args: _Ran = _Ran()


@dataclass(frozen=True)
class _Run:
    """One run of the model and its kernels' events."""

    kernels: tuple[_Event, ...]
    nanoseconds: int


def _split(profile: str | bytes) -> list[_Run]:
    """Events stand in the order in which they end: those of a run before its own. Raises ValueError."""
    runs: list[_Run] = []
    kernels: list[_Event] = []
    for event in msgspec.json.decode(profile, type=tuple[_Event, ...]):
        if event.name.endswith(_KERNEL):
            kernels.append(event)
        elif event.name == "model_run":
            runs.append(_Run(tuple(kernels), 1000 * event.dur))
            kernels = []
    return runs


def _nodes(runs: Sequence[_Run], source: ModelProto) -> tuple[ExecutedNode, ...]:
    first: dict[str, _Event] = {}
    times: dict[str, list[int]] = {}
    for index, run in enumerate(runs):
        for event in run.kernels:
            first.setdefault(event.name, event)
            spent = times.setdefault(event.name, [0] * len(runs))
            spent[index] += 1000 * event.dur  # in a loop a node runs several times
    known = {node.name: node for node in source.graph.node if node.name}
    constants = {tensor.name: tensor for tensor in source.graph.initializer}
    rows = []
    for name, event in first.items():
        name_of_node = name.removesuffix(_KERNEL)
        rows.append(_row(name_of_node, event.args, known.get(name_of_node), constants, times[name]))
    return tuple(rows)


def _row(
    name: str,
    event: _Ran,
    node: NodeProto | None,
    constants: Mapping[str, TensorProto],
    times: Sequence[int],
) -> ExecutedNode:
    op, outputs = event.op_name, _tensors(event.output_type_shape)
    inputs = _tensors(event.input_type_shape)
    if node is not None and node.op_type == op:
        inputs = _with_packed(inputs, [constants.get(name) for name in node.input if name])
    transposed = node is not None and bool(attributes(node).get("transA"))
    counted, integer = multiplications(op, inputs, outputs, transposed)
    return ExecutedNode(name, op, event.provider, inputs, outputs, counted, integer, tuple(times))


def _tensors(types: Iterable[Mapping[str, tuple[int, ...]]]) -> tuple[ExecutedTensor, ...]:
    return tuple(
        ExecutedTensor(_PROFILED.get(kind, kind), shape) for each in types for kind, shape in each.items()
    )


def _with_packed(
    seen: tuple[ExecutedTensor, ...], constants: Sequence[TensorProto | None]
) -> tuple[ExecutedTensor, ...]:
    """All inputs: a kernel drops the constants that it has packed, and the profiler does not see them."""
    rest = list(seen)
    inputs = []
    for index, constant in enumerate(constants):
        stored = None if constant is None else _stored(constant)
        if stored is not None and len(rest) < len(constants) - index and stored != next(iter(rest), None):
            inputs.append(stored)
        elif rest:
            inputs.append(rest.pop(0))
    return tuple(inputs + rest)


def _stored(constant: TensorProto) -> ExecutedTensor:
    return ExecutedTensor(helper.tensor_dtype_to_np_dtype(constant.data_type).name, tuple(constant.dims))


def multiplications(
    op: str, inputs: Sequence[ExecutedTensor], outputs: Sequence[ExecutedTensor], transposed: bool = False
) -> tuple[int, bool | None]:
    """(MACs, whether they are integer) of a node; (0, None) of one that multiplies nothing or is not known.

    `transposed`: the first factor of a product is [K, M].
    """
    position = WEIGHTS.get(op)
    if position is None or len(inputs) <= position or not outputs:
        return 0, None
    data, weights, output = inputs[0].shape, inputs[position].shape, outputs[0].shape
    if op in _CONVOLUTIONS:
        counted = macs.convolution(output, weights)
    elif op in _TRANSPOSED:
        counted = macs.transposed(data, weights)
    else:
        counted = macs.product(output, data[-2 if transposed else -1])
    return counted, inputs[position].dtype in _INTEGERS


# Checking written files ---------------------------------------------------------------------------------


def image_runner(data: bytes, optimized: bool = True, pixel: float = PIXELS_PER_UNIT["short"]) -> Runner:
    """The model `data` as a function of images, in onnxruntime; in float32 it reads pixels over `pixel`.

    Raises ModelError where it cannot be loaded.
    """
    from qnas.runtimes.onnx_runner import onnx_runner  # only where files are checked

    def session(model: bytes) -> Session:
        opened = open_session(model, optimized=optimized)
        return lambda feed: opened.run(None, feed)

    return onnx_runner(data, session, pixel=pixel)


def _executed(
    argument: str, model: Path, feed: Feed, threads: int, options: Options, runs: int
) -> tuple[ExecutedNode, ...]:
    return execute(model, feed, threads, runs, provider_name(argument), options).nodes


CPU_DEVICE = Device(
    "cpu",
    ".onnx",
    lambda argument, *rest: OrtModel(CPU, *rest),
    lambda argument: None,
    _version,
    lambda argument, *rest: _executed(CPU, *rest),
    lambda argument: CPU,
    lambda: ("",),
)
ONNXRUNTIME = Runtime(
    checks={
        "onnxruntime": Check("onnxruntime", ".onnx", "onnxruntime", image_runner),
        "onnxruntime-unoptimized": Check(
            "onnxruntime, unoptimized",
            ".onnx",
            "onnxruntime",
            lambda data: image_runner(data, optimized=False),
        ),
    },
    devices={
        "cpu": CPU_DEVICE,
        "ort": Device(
            "ort:PROVIDER", ".onnx", OrtModel, _missing, _version, _executed, provider_name, _arguments
        ),
    },
    default="cpu",
)
