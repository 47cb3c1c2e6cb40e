"""Names that nothing in a model has yet: whoever adds to a graph asks here first."""

from collections import Counter
from collections.abc import Iterable

from onnx import GraphProto


class Names:
    """The names taken in a model. ONNX keeps those of tensors and those of nodes apart, and so does this."""

    def __init__(self, tensors: Iterable[str] = (), nodes: Iterable[str] = ()) -> None:
        self._tensors, self._nodes = set(tensors), set(nodes)
        self._numbers: Counter[str] = Counter()

    @classmethod
    def of(cls, graph: GraphProto) -> "Names":
        """All names of `graph`, and of the graphs that its nodes hold."""
        names = cls()
        names._take(graph)
        return names

    def tensor(self, wanted: str) -> str:
        """`wanted`, or where a tensor has it wanted_1, wanted_2, ..., the first that is free; taken now."""
        return self._free(wanted, self._tensors)

    def node(self, wanted: str) -> str:
        """`wanted`, or where a node has it wanted_1, wanted_2, ...; taken now."""
        return self._free(wanted, self._nodes)

    def _free(self, wanted: str, taken: set[str]) -> str:
        name = wanted
        while name in taken:
            self._numbers[wanted] += 1
            name = f"{wanted}_{self._numbers[wanted]}"
        taken.add(name)
        return name

    def _take(self, graph: GraphProto) -> None:
        values = (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
        self._tensors.update(value.name for value in values)
        self._tensors.update(tensor.values.name for tensor in graph.sparse_initializer)
        for node in graph.node:
            self._nodes.add(node.name)
            self._tensors.update((*node.input, *node.output))
            for attribute in node.attribute:
                for inner in (attribute.g, *attribute.graphs):
                    self._take(inner)
