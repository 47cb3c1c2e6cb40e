"""Which operators of a .tflite file a delegate runs, and which LiteRT's own kernels."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from qnas.runtime_bench.devices.litert import BUILT_IN, give, open_interpreter, provider_of
from qnas.runtime_bench.executed import ExecutedNode, ExecutedTensor
from qnas.runtime_bench.inputs import Feed
from qnas.tflite.cost import FORMULAS
from qnas.tflite.reader import TfliteOperator, TfliteTensor, read_tflite
from qnas.tflite.session import delegated_operators, operators


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
