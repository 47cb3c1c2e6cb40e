"""How much memory the activations of a file take at once, when its nodes run in the order that they stand in.

A tensor is there from the node that writes it to the last that reads it, inputs from the start and outputs
to the end, in the bytes of its container; a node needs what it reads and what it writes at the same time.
This is a bound: runtimes also compute in place, reorder, and take scratch memory of their own. Of ONNX
graphs:

1. constants, and what follows from them or from shapes alone, take nothing: sessions compute them once;
2. what a DequantizeLinear writes is not there: its readers read the integers;
3. data movement of a dequantized tensor is done on the integers;
4. a float that stands between integers is not there: written from tensors of rules 2 and 3 alone, and read
   by nothing but QuantizeLinear, or by elementwise operations of one tensor on the way there, whose outputs
   are not there either. Its node writes the integers itself. One with another reader is there, as it is in
   runtimes;
5. nor are integers that a Clip alone reads: the clamp belongs to the quantizer in front of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod

from onnx import NodeProto

from qnas.errors import ModelError
from qnas.onnx.measured import MeasuredGraph
from qnas.onnx.operations import ELEMENTWISE


@dataclass(frozen=True)
class Life:
    """A tensor of `size` bytes, needed by the steps `first` to `last`."""

    size: int
    first: int
    last: int


def peak_bytes(lives: Iterable[Life]) -> int:
    """The largest sum of the tensors that one step needs."""
    changes: dict[int, int] = {}
    for life in lives:
        changes[life.first] = changes.get(life.first, 0) + life.size
        changes[life.last + 1] = changes.get(life.last + 1, 0) - life.size
    peak = now = 0
    for step in sorted(changes):
        now += changes[step]
        peak = max(peak, now)
    return peak


class Activations:
    """Which tensors of an ONNX graph are really there, by the rules of the module's docstring."""

    def __init__(self, graph: MeasuredGraph) -> None:
        self._graph = graph
        self._fixed = set(graph.constants)
        for node in graph.nodes:
            computed = [name for name in node.input if name and name not in self._fixed]
            self._fixed |= {name for name in node.output if not computed or graph.is_derived(name)}
        self._nodes = [node for node in graph.nodes if not self._fixed.issuperset(node.output)]
        self._readers: dict[str, list[NodeProto]] = {}
        for node in self._nodes:
            for name in self._computed(node):
                self._readers.setdefault(name, []).append(node)
        self._source = {  # rule 2
            node.output[0]: node.input[0]
            for node in self._nodes
            if node.op_type == "DequantizeLinear" and node.output[0] not in graph.outputs
        }
        self._inner = self._between_integers() | self._unclamped()

    def read_bytes(self, name: str, node: NodeProto) -> int:
        """The bytes that `node` reads of a tensor, 0 of a constant; ModelError when they are unknown."""
        return 0 if name in self._fixed else self._bytes(name, node)

    def written_bytes(self, node: NodeProto) -> int:
        """The bytes of what `node` writes first, by rules 4 and 5."""
        name = node.output[0]
        while name in self._inner:
            name = self._readers[name][0].output[0]
        return self._bytes(name, node)

    def peak(self) -> int | None:
        """The largest sum of bytes, None where a shape or a type is unknown."""
        try:
            return peak_bytes(self._lives())
        except ModelError:
            return None

    def _lives(self) -> Iterator[Life]:
        end = len(self._nodes)
        first = {value.name: 0 for value in self._graph.inputs if value.name not in self._fixed}
        last = dict.fromkeys(self._graph.outputs, end)
        writer = {name: self._readers[name][0] for name in first if name in self._readers}
        for step, node in enumerate(self._nodes):
            reads = self._computed(node)
            born = min([step, *(first[name] for name in reads if name in self._inner)])
            first |= dict.fromkeys(filter(None, node.output), born)
            writer |= dict.fromkeys(filter(None, node.output), node)
            for name in reads:
                while name in self._source:  # rule 2
                    name = self._source[name]
                last[name] = max(last.get(name, 0), step)
        for name, start in first.items():
            if name in writer and name not in self._source and name not in self._inner:
                yield Life(self._bytes(name, writer[name]), start, max(start, last.get(name, start)))

    def _bytes(self, name: str, node: NodeProto) -> int:
        return self._graph.container(name, node).bytes(prod(self._graph.shape(name, node)))

    def _computed(self, node: NodeProto) -> list[str]:
        return [name for name in node.input if name and name not in self._fixed]

    def _between_integers(self) -> set[str]:
        """The tensors of rule 4."""
        quantized: set[str] = set()  # all that reads them ends in a QuantizeLinear
        for node in reversed(self._nodes):
            name = node.output[0]
            readers = self._readers.get(name, ())
            if readers and name not in self._graph.outputs and all(self._ends(r, quantized) for r in readers):
                quantized.add(name)
        inner: set[str] = set()
        for node in self._nodes:
            known = all(name in inner or self._graph.has_integers(name) for name in self._computed(node))
            if known and node.output[0] in quantized:
                inner.add(node.output[0])
        return inner

    def _unclamped(self) -> set[str]:
        """The tensors of rule 5."""
        return {
            name
            for node in self._nodes
            for name in node.output[:1]
            if [reader.op_type for reader in self._readers.get(name, ())] == ["Clip"]
            and self._graph.is_integer(name)
            and name not in self._graph.outputs
        }

    def _ends(self, reader: NodeProto, quantized: set[str]) -> bool:
        passes = reader.op_type in ELEMENTWISE and len(self._computed(reader)) == 1
        return reader.op_type == "QuantizeLinear" or (passes and reader.output[0] in quantized)
