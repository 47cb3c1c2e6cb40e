"""Which operators of a .tflite file a delegate runs, and which LiteRT's own kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from qnas.errors import ModelError
from qnas.litert_session import delegated_operators, operators
from qnas.runtime_bench.executed import ExecutedNode, ExecutedTensor
from qnas.runtime_bench.inputs import Feed
from qnas.session import first_line
from qnas.tflite_cost import FORMULAS
from qnas.tflite_reader import TfliteModel, TfliteOperator, TfliteTensor, read_tflite

BUILT_IN = "LiteRT"  # provider of what no delegate took
XNNPACK = "XNNPACK"
_EXTERNAL = "external="


def executed_nodes(runtime: Any, model: Path, feed: Feed, argument: str = "") -> tuple[ExecutedNode, ...]:
    """The operators of `model` in its order, by an interpreter `runtime` of it that is at no size yet.

    `argument` says which delegate `runtime` has, as the device does ("", "xnnpack", "external=LIB"). No operator has
    a time: LiteRT's Python interface has no profiler, and a delegate runs as one node. Times of single operators are
    those of LiteRT's `benchmark_model --enable_op_profiling=true`.
    Raises ModelError when the file is damaged or does not run on `feed`.
    """
    graph = read_tflite(model)
    inputs = {each["name"]: each for each in runtime.get_input_details()}
    try:
        for name, value in feed.items():
            if tuple(inputs[name]["shape"]) != value.shape:
                runtime.resize_tensor_input(inputs[name]["index"], value.shape, strict=True)
        runtime.allocate_tensors()
        for name, value in feed.items():
            runtime.set_tensor(inputs[name]["index"], value)
        runtime.invoke()  # shapes that depend on values are known only now
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"{model}: LiteRT cannot run it on these inputs: {first_line(error)}; choose another --shape"
        ) from error
    delegate = XNNPACK if argument == "xnnpack" else argument.removeprefix(_EXTERNAL)
    taken = delegated_operators(runtime)
    tensors = _sized(runtime, graph)
    return tuple(
        _node(graph.operators[each["index"]], tensors, delegate if each["index"] in taken else BUILT_IN)
        for each in operators(runtime)
    )


def _sized(runtime: Any, graph: TfliteModel) -> tuple[TfliteTensor, ...]:
    """The file's tensors, with the shapes that they have now."""
    now = {int(index) for each in operators(runtime) for key in ("inputs", "outputs") for index in each[key]}
    shapes = {
        index: tuple(map(int, runtime._get_tensor_details(index, 0)["shape"]))
        for index in now
        if 0 <= index < len(graph.tensors) and graph.tensors[index].data is None
    }
    return tuple(replace(each, shape=shapes.get(index, each.shape)) for index, each in enumerate(graph.tensors))


def _node(operator: TfliteOperator, tensors: Sequence[TfliteTensor], provider: str) -> ExecutedNode:
    """Case 1: it multiplies integers. Case 2: floats. Case 3: floats by integers, for which kernels of both kinds exist."""
    macs, integer = 0, None
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
