"""LiteRT: its built-in kernels, XNNPACK, or any external delegate; and which operators each of them runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qnas.errors import ModelError, UsageError
from qnas.onnx.session import first_line
from qnas.runtimes.executed import ExecutedNode, ExecutedTensor
from qnas.runtimes.inputs import Feed, Input
from qnas.runtimes.runtime import Check, Device, Options, Planes, Runner, Runtime, asking, pixels, planes
from qnas.tflite.reader import TfliteOperator, TfliteTensor, read_tflite
from qnas.tflite.session import LiteRtSession, delegated_operators, load_litert, operators

if TYPE_CHECKING:
    from qnas.images.evaluation import Image
    from qnas.integer.nodes import IntegerNode

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


def executed_nodes(runtime: Any, model: Path, feed: Feed, argument: str = "") -> tuple[ExecutedNode, ...]:
    """The operators of `model` in its order, by an interpreter `runtime` of it that is at no size yet.

    `argument` says which delegate `runtime` has, as the device does ("", "xnnpack", "external=LIB"). There is
    no time: LiteRT's Python interface has no profiler, and a delegate runs as one node. Shapes that depend on
    values are those of the file. Raises ModelError when it is damaged or `feed` does not fit.
    """
    graph = read_tflite(model)
    give(runtime, feed)
    plain = open_interpreter("", model, 1, {})  # within a delegate tensors keep the shapes of the file
    give(plain, feed)
    shapes = {int(each["index"]): tuple(map(int, each["shape"])) for each in plain.get_tensor_details()}
    tensors = tuple(
        each if each.data is not None else replace(each, shape=shapes.get(index, each.shape))
        for index, each in enumerate(graph.tensors)
    )
    delegate, taken = provider_of(argument), delegated_operators(runtime)
    return tuple(
        _node(graph.operators[each["index"]], tensors, delegate if each["index"] in taken else BUILT_IN)
        for each in operators(runtime)
    )


def file_nodes(model: Path, built_in: Collection[int], delegate: str) -> tuple[ExecutedNode, ...]:
    """The operators of `model`, of which `built_in` (indices) ran in LiteRT's own kernels on another machine.

    Shapes are those of the file. Raises ModelError when the file is damaged.
    """
    graph = read_tflite(model)
    return tuple(
        _node(operator, graph.tensors, BUILT_IN if index in built_in else delegate)
        for index, operator in enumerate(graph.operators)
    )


def _node(operator: TfliteOperator, tensors: Sequence[TfliteTensor], provider: str) -> ExecutedNode:
    """One row. Floats by integers: some kernels multiply these, some those, and nothing tells which ran."""
    macs, integer = 0, None
    from qnas.tflite.cost import FORMULAS  # only where something is profiled

    formula = FORMULAS.get(operator.name)
    output = tensors[operator.outputs[0]]
    if formula is not None:
        data, weights = (tensors[operator.inputs[each]] for each in (formula.data, formula.weight))
        macs = formula.macs(operator, data.shape, weights.shape, output.shape)
        kinds = {"INT" in data.kind, "INT" in weights.kind}
        integer = kinds.pop() if len(kinds) == 1 else None
    return ExecutedNode(
        name=output.name,
        op=operator.name,
        provider=provider,
        inputs=tuple(_tensor(tensors[index]) for index in operator.inputs if index >= 0),
        outputs=tuple(_tensor(tensors[index]) for index in operator.outputs),
        macs=macs,
        integer=integer,
        nanoseconds=(),
    )


def _tensor(tensor: TfliteTensor) -> ExecutedTensor:
    return ExecutedTensor(tensor.kind.lower(), tensor.shape)


# Checking written files ---------------------------------------------------------------------------------


def _checked(data: bytes, xnnpack: bool) -> Runner:
    with asking():
        session = LiteRtSession(data, threads=1, xnnpack=xnnpack)

    def upscale(image: Image) -> Image:
        with asking():
            return pixels(session.run(planes(image)))

    def trace(image: Image, nodes: Sequence[IntegerNode]) -> Mapping[str, Planes]:
        with asking():
            return _litert_tensors(data, image, nodes)

    if xnnpack:
        why = "not available inside XNNPACK"
        return Runner(upscale, session.input_size, no_trace=why, delegated=session.delegated)
    return Runner(upscale, session.input_size, slow=True, trace=trace)


def _litert_tensors(data: bytes, image: Image, nodes: Sequence[IntegerNode]) -> Mapping[str, Planes]:
    """The tensors with the names of `nodes`, kept alive by the runtime, on the grids of the nodes."""
    litert = load_litert()
    interpreter = litert.Interpreter(
        model_content=data,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
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
        if detail is not None and detail["dtype"] in (np.int8, np.uint8, np.int16):
            q = interpreter.get_tensor(detail["index"]).astype(np.int32)
            q += node.output.zero_point - detail["quantization"][1]
            found[node.name] = np.moveaxis(q, -1, 1).astype(node.output.dtype)
    return found


def _executed(
    argument: str, model: Path, feed: Feed, threads: int, options: Options, runs: int
) -> tuple[ExecutedNode, ...]:
    return executed_nodes(open_interpreter(argument, model, threads, options), model, feed, argument)


LITERT = Runtime(
    checks={
        "litert-xnnpack": Check(
            "LiteRT with XNNPACK", ".tflite", "ai_edge_litert", lambda data: _checked(data, xnnpack=True)
        ),
        "litert": Check(
            "LiteRT without XNNPACK",
            ".tflite",
            "ai_edge_litert",
            lambda data: _checked(data, xnnpack=False),
            exact=False,
        ),
    },
    devices={
        "litert": Device(
            "litert[:xnnpack|external=LIBRARY]",
            ".tflite",
            LiteRtModel,
            _missing,
            _version,
            _executed,
            provider_of,
            lambda: ("", XNNPACK, "external=LIBRARY"),
        )
    },
    default="litert:xnnpack",
)
