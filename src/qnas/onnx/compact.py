"""An ONNX file without what only costs bytes: names of tensors, shapes that anybody can infer, comments."""

from collections.abc import Iterator
from itertools import count

from onnx import ModelProto

CONVERTING = frozenset({"Cast", "DequantizeLinear"})  # they have no names that anybody reads


def compacted(model: ModelProto) -> ModelProto:
    """`model` itself, its tensors numbered in the order of the graph; what it computes stays.

    The input, the output and the nodes that compute keep their names: layers are known by them. Requires that
    no node holds a graph of its own.
    """
    graph = model.graph
    kept = {value.name for value in (*graph.input, *graph.output)}
    names = {"": "", **{name: name for name in kept}}
    numbers = _numbers(kept)
    for node in graph.node:
        for name in (*node.input, *node.output):
            if name not in names:
                names[name] = next(numbers)
    for tensor in graph.initializer:
        tensor.name, tensor.doc_string = names.get(tensor.name) or next(numbers), ""
    taken = {node.name for node in graph.node if node.op_type not in CONVERTING}
    for node in graph.node:
        node.input[:], node.output[:] = map(names.get, node.input), map(names.get, node.output)
        node.doc_string = ""
        if node.op_type in CONVERTING and node.output[0] not in taken:
            node.name = node.output[0]
    del graph.value_info[:]
    return model


def _numbers(taken: set[str]) -> Iterator[str]:
    return (name for name in map(str, count()) if name not in taken)
